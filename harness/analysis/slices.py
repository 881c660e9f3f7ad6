"""Accuracy by kinds of users and targets: for whom, and for what, a model ranks well.

A bin's interval is over its users, of each user's mean over seeds: it says how far the bin's mean would move with other
users of the same kind. Which bin a user is in depends on the data alone and not on a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from harness.analysis.rows import Run, by_user

__all__ = ["FEWEST", "KINDS", "LENGTHS", "Kind", "Slice", "by_history", "by_kind"]

LENGTHS = (1, 4, 10, 20, 50, 100)
"""Where the bins of history lengths begin; the last one has no end."""
FEWEST = 20
"""Users that a bin must have to be shown."""


@dataclass(frozen=True)
class Kind:
    """One way of telling users apart by a column of the rows."""

    column: str
    title: str
    """Of the axis."""
    starts: tuple[int, ...]
    """Where the bins begin; the last one has no end."""
    labels: tuple[str, ...] = ()
    """Of the bins; empty: their numbers."""
    wide: bool = False
    """Whether accuracy differs by orders of magnitude between the bins."""

    def bins(self) -> list[tuple[str, float, float]]:
        """Label, beginning and end of each bin."""
        ends = [*self.starts, np.inf]
        names = self.labels or [_range(start, end) for start, end in pairwise(ends)]
        return [(name, start, end) for name, (start, end) in zip(names, pairwise(ends), strict=True)]


KINDS = {
    "history": Kind("history", "Events before the test target", LENGTHS),
    "popularity": Kind("target_events", "Training events of the target", (0, 1, 5, 10, 20, 50, 100), wide=True),
    "transition": Kind(
        "target_follows",
        "Last item and target in training",
        (0, 1),
        ("new pair", "known pair"),
        wide=True,
    ),
}
"""By history, by the target's popularity (0: a cold target), and by whether its transition can be remembered
(memorisation) or has to be inferred (generalisation)."""


def _range(start: float, end: float) -> str:
    if end == np.inf:
        return f"{start:.0f}+"
    return f"{start:.0f}" if end == start + 1 else f"{start:.0f}–{end - 1:.0f}"


@dataclass(frozen=True)
class Slice:
    """The users of one bin and what a variant reaches for them."""

    label: str
    users: int
    mean: float
    half: float
    """Half the width of the 95 % interval over users (Student's t)."""


def by_history(run: Run, dataset: str, variant: str) -> list[Slice]:
    """The primary metric of a variant in each bin of history lengths, shortest first."""
    return by_kind(run, dataset, variant, "history")


def by_kind(run: Run, dataset: str, variant: str, kind: str) -> list[Slice]:
    """The primary metric of a variant in each bin of at least ``FEWEST`` users, for a key of :data:`KINDS`.

    Empty where no cell of the data set knows the kind: rows of earlier versions have histories alone.
    """
    cells = run.ids(dataset, variant)
    place = _values(run, dataset, KINDS[kind].column, cells)
    if place is None:
        return []
    by_cell = [values for cell in cells if (values := run.row_values(cell, run.primary)) is not None]
    values = np.mean(by_cell, axis=0)  # (R,)
    owner = run.owners(cells[0])
    found = []
    for label, start, end in KINDS[kind].bins():
        chosen = (place >= start) & (place < end) & ~np.isnan(values)
        inside = values[chosen] if owner is None else by_user(values[chosen], owner[chosen])
        if len(inside) >= FEWEST:
            half = stats.t.ppf(0.975, len(inside) - 1) * stats.sem(inside)
            found.append(Slice(label, len(inside), float(inside.mean()), float(half)))
    return found


def _values(run: Run, dataset: str, column: str, cells: Sequence[str]) -> np.ndarray | None:
    """(U,) a column of the rows, from any cell of the data set that has it: it is the same in all."""
    if not cells:
        return None
    for cell in run.ids(dataset):
        if run.has_column(cell, column):
            run.check_same_users([cell, *cells])
            return run.rows(cell, [column])[column].to_numpy()
    return None
