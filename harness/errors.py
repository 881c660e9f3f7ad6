"""The ways in which a run ends without its result, and the helper that words them."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any


class InputError(Exception):
    """The user gave something that can't be used. One line: what, where, how to fix it.

    The command line prints the message without a traceback and exits with 2.
    """


class CellFailed(Exception):
    """One cell of a study could not be finished (a NaN loss, say). The study goes on without it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: a suggestion, or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(word[:200], known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (shortened(", ".join(known), 300) if known else "none")


class Interrupted(Exception):
    """The run was asked to stop. What is finished stands; the same command goes on from there."""


LONGEST = 480
"""Characters of a message; what a file holds is quoted in it, and may be long."""

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = 4
_REPR.maxlevel = 3


def shortened(text: str, most: int = 160) -> str:
    """``text`` on one line, its middle left out where it has more than ``most`` characters."""
    text = " ".join(text[: 20 * most].split()) if len(text) <= 20 * most else _ends(text, most)
    return text if len(text) <= most else _ends(text, most)


def _ends(text: str, most: int) -> str:
    tail = (most - 3) * 2 // 5
    return f"{' '.join(text[: most - 3 - tail].split())} … {' '.join(text[-tail:].split())}"


def shown(value: Any) -> str:
    """``repr`` of a value from outside, bounded in length and depth."""
    try:
        return shortened(_REPR.repr(value), 120)
    except ValueError:  # an integer of more digits than Python prints
        return f"a value of type {type(value).__name__}"


def in_one_line(error: BaseException) -> str:
    """An error's message as a line of at most :data:`LONGEST` characters, without surrogates and control characters."""
    text = shortened(str(error) or type(error).__name__, LONGEST)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[: LONGEST + 20]
