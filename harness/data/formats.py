"""Tables in the formats in which people keep logs: delimited text, Parquet, JSON lines; plain, gzip or zstd.

A fast parser reads them. Where it refuses, the lines are searched for the first that is off.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import json as arrow_json
from pyarrow import parquet

from harness.data.config import Columns
from harness.data.roles import find_roles, is_role
from harness.data.rows import EventRows
from harness.data.tables import decode_line
from harness.data.times import NUMBER, WHOLE
from harness.errors import InputError

__all__ = ["FORMATS", "PACKED", "format_of", "known_endings", "read_events", "read_texts"]

FORMATS = {
    "delimited": (".csv", ".tsv", ".txt", ".dat", ".data", ".tab", ".inter", ".item"),
    "parquet": (".parquet", ".pq"),
    "json": (".jsonl", ".ndjson", ".json"),
}
PACKED = {".gz": "gzip", ".zst": "zstd"}
TYPED = re.compile(r"(.+):(token|float|token_seq|float_seq)")
ID = pa.dictionary(pa.int32(), pa.string())
JSON_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
SAMPLE = 1000
"""Lines of JSON that are looked at for their keys."""
BLOCK = 1 << 25
READ_AHEAD = 1 << 16
DATED = 1e8
"""Numbers from here on (1973 in seconds) are taken for times in a file without a header."""


def format_of(path: Path) -> str | None:
    """delimited, parquet or json; None for any other file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return next((kind for kind, known in FORMATS.items() if suffixes and suffixes[-1] in known), None)


def known_endings() -> str:
    """For messages."""
    return ", ".join(suffix for known in FORMATS.values() for suffix in known) + " (or these and .gz, .zst)"


def read_events(path: Path, columns: Columns | None = None) -> EventRows:
    """The events of ``path``, one a row, with the columns that ``columns`` names or whose names are known.

    Raises:
        InputError: a file that is missing, empty, damaged or of no known format, columns that are not found, a line
            with too many or too few fields, an empty id, text that is not UTF-8 or holds a NUL. Names the line.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    kind = format_of(path)
    if kind is None:
        raise InputError(f"{path} is not a file of events: its name must end in one of {known_endings()}")
    _refuse_empty(path)
    return {"delimited": _delimited, "parquet": _parquet, "json": _json_lines}[kind](path, columns)


def read_texts(path: Path) -> tuple[list[dict[str, Any]], Callable[[int], str]]:
    """The rows of a table of items as mappings, and the place of each. Raises as :func:`read_events` does."""
    _refuse_empty(path)
    kind = format_of(path)
    if kind == "parquet":
        return _open_parquet(path).read().to_pylist(), lambda row: f"row {row + 1}"
    if kind == "json":
        found = [(number, _json_object(path, number, line)) for number, line in _lines(path)]
        return [row for _, row in found], lambda row: f"line {found[row][0]}"
    layout = _layout(path, None)
    if not layout.header:
        raise InputError(f"{path}: line 1 is not a header; begin the file with the names of its columns")
    records = list(layout.records())
    for number, fields in records:
        _check_count(layout, number, fields)
    rows = [dict(zip(layout.names, fields, strict=True)) for _, fields in records]
    return rows, lambda row: f"line {records[row][0]}"


# Delimited text


@dataclass(frozen=True)
class _Layout:
    path: Path
    separator: str
    quoted: bool
    header: bool
    names: list[str]

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of each row below the header."""
        skip = self.header
        for number, fields in _records(self.path, self.separator, self.quoted):
            if not skip:
                yield number, fields
            skip = False

    def place(self, row: int) -> str:
        return f"line {next(number for n, (number, _) in enumerate(self.records()) if n == row)}"


def _delimited(path: Path, columns: Columns | None) -> EventRows:
    layout = _layout(path, columns)
    first = next(layout.records(), None)
    if first is None:
        raise InputError(f"{path} has no rows; restore it from its source")
    _check_count(layout, *first)
    notes: tuple[str, ...] = ()
    if not layout.header:
        columns, notes = _by_place(layout, first[1], columns)
    roles, guessed = find_roles(path, layout.names, columns)
    types = dict.fromkeys(layout.names, ID)
    if "time" in roles:
        whole = WHOLE.fullmatch(first[1][layout.names.index(roles["time"])].strip())
        types[roles["time"]] = pa.int64() if whole else pa.string()
    try:
        data = _parse(layout, types)
    except pa.ArrowInvalid:
        if "time" in roles:
            types[roles["time"]] = pa.string()
        try:
            data = _parse(layout, types)
        except pa.ArrowInvalid as error:
            raise _fault(layout, roles, str(error).splitlines()[0]) from None
    rows = EventRows(path, data, roles, layout.place, notes + guessed, typed=False)
    if _faulty(rows):
        raise _fault(layout, roles, "an id is empty or holds a NUL")
    return rows


def _parse(layout: _Layout, types: dict[str, pa.DataType]) -> pa.Table:
    with _open(layout.path) as file:
        stream = _Guarded(file, layout) if layout.quoted else file
        try:
            data = arrow_csv.read_csv(
                stream,
                arrow_csv.ReadOptions(
                    use_threads=False, block_size=BLOCK, column_names=layout.names, skip_rows=int(layout.header)
                ),
                arrow_csv.ParseOptions(
                    delimiter=layout.separator,
                    quote_char='"' if layout.quoted else False,
                    newlines_in_values=layout.quoted,
                ),
                arrow_csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
            )
        except OSError as error:
            raise _unreadable(layout.path, error) from None
        return stream.without_last(data) if layout.quoted else data


class _Guarded(io.RawIOBase):
    """A file with one more record behind its end, once it has shown a quote: a quote that is never closed swallows
    that record, while Arrow takes such a file without a word."""

    def __init__(self, file: pa.NativeFile, layout: _Layout) -> None:
        self._file = file
        self._record = layout.separator.join("0" * len(layout.names))
        self._quotes = self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size if size >= 0 else None)
        self._quotes = self._quotes or b'"' in block
        if not block and self._quotes and not self._ended:
            self._ended = True
            return f"\n{self._record}\n".encode()
        return block

    def without_last(self, data: pa.Table) -> pa.Table:
        if not self._quotes:
            return data
        if any(str(values[-1].as_py()) != "0" for values in data.columns):
            raise pa.ArrowInvalid("a quote is never closed")
        return data.slice(0, data.num_rows - 1)


def _layout(path: Path, columns: Columns | None) -> _Layout:
    suffix = next(s for s in reversed(path.suffixes) if s.lower() not in PACKED).lower()
    line = next((text for _, text in _lines(path)), None)
    if line is None:
        raise InputError(f"{path} is empty; restore it from its source")
    line = line.lstrip("\ufeff").rstrip("\r\n")
    if suffix in (".tsv", ".tab", ".inter", ".item") or "\t" in line:
        separator = "\t"
    else:
        separator = max(",;|", key=line.count)
        if separator not in line and " " in line:
            separator = " "
    quoted = separator in ",;|"
    fields = next(_records(path, separator, quoted))[1]
    typed = [TYPED.fullmatch(field) for field in fields]
    names = [match[1] for match in typed] if all(typed) else [field.strip() for field in fields]
    header = all(typed) or _is_header(names, columns)
    if not header:
        names = [str(place) for place in range(1, len(fields) + 1)]
    names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: line 1 names the column '{name}' twice; rename one")
    return _Layout(path, separator, quoted, header, names)


def _is_header(fields: list[str], columns: Columns | None) -> bool:
    given = [] if columns is None else [str(value) for value in columns.model_dump().values() if value is not None]
    if any(is_role(field) for field in fields) or any(word in fields and not word.isdecimal() for word in given):
        return True
    by_place = any(word.isdecimal() for word in given)
    return not by_place and not any(NUMBER.fullmatch(field) for field in fields)


def _by_place(layout: _Layout, fields: list[str], columns: Columns | None) -> tuple[Columns, tuple[str, ...]]:
    """Without a header: user, item, then a time where one column alone can be one, and a rating beside it."""
    shown = ", ".join(repr(text[:40]) for text in fields[:6])
    if columns is not None and (columns.user is not None or columns.item is not None):
        return columns, (f"{layout.path.name}: line 1 is taken as an event ({shown})",)
    moments = [n for n, text in enumerate(fields) if n > 1 and NUMBER.fullmatch(text) and float(text) >= DATED]
    if not (len(fields) == 2 or (len(moments) == 1 and len(fields) <= 4)):
        raise InputError(
            f"{layout.path}: line 1 is not a header ({shown}), so that its columns are not known; name them by their "
            "places, as in data.columns={user: 1, item: 2, time: 4} (of `harness data import`: --user 1 --item 2 "
            "--time 4), or write a header"
        )
    found = {"user": 1, "item": 2}
    if moments:
        found["time"] = moments[0] + 1
    if len(fields) == 4:
        found["rating"] = next(n for n in (3, 4) if n != found["time"])
    said = ", ".join(f"column {place} as {role}" for role, place in found.items())
    return Columns(**found), (f"{layout.path.name}: line 1 is not a header; took {said}",)


def _fault(layout: _Layout, roles: dict[str, str], otherwise: str) -> InputError:
    """What is wrong with the first line that is off, to be raised."""
    ids = {layout.names.index(roles[role]) for role in ("user", "item")}
    for number, fields in layout.records():
        _check_count(layout, number, fields)
        for place, text in enumerate(fields):
            if "\0" in text or (place in ids and not text):
                what = "holds a NUL byte" if "\0" in text else "is no id"
                column = layout.names[place]
                return InputError(
                    f"{layout.path}: line {number}, column '{column}': {text[:40]!r} {what}; fix it or drop the line"
                )
    return InputError(f"{layout.path} cannot be read: {otherwise}; restore it from its source")


def _check_count(layout: _Layout, number: int, fields: list[str]) -> None:
    if len(fields) != len(layout.names):
        raise InputError(
            f"{layout.path}: line {number} has {len(fields)} fields instead of {len(layout.names)}; fix it (a text "
            "that holds the separator stands in double quotes) or restore the file"
        )


def _records(path: Path, separator: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, from 1, and fields of each record that is not blank."""
    last = 0

    def lines() -> Iterator[str]:
        nonlocal last
        for number, text in _lines(path, blank=True):
            last = number
            yield text.lstrip("\ufeff") if number == 1 else text

    csv.field_size_limit(2**31 - 1)
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    start, reader = 1, csv.reader(lines(), delimiter=separator, quoting=quoting, strict=True)
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = last + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {start} can't be split into fields ({error}); fix its quotes") from None


# JSON lines


def _json_lines(path: Path, columns: Columns | None) -> EventRows:
    sample = [_json_object(path, number, line) for _, (number, line) in zip(range(SAMPLE), _lines(path), strict=False)]
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
    # What is no user, item or time may be left out where it can't be read; for these the line is said.
    types = {name: kind for name, kind in types.items() if name not in mixed or name in roles.values()}
    parse = arrow_json.ParseOptions(explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore")
    try:
        with _open(path) as stream:
            data = arrow_json.read_json(stream, arrow_json.ReadOptions(use_threads=False, block_size=BLOCK), parse)
    except (pa.ArrowInvalid, OSError) as error:
        for number, line in _lines(path):
            row = _json_object(path, number, line)
            for name, kind in types.items():
                value = row.get(name)
                if value is not None and not _fits(value, kind):
                    raise InputError(
                        f"{path}: line {number}, column '{name}': {value!r:.80} is not of the kind of the lines before "
                        f"({kind}); write the column alike in all lines"
                    ) from None
        raise _unreadable(path, error) from None

    def place(row: int) -> str:
        return f"line {next(number for n, (number, _) in enumerate(_lines(path)) if n == row)}"

    return _checked(EventRows(path, data, roles, place, notes))


def _fits(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind):
        return isinstance(value, str)
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or (pa.types.is_floating(kind) and isinstance(value, float))


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: line {number} is not JSON ({str(error)[:80]}); a log of JSON has one object a line, as in "
            '{"user_id": "u1", "item_id": "i7", "timestamp": 1700000000}'
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: line {number} is not a JSON object; write one a line, with a key for each column")
    return found


# Parquet


def _open_parquet(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def _parquet(path: Path, columns: Columns | None) -> EventRows:
    schema = _open_parquet(path).schema_arrow
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has the column '{twice}' twice; rename one")
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    roles, notes = find_roles(path, flat, columns)
    texts = [field.name for field in schema if _is_text(field.type)]
    try:
        data = parquet.read_table(path, columns=flat, use_threads=False, read_dictionary=texts)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
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
                    f"{rows.path}: {rows.place(0)}, column '{name}': {values[0].as_py()!r} is no id (the column is of "
                    f"type {kind}); write ids as whole numbers or texts"
                )
            values = _as_ids(values)
        elif name != rows.roles.get("time"):
            values = _number_or_text(values)
        columns[name] = values
    rows.data = pa.table(columns)
    if _faulty(rows):
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
                what = "holds a NUL byte" if text else "is no id"
                return InputError(
                    f"{rows.path}: {rows.place(row)}, column '{name}': {text[:40]!r} {what}; fix it or drop the row"
                )
    raise AssertionError("called without a fault")


def _as_ids(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        return values.cast(ID)
    return values.cast(pa.string()).dictionary_encode()


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _faulty(rows: EventRows) -> bool:
    """Whether an id is empty, or a text holds a NUL (numpy cuts NULs off its end, so that two ids could become one)."""
    ids = {rows.roles["user"], rows.roles["item"]}
    for name in rows.data.column_names:
        for chunk in rows.data[name].chunks:
            words = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
            if pa.types.is_string(words.type) and (
                pc.any(pc.match_substring(words, "\0")).as_py() or (name in ids and pc.any(pc.equal(words, "")).as_py())
            ):
                return True
    return False


# Files


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; restore it from its source")


def _open(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression=PACKED.get(path.suffix.lower()))


def _lines(path: Path, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line; of those that are not blank unless asked otherwise."""
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else io.BufferedReader(_open(path), READ_AHEAD) as file:
            for number, line in enumerate(file, 1):
                if blank or line.strip():
                    yield number, decode_line(line, path, number)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} is damaged or not what its name says ({reason[:200]}); restore it from its source")
