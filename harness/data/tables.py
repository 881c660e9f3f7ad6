"""Delimited text with declared columns: read by a fast parser, and searched line by line once it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from harness.errors import InputError

__all__ = ["Column", "Kind", "decode_line", "line_of_row", "read_header", "read_table"]


Kind = Literal["text", "id", "number", "time"]


@dataclass(frozen=True)
class Column:
    """One column of a file."""

    name: str
    kind: Kind = "text"
    """An id is not empty, a number is finite, a time is a number that is not negative."""

    @property
    def numeric(self) -> bool:
        return self.kind in ("number", "time")

    @property
    def type(self) -> pa.DataType:
        # Ids repeat, so that a dictionary takes a fraction of the memory.
        return (
            pa.float64()
            if self.numeric
            else pa.dictionary(pa.int32(), pa.string())
            if self.kind == "id"
            else pa.string()
        )


def decode_line(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {number} is not UTF-8; convert the file, as with iconv -t utf-8") from None


def read_header(path: Path, separator: str = "\t") -> list[str]:
    """The fields of the first line; one empty field where it is blank."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    return decode_line(line, path, 1).lstrip("\ufeff").rstrip("\r\n").split(separator)


def read_table(path: Path, columns: Sequence[Column], *, separator: str = "\t") -> pa.Table:
    """The rows of ``path`` below its header line: float64 for numeric columns, strings for the others (ids as a
    dictionary of strings).

    Blank lines are skipped, and no quoting is known.

    Raises:
        InputError: a line with too many or too few fields, a bad, infinite or negative number, an empty id,
            text that is not UTF-8 or holds a NUL, no rows. The message names the line.
    """
    names = [column.name for column in columns]
    types = {column.name: column.type for column in columns}
    try:
        table = csv.read_csv(
            path,
            # The threads of a 1 MB block cost more than they save, and a long text must fit into one block.
            csv.ReadOptions(use_threads=False, block_size=1 << 26, column_names=names, skip_rows=1),
            csv.ParseOptions(delimiter=separator, quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        )
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except pa.ArrowException as error:
        raise _fault(path, columns, separator, str(error).splitlines()[0]) from None
    if table.num_rows == 0:
        raise _fault(path, columns, separator, "no rows")
    for column in columns:
        if _faulty(column, table[column.name]):
            raise _fault(path, columns, separator, f"column '{column.name}' holds a bad value")
    return table


def _faulty(column: Column, values: pa.ChunkedArray) -> bool:
    if column.numeric:
        numbers = values.to_numpy()
        return not np.isfinite(numbers).all() or (column.kind == "time" and numbers.min() < 0)
    words = [chunk.dictionary for chunk in values.chunks] if column.kind == "id" else values.chunks
    # numpy cuts NULs off the end of a text, so that two ids could become one.
    nul = any(pc.any(pc.match_substring(chunk, "\0")).as_py() for chunk in words)
    return nul or (column.kind == "id" and any(pc.any(pc.equal(chunk, "")).as_py() for chunk in words))


def line_of_row(path: Path, row: int) -> int:
    """The line number, from 1, of data row ``row``, from 0."""
    for seen, (number, _) in enumerate(_lines(path)):
        if seen == row:
            return number
    raise IndexError(row)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that is not blank, after the header."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number > 1 and line.strip(b"\r\n"):
                yield number, line


def _fault(path: Path, columns: Sequence[Column], separator: str, otherwise: str) -> InputError:
    """What is wrong with the first line that is off, ``otherwise`` where none is found, to be raised."""
    rows = False
    for number, line in _lines(path):
        rows = True
        where = f"{path}: line {number}"
        text = decode_line(line, path, number)
        if "\r" in text.rstrip("\r\n"):
            return InputError(f"{where} holds a carriage return in its middle; fix it or restore the file")
        fields = text.rstrip("\r\n").split(separator)
        if len(fields) != len(columns):
            cut = "" if text.endswith("\n") else " and ends without a line break, so the file looks truncated"
            return InputError(
                f"{where} has {len(fields)} fields instead of {len(columns)}{cut}; fix it or restore the file"
            )
        for column, value in zip(columns, fields, strict=True):
            problem = _problem(column, value)
            if problem:
                return InputError(f"{where}, column '{column.name}': {value!r} {problem}; fix it or drop the line")
    return InputError(f"{path} {f'cannot be read: {otherwise}' if rows else 'has no rows'}; restore it from its source")


def _problem(column: Column, value: str) -> str | None:
    if not column.numeric:
        if "\0" in value:
            return "holds a NUL byte"
        return "is not an id" if column.kind == "id" and not value else None
    try:
        number = float(value)
    except ValueError:
        return "is not a number"
    if "_" in value or not value.isascii():  # Python's numbers, not the format's
        return "is not a number"
    if not math.isfinite(number):
        return "is not finite"
    return "is negative, which a time can't be" if column.kind == "time" and number < 0 else None
