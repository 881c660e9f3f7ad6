"""Tables in the formats in which people keep logs: delimited text, Parquet, JSON lines; plain, gzip or zstd.

A fast parser reads them. Where it refuses, the lines are searched for the first that is off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json
from pyarrow import parquet

from harness.data.config import Columns
from harness.data.delimited import check_count, layout_of, read_delimited
from harness.data.packed import BLOCK, PACKED, lines_of, open_file, refuse_empty, unreadable
from harness.data.roles import chosen, find_roles
from harness.data.rows import ID, EventRows, faulty
from harness.errors import InputError
from harness.reading.bounds import check_size
from harness.reading.json_text import parse_json
from harness.reading.parquet import FAULTS, PARQUET_BYTES, check_claims

__all__ = ["FORMATS", "format_of", "json_object", "known_endings", "read_events", "read_texts"]

FORMATS = {
    "delimited": (".csv", ".tsv", ".txt", ".dat", ".data", ".tab", ".inter", ".item"),
    "parquet": (".parquet", ".pq"),
    "json": (".jsonl", ".ndjson", ".json"),
}
JSON_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
SAMPLE = 1000
"""Lines of JSON that are looked at for their keys."""


def format_of(path: Path) -> str | None:
    """delimited, parquet or json; None for any other file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return next((kind for kind, known in FORMATS.items() if suffixes and suffixes[-1] in known), None)


def known_endings() -> str:
    """For messages."""
    return ", ".join(suffix for known in FORMATS.values() for suffix in known) + " (or these and .gz, .zst)"


def read_events(path: Path, columns: Columns | None = None, only: Sequence[str] | None = None) -> EventRows:
    """The events of ``path``, one a row, with the columns that ``columns`` names or whose names are known.

    ``only``: what else is read; None: every column.

    Raises:
        InputError: a file that is missing, empty, damaged or of no known format, columns that are not found, a line
            with too many or too few fields, an empty id, text that is not UTF-8 or holds a NUL. Names the line.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    kind = format_of(path)
    if kind is None:
        raise InputError(f"{path} is not a file of events: its name must end in one of {known_endings()}")
    refuse_empty(path)
    return {"delimited": read_delimited, "parquet": _parquet, "json": _json_lines}[kind](path, columns, only)


def read_texts(path: Path) -> tuple[list[dict[str, Any]], Callable[[int], str]]:
    """The rows of a table of items as mappings, and the place of each. Raises as :func:`read_events` does."""
    refuse_empty(path)
    kind = format_of(path)
    if kind == "parquet":
        try:
            return _open_parquet(path).read().to_pylist(), lambda row: f"row {row + 1}"
        except FAULTS as error:
            raise unreadable(path, error) from None
    if kind == "json":
        found = [(number, json_object(path, number, line)) for number, line in lines_of(path)]
        return [row for _, row in found], lambda row: f"line {found[row][0]}"
    layout = layout_of(path, None)
    if not layout.header:
        raise InputError(f"{path}: line 1 is not a header; begin the file with the names of its columns")
    records = list(layout.records())
    for number, fields in records:
        check_count(layout, number, fields)
    rows = [dict(zip(layout.names, fields, strict=True)) for _, fields in records]
    return rows, lambda row: f"line {records[row][0]}"


# JSON lines


def _json_lines(path: Path, columns: Columns | None, only: Sequence[str] | None) -> EventRows:
    sample = [json_object(path, number, line) for number, line in islice(lines_of(path), SAMPLE)]
    if not sample:
        raise InputError(f"{path} has no rows; restore it from its source")
    types: dict[str, pa.DataType] = {}
    mixed = set()
    for name in dict.fromkeys(key for row in sample for key in row):
        kinds = list(dict.fromkeys(type(row[name]) for row in sample if row.get(name) is not None))
        if kinds and kinds[0] in JSON_TYPES:
            numbers = len(kinds) > 1 and set(kinds) <= {int, float}
            types[name] = pa.float64() if numbers else JSON_TYPES[kinds[0]]
            mixed |= {name} if len(kinds) > 1 and not numbers else set()
    roles, notes = find_roles(path, list(types), columns)
    # What is not a user, item or time may be left out where it can't be read; for these the line is said.
    types = {name: kind for name, kind in types.items() if name not in mixed or name in roles.values()}
    types = {name: types[name] for name in chosen(path, list(types), roles, only)}
    parse = arrow_json.ParseOptions(explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore")
    try:
        with open_file(path) as stream:
            data = arrow_json.read_json(stream, arrow_json.ReadOptions(use_threads=False, block_size=BLOCK), parse)
    except (pa.ArrowInvalid, OSError) as error:
        for number, line in lines_of(path):
            row = json_object(path, number, line)
            for name, kind in types.items():
                value = row.get(name)
                if value is not None and not _fits(value, kind):
                    raise InputError(
                        f"{path}: line {number}, column '{name}': {value!r:.80} is not of the kind of the lines before "
                        f"({kind}); write the column alike in all lines"
                    ) from None
        raise unreadable(path, error) from None

    def place(row: int) -> str:
        return f"line {next(number for n, (number, _) in enumerate(lines_of(path)) if n == row)}"

    return _checked(EventRows(path, data, roles, place, notes))


def _fits(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind):
        return isinstance(value, str)
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or (pa.types.is_floating(kind) and isinstance(value, float))


def json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = parse_json(line.lstrip("\ufeff"))
    except ValueError as error:
        raise InputError(
            f"{path}: line {number} is not JSON ({str(error)[:80]}); a log of JSON has one object a line, as in "
            '{"user_id": "u1", "item_id": "i7", "timestamp": 1700000000}'
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: line {number} is not a JSON object; write one a line, with a key for each column")
    return found


# Parquet


def _open_parquet(path: Path) -> parquet.ParquetFile:
    check_size(path, PARQUET_BYTES)
    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(path, error) from None
    check_claims(file.metadata, path, "restore it from its source")
    return file


def _parquet(path: Path, columns: Columns | None, only: Sequence[str] | None) -> EventRows:
    schema = _open_parquet(path).schema_arrow
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has the column '{twice}' twice; rename one")
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    roles, notes = find_roles(path, flat, columns)
    flat = chosen(path, flat, roles, only)
    texts = [field.name for field in schema if _is_text(field.type)]
    try:
        data = parquet.read_table(path, columns=flat, use_threads=False, read_dictionary=texts)
    except FAULTS as error:
        raise unreadable(path, error) from None
    if not data.num_rows:
        raise InputError(f"{path} has no rows; restore it from its source")
    return _checked(EventRows(path, data, roles, lambda row: f"row {row + 1}", notes))


def _checked(rows: EventRows) -> EventRows:
    """The columns of typed files as those of delimited ones: ids as texts, all others but times as numbers or texts."""
    data, ids = rows.data, [rows.roles["user"], rows.roles["item"]]
    columns = {}
    for name in data.column_names:
        values, kind = data[name], data[name].type
        if name in ids:
            if values.null_count:
                row = int(np.argmax(pc.is_null(values).to_numpy(zero_copy_only=False)))
                raise InputError(f"{rows.path}: {rows.place(row)}, column '{name}': the id is missing; drop the row")
            if not (pa.types.is_integer(kind) or _is_text(kind)):
                raise InputError(
                    f"{rows.path}: {rows.place(0)}, column '{name}': {values[0].as_py()!r} is not an id (the column is "
                    f"of type {kind}); write ids as whole numbers or texts"
                )
            values = _as_ids(values)
        elif name != rows.roles.get("time"):
            values = _number_or_text(values)
        columns[name] = values
    rows.data = pa.table(columns)
    if faulty(rows):
        raise _faulty_text(rows)
    return rows


def _number_or_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return values.cast(pa.float64())
    return _as_ids(pc.fill_null(values.cast(pa.string()), "") if values.null_count else values)


def _faulty_text(rows: EventRows) -> InputError:
    """The first empty id or text with a NUL, to be raised."""
    ids = {rows.roles["user"], rows.roles["item"]}
    for name in sorted(rows.data.column_names, key=lambda name: name not in ids):
        for row, text in enumerate(rows.data[name].to_pylist()):
            if isinstance(text, str) and ("\0" in text or (name in ids and not text)):
                what = "holds a NUL byte" if text else "is not an id"
                return InputError(
                    f"{rows.path}: {rows.place(row)}, column '{name}': {text[:40]!r} {what}; fix it or drop the row"
                )
    raise AssertionError("called without a fault")


def _as_ids(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        return values.cast(ID)
    # Numbers are written out once each, not once a row.
    coded = [(chunk.indices, chunk.dictionary.cast(pa.string())) for chunk in values.dictionary_encode().chunks]
    return pa.chunked_array([pa.DictionaryArray.from_arrays(*parts) for parts in coded], ID)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
