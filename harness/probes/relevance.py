"""How relevant an event of a history was for what came next: a measure that no model has a part in.

The relevance of item i for the target j is the cosine of their vectors of positive pointwise mutual information
(PPMI; Bullinaria & Levy 2007) with all items, counted over the users' training parts. Every data set has what that
needs, where item texts are missing in some and stand for little in others; and it says what users do, not what
describes an item. Two items that no one shares still have a relevance if they share companions, which keeps sparse
data from answering 0 everywhere.
"""

from __future__ import annotations

import numpy as np

from harness.data.batches import Windows
from harness.data.cooccurrence import CONTEXT, ppmi
from harness.data.log import EventLog
from harness.data.splits import Split

__all__ = ["BINS", "Relevance", "decile_shares"]

BINS = 10
PAIRS = 4096
"""Cosines that are worked out at once."""


class Relevance:
    """Relevance of items for each other, from the training part of a log."""

    def __init__(self, log: EventLog, split: Split) -> None:
        self.log = log
        self.vectors = ppmi(log, split, CONTEXT)  # (I + 1, I + 1)

    def __call__(self, windows: Windows, width: int) -> np.ndarray:
        """(R, width): the relevance of each event of R histories for the item after it; -1 where padded."""
        index = windows.start[:, None] + np.arange(width)
        row, column = np.nonzero(index < windows.end[:, None])
        relevance = np.full(index.shape, -1.0)
        items, targets = self.log.item[index[row, column]], self.log.item[windows.end[row]]
        relevance[row, column] = self.cosine(items, targets)
        return relevance

    def cosine(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(n,) cosines of items ``one`` and ``other`` (n,); 0 where one of them never occurred in training."""
        found = np.empty(len(one))
        for start in range(0, len(one), PAIRS):
            part = slice(start, start + PAIRS)
            found[part] = (self.vectors[one[part]] * self.vectors[other[part]]).sum(axis=1)
        return found


def decile_shares(relevance: np.ndarray) -> np.ndarray:
    """(R, L, BINS): how much of each event lies in each tenth of its history, by relevance (R, L), -1 = no event.

    Events are laid side by side on [0, 1] in ascending order, each as wide as the others, so every tenth holds
    exactly a tenth of the events however long the history is. Events of equal relevance share their stretch.
    """
    real = relevance >= 0
    compared = real[:, None, :] & real[:, :, None]
    less = (compared & (relevance[:, None, :] < relevance[:, :, None])).sum(-1)  # (R, L)
    same = (compared & (relevance[:, None, :] == relevance[:, :, None])).sum(-1)
    n = real.sum(1, keepdims=True)
    low, high = less / n, (less + same) / n
    edge = np.arange(BINS + 1) / BINS
    overlap = np.minimum(high[..., None], edge[1:]) - np.maximum(low[..., None], edge[:-1])
    return np.where(real[..., None], overlap.clip(0) / np.where(real, high - low, 1)[..., None], 0)
