"""Windows over the flat event arrays, and padded batches of them. No Python per user anywhere.

A window is a run of one user's consecutive events that a model reads at once. The events from
``supervised`` on are those whose output counts: in training every target counts exactly once an epoch,
however windows overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from harness.data.log import EventLog
from harness.data.splits import Split
from harness.interface import Batch, Task

__all__ = ["Sequences", "Windows", "all_positions", "dealt", "prefixes", "training_windows"]

WIDTH_STEP = 4
"""Batches are padded to a multiple of this many events, so that few shapes occur. With 8,
padding would outweigh the events of short histories."""
POOL = 32
"""Rows are sorted by length within pools of this many batches: little padding, yet a shuffled order."""


@dataclass(frozen=True)
class Windows:
    """R windows as absolute event indices into the log's flat arrays; all fields are (R,) int64."""

    user: np.ndarray
    start: np.ndarray
    end: np.ndarray
    """One past the last event that is read."""
    supervised: np.ndarray
    """The first event whose output counts; from there to ``end`` all do."""

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Windows:
        return Windows(self.user[rows], self.start[rows], self.end[rows], self.supervised[rows])

    @property
    def length(self) -> np.ndarray:
        return self.end - self.start


def all_positions(
    begin: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    *,
    max_length: int,
    stride: int,
    rng: np.random.Generator | None,
) -> Windows:
    """Windows in which each event of ``[first, last)`` is supervised once, per user.

    A user whose events from ``begin`` on fit into ``max_length`` gets one window. Longer ones are cut every
    ``stride`` events, each window reading as far back as ``max_length`` allows; with ``rng`` the first cut
    is drawn anew, so that over the epochs an event is seen with contexts of every length.
    """
    users = np.flatnonzero(last > first)
    begin, first, last = begin[users], first[users], last[users]
    fits = last - begin <= max_length
    offset = np.full(len(users), stride) if rng is None else rng.integers(1, stride + 1, len(users))
    offset = np.where(fits, last - first, np.minimum(offset, last - first))
    count = 1 + -(-(last - first - offset) // stride)
    row = np.repeat(np.arange(len(users)), count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    end = np.minimum(first[row] + offset[row] + nth * stride, last[row])
    supervised = np.where(nth == 0, first[row], first[row] + offset[row] + (nth - 1) * stride)
    return Windows(users[row], np.maximum(begin[row], end - max_length), end, supervised)


def prefixes(
    begin: np.ndarray,
    last: np.ndarray,
    *,
    max_length: int,
    share: float | None = None,
    seed: int = 0,
    epoch: int = 1,
) -> Windows:
    """One window per event of ``[begin, last)``, which is its last and its only supervised one.

    With ``share`` in (0, 1] the windows that :func:`dealt` gives to ``epoch``, whatever user they belong to.
    """
    count = np.maximum(last - begin, 0)
    user = np.repeat(np.arange(len(begin)), count)
    event = np.repeat(begin, count) + np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    if share is not None:
        kept = dealt(len(user), share, seed, epoch)
        user, event = user[kept], event[kept]
    return Windows(user, np.maximum(begin[user], event + 1 - max_length), event + 1, event)


def dealt(n: int, share: float, seed: int, epoch: int) -> np.ndarray:
    """The rows, ascending, that ``epoch`` (from 1) gets of ``n``: a ``share`` in (0, 1] of them, drawn uniformly.

    A shuffled deck is dealt over as many epochs as it lasts, then shuffled anew: with a share of 1/k, each row comes
    once in every k epochs. What is left of a deck that does not divide evenly goes back into the next one.
    """
    epochs = math.floor(1 / share + 1e-9)  # that one deck lasts
    deck, turn = divmod(epoch - 1, epochs)
    bounds = np.rint(np.arange(epochs + 1) * share * n).astype(np.int64)
    order = np.random.default_rng([seed, deck]).permutation(n)
    return np.sort(order[bounds[turn] : bounds[turn + 1]])


def training_windows(
    log: EventLog,
    split: Split,
    task: Task,
    *,
    rows: Literal["positions", "prefixes"],
    max_length: int,
    stride: int | None = None,
    share: float | None = None,
    seed: int = 0,
    epoch: int = 1,
    rng: np.random.Generator,
) -> Windows:
    """The windows of one epoch. Retrieval supervises all training events but the last (which has no
    target within the training part); action prediction supervises each of them. ``share``, ``seed`` and ``epoch``
    are for prefixes (see :func:`prefixes`), ``stride`` and ``rng`` for positions (:func:`all_positions`)."""
    begin = log.offsets[:-1]
    last = split.train_end - 1 if task is Task.RETRIEVAL else split.train_end
    if rows == "prefixes":
        return prefixes(begin, last, max_length=max_length, share=share, seed=seed, epoch=epoch)
    return all_positions(begin, begin, last, max_length=max_length, stride=stride or max_length, rng=rng)


class Sequences:
    """The log's events as tensors on a device, out of which batches are gathered."""

    def __init__(self, log: EventLog, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.items = torch.from_numpy(np.ascontiguousarray(log.item)).to(self.device)
        self.times = None if log.time is None else torch.from_numpy(np.ascontiguousarray(log.time)).to(self.device)
        self.actions = None
        if log.actions is not None:
            self.actions = torch.from_numpy(np.ascontiguousarray(log.actions)).to(self.device)

    def batch(self, windows: Windows, task: Task, *, supervise: bool, width: int | None = None) -> Batch:
        """One batch of B windows, padded to ``width`` (default: their longest). Without ``supervise`` it holds
        the history alone: no target, and ``valid`` is None."""
        width = width or int(windows.length.max())
        places = windows.start[:, None] + np.arange(width)  # (B, L)
        inside = places < windows.end[:, None]
        counts = inside & (places >= windows.supervised[:, None]) if supervise else None
        index = self._to_device(np.where(inside, places, 0))
        mask = self._to_device(inside)
        batch = Batch(
            items=torch.where(mask, self.items[index], 0),
            lengths=self._to_device(windows.length),
            users=self._to_device(windows.user),
        )
        if self.times is not None:
            batch.times = torch.where(mask, self.times[index], 0)
        if self.actions is not None:
            batch.actions = torch.where(mask[:, :, None], self.actions[index], 0).float()  # (B, L, A)
        if counts is not None:
            batch.valid = self._to_device(np.flatnonzero(counts))
            if task is Task.RETRIEVAL:
                following = (index + 1).clamp(max=len(self.items) - 1)
                batch.targets = torch.where(self._to_device(counts), self.items[following], 0)
        return batch

    def groups(self, windows: Windows, batch_size: int, rng: np.random.Generator | None = None) -> list[np.ndarray]:
        """Row numbers of ``windows``, cut into batches of similar length: sorted by length, or with ``rng``
        in a shuffled order."""
        steps = -(-windows.length // WIDTH_STEP)
        if rng is None:
            order = np.argsort(steps, kind="stable")
        else:
            order = rng.permutation(len(windows))
            pool = np.arange(len(order)) // (POOL * batch_size)
            order = order[np.lexsort((steps[order], pool))]
        groups = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        return groups if rng is None else [groups[i] for i in rng.permutation(len(groups))]

    def batches(
        self, windows: Windows, groups: list[np.ndarray], task: Task, *, supervise: bool
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """The batch of each group of rows, with the rows."""
        longest = int(windows.length.max(initial=0))
        for rows in groups:
            chosen = windows.take(rows)
            width = min(-(-int(chosen.length.max()) // WIDTH_STEP) * WIDTH_STEP, longest)
            yield self.batch(chosen, task, supervise=supervise, width=width), rows

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)
