"""RecBole's atomic files: tab-separated text whose header gives each column a name and a type.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html. ``.inter`` holds events, ``.item`` and
``.user`` what is known about items and users. Types: token, float, token_seq, float_seq; the elements of a
sequence stand apart by spaces. Sequences stay strings here: nothing downstream reads their elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.data.config import Columns
from harness.data.log import RawLog
from harness.data.roles import find_roles
from harness.data.rows import EventRows, raw_log
from harness.data.tables import Column, Kind, line_of_row, read_header, read_table
from harness.errors import InputError, nearest
from harness.files import file_digest, whole_file

__all__ = [
    "AtomicTable",
    "read_atomic",
    "read_atomic_log",
    "read_atomic_rows",
    "read_item_texts",
    "write_atomic_log",
]

TYPES = ("token", "float", "token_seq", "float_seq")
USER, ITEM, TIME = "user_id", "item_id", "timestamp"


@dataclass(frozen=True)
class AtomicTable:
    """One atomic file."""

    path: Path
    types: dict[str, str]
    """Column -> token, float, token_seq or float_seq, in the order of the file."""
    data: pa.Table
    """float64 for the float columns of an ``.inter`` file (but its times), strings for everything else."""
    roles: dict[str, str]
    """user, item, time -> column, of an ``.inter`` file."""
    notes: tuple[str, ...]


def read_atomic(path: Path, columns: Columns | None = None) -> AtomicTable:
    """Reads and checks any atomic file; the suffix says which it is.

    In ``.inter`` files every float must be a finite number; in ``.item`` and ``.user`` files it may be empty.
    ``columns``: which column is which, where an ``.inter`` file does not use RecBole's names.

    Raises:
        InputError: the header or a line is not as it should be; the message names the line.
    """
    types = _header(path)
    if path.suffix != ".inter":
        key = f"{path.suffix[1:]}_id"
        if key not in types:
            raise InputError(f"{path} has no column '{key}:token'; {nearest(key, types)}")
        data = read_table(path, [Column(name, "id" if name == key else "text") for name in types])
        for name, kind in types.items():
            if kind in ("float", "float_seq"):
                _check_floats(path, name, data[name])
        return AtomicTable(path, types, data, {}, ())
    roles, notes = find_roles(path, list(types), columns)
    parts = {name: role for role, name in roles.items() if role != "rating"}
    kinds: dict[str, Kind] = {"user": "id", "item": "id", "time": "text"}
    data = read_table(
        path,
        [
            Column(name, kinds[parts[name]] if name in parts else "number" if kind == "float" else "text")
            for name, kind in types.items()
        ],
    )
    for name, kind in types.items():
        if kind == "float_seq":
            _check_floats(path, name, data[name])
    return AtomicTable(path, types, data, roles, notes)


def read_atomic_rows(inter: Path, columns: Columns | None = None) -> EventRows:
    """The events of ``inter``; raises as :func:`read_atomic` does."""
    table = read_atomic(inter, columns)
    return EventRows(inter, table.data, table.roles, lambda row: f"line {line_of_row(inter, row)}", table.notes)


def read_atomic_log(inter: Path, item: Path | None, columns: Columns | None = None) -> RawLog:
    """The events of ``inter``, and the texts of ``item`` where there is such a file.

    Raises:
        InputError: see :func:`read_atomic` and :func:`harness.data.rows.raw_log`.
    """
    raw = raw_log([read_atomic_rows(inter, columns)], columns)
    if item is not None:
        raw.item_table = read_item_texts(item)
        raw.files[item.name] = file_digest(item)
    return raw


def read_item_texts(item: Path) -> pd.DataFrame:
    """The texts of an ``.item`` file by raw id."""
    return _item_table(read_atomic(item))


def write_atomic_log(raw: RawLog, inter: Path) -> None:
    """Writes ``raw`` as ``inter`` and, where it has texts, the ``.item`` file beside it.

    Tabs and line breaks in texts become spaces: the format can't hold them.
    """
    header, columns = [f"{USER}:token", f"{ITEM}:token"], [raw.users[raw.user], raw.items[raw.item]]
    for name, values in raw.columns.items():
        header.append(f"{name}:{'token' if values.dtype.kind in 'UO' else 'float'}")
        columns.append(values)
    if raw.time is not None:
        header.append(f"{TIME}:float")
        columns.append(raw.time)
    _write(inter, header, columns)
    if raw.item_table is not None:
        names = list(raw.item_table.columns)
        texts = [raw.item_table[name].map(_one_line).to_numpy() for name in names]
        header = [f"{ITEM}:token", *(f"{name}:token_seq" for name in names)]
        _write(inter.with_suffix(".item"), header, [raw.item_table.index.to_numpy(), *texts])


def _header(path: Path) -> dict[str, str]:
    fields = read_header(path)
    if fields == [""]:
        raise InputError(f"{path} is empty or begins with a blank line; restore it from its source")
    if any("\r" in field for field in fields):
        raise InputError(f"{path}: line 1 holds a carriage return in its middle; fix it or restore the file")
    types: dict[str, str] = {}
    for field in fields:
        name, colon, kind = field.partition(":")
        if not colon:
            raise InputError(
                f"{path}: line 1 is not a typed header ({field!r} has no type); begin the file with a line such as "
                f"'{USER}:token<tab>{ITEM}:token<tab>{TIME}:float'"
            )
        if kind not in TYPES:
            raise InputError(f"{path}: line 1, column '{name}' has the unknown type '{kind}'; {nearest(kind, TYPES)}")
        if name in types:
            raise InputError(f"{path}: line 1 names the column '{name}' twice; rename one")
        types[name] = kind
    return types


def _check_floats(path: Path, name: str, values: pa.ChunkedArray) -> None:
    """Raises where a field holds something else than numbers that stand apart by spaces, or nothing."""
    texts = values.to_pylist()
    try:
        np.array(" ".join(texts).split(), dtype=np.float64)
    except ValueError:
        for row, text in enumerate(texts):
            try:
                np.array(text.split(), dtype=np.float64)
            except ValueError:
                where = f"{path}: line {line_of_row(path, row)}, column '{name}'"
                raise InputError(f"{where}: {text!r} is not a number; fix it or drop the line") from None


def _item_table(table: AtomicTable) -> pd.DataFrame:
    ids = table.data[ITEM].to_pylist()
    frame = pd.DataFrame(
        {name: table.data[name].to_pylist() for name in table.types if name != ITEM},
        index=pd.Index(ids, name=ITEM),
    )
    repeated = np.flatnonzero(frame.index.duplicated())
    if len(repeated):
        where = f"{table.path}: line {line_of_row(table.path, repeated[0])}"
        raise InputError(f"{where} describes item '{ids[repeated[0]]}' a second time; keep one of the lines")
    return frame


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write(path: Path, header: Sequence[str], columns: Sequence[np.ndarray]) -> None:
    texts = [_texts(column) for column in columns]
    with whole_file(path) as aside, open(aside, "w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(header) + "\n")
        file.writelines("\t".join(row) + "\n" for row in zip(*texts, strict=True))


def _texts(values: np.ndarray) -> list[str]:
    """Whole numbers without a fraction, others with all their digits."""
    if values.dtype.kind == "f":
        return [str(int(value)) if value.is_integer() else repr(value) for value in values.tolist()]
    return [str(value) for value in values.tolist()]
