"""A log of one's own: a file, or a folder, of any format in which people keep logs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import parquet

from harness.data.atomic import read_atomic_rows, read_item_texts
from harness.data.config import Columns
from harness.data.formats import FORMATS, format_of, known_endings, read_events, read_texts
from harness.data.log import RawLog
from harness.data.packed import PACKED
from harness.data.readers import text_of, text_sequences
from harness.data.roles import find_roles
from harness.data.rows import raw_log
from harness.errors import InputError
from harness.files import file_digest

__all__ = ["NOTES", "PARTS", "OwnFiles", "find_own", "read_own"]

PARTS = {"train": ("train", "training"), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}
EVENTS = ("ratings", "events", "interactions", "inter", "reviews", "clicks", "log", "logs", "data", "u")
ITEMS = ("movies", "items", "item", "meta", "metadata", "products", "books", "videos", "games", "articles", "news")
NOTES = b"harness_notes"
"""Key of a Parquet file's metadata: what was said when it was imported, a sentence a line."""


@dataclass(frozen=True)
class OwnFiles:
    """Where a log lies."""

    name: str
    events: tuple[Path, ...]
    """One file, or three: training, validation, test."""
    items: Path | None = None


def find_own(name: str, root: Path) -> OwnFiles | None:
    """The log that a path stands for, or the folder of that name in the data root; None where ``name`` is neither.

    Raises:
        InputError: a path that leads nowhere; a folder in which it isn't plain which file holds the events.
    """
    path = Path(name).expanduser()
    if not path.exists():
        if name and (root / name).exists():
            path = root / name
        elif len(path.parts) > 1 or format_of(path):
            raise InputError(
                f"{path} does not exist; give a folder or a file of events (CSV, Parquet, JSON lines, .inter)"
            )
        else:
            return None
    return _folder(path) if path.is_dir() else _file(path)


def read_own(files: OwnFiles, columns: Columns | None = None) -> RawLog:
    """Reads the events, and the texts of the items where there are any.

    Raises:
        InputError: anything in a file that is not as it should be; names file and line.
    """
    first = files.events[0]
    if len(files.events) == 1 and _holds_sequences(first):
        if columns is not None:
            raise InputError(f"{first}: a line holds a user and its items, so that there are no columns to be named")
        raw = text_sequences({"events": first})
        raw.notes += (f"{first.name}: a line is taken as a user and its items, oldest first",)
    else:
        read = {path: read_atomic_rows if path.suffix == ".inter" else read_events for path in files.events}
        raw = raw_log([read[path](path, columns) for path in files.events], columns)
    if first.suffix == ".parquet":
        said = (parquet.read_schema(first).metadata or {}).get(NOTES, b"").decode()
        raw.notes = (*said.splitlines(), *raw.notes)
    if files.items is not None:
        if files.items.suffix == ".item":
            raw.item_table = read_item_texts(files.items)
        else:
            raw.item_table, note = _item_table(files.items, raw)
            raw.notes += (note,)
        raw.files[files.items.name] = file_digest(files.items)
    return raw


def _folder(folder: Path) -> OwnFiles:
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    found = sorted(path for path in folder.iterdir() if path.is_file() and format_of(path))
    atomic = [path for path in found if path.suffix == ".inter"]
    files = atomic or [path for path in found if path.suffix != ".item"]
    files = [path for path in files if path.name == f"{folder.name}.inter"] or files
    parts = {part: [path for path in files if _part(path) == part] for part in PARTS}
    if all(len(paths) == 1 for paths in parts.values()):
        events = tuple(paths[0] for paths in parts.values())
        return OwnFiles(folder.name, events, _items_beside(events[0], folder.name))
    if any(parts.values()) and len(files) > 1:
        raise InputError(
            f"folder {folder}: a split of its own takes one file of training, one of validation and one of test "
            f"events, such as x.train.csv, x.valid.csv, x.test.csv; found {_names(files)}"
        )
    named = [path for path in files if _stem(path) == folder.name]
    # The log of a folder that is itself called "movies" may be movies.parquet.
    rest = [path for path in files if not _is_items(path)] or named
    if len(rest) > 1:
        chosen = [path for path in rest if path in named] or [path for path in rest if _stem(path).lower() in EVENTS]
    else:
        chosen = rest
    if len(chosen) != 1:
        if not rest:
            raise InputError(f"folder {folder} holds no file of events: their names end in {known_endings()}")
        kind = ".inter files" if atomic else "files that may hold the events"
        raise InputError(f"folder {folder} holds {len(rest)} {kind} ({_names(rest)}); name the one you mean")
    name = chosen[0].stem if atomic else folder.name
    return OwnFiles(name, (chosen[0],), _items_beside(chosen[0], name))


def _file(path: Path) -> OwnFiles:
    if format_of(path) is None:
        raise InputError(f"{path} is not a file of events: its name must end in one of {known_endings()}")
    if _part(path):
        beside = [other for other in path.parent.iterdir() if other != path and format_of(other) and _part(other)]
        if beside:
            raise InputError(
                f"{path} is one part of a split, beside {_names(sorted(beside))}: name the folder {path.parent}, and "
                "set data.split to 'given' to keep the split; or move the file to a folder of its own"
            )
    return OwnFiles(_stem(path), (path,), _items_beside(path, _stem(path)))


def _stem(path: Path) -> str:
    """A file's name without the endings that say its format."""
    name = path.name
    known = {*PACKED, *(suffix for suffixes in FORMATS.values() for suffix in suffixes)}
    while (suffix := Path(name).suffix) and suffix.lower() in known:
        name = name[: -len(suffix)]
    return name


def _part(path: Path) -> str | None:
    words = re.split(r"[._-]", _stem(path).lower())
    return next((part for part, known in PARTS.items() if any(word in known for word in words)), None)


def _is_items(path: Path) -> bool:
    words = re.split(r"[._-]", _stem(path).lower())
    return words[0] in ITEMS or words[-1] in ITEMS


def _items_beside(events: Path, name: str) -> Path | None:
    """The texts of the items: an .item file of the same name, else the one file whose name says so."""
    if events.suffix == ".inter":
        names = dict.fromkeys([events.stem, name, events.stem.split(".")[0]])
        return next((path for stem in names if (path := events.with_name(f"{stem}.item")).is_file()), None)
    beside = [
        path
        for path in sorted(events.parent.iterdir())
        if path.is_file() and path != events and format_of(path) and path.suffix != ".inter" and _is_items(path)
    ]
    own = [path for path in beside if _stem(path).startswith((f"{name}.", f"{name}_", f"{name}-"))]
    return (own or beside)[0] if len(own or beside) == 1 else None


def _item_table(path: Path, raw: RawLog) -> tuple[pd.DataFrame, str]:
    """The texts of a table of items by raw id, and what was taken for what."""
    rows, place = read_texts(path)
    if not rows:
        raise InputError(f"{path} has no rows; restore it from its source")
    names = list(dict.fromkeys(name for row in rows for name in row))
    # The column of the ids is the one that holds most of the log's.
    known = set(raw.items.tolist())
    shares = {name: sum(str(row.get(name)) in known for row in rows) for name in names}
    key = max(names, key=shares.__getitem__)
    if not shares[key]:
        key = find_roles(path, [*names, "user_id"], Columns(user="user_id"))[0]["item"]
    ids = ["" if row.get(key) is None else str(row[key]) for row in rows]
    if "" in ids:
        raise InputError(f"{path}: {place(ids.index(''))}, column '{key}': the item has no id; fix it or drop the line")
    index = pd.Index(ids, name=key, dtype=object)
    repeated = np.flatnonzero(index.duplicated())
    if len(repeated):
        row = int(repeated[0])
        raise InputError(f"{path}: {place(row)} describes item '{ids[row]}' a second time; keep one of the lines")
    texts = [name for name in names if name != key]
    table = pd.DataFrame({name: [text_of(row.get(name)) for row in rows] for name in texts}, index=index)
    return table, f"{path.name}: took '{key}' as item, described by {', '.join(map(repr, texts)) or 'nothing'}"


def _holds_sequences(path: Path) -> bool:
    """Whether each line holds a user and its items (S3-Rec's format); a table has separators or lines of one length."""
    if path.suffix != ".txt":
        return False
    lengths: list[int] = []
    with open(path, "rb") as file:
        for line in file:
            if b"\t" in line or b"," in line or b";" in line:
                return False
            if words := line.split():
                lengths.append(len(words))
    return bool(lengths) and (len(lengths) == 1 or len(set(lengths)) > 1 or lengths[0] > 4)


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:6]) + (", ..." if len(paths) > 6 else "")
