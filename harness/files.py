"""Files that appear whole or not at all, and the hashes that identify their content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.reading.json_text import read_json

__all__ = [
    "as_file_name", "digest", "file_digest", "is_unfinished", "read_json", "refuse_links", "signature", "whole_file",
    "write_json", "write_text", "writing",
]  # fmt: skip

_OS_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder with --out",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder with --out",
    errno.EACCES: "it may not be written; fix its permissions or choose another folder with --out",
    errno.EPERM: "it may not be written; fix its permissions or choose another folder with --out",
    errno.EROFS: "the file system is read-only; choose another folder with --out",
    errno.ENOTDIR: "a part of the path is a file; choose another folder with --out",
    errno.EEXIST: "a file of that name is in the way; choose another folder with --out",
}


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an operating system's refusal to write ``path`` into an :class:`InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = _OS_REASONS.get(error.errno, f"{error.strerror}; choose another folder with --out")
        raise InputError(f"cannot write {path}: {reason}") from error


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; renames it over ``path`` if all went well."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        aside = Path(name)
        try:
            yield aside
            aside.chmod(0o644)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Whether a file is one that :func:`whole_file` gives out to write to."""
    return re.fullmatch(rf"\..+\.[a-z0-9_]{{8}}{re.escape(path.suffix)}", path.name) is not None and path.is_file()


def write_text(path: str | Path, text: str) -> None:
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def refuse_links(folder: str | Path) -> None:
    """Raises :class:`InputError` where a link in ``folder`` leads out of it: what is written there would land outside,
    perhaps over somebody's files. The folder itself may be a link."""
    folder = Path(folder)
    inside = folder.resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(
                    f"{path} is a link to {path.resolve()}, outside the folder of the run, where nothing may be "
                    "written; replace it by a copy of what it leads to"
                )


def as_file_name(text: str) -> str:
    """``text``, such as a data set's name, which may be a path, as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: the same on every machine and Python."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, which a process reads once while the file stays untouched."""
    known = (os.path.abspath(path), signature(path))
    if known[1] is None or known not in _DIGESTS:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if known[1] is None or signature(path) != known[1]:
            return found
        _DIGESTS[known] = found
    return _DIGESTS[known]


_DIGESTS: dict[tuple[str, tuple[int, ...] | None], str] = {}
SETTLED = 2 * 10**9
"""Nanoseconds after which a further write is bound to show in a file's times, on any file system."""


def signature(path: str | Path) -> tuple[int, ...] | None:
    """Inode, size, and times of modification and change: what differs once a file is written or replaced. None of a
    file that was written just now, which a further write may leave alike."""
    status = os.stat(path)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
