"""Delimited text of events, with or without a header: separators, quotes and columns are found out.

A fast parser reads it. Where it refuses, the lines are searched for the first that is off.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv

from harness.data.config import Columns
from harness.data.packed import BLOCK, PACKED, lines_of, open_file, unreadable
from harness.data.roles import chosen, find_roles, is_role
from harness.data.rows import ID, EventRows, faulty
from harness.data.times import NUMBER, WHOLE
from harness.errors import InputError

__all__ = ["Layout", "check_count", "layout_of", "read_delimited"]

TYPED = re.compile(r"(.+):(token|float|token_seq|float_seq)")
DATED = 1e8
"""Numbers from here on (1973 in seconds) are taken for times in a file without a header."""


@dataclass(frozen=True)
class Layout:
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


def read_delimited(path: Path, columns: Columns | None, only: Sequence[str] | None = None) -> EventRows:
    layout = layout_of(path, columns)
    first = next(layout.records(), None)
    if first is None:
        raise InputError(f"{path} has no rows; restore it from its source")
    check_count(layout, *first)
    notes: tuple[str, ...] = ()
    if not layout.header:
        columns, notes = _by_place(layout, first[1], columns)
    roles, guessed = find_roles(path, layout.names, columns)
    types = dict.fromkeys(chosen(path, layout.names, roles, only), ID)
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
    if faulty(rows):
        raise _fault(layout, roles, "an id is empty or holds a NUL")
    return rows


def _parse(layout: Layout, types: dict[str, pa.DataType]) -> pa.Table:
    with open_file(layout.path) as file:
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
                arrow_csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
                ),
            )
        except OSError as error:
            raise unreadable(layout.path, error) from None
        return stream.without_last(data) if layout.quoted else data


class _Guarded(io.RawIOBase):
    """A file with one more record behind its end, once it has shown a quote: a quote that is never closed swallows
    that record, while Arrow takes such a file without a word."""

    def __init__(self, file: pa.NativeFile, layout: Layout) -> None:
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


def layout_of(path: Path, columns: Columns | None) -> Layout:
    suffix = next(s for s in reversed(path.suffixes) if s.lower() not in PACKED).lower()
    line = next((text for _, text in lines_of(path)), None)
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
    matches = [match for match in map(TYPED.fullmatch, fields) if match]
    typed = len(matches) == len(fields)
    names = [match[1] for match in matches] if typed else [field.strip() for field in fields]
    header = typed or _is_header(names, columns)
    if not header:
        names = [str(place) for place in range(1, len(fields) + 1)]
    names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: line 1 names the column '{name}' twice; rename one")
    return Layout(path, separator, quoted, header, names)


def _is_header(fields: list[str], columns: Columns | None) -> bool:
    given = [] if columns is None else [str(value) for value in columns.model_dump().values() if value is not None]
    if any(is_role(field) for field in fields) or any(word in fields and not word.isdecimal() for word in given):
        return True
    by_place = any(word.isdecimal() for word in given)
    return not by_place and not any(NUMBER.fullmatch(field) for field in fields)


def _by_place(layout: Layout, fields: list[str], columns: Columns | None) -> tuple[Columns, tuple[str, ...]]:
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


def _fault(layout: Layout, roles: dict[str, str], otherwise: str) -> InputError:
    """What is wrong with the first line that is off, to be raised."""
    ids = {layout.names.index(roles[role]) for role in ("user", "item")}
    for number, fields in layout.records():
        check_count(layout, number, fields)
        for place, text in enumerate(fields):
            if "\0" in text or (place in ids and not text):
                what = "holds a NUL byte" if "\0" in text else "is not an id"
                column = layout.names[place]
                return InputError(
                    f"{layout.path}: line {number}, column '{column}': {text[:40]!r} {what}; fix it or drop the line"
                )
    return InputError(f"{layout.path} cannot be read: {otherwise}; restore it from its source")


def check_count(layout: Layout, number: int, fields: list[str]) -> None:
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
        for number, text in lines_of(path, blank=True):
            last = number
            yield text.lstrip("\ufeff") if number == 1 else text

    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        lines(), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = last + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {start} can't be split into fields ({error}); fix its quotes") from None
