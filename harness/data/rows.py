"""From tables of events, whatever file they came from, to a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.data.config import Columns
from harness.data.histories import check_histories
from harness.data.log import RawLog, encode
from harness.data.times import NUMBER, read_times
from harness.errors import InputError
from harness.files import file_digest

__all__ = ["ID", "EventRows", "faulty", "raw_log"]

ID = pa.dictionary(pa.int32(), pa.string())
"""How ids are held."""


@dataclass
class EventRows:
    """One file of events, a row for each."""

    path: Path
    data: pa.Table
    """Users and items as texts; other columns as texts or numbers."""
    roles: dict[str, str]
    """user, item, and where there are such columns time and rating -> column."""
    place: Callable[[int], str]
    """Row -> "line 5"."""
    notes: tuple[str, ...] = ()
    typed: bool = True
    """Whether the file says which columns are numbers."""


def faulty(rows: EventRows) -> bool:
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


def raw_log(tables: Sequence[EventRows], columns: Columns | None = None, *, parts: bool = True) -> RawLog:
    """The events of one file, or of three: training, validation, test. Empties ``tables``, to save memory.

    ``parts``: whether several files are the parts of a split; else one goes on where the other ends.

    Raises:
        InputError: values that are not times, a rating that is not a number, histories with an item that is not an
            event, files with other columns than the first.
    """
    first = tables[0]
    roles = first.roles
    _check_alike(tables)
    sizes = [table.data.num_rows for table in tables]
    ends = np.cumsum(sizes)

    def source(row: int) -> tuple[EventRows, int]:
        which = int(np.searchsorted(ends, row, side="right"))
        return tables[which], row - (int(ends[which - 1]) if which else 0)

    def where(row: int) -> str:
        table, own = source(row)
        return f"{table.path}: {table.place(own)}"

    def place(row: int) -> str:
        table, own = source(row)
        return f"{table.path.name}, {table.place(own)}" if len(tables) > 1 else table.place(own)

    shared = [name for name in first.data.column_names if all(name in table.data.column_names for table in tables)]
    data = {name: _joined([table.data[name] for table in tables]) for name in shared}
    typed = all(table.typed for table in tables)
    for table in tables:
        table.data = table.data.slice(0, 0)
    user, users = encode(data.pop(roles["user"]))
    item, items = encode(data.pop(roles["item"]))
    raw = RawLog(
        path=first.path if len(tables) == 1 else first.path.parent,
        user=user,
        users=users,
        item=item,
        items=items,
        locate=place,
        files={table.path.name: file_digest(table.path) for table in tables},
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
    )
    if parts and len(tables) > 1:
        raw.part = np.repeat(np.arange(len(tables), dtype=np.int8), sizes)
    if "time" in roles:
        raw.time, raw.ticks, notes = read_times(
            data.pop(roles["time"]), lambda row: f"{where(row)}, column '{roles['time']}'"
        )
        raw.notes += notes
    check_histories(raw, {name: values for name, values in data.items() if _textual(values.type)}, where)
    raw.columns = {name: _values(data.pop(name), typed) for name in list(data)}
    pa.default_memory_pool().release_unused()
    if columns and columns.rating is not None:
        raw.columns["rating"] = _ratings(raw.columns[roles["rating"]], roles["rating"], where)
    return raw


def _check_alike(tables: Sequence[EventRows]) -> None:
    first = tables[0]
    for table in tables[1:]:
        if table.roles != first.roles:
            raise InputError(
                f"{table.path}: users, items and times are in the columns {_listed(table.roles)}, but of "
                f"{first.path.name} in {_listed(first.roles)}; write the files alike"
            )


def _ratings(ratings: np.ndarray, column: str, where: Callable[[int], str]) -> np.ndarray:
    """``ratings``, which must be numbers."""
    if ratings.dtype.kind not in "fi":
        row, text = next((n, text) for n, text in enumerate(ratings) if not NUMBER.fullmatch(text))
        raise InputError(
            f"{where(row)}, column '{column}': the rating {text[:40]!r} is not a number; fix it or drop the line"
        )
    return ratings


def _joined(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    if len({part.type for part in parts}) > 1:
        parts = [part.cast(pa.string()) for part in parts]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)


def _textual(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or (pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))


def _values(column: pa.ChunkedArray, typed: bool) -> np.ndarray:
    """Numbers as float64; texts as objects, each held once; texts that are all numbers as such unless ``typed``."""
    if not _textual(column.type):
        return column.to_numpy()
    codes, words = encode(column)
    if not typed and all(NUMBER.fullmatch(word) for word in words.tolist()):
        return words.astype(np.float64)[codes]
    return words.astype(object)[codes]


def _listed(roles: dict[str, str]) -> str:
    return ", ".join(f"'{name}'" for name in roles.values())
