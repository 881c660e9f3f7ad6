"""Parquet from outside: bounded in rows, and with the columns that are asked for, each of its kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import InputError, in_one_line, shortened
from harness.reading.bounds import check_size

__all__ = [
    "FAULTS", "KINDS", "NOISE", "PARQUET_BYTES", "ROWS", "Kind", "check_claims", "read_parquet", "read_schema",
]  # fmt: skip

PARQUET_BYTES = 64 << 30
"""Of a file, and of its columns in memory: a file of a few bytes may claim more than any machine has."""
_RATIO = 20_000
"""Bytes in memory for a byte of the file: what repeats itself is stored as the number of its repetitions."""

FAULTS = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError)
"""What the library raises of files that are not as they should be."""

Kind = Literal["text", "number", "list of numbers"]
KINDS: dict[str, Kind] = {
    "user": "text", "item": "text", "target": "text", "phase": "text", "action": "text", "statistic": "text",
    "rank_all": "number", "rank_unseen": "number", "label": "number", "probability": "number",
    "layer": "number", "head": "number", "bin": "number", "value": "number", "share": "number", "users": "number",
    "count": "number", "items": "list of numbers", "seen": "list of numbers", "scores": "list of numbers",
    "vector": "list of numbers",
}  # fmt: skip
"""What the columns of a run's files hold; of other columns nothing is known."""
ROWS: dict[str, Kind] = {**KINDS, "history": "number"}
NOISE: dict[str, Kind] = {**KINDS, "history": "text"}


def read_schema(path: Path, remedy: str) -> pa.Schema:
    """The columns of a Parquet file. Raises InputError where it is missing or damaged."""
    return _open(path, remedy).schema_arrow


def read_parquet(path: Path, columns: Iterable[str] | None, remedy: str, kinds: Mapping[str, Kind] = KINDS) -> pa.Table:
    """The named columns, all of them if None. Text columns come as plain strings.

    Raises:
        InputError: the file is missing, damaged or over a bound; or a column is missing, or not of its kind.
    """
    wanted = None if columns is None else list(columns)
    try:
        with _open(path, remedy) as file:
            names = file.schema_arrow.names
            missing = set(wanted or ()) - set(names)
            if missing:  # nothing is damaged: another version, or an extension that is not installed here, knows more
                raise InputError(
                    f"{path} has no column {', '.join(sorted(missing))}; use the version of the harness that wrote or "
                    "asks for it"
                )
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise InputError(f"{path} is damaged (two columns '{shortened(twice, 60)}'); {remedy}")
            table = file.read(columns=wanted)
            table.validate()
    except FAULTS as error:
        raise InputError(f"{path} is damaged ({shortened(in_one_line(error))}); {remedy}") from None
    return _check_kinds(table, path, remedy, kinds)


def _open(path: Path, remedy: str) -> pq.ParquetFile:
    """An opened file whose columns fit the bounds. Raises InputError as :func:`read_parquet` does."""
    check_size(path, PARQUET_BYTES, remedy)
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except FAULTS as error:
        raise InputError(f"{path} is damaged ({shortened(in_one_line(error))}); {remedy}") from None
    check_claims(file.metadata, path, remedy)
    return file


def check_claims(metadata: pq.FileMetaData, path: Path, remedy: str) -> None:
    """Raises InputError where a file claims more rows or bytes than it can hold."""
    claimed = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    size = path.stat().st_size
    most = min(PARQUET_BYTES, (1 << 20) + size * _RATIO)
    if claimed > most or metadata.num_rows > most:
        raise InputError(f"{path} claims {metadata.num_rows:,} rows of {claimed:,} bytes in {size:,}; {remedy}")


def _check_kinds(table: pa.Table, path: Path, remedy: str, kinds: Mapping[str, Kind]) -> pa.Table:
    """The table, dictionaries of texts unpacked. Raises InputError for a column of another kind than ``kinds`` says, or
    a text that is missing."""
    for place, field in enumerate(table.schema):
        kind = kinds.get(field.name)
        if kind is None:
            continue
        if not _is(field.type, kind):
            raise InputError(f"{path} is damaged (column '{field.name}' holds {field.type}, not {kind}s); {remedy}")
        if kind != "number" and table[field.name].null_count:
            raise InputError(f"{path} is damaged (column '{field.name}' has gaps); {remedy}")
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
    return table


def _is(kind: pa.DataType, wanted: Kind) -> bool:
    types = pa.types
    if wanted == "text":
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind)
    if wanted == "number":
        return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    inside = re.match(r"(large_|fixed_size_)?list", str(kind)) is not None
    return inside and _is(kind.value_type, "number")
