"""What the trainer and the study ask of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.data.batches import Sequences, Windows, training_windows
from harness.data.log import EventLog
from harness.data.splits import Evaluated, Split
from harness.interface import Batch, Recommender, Schema, Task

__all__ = ["Predictions", "TaskData"]


@dataclass(frozen=True)
class Predictions:
    """What a model predicted in one phase."""

    rows: pa.Table
    """The evidence, from which every number is derived: one row per user, or per event and action."""
    lists: pa.Table | None = None
    """Each user's best items (:mod:`harness.tasks.lists`), where they were asked for and the task has them."""


class TaskData(ABC):
    """One data set under one split, seen through one task."""

    task: Task

    def __init__(
        self, log: EventLog, split: Split, *, max_length: int, metrics: list[str], device: torch.device | str = "cpu"
    ) -> None:
        self.log = log
        self.split = split
        self.max_length = max_length
        self.metrics = metrics
        self.device = torch.device(device)
        self.sequences = Sequences(log, device)

    def schema(self, codes: np.ndarray | None = None, code_sizes: tuple[int, ...] = ()) -> Schema:
        """What a model for this data is built from; all it says of events comes from the training part alone."""
        counts = np.zeros(len(self.log.items), np.int64)
        actions = None if self.log.actions is None else np.zeros(self.log.actions.shape[1], np.int64)
        for _, events in self.split.pieces("train"):
            counts += np.bincount(self.log.item[events], minlength=len(counts))
            if actions is not None and self.log.actions is not None:
                actions += self.log.actions[events].sum(0, dtype=np.int64)
        return Schema(
            n_items=len(self.log.items) - 1,
            n_users=len(self.log.users),
            max_length=self.max_length,
            actions=tuple(self.log.action_names),
            codes=None if codes is None else torch.from_numpy(codes).to(self.device),
            code_sizes=tuple(code_sizes),
            item_counts=torch.from_numpy(counts).to(self.device),
            action_counts=None if actions is None else torch.from_numpy(actions).to(self.device),
            train_events=self._train_events,
        )

    def _train_events(self) -> tuple[Tensor, Tensor]:
        users, events = self.split.events("train")
        items = self.log.item[events].astype(np.int64)
        return torch.from_numpy(items).to(self.device), torch.from_numpy(users).to(self.device)

    def training_epoch(
        self,
        *,
        rows: Literal["positions", "prefixes"],
        batch_size: int,
        rng: np.random.Generator,
        stride: int | None = None,
        share: float | None = None,
        seed: int = 0,
        epoch: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> tuple[int, Iterator[Batch]]:
        """How many batches one epoch has, and the batches, cut and shuffled by ``rng``; of prefixes the ``share`` that
        ``epoch`` (from 1) of the training with ``seed`` gets. ``part``: rank and number of the processes that share
        each batch; the batches are those of this rank."""
        windows = training_windows(
            self.log,
            self.split,
            self.task,
            rows=rows,
            max_length=self.max_length,
            stride=stride,
            share=share,
            seed=seed,
            epoch=epoch,
            rng=rng,
        )
        groups = self.sequences.groups(windows, batch_size, rng)
        if part[1] > 1:
            return len(groups), self._parts(windows, groups, *part)
        made = self.sequences.batches(windows, groups, self.task, supervise=True)
        return len(groups), (batch for batch, _ in made)

    def _parts(self, windows: Windows, groups: list[np.ndarray], rank: int, size: int) -> Iterator[Batch]:
        """Every ``size``-th window of each group. Where a group has none for this rank it gets one that counts nothing,
        for all processes take the same steps."""
        own = [group[rank::size] if rank < len(group) else group[:1] for group in groups]
        targets = windows.end - windows.supervised
        made = self.sequences.batches(windows, own, self.task, supervise=True)
        for (batch, rows), group in zip(made, groups, strict=True):
            batch.share = float(targets[rows].sum() / targets[group].sum()) if rank < len(group) else 0.0
            yield batch

    @abstractmethod
    def histories(self, phase: Evaluated) -> Windows:
        """One window of at most ``max_length`` events for each user with something to predict in ``phase``: the events
        before the next item (retrieval), or up to the last event whose action is predicted (action prediction)."""

    @abstractmethod
    def predict(self, model: Recommender, phase: Evaluated, *, lists: bool = False) -> Predictions:
        """What ``model`` predicts in ``phase`` ("valid" or "test")."""

    def evaluate(self, model: Recommender, phase: Evaluated) -> pa.Table:
        """The rows of ``phase``."""
        return self.predict(model, phase).rows

    @abstractmethod
    def summarise(self, rows: pa.Table) -> dict[str, dict[str, float | None]]:
        """Metrics of the rows of one phase, by protocol or action, then by metric: those that need nothing else."""

    @abstractmethod
    def value(self, summary: dict[str, dict[str, Any]], primary: str) -> float:
        """The one number of a summary that early stopping looks at."""

    @abstractmethod
    def tracked(self, summary: dict[str, dict[str, Any]]) -> dict[str, float | None]:
        """The metrics of a summary that the history follows from epoch to epoch."""
