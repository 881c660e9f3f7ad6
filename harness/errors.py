"""The ways in which a run ends without its result, and the helper that words them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """The user gave something that can't be used. One line: what, where, how to fix it.

    The command line prints the message without a traceback and exits with 2.
    """


class CellFailed(Exception):
    """One cell of a study could not be finished (a NaN loss, say). The study goes on without it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: a suggestion, or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (", ".join(known) if known else "none")


class Interrupted(Exception):
    """The run was asked to stop. What is finished stands; the same command goes on from there."""
