"""Action prediction: given the item of an event, predict its actions; one row per event and action."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from harness.data.batches import Windows, all_positions
from harness.data.splits import Evaluated
from harness.errors import CellFailed, InputError, nearest
from harness.interface import Recommender, Task
from harness.metrics import action as action_metrics
from harness.tasks.base import Predictions, TaskData

__all__ = ["ActionPrediction"]

LOGIT_BYTES = 64 * 2**20
"""Bound on the memory that one chunk's inputs and logits take; a model's own work is the model's."""


class ActionPrediction(TaskData):
    """A data set as action prediction: the actions of each event, given its item and the events before it."""

    task = Task.ACTION

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.log.action_names:
            raise InputError(
                f"data set '{self.log.name}' has no actions; declare them under data.actions, "
                "as in {like: 'rating >= 4'}, or choose another data set"
            )

    def windows(self, phase: Evaluated) -> Windows:
        """Each event of ``phase`` once, with at least half of ``max_length`` of what came before it."""
        first, last = self.split.bounds(phase)
        stride = max(1, self.max_length // 2)
        begin = self.log.offsets[:-1]
        return all_positions(begin, first, last, max_length=self.max_length, stride=stride, rng=None)

    def histories(self, phase: Evaluated) -> Windows:
        first, last = self.split.bounds(phase)
        users = np.flatnonzero(last > first)
        last = last[users]
        return Windows(users, np.maximum(self.log.offsets[users], last - self.max_length), last, last - 1)

    @torch.inference_mode()
    def predict(self, model: Recommender, phase: Evaluated, *, lists: bool = False) -> Predictions:
        windows = self.windows(phase)
        names = self.log.action_names
        training = model.training
        model.eval()
        chunk = int(np.clip(LOGIT_BYTES // (8 * self.max_length * (len(names) + 4)), 1, 1024))
        probability = np.full((len(self.log.item), len(names)), np.nan, dtype=np.float32)
        groups = self.sequences.groups(windows, chunk)
        for batch, rows in self.sequences.batches(windows, groups, self.task, supervise=True):
            logits = batch.supervised(model.predict_actions(batch))  # (V, A)
            flat, width = batch.positions().cpu().numpy(), batch.items.shape[1]
            event = windows.start[rows][flat // width] + flat % width
            probability[event] = logits.float().sigmoid().cpu().numpy()
        model.train(training)
        users, events = self.split.events(phase)
        predicted = probability[events]
        if not np.isfinite(predicted).all():
            raise CellFailed("the model's probabilities are not finite; lower training.learning_rate")
        assert self.log.actions is not None, "see the constructor"
        per_event = len(names)
        item = self.log.item[events]
        rows = pa.table(
            {
                "phase": pa.array([phase] * (len(events) * per_event), pa.string()),
                "user": pa.array(np.repeat(self.log.users[users], per_event).tolist(), pa.string()),
                "item": pa.array(np.repeat(self.log.items[item], per_event).tolist(), pa.string()),
                "position": pa.array(np.repeat(events - self.log.offsets[users], per_event), pa.int32()),
                "action": pa.array(list(names) * len(events), pa.string()),
                "label": pa.array(self.log.actions[events].reshape(-1), pa.int8()),
                "probability": pa.array(predicted.reshape(-1), pa.float32()),
            }
        )
        return Predictions(rows)

    def summarise(self, rows: pa.Table) -> dict[str, dict[str, float | None]]:
        own = dict.fromkeys([*action_metrics.FAMILIES, *(name.partition("/")[0] for name in self.metrics)])
        return action_metrics.summarise(action_metrics.labels_of(rows), tuple(own))

    def value(self, summary: dict[str, dict[str, Any]], primary: str) -> float:
        found = self._find(summary, primary)
        if found is None:
            reason = "an action never or always occurs there; choose 'bce', or other actions"
            if summary["mean"].get("bce") is None:
                reason = "there are no events in it; the users' histories are too short for this split"
            raise CellFailed(f"'{primary}' is undefined on the validation part of '{self.log.name}': {reason}")
        return found

    def tracked(self, summary: dict[str, dict[str, Any]]) -> dict[str, float | None]:
        return {name: self._find(summary, name) for name in self.metrics}

    def _find(self, summary: dict[str, dict[str, Any]], name: str) -> float | None:
        metric, _, action = name.partition("/")
        if (action or "mean") not in summary:
            raise InputError(f"metric '{name}': there is no such action; {nearest(action, self.log.action_names)}")
        return summary[action or "mean"][metric]
