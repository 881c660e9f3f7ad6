"""Accuracy by the length of the history: for whom a model ranks well, and for whom not.

Users are put into bins by the number of events before their test target. A bin's interval is over its users, of each
user's mean over seeds: it says how far the bin's mean would move with other users of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.analysis.rows import Run

__all__ = ["LENGTHS", "Slice", "by_history"]

LENGTHS = (1, 4, 10, 20, 50, 100)
"""Where the bins of history lengths begin; the last one has no end."""
FEWEST = 20
"""Users that a bin must have to be shown."""


@dataclass(frozen=True)
class Slice:
    """The users of one bin and what a variant reaches for them."""

    label: str
    users: int
    mean: float
    half: float
    """Half the width of the 95 % interval over users (Student's t)."""


def by_history(run: Run, dataset: str, variant: str) -> list[Slice]:
    """The primary metric of a variant in each bin of at least ``FEWEST`` users, shortest histories first."""
    cells = run.ids(dataset, variant)
    if not cells:
        return []
    run.check_same_users(cells)
    lengths = run.rows(cells[0], ["history"])["history"].to_numpy()  # (U,)
    values = np.mean([run.user_values(cell, run.primary) for cell in cells], axis=0)  # (U,)
    found = []
    for place, start in enumerate(LENGTHS):
        last = place + 1 == len(LENGTHS)
        end = np.inf if last else LENGTHS[place + 1]
        inside = values[(lengths >= start) & (lengths < end)]
        if len(inside) >= FEWEST:
            half = stats.t.ppf(0.975, len(inside) - 1) * stats.sem(inside)
            label = f"{start}+" if last else f"{start}–{end - 1}"
            found.append(Slice(label, len(inside), float(inside.mean()), float(half)))
    return found
