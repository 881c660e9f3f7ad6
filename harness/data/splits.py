"""Training, validation and test parts of a log, as three boundaries per user."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from harness.data.config import DataConfig
from harness.data.log import EventLog, fingerprint
from harness.errors import InputError

__all__ = ["Phase", "Split", "make_split"]

Phase = Literal["train", "valid", "test"]

LEAVE_ONE_OUT_MINIMUM = 3
"""One event to train on, one to validate, one to test."""


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
    notes: tuple[str, ...] = ()
    """What a reader of results on this split must know, one sentence each."""

    def bounds(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """First event, and one past the last, of each user's part; both (U,) int64."""
        return {
            "train": (self.offsets[:-1], self.train_end),
            "valid": (self.train_end, self.valid_end),
            "test": (self.valid_end, self.test_end),
        }[phase]

    def targets(self, phase: Literal["valid", "test"]) -> tuple[np.ndarray, np.ndarray]:
        """(T,) users and (T,) positions: the last event of each user's part, the one to be recommended.

        A user without an event in that part, or without any event before it, has no target.
        """
        start, end = self.bounds(phase)
        users = np.flatnonzero((end > start) & (end - 1 > self.offsets[:-1]))
        return users, end[users] - 1

    def events(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """(E,) users and (E,) positions of all events of a part, in the log's order."""
        start, end = self.bounds(phase)
        count = end - start
        users = np.repeat(np.arange(len(start)), count)
        before = np.repeat(np.cumsum(count) - count, count)
        return users, np.repeat(start, count) + np.arange(len(users)) - before


def make_split(log: EventLog, config: DataConfig) -> Split:
    """The split that ``config.split`` names.

    Raises:
        InputError: users with fewer than three events under leave-one-out (unless ``short_users`` says what
            to do), a temporal split of a log without times, a part without any event.
    """
    start, end = log.offsets[:-1], log.offsets[1:]
    if config.split == "leave-one-out":
        bounds = _leave_one_out(log, start, end, config)
    elif config.split == "given":
        bounds = _given(log, start)
    elif config.split == "temporal":
        bounds = _temporal(log, start, config)
    else:
        bounds = _within_user(start, end, config)
    train_end, valid_end, test_end = bounds
    for phase, first, last in (("training", start, train_end), ("test", valid_end, test_end)):
        if not (last > first).any():
            raise InputError(
                f"{log.name}: the {config.split} split leaves no {phase} event; use more data or another data.split"
            )
    name = config.split
    split = Split(name, log.offsets, *bounds, fingerprint("split 1", name, log.fingerprint, *bounds))
    return replace(split, notes=_notes(log, split))


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
        notes.append(
            f"of a user's test events the last alone is ranked: {targets} of {len(users)} test events are targets"
        )
    return tuple(notes)


def _given(log: EventLog, start: np.ndarray) -> tuple[np.ndarray, ...]:
    """The parts of the source's own files, which must lie one after the other in time."""
    user = np.repeat(np.arange(log.n_users), log.lengths)
    early = np.flatnonzero((log.part[1:] < log.part[:-1]) & (user[1:] == user[:-1]))
    if len(early):
        names = ("training", "validation", "test")
        event = early[0]
        moments = [datetime.fromtimestamp(int(log.time[e]), UTC).isoformat() for e in (event, event + 1)]
        raise InputError(
            f"{log.name}: the data set's own split is not in order: user '{log.users[user[event]]}' has a "
            f"{names[log.part[event]]} event at {moments[0]} before a {names[log.part[event + 1]]} event at "
            f"{moments[1]} ({len(early)} such places); choose another data.split, such as leave-one-out"
        )
    ends = [start + np.add.reduceat((log.part <= part).astype(np.int64), start) for part in (0, 1)]
    return ends[0], ends[1], log.offsets[1:].copy()


def _leave_one_out(log: EventLog, start: np.ndarray, end: np.ndarray, config: DataConfig) -> tuple[np.ndarray, ...]:
    short = end - start < LEAVE_ONE_OUT_MINIMUM
    train_end, valid_end, test_end = end - 2, end - 1, end
    if short.any():
        if config.short_users == "error":
            first = int(np.argmax(short))
            raise InputError(
                f"{log.name}: {short.sum()} users have fewer than {LEAVE_ONE_OUT_MINIMUM} events, which leave-one-out "
                f"needs (user '{log.users[first]}' has {end[first] - start[first]}); set data.short_users to 'train' "
                f"or 'drop', or data.min_user_events to {LEAVE_ONE_OUT_MINIMUM}"
            )
        whole = end if config.short_users == "train" else start
        train_end, valid_end, test_end = (np.where(short, whole, bound) for bound in (train_end, valid_end, test_end))
    return train_end, valid_end, test_end


def _temporal(log: EventLog, start: np.ndarray, config: DataConfig) -> tuple[np.ndarray, ...]:
    """Two moments between which ``valid_fraction`` of all events lie, after which ``test_fraction`` of them."""
    if log.time is None:
        raise InputError(f"{log.name}: the temporal split needs times, which this data set lacks; use another one")
    ordered = np.sort(log.time)
    ends = []
    for after in (config.valid_fraction + config.test_fraction, config.test_fraction):
        moment = ordered[_share(len(ordered), 1 - after)]
        ends.append(start + np.add.reduceat((log.time < moment).astype(np.int64), start))
    return ends[0], ends[1], log.offsets[1:].copy()


def _within_user(start: np.ndarray, end: np.ndarray, config: DataConfig) -> tuple[np.ndarray, ...]:
    """The first events of each user train, at least one; short users may have no validation or test part."""
    length = end - start
    train = np.maximum(_share(length, 1 - config.valid_fraction - config.test_fraction), 1)
    valid = np.maximum(_share(length, 1 - config.test_fraction), train)
    return start + train, start + valid, end.copy()


def _share(count, share: float):
    """``floor(count * share)``, unharmed by fractions such as 1 - 0.1 - 0.1 that are a hair off."""
    return math.floor(count * share + 1e-9) if np.isscalar(count) else np.floor(count * share + 1e-9).astype(np.int64)
