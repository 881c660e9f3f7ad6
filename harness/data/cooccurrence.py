"""Which items the same users have: positive pointwise mutual information, from the training part alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from harness.data.log import EventLog
from harness.data.splits import Split

__all__ = ["CONTEXT", "ppmi"]

CONTEXT = 100
"""Items co-occur if both are among a user's last so many training events: one very long history has more pairs than
thousands of usual ones, and as many pairs would not fit into memory."""


def ppmi(log: EventLog, split: Split, context: int = CONTEXT, window: int | None = None) -> sparse.csr_array:
    """(I + 1, I + 1) rows of PPMI (Bullinaria & Levy 2007), each of length 1, or 0 for an item without companions.

    Args:
        context: a user's last so many training events count.
        window: two events count if they are at most so many events apart; None: any two of the context.
    """
    first = np.maximum(log.offsets[:-1], split.train_end - context)
    place, lengths = np.arange(len(log.item)), np.diff(log.offsets)
    counted = (place >= np.repeat(first, lengths)) & (place < np.repeat(split.train_end, lengths))
    user, item = np.repeat(np.arange(len(lengths)), lengths)[counted], log.item[counted]
    count = _shared(user, item, len(log.items)) if window is None else _near(user, item, len(log.items), window)
    return _ppmi(count)


def _shared(user: np.ndarray, item: np.ndarray, n: int) -> sparse.coo_array:
    """(n, n): how many users have both items, from the (E,) users and items of events."""
    has = sparse.csr_array((np.ones(len(user)), (user, item)), shape=(user.max(initial=0) + 1, n))
    has.data[:] = 1  # a repeated item counts once per user
    return sparse.coo_array(has.T @ has)


def _near(user: np.ndarray, item: np.ndarray, n: int, window: int) -> sparse.coo_array:
    """(n, n): how many users have both items at most ``window`` events apart."""
    pairs = []
    for gap in range(1, min(window, len(user) - 1) + 1):
        same = user[gap:] == user[:-gap]
        one, other = item[:-gap][same], item[gap:][same]
        pairs.append(
            pd.DataFrame({"user": user[gap:][same], "low": np.minimum(one, other), "high": np.maximum(one, other)})
        )
    found = pd.concat(pairs or [pd.DataFrame({"user": [], "low": [], "high": []}, dtype=int)]).drop_duplicates()
    low, high = found["low"].to_numpy(), found["high"].to_numpy()
    both = (np.concatenate([low, high]), np.concatenate([high, low]))
    return sparse.coo_array(sparse.csr_array((np.ones(2 * len(low)), both), shape=(n, n)))


def _ppmi(together: sparse.coo_array) -> sparse.csr_array:
    other = together.row != together.col
    row, column, count = together.row[other], together.col[other], together.data[other]
    total = np.bincount(row, count, minlength=together.shape[0])
    information = np.log(count * total.sum() / (total[row] * total[column]))
    positive = information > 0
    row, column, value = row[positive], column[positive], information[positive]
    norm = np.sqrt(np.bincount(row, value**2, minlength=together.shape[0]))
    return sparse.csr_array((value / norm[row], (row, column)), shape=together.shape)
