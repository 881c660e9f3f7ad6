"""How much of a file from outside is taken in, and the checks that all readers share."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import InputError

__all__ = [
    "DEPTH", "DESIGN_NODES", "JSON_BYTES", "LARGEST", "YAML_BYTES", "YAML_NODES", "check_size", "first_odd",
    "read_bytes",
]  # fmt: skip

YAML_BYTES = 16 << 20
"""A design of ten thousand cells has 2 MB."""
YAML_NODES = 50_000
"""Keys, values and items, each counted as often as an alias repeats it: read in a second."""
DESIGN_NODES = 1_000_000
"""The same of a run's resolved design, which lists its cells."""
JSON_BYTES = 2 << 30
DEPTH = 60
"""Mappings and lists inside each other."""
LARGEST = 2**63 - 1
"""Whole numbers beyond it fit no column of numbers."""

_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters, and halves of surrogate pairs, which no file can be written with."""


def first_odd(text: str) -> re.Match[str] | None:
    """The first character of ``text`` that is a control character or not a character at all."""
    return _ODD.search(text)


def check_size(path: Path, most: int, remedy: str = "") -> None:
    """Raises InputError for a file of more than ``most`` bytes, a folder, or one that can't be looked at; where it is
    missing or no file, with ``remedy``."""
    ending = f"; {remedy}" if remedy else ""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path} does not exist{ending}") from None
    except (OSError, ValueError) as error:  # the latter: a NUL in the path
        raise InputError(f"{str(path)[:200]!r} can't be opened ({getattr(error, 'strerror', None) or error})") from None
    if not path.is_file():
        raise InputError(f"{path} is not a file{ending}")
    if size > most:
        raise InputError(f"{path} has {size:,} bytes, more than the {most:,} that such a file may have")


def read_bytes(path: Path, most: int, remedy: str = "") -> bytes:
    """The content of a file of at most ``most`` bytes. Raises InputError as :func:`check_size` does."""
    check_size(path, most, remedy)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error}); check its permissions") from None
