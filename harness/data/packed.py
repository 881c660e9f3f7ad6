"""Files that may be packed: opened, and read line by line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from harness.data.tables import decode_line
from harness.errors import InputError

__all__ = ["BLOCK", "PACKED", "lines_of", "open_file", "refuse_empty", "unreadable"]

PACKED = {".gz": "gzip", ".zst": "zstd"}
BLOCK = 1 << 25
"""Bytes that a parser takes at once."""
READ_AHEAD = 1 << 16
LINE_BYTES = 1 << 25
"""The longest line; a small packed file may hold one that fills all memory."""


def refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; restore it from its source")


def open_file(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression=PACKED.get(path.suffix.lower()))


def lines_of(path: Path, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line; of those that are not blank unless asked otherwise."""
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else io.BufferedReader(open_file(path), READ_AHEAD) as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES + 1), b""), 1):
                if len(line) > LINE_BYTES:
                    raise InputError(f"{path}: line {number} has more than {LINE_BYTES:,} bytes; restore the file")
                if blank or line.strip():
                    yield number, decode_line(line, path, number)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} is damaged or not what its name says ({reason[:200]}); restore it from its source")
