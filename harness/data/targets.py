"""How well the training part knows a target: its events, and how often it followed the item before it."""

from __future__ import annotations

import numpy as np

from harness.data.log import EventLog
from harness.data.splits import Split

__all__ = ["known_of"]


def known_of(log: EventLog, split: Split, target: np.ndarray) -> dict[str, np.ndarray]:
    """By the name of a column of rows, counts (R,) int64 over the training part; ``target`` are R events of the log.

    ``target_events`` are the training events of the target's item; ``target_follows`` says how often that item came
    directly after the last item before the target, with any user. The training part is read once, in pieces; of its
    pairs only those that are asked for are counted, for all that occur may be as many as there are events.
    """
    item, n_items = log.item, len(log.items)

    def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return item[first].astype(np.int64) * n_items + item[second]

    asked, place = np.unique(pairs(target - 1, target), return_inverse=True)
    events, follows = np.zeros(n_items, np.int64), np.zeros(len(asked), np.int64)
    for users, train in split.pieces("train"):
        events += np.bincount(item[train], minlength=n_items)
        after = np.flatnonzero(users[1:] == users[:-1])
        if len(asked):
            found = pairs(train[after], train[after + 1])
            near = np.searchsorted(asked, found).clip(max=len(asked) - 1)
            follows += np.bincount(near[asked[near] == found], minlength=len(asked))
    return {"target_events": events[item[target]], "target_follows": follows[place]}
