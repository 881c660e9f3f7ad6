"""Logs that were parsed before, as flat arrays that every process maps into its memory instead of parsing again.

An entry is named by the hash of all that decides a log: the bytes of its files, the settings, what the catalogue says
of it, the code that reads it. So no change can be missed, and a copy of a file elsewhere is served by the same entry.
Hashing gigabytes takes seconds, however: a file's hash is remembered together with its inode, size, and times of
modification and of change, and taken from there while these stay as they were. Size and modification time alone would
not do, since copying tools set the latter back; no program can set the time of change. Files younger than two seconds
are always hashed, because two writes within a clock tick look alike.

The pages of mapped arrays are shared by all processes, and the system may drop and reread them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from harness.data.log import EventLog
from harness.errors import InputError
from harness.files import digest, file_digest, read_json, signature, write_json

__all__ = ["Entry", "cache_folder", "clean", "entries", "through_cache"]

ARRAYS = ("users", "items", "offsets", "item", "time", "tied", "actions", "part")
PLAIN = ("name", "action_names", "text_fields", "files", "fingerprint", "notes")
SMALLEST = 1 << 20
"""Bytes of files below which parsing is as fast as opening an entry."""
KEPT_DAYS = 30
"""Entries that no process has opened for so long are removed when another is written."""
MANIFEST, TABLE = "log.json", "item_table.arrow"

log_ = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One log in the cache."""

    path: Path
    name: str
    events: int
    bytes: int
    used: float
    """When it was opened last, in seconds since 1970."""


def cache_folder() -> Path | None:
    """$HARNESS_CACHE, else ``harness`` in the user's cache folder; None where HARNESS_CACHE is "off"."""
    chosen = os.environ.get("HARNESS_CACHE", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).expanduser() / "logs"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "harness" / "logs"


def through_cache(files: list[Path], decided_by: Mapping[str, Any], make: Callable[[], EventLog]) -> EventLog:
    """The log that ``make`` gives, out of the cache where it is there; else it is put there.

    ``files``: what ``make`` reads. ``decided_by``: what else decides the log, ready for JSON. A cache that can't be
    written is said once and does without; an entry that is damaged is made anew.
    """
    folder = cache_folder()
    if folder is None or sum(path.stat().st_size for path in files if path.is_file()) < SMALLEST:
        return make()
    contents = {path.name: _content(path, folder) for path in files}
    entry = folder / digest([_code(), contents, decided_by])[:32]
    found = _open(entry)
    if found is not None:
        return found
    log = make()
    if any(log.files.get(name) != content for name, content in contents.items()):
        return log  # a file was changed while it was read
    try:
        _write(entry, log)
    except OSError as error:
        log_.warning("the log of %s is not kept in the cache %s: %s", log.name, folder, error.strerror or error)
        return log
    # The mapped arrays take the place of this process' own.
    return _open(entry) or log


def entries(folder: Path) -> list[Entry]:
    """What lies in the cache, the longest unused first. Entries that can't be read have no name."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name != "digests" and not path.name.startswith("."):
            size = 0
            try:
                size = sum(file.stat().st_size for file in path.iterdir())
                said = read_json(path / MANIFEST)
                used = (path / MANIFEST).stat().st_mtime
                found.append(Entry(path, said["plain"]["name"], said["arrays"]["item"]["shape"][0], size, used))
            except (InputError, OSError, KeyError, TypeError):
                found.append(Entry(path, "", 0, size, 0.0))
    return sorted(found, key=lambda entry: entry.used)


def clean(folder: Path, unused_days: float = KEPT_DAYS) -> list[Entry]:
    """Removes entries that were not opened for ``unused_days``, and what killed processes left; says which entries."""
    now = time.time()
    old = [entry for entry in entries(folder) if now - entry.used >= unused_days * 86_400]
    for entry in old:
        shutil.rmtree(entry.path, ignore_errors=True)
    for path in folder.glob(".*"):
        with suppress(OSError):
            if now - path.stat().st_mtime > 86_400:
                shutil.rmtree(path)
    for path in folder.glob("digests/*.json"):
        with suppress(OSError):
            if now - path.stat().st_mtime >= unused_days * 86_400:
                path.unlink()
    return old


@functools.cache
def _code() -> str:
    """The hash of the modules that make a log, and the versions of what they build on."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.read_bytes())
    return digest([sha.hexdigest(), *(version(name) for name in ("numpy", "pandas", "pyarrow"))])


def _content(path: Path, folder: Path) -> str:
    """The SHA-256 of a file, from what is remembered where the file was not touched since."""
    place = os.path.abspath(path)
    memory = folder / "digests" / f"{digest(place)[:32]}.json"
    seen = signature(path)
    with suppress(InputError, OSError, KeyError, TypeError):
        known = read_json(memory)
        if seen is not None and known["signature"] == list(seen):
            return str(known["sha256"])
    found = file_digest(path)
    if seen is not None and signature(path) == seen:
        with suppress(InputError, OSError):
            write_json(memory, {"path": place, "signature": list(seen), "sha256": found})
    return found


def _write(entry: Path, log: EventLog) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    clean(entry.parent)
    aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        said: dict[str, Any] = {"plain": {name: getattr(log, name) for name in PLAIN}, "arrays": {}, "table": None}
        for name in ARRAYS:
            values = getattr(log, name)
            if values is not None:
                path = aside / f"{name}.npy"
                np.save(path, values, allow_pickle=False)
                shape, kind = list(values.shape), values.dtype.str
                said["arrays"][name] = {"shape": shape, "dtype": kind, **_trace(path)}
        if log.item_table is not None:
            texts = {str(name): pa.array(log.item_table[name], pa.large_string()) for name in log.item_table}
            feather.write_feather(pa.table(texts), aside / TABLE, compression="uncompressed")
            said["table"] = {"rows": len(log.item_table), **_trace(aside / TABLE)}
        write_json(aside / MANIFEST, said | {"check": digest(said)})
        aside.chmod(0o755)
        with suppress(FileExistsError):
            os.rename(aside, entry)
    except OSError as error:
        if not entry.is_dir():  # another process may have been faster
            raise OSError(error.errno, error.strerror) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _open(entry: Path) -> EventLog | None:
    """The log of an entry; None where there is none, or one that is damaged, which is removed."""
    if not entry.is_dir():
        return None
    try:
        said = read_json(entry / MANIFEST)
        if said.pop("check") != digest(said):
            raise ValueError("its manifest is damaged")
        arrays = {name: _mapped(entry / f"{name}.npy", known) for name, known in said["arrays"].items()}
        table = None if said["table"] is None else _table(entry / TABLE, said["table"])
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in said["plain"].items()}
        values: dict[str, Any] = dict.fromkeys(ARRAYS) | arrays | plain
        log = EventLog(**values, item_table=table)
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        log_.warning("an entry of the cache of logs is damaged and made anew (%s)", error)
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with suppress(OSError):
        os.utime(entry / MANIFEST)
    return log


def _mapped(path: Path, known: Mapping[str, Any]) -> np.ndarray:
    _check(path, known)
    # Copy-on-write: a process that writes into an array gets pages of its own.
    array = np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)
    if list(array.shape) != known["shape"] or array.dtype.str != known["dtype"]:
        raise ValueError(f"{path.name} is of another shape or type than it was written with")
    return array


def _table(path: Path, known: Mapping[str, Any]) -> pd.DataFrame:
    _check(path, known)
    table, index = feather.read_table(path, memory_map=True), pd.RangeIndex(1, known["rows"] + 1)
    # Without a column, a table has forgotten how many rows it has.
    return table.to_pandas(split_blocks=True).set_axis(index) if table.column_names else pd.DataFrame(index=index)


def _trace(path: Path) -> dict[str, Any]:
    """What :func:`_check` compares."""
    return {"traces": _traces(path), "crc32": _crc32(path)}


def _check(path: Path, known: Mapping[str, Any]) -> None:
    """Raises ValueError unless ``path`` is as it was written: untouched, says the file system, or of the same bytes."""
    if _traces(path) != known["traces"] and _crc32(path) != known["crc32"]:
        raise ValueError(f"{path.name} has changed")


def _traces(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _crc32(path: Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found
