"""How well the training part knows a target: its events, and how often it followed the item before it."""

from __future__ import annotations

import numpy as np

from harness.data.log import EventLog
from harness.data.splits import Split

__all__ = ["TargetKnowledge"]


class TargetKnowledge:
    """Counts over the training part of ``split``. Targets are positions (R,) of events in the log."""

    def __init__(self, log: EventLog, split: Split) -> None:
        users, events = split.events("train")
        self.item, self.n_items = log.item, len(log.items)
        items, same = self.item[events].astype(np.int64), users[1:] == users[:-1]
        self._events = np.bincount(items, minlength=self.n_items)  # (I + 1,)
        # The pairs of items that follow each other, as ascending numbers, and how often they do.
        self._pairs, self._counts = np.unique((items[:-1] * self.n_items + items[1:])[same], return_counts=True)

    def events(self, target: np.ndarray) -> np.ndarray:
        """(R,) how many training events the target's item has."""
        return self._events[self.item[target]]

    def follows(self, target: np.ndarray) -> np.ndarray:
        """(R,) how often the target's item directly followed the last item before it, with any user."""
        last, item = (self.item[place].astype(np.int64) for place in (target - 1, target))
        wanted = last * self.n_items + item
        if not len(self._pairs):
            return np.zeros(len(wanted), np.int64)
        place = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        return np.where(self._pairs[place] == wanted, self._counts[place], 0)
