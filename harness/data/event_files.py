"""Readers of data sets whose columns are known beforehand, so that nothing in them is guessed."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.data.config import Columns
from harness.data.delimited import check_count, layout_of
from harness.data.formats import format_of, json_object, read_events
from harness.data.log import RawLog
from harness.data.packed import lines_of
from harness.data.readers import python_literal, text_of
from harness.data.rows import EventRows, raw_log
from harness.errors import InputError
from harness.files import file_digest

__all__ = ["EventFiles", "ItemTexts", "PythonLines"]


@dataclass(frozen=True)
class ItemTexts:
    """What describes the items: a table with a header or without, JSON lines, or lines of Python dictionaries.

    ``key`` and ``fields`` are names; in a table without a header its first columns are these.
    """

    key: str
    fields: tuple[str, ...]
    python: bool = False

    def read(self, path: Path, wanted: np.ndarray) -> pd.DataFrame:
        """The texts of the ``wanted`` items, of which the file may describe many times as many."""
        known, texts = set(wanted.tolist()), {}
        for row in self._rows(path):
            item = str(row.get(self.key))
            if item in known:
                texts[item] = [text_of(row.get(name)) for name in self.fields]
        index = pd.Index(list(texts), dtype=object)
        return pd.DataFrame(list(texts.values()), index=index, columns=list(self.fields))

    def _rows(self, path: Path) -> Iterator[Mapping[str, Any]]:
        if self.python:
            yield from (python_literal(line.encode(), path, number) for number, line in lines_of(path))
        elif format_of(path) == "json":
            yield from (json_object(path, number, line) for number, line in lines_of(path))
        else:
            layout = layout_of(path, Columns(item=self.key))
            names = layout.names if layout.header else [self.key, *self.fields]
            for number, fields in layout.records():
                check_count(layout, number, fields)
                yield dict(zip(names, fields, strict=False))


@dataclass(frozen=True)
class EventFiles:
    """Delimited text, Parquet or JSON lines, plain or packed, with these columns.

    The file of "events" goes on in the others, but for "items"; where they are a ``split``, the three are its parts.
    """

    user: str
    item: str
    time: str
    ticks: int = 1
    """To the second."""
    rating: str | None = None
    keep: tuple[str, ...] = ()
    """Further columns, for rules and for telling repeated rows from others."""
    split: bool = False
    texts: ItemTexts | None = None
    earliest: int | None = None
    """Seconds since 1970. What is said to be older can't be, and is left out."""

    def __call__(self, files: Mapping[str, Path]) -> RawLog:
        columns = Columns(user=self.user, item=self.item, time=self.time, rating=self.rating)
        tables = [read_events(path, columns, self.keep) for part, path in files.items() if part != "items"]
        dropped = 0 if self.earliest is None else sum(self._drop(rows, self.earliest) for rows in tables)
        raw = raw_log(tables, columns, parts=self.split)
        if raw.ticks != self.ticks:
            raise InputError(
                f"{raw.path}: times are in 1/{self.ticks} of a second where published, here 1/{raw.ticks}; restore it"
            )
        raw.notes, raw.dropped = (), dropped  # what was taken for what is not a guess here
        if dropped:
            raw.notes = (f"events with impossible times, dropped: {dropped:,}",)
        if self.texts is not None and "items" in files:
            raw.item_table = self.texts.read(files["items"], raw.items)
            raw.files[files["items"].name] = file_digest(files["items"])
        return raw

    def _drop(self, rows: EventRows, earliest: int) -> int:
        """Leaves out what is too early; says how many events."""
        if not pa.types.is_integer(rows.data[self.time].type):
            return 0  # something that is not a whole number is among them, which is said with its line later on
        late = pc.greater_equal(rows.data[self.time], earliest * self.ticks)
        kept, place = np.flatnonzero(late.to_numpy()), rows.place
        before = rows.data.num_rows
        if len(kept) < before:
            rows.data = rows.data.filter(late)
            rows.place = lambda row: place(int(kept[row]))
        return before - len(kept)


FIELD = re.compile(r"""[{,]\s*u?['"](\w+)['"]\s*:\s*u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,{}\[\]'"]+)""")


@dataclass(frozen=True)
class PythonLines:
    """Lines of Python dictionaries, plain or gzip, with a date such as 2017-12-17 as their time.

    Reading a literal is slow, and there are millions: a pattern takes the three fields out of a line, and only a line
    in which it does not find them is read in full.
    """

    user: str
    item: str
    date: str
    texts: ItemTexts | None = None

    def __call__(self, files: Mapping[str, Path]) -> RawLog:
        path, names = files["events"], (self.user, self.item, self.date)
        ids: tuple[dict[str, int], ...] = ({}, {}, {})
        codes = tuple(array("i") for _ in names)
        for number, line in lines_of(path):
            found = dict(FIELD.findall(line))
            if any("\\" in found.get(name, "\\") for name in names):
                found = {name: repr(value) for name, value in python_literal(line.encode(), path, number).items()}
            for name, known, column in zip(names, ids, codes, strict=True):
                text = found.get(name, "").strip().strip("'\"")
                if not text or text == "None":
                    raise InputError(f"{path}: line {number} has no '{name}'; restore the file from its source")
                column.append(known.setdefault(text, len(known)))
        if not codes[0]:
            raise InputError(f"{path} holds no events; restore it from its source")
        try:
            days = np.array(list(ids[2]), dtype="datetime64[D]")
        except ValueError as error:
            raise InputError(f"{path}: a '{self.date}' is not like 2017-12-17 ({error}); restore the file") from None
        raw = RawLog(
            path,
            np.frombuffer(codes[0], dtype=np.int32),
            np.array(list(ids[0])),
            np.frombuffer(codes[1], dtype=np.int32),
            np.array(list(ids[1])),
            days.astype("datetime64[s]").astype(np.int64)[np.frombuffer(codes[2], dtype=np.int32)],
            header=False,
            files={path.name: file_digest(path)},
        )
        if self.texts is not None and "items" in files:
            raw.item_table = self.texts.read(files["items"], raw.items)
            raw.files[files["items"].name] = file_digest(files["items"])
        return raw
