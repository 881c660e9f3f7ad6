"""Training, validation and test parts of a log, as three boundaries per user.

How they are drawn is a splitter's matter: :mod:`harness.data.splitters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from harness.data.config import DataConfig
from harness.data.log import EventLog, fingerprint
from harness.data.splitters import find_splitter
from harness.errors import InputError

__all__ = ["Evaluated", "Phase", "Split", "Targets", "make_split"]

Phase = Literal["train", "valid", "test"]
Evaluated = Literal["valid", "test"]
Targets = Literal["last", "first", "all"]


@dataclass(frozen=True, eq=False)
class Split:
    """User u's events ``offsets[u]:train_end[u]`` are trained on, those before ``valid_end[u]`` validate, those
    before ``test_end[u]`` test; all are absolute indices into the log's flat arrays, (U,) int64."""

    name: str
    offsets: np.ndarray
    """(U + 1,) int64, the log's."""
    train_end: np.ndarray
    valid_end: np.ndarray
    test_end: np.ndarray
    fingerprint: str
    ranked: Targets = "last"
    """Which events of a part are targets of retrieval."""
    notes: tuple[str, ...] = ()
    """What a reader of results on this split must know, one sentence each."""

    def bounds(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """First event, and one past the last, of each user's part; both (U,) int64."""
        return {
            "train": (self.offsets[:-1], self.train_end),
            "valid": (self.train_end, self.valid_end),
            "test": (self.valid_end, self.test_end),
        }[phase]

    def targets(self, phase: Evaluated) -> tuple[np.ndarray, np.ndarray]:
        """(T,) users and (T,) positions of the events to be recommended, ascending: of each user's part the last one,
        the first one or all, as ``ranked`` says. An event with none before it is not a target.
        """
        if self.ranked == "all":
            users, events = self.events(phase)
        else:
            start, end = self.bounds(phase)
            users = np.flatnonzero(end > start)
            events = end[users] - 1 if self.ranked == "last" else start[users]
        after = events > self.offsets[users]
        return users[after], events[after]

    def events(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """(E,) users and (E,) positions of all events of a part, in the log's order."""
        return self._events(phase, 0, len(self.offsets) - 1)

    def pieces(self, phase: Phase, size: int = 1 << 20) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What :meth:`events` gives, in pieces of whole users and about ``size`` events: for what need not have all of
        them in memory at once."""
        start, end = self.bounds(phase)
        before = np.cumsum(end - start) - (end - start)
        cuts = np.searchsorted(before, np.arange(0, before.max(initial=-1) + 1, size))
        for first, last in pairwise([*np.unique(cuts).tolist(), len(start)]):
            yield self._events(phase, first, last)

    def _events(self, phase: Phase, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of the users from ``first`` to before ``last``."""
        start, end = (bound[first:last] for bound in self.bounds(phase))
        count = end - start
        users = np.repeat(np.arange(first, last), count)
        before = np.repeat(np.cumsum(count) - count, count)
        return users, np.repeat(start, count) + np.arange(len(users)) - before


def make_split(log: EventLog, config: DataConfig) -> Split:
    """The split that ``config.split`` names.

    Raises:
        InputError: users with fewer than three events under leave-one-out (unless ``short_users`` says what
            to do), a temporal split of a log without times, a part without any event.
    """
    splitter = find_splitter(config.split)
    splitter.options(config)  # refuses what it does not know, also where it reads none
    bounds = splitter.bounds(log, config)
    _check(log, config, bounds)
    train_end, valid_end, test_end = bounds
    for phase, first, last in (("training", log.offsets[:-1], train_end), ("test", valid_end, test_end)):
        if not (last > first).any():
            raise InputError(
                f"{log.name}: the {config.split} split leaves no {phase} event; use more data or another data.split"
            )
    name = config.split
    ranked: Targets = config.targets
    # Named only where it is set: the splits of other studies keep their fingerprints.
    parts = ["split 1", name, log.fingerprint, *bounds, *([ranked] if ranked != "last" else [])]
    split = Split(name, log.offsets, *bounds, fingerprint(*parts), ranked=ranked)
    return replace(split, notes=_notes(log, split))


def _check(log: EventLog, config: DataConfig, bounds: tuple[np.ndarray, ...]) -> None:
    """Whether a splitter's boundaries are three per user, and follow each other within the user's events."""
    start, end = log.offsets[:-1], log.offsets[1:]
    shaped = len(bounds) == 3 and all(np.shape(bound) == start.shape for bound in bounds)
    places = (start, *bounds, end)
    if not (shaped and all((low <= high).all() for low, high in pairwise(places))):
        raise InputError(
            f"{log.name}: the splitter '{config.split}' must give three boundaries per user with start <= train_end <= "
            "valid_end <= test_end <= end; fix the splitter"
        )


def _notes(log: EventLog, split: Split) -> tuple[str, ...]:
    notes = []
    if log.part is not None and split.name != "given":
        given = [np.add.reduceat((log.part <= part).astype(np.int64), log.offsets[:-1]) for part in (0, 1)]
        same = np.array_equal(split.train_end - log.offsets[:-1], given[0]) and np.array_equal(
            split.valid_end - log.offsets[:-1], given[1]
        )
        notes.append(
            f"the {split.name} split is that of the data set's own files"
            if same
            else f"the data set's own files of training, validation and test events were joined and split anew "
            f"({split.name}); set data.split to 'given' to keep their split"
        )
    users, _ = split.events("test")
    targets = len(split.targets("test")[0])
    if len(users) > targets:
        which = {"last": "the last alone is", "first": "the first alone is", "all": "all with one before them are"}
        notes.append(
            f"of a user's test events {which[split.ranked]} ranked: {targets} of {len(users)} test events are targets"
        )
    return tuple(notes)
