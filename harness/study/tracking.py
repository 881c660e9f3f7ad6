"""Tells the trackers of a study what becomes of a cell; whatever they do, the training is the same."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from harness.settings import Settings
from harness.study.cells import MEASURED, Cell
from harness.trackers import TrackedCell, Tracker, find_tracker

__all__ = ["Tracking"]


class Tracking:
    """The trackers of one cell, as a context: leaving it without :meth:`end` tells them that the cell is not finished.

    Args:
        wanted: tracker -> its options.
        run: the run's folder.
        on_epoch: hears each row of the history too, behind the trackers.
    """

    def __init__(
        self,
        wanted: Mapping[str, Settings],
        cell: Cell,
        run: Path,
        on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        self.failures: dict[str, str] = {}
        """Tracker -> why it was given up."""
        self._wanted, self._on_epoch = wanted, on_epoch
        self._open: dict[str, Tracker] = {}
        about = {k: value for k, value in cell.identity.items() if k not in ("format", "fingerprints", *MEASURED)}
        self._cell = TrackedCell(cell.id, run, cell.dataset, cell.arm.variant, cell.seed, dict(_flat(about)))

    def __enter__(self) -> Self:
        for name, options in self._wanted.items():
            self._guarded(name, partial(self._begin, name, options))
        return self

    def __exit__(self, *error: object) -> None:
        self._tell(lambda tracker: tracker.end(None))
        self._open.clear()

    def epoch(self, row: dict[str, Any]) -> None:
        """Passes a row of the history on."""
        values = {name: float(value) for name, value in row.items() if name != "epoch" and value is not None}
        self._tell(lambda tracker: tracker.epoch(int(row["epoch"]), values))
        self._on_epoch(row)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Passes the summary of the test part on: protocol or action -> metric -> value."""
        metrics = {name: float(value) for name, value in _flat(summary, "/") if value is not None}
        self._tell(lambda tracker: tracker.end(metrics))
        self._open.clear()

    def _begin(self, name: str, options: Settings) -> None:
        tracker = find_tracker(name)(options)
        tracker.begin(self._cell)
        self._open[name] = tracker

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(call, tracker))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        try:
            with _undisturbed():
                call()
        except Exception as error:  # whatever a tracker raises, the training is worth more
            remedy = "; install what it needs, see docs/guides/tracker.md" if isinstance(error, ImportError) else ""
            self.failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{remedy}"
            self._open.pop(name, None)
            print(f"warning: tracker '{name}' is given up: {self.failures[name]}", file=sys.stderr, flush=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Puts every global random state back."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _flat(values: Mapping[str, Any], sign: str = ".") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, each with its path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}{sign}{path}", leaf) for path, leaf in _flat(value, sign))
        else:
            yield key, value
