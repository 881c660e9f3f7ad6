"""Where the training of cells can be followed: the interface that every tracker has.

A tracker is told what a cell is, each of its epochs, and its test metrics. It decides nothing: what fails in it becomes
one warning, and training goes on. `docs/guides/tracker.md` shows how to write one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import InputError
from harness.registry import REGISTRIES
from harness.settings import Settings

__all__ = ["TrackedCell", "Tracker", "find_tracker"]


@dataclass(frozen=True)
class TrackedCell:
    """What a tracker is told of the cell whose training begins, or goes on after an interruption."""

    id: str
    """The same after an interruption, and different for each cell."""
    run: Path
    """The run's folder; its name is the run's."""
    dataset: str
    variant: str
    seed: int
    settings: Mapping[str, Any]
    """All that decides the result, in one level: ``model``, ``config.dim``, ``training.learning_rate``, ..."""

    @property
    def name(self) -> str:
        return f"{self.dataset} / {self.variant} / seed {self.seed}"


class Tracker(ABC):
    """Follows the training of one cell.

    Whatever its methods raise becomes one warning, and the cell is tracked no further. What they draw at random does
    not reach the training. ``options`` are the tracker's :attr:`Options`, as the study sets them under ``trackers``.
    """

    Options: ClassVar[type[Settings]] = Settings
    meaning: ClassVar[str]
    """One line for ``harness list trackers``."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def begin(self, cell: TrackedCell) -> None:
        """Training begins, or goes on from a checkpoint."""

    @abstractmethod
    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """What the history holds of an epoch (from 1): losses, validation metrics, gradients, seconds."""

    @abstractmethod
    def end(self, metrics: Mapping[str, float] | None) -> None:
        """The test metrics of the finished cell, as in ``unseen/ndcg@10``; None where it was interrupted or failed."""


def find_tracker(name: str) -> type[Tracker]:
    """The class that is registered as ``name``. Imports nothing that the tracker itself needs.

    Raises:
        InputError: there is none, or it is not a tracker.
    """
    kind = REGISTRIES["trackers"].load(name)
    if not (isinstance(kind, type) and issubclass(kind, Tracker)):
        place = REGISTRIES["trackers"].names()[name]
        raise InputError(f"tracker '{name}' ({place}) is not a subclass of harness.trackers.Tracker")
    return kind
