"""How a log is cut into training, validation and test part. A file per own splitter: docs/guides/splitter.md."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np

from harness.data.config import DataConfig
from harness.data.log import EventLog
from harness.errors import InputError
from harness.registry import REGISTRIES
from harness.settings import Settings, parse

__all__ = ["Bounds", "Given", "LeaveOneOut", "Splitter", "Temporal", "WithinUser", "find_splitter"]

Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]
"""``train_end``, ``valid_end`` and ``test_end`` of each user, (U,) int64 each: indices into the log's flat arrays."""

LEAVE_ONE_OUT_MINIMUM = 3
"""One event to train on, one to validate, one to test."""


class Splitter(ABC):
    """Draws three boundaries through each user's events, which lie in the order of time."""

    meaning: ClassVar[str]
    """One line for ``harness list splitters``."""
    Options: ClassVar[type[Settings]] = Settings
    """What a study can set under ``data.split_options``."""

    @abstractmethod
    def bounds(self, log: EventLog, config: DataConfig) -> Bounds:
        """The boundaries. User u's events are ``log.offsets[u]:log.offsets[u + 1]``; those before ``train_end[u]`` are
        trained on, those before ``valid_end[u]`` validate, those before ``test_end[u]`` test, the others are unused.

        Raises:
            InputError: the log can't be split in this way.
        """

    def options(self, config: DataConfig) -> Any:
        """``data.split_options`` as this splitter's ``Options``."""
        return parse(self.Options, config.split_options, "data.split_options")


def find_splitter(name: str) -> Splitter:
    """The splitter that is registered as ``name``.

    Raises:
        InputError: there is none, or it is not a splitter.
    """
    splitters = REGISTRIES["splitters"]
    kind = splitters.load(name)
    if not (isinstance(kind, type) and issubclass(kind, Splitter)):
        place = splitters.names()[name]
        raise InputError(f"split '{name}' ({place}) is not a subclass of harness.data.splitters.Splitter")
    return kind()


class LeaveOneOut(Splitter):
    meaning = "each user's last event is the test target, the one before it the validation target"

    def bounds(self, log: EventLog, config: DataConfig) -> Bounds:
        start, end = log.offsets[:-1], log.offsets[1:]
        short = end - start < LEAVE_ONE_OUT_MINIMUM
        train_end, valid_end, test_end = end - 2, end - 1, end
        if short.any():
            if config.short_users == "error":
                first = int(np.argmax(short))
                raise InputError(
                    f"{log.name}: {short.sum()} users have fewer than {LEAVE_ONE_OUT_MINIMUM} events, which "
                    f"leave-one-out needs (user '{log.users[first]}' has {end[first] - start[first]}); set "
                    f"data.short_users to 'train' or 'drop', or data.min_user_events to {LEAVE_ONE_OUT_MINIMUM}"
                )
            whole = end if config.short_users == "train" else start
            train_end, valid_end, test_end = (
                np.where(short, whole, bound) for bound in (train_end, valid_end, test_end)
            )
        return train_end, valid_end, test_end


class Temporal(Splitter):
    meaning = "two moments, the same for all users, between which and after which given shares of all events lie"

    def bounds(self, log: EventLog, config: DataConfig) -> Bounds:
        start = log.offsets[:-1]
        if log.time is None:
            raise InputError(f"{log.name}: the temporal split needs times, which this data set lacks; use another one")
        ordered = np.sort(log.time)
        ends = []
        for after in (config.valid_fraction + config.test_fraction, config.test_fraction):
            moment = ordered[_share(len(ordered), 1 - after)]
            ends.append(start + np.add.reduceat((log.time < moment).astype(np.int64), start))
        return ends[0], ends[1], log.offsets[1:].copy()


class WithinUser(Splitter):
    meaning = "the first events of each user train, at least one; short users may have no validation or test part"

    def bounds(self, log: EventLog, config: DataConfig) -> Bounds:
        start, end = log.offsets[:-1], log.offsets[1:]
        length = end - start
        train = np.maximum(_share(length, 1 - config.valid_fraction - config.test_fraction), 1)
        valid = np.maximum(_share(length, 1 - config.test_fraction), train)
        return start + train, start + valid, end.copy()


class Given(Splitter):
    meaning = "the parts of the source's own files, which must lie one after the other in time"

    def bounds(self, log: EventLog, config: DataConfig) -> Bounds:
        start = log.offsets[:-1]
        user = np.repeat(np.arange(log.n_users), log.lengths)
        part, time = log.part, log.time
        assert part is not None, "a log without parts is refused when it is built"
        early = np.flatnonzero((part[1:] < part[:-1]) & (user[1:] == user[:-1]))
        if len(early):
            names = ("training", "validation", "test")
            event = early[0]
            assert time is not None, "without times the parts follow one another"
            moments = [datetime.fromtimestamp(int(time[e]), UTC).isoformat() for e in (event, event + 1)]
            raise InputError(
                f"{log.name}: the data set's own split is not in order: user '{log.users[user[event]]}' has a "
                f"{names[part[event]]} event at {moments[0]} before a {names[part[event + 1]]} event at "
                f"{moments[1]} ({len(early)} such places); choose another data.split, such as leave-one-out"
            )
        ends = [start + np.add.reduceat((part <= last).astype(np.int64), start) for last in (0, 1)]
        return ends[0], ends[1], log.offsets[1:].copy()


def _share(count: int | np.ndarray, share: float) -> np.ndarray:
    """``floor(count * share)``, unharmed by fractions such as 1 - 0.1 - 0.1 that are a hair off."""
    return np.floor(np.asarray(count) * share + 1e-9).astype(np.int64)
