"""The noise experiment: random items put into the test histories, and what attention, ranking and lists make of it.

A history of n visible events gets k = round(n s / (1 - s)) injected ones, so that they are a share s of what the model
reads. The window does not grow: where n + k exceeds ``max_length``, k = round(s max_length) and the oldest real events
drop out. What that costs is no effect of noise, so every history is measured twice: with its injected events, and
as the same real events alone. The last event stays real and last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.data.batches import Windows
from harness.data.log import EventLog
from harness.errors import InputError
from harness.interface import AttentionMaps, Batch, Recommender
from harness.tasks.attention import SMALLEST, last_row, per_event, shows_attention, users_at_once
from harness.tasks.ranking_metrics import per_user
from harness.tasks.retrieval import LIST_LENGTH, PROTOCOLS, Retrieval, rank_by_list, rank_by_scores

__all__ = ["TOP", "Noise", "noise_statistics"]

TOP = 10
"""Length of the lists that are compared."""


@dataclass(frozen=True)
class Noise:
    """Random items for R histories, drawn for all of them at once: the same for every model and every batch.

    More injected events take the same items and more, and the same order of places, so that shares are paired too.
    """

    windows: Windows
    items: np.ndarray
    """(R, max_length) item ids without an event of the user, independent and uniform."""
    order: np.ndarray
    """(R, max_length) float32: of the places of a history, those with the smallest numbers are injected."""

    @classmethod
    def draw(cls, data: Retrieval, seed: int, phase: str = "test") -> Noise:
        """Raises InputError if a user has every item of the catalogue."""
        windows = data.windows(phase)
        generator = np.random.default_rng(seed)
        shape = (len(windows), data.max_length)
        return cls(windows, _foreign_items(data.log, windows.user, shape, generator), generator.random(shape, "f4"))

    def histories(self, data: Retrieval, share: float) -> NoisyHistories:
        """The histories with a ``share`` of injected events."""
        real, longest = self.windows.length, data.max_length
        added = np.floor(real * share / (1 - share) + 0.5).astype(np.int64)
        most = min(int(share * longest + 0.5), longest - 1)
        added = np.where(real + added > longest, most, added)
        kept = np.minimum(real, longest - added)
        return NoisyHistories(data, self, kept, added)


@dataclass(frozen=True)
class NoisyHistories:
    """R histories of ``kept`` real and ``added`` injected events each, (R,) both."""

    data: Retrieval
    noise: Noise
    kept: np.ndarray
    added: np.ndarray

    @property
    def windows(self) -> Windows:
        """The real events that are left."""
        whole = self.noise.windows
        return Windows(whole.user, whole.end - self.kept, whole.end, whole.supervised)

    @property
    def _spans(self) -> Windows:
        """Windows as long as the noisy histories; only their lengths mean anything."""
        whole = self.noise.windows
        return Windows(whole.user, whole.end - self.kept - self.added, whole.end, whole.supervised)

    def groups(self, size: int) -> list[np.ndarray]:
        """Row numbers in batches of similar length."""
        return self.data.sequences.groups(self._spans, size)

    def batches(self, groups: list[np.ndarray]) -> Iterable[tuple[Batch, Batch, np.ndarray]]:
        """Each group's histories with injected events, the same real events alone, and the rows."""
        sequences, task = self.data.sequences, self.data.task
        real = sequences.batches(self.windows, groups, task, supervise=False)
        spans = sequences.batches(self._padded(), groups, task, supervise=False)
        for (alone, rows), (span, _) in zip(real, spans, strict=True):
            yield self._injected(rows, span.items.shape[1]), alone, rows

    def _injected(self, rows: np.ndarray, width: int) -> Batch:
        """An injected event has another item, and the time and the actions of the real event before it (behind it
        at the start of the history)."""
        kept, added = self.kept[rows, None], self.added[rows, None]
        slot = np.arange(width)
        inside, movable = slot < kept + added, slot < kept + added - 1
        order = np.where(movable, np.pad(self.noise.order[rows], ((0, 0), (0, max(0, width - 1))))[:, :width], np.inf)
        replaced = order.argsort(1, kind="stable").argsort(1) < added  # (B, L)
        event = self.windows.start[rows, None] + ((~replaced).cumsum(1) - 1).clip(0, kept - 1)  # (B, L)
        drawn = np.take_along_axis(self.noise.items[rows], (replaced.cumsum(1) - 1).clip(0), axis=1)
        return self.data.sequences.injected(
            event, inside, replaced, drawn, self.noise.windows.user[rows], (kept + added)[:, 0]
        )
