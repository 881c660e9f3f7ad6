"""Metrics of a ranking with one relevant item per user, from the rank of that item. Imports no torch.

With one target, Recall@K is the hit rate, average precision is the reciprocal rank, and the ideal DCG is 1. A target
that was not ranked (NaN) scores 0.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from harness.metrics.base import Cutoff, Evidence, Metric, find

__all__ = ["MAP", "MRR", "NDCG", "Precision", "RankMetric", "Recall", "per_user", "tie_places"]


class RankMetric(Metric):
    """A gain that depends on the target's rank alone, 0 behind the first ``k`` places."""

    task = "retrieval"
    needs = frozenset({"rank"})
    cutoff: ClassVar[Cutoff] = "required"

    @abstractmethod
    def gain(self, rank: np.ndarray) -> np.ndarray:
        """(U,) gains for (U,) ranks within the cutoff."""

    def per_user(self, evidence: Evidence) -> np.ndarray:
        return self.of(evidence.ranks)

    def of(self, rank: np.ndarray) -> np.ndarray:
        """(U,) values for (U,) ranks: 1-based floats, NaN where the target was not ranked."""
        rank = np.asarray(rank, dtype=float)
        with np.errstate(invalid="ignore"):
            return np.where(rank <= (self.k or np.inf), self.gain(rank), 0.0)  # NaN compares false


class Recall(RankMetric):
    title = "Recall"
    meaning = "1 if the target is among the first K; with one target also called hit rate (HR@K)"

    def gain(self, rank: np.ndarray) -> np.ndarray:
        return np.ones_like(rank)


class Precision(RankMetric):
    title = "Precision"
    meaning = "1 / K if the target is among the first K: with one target, recall divided by K"

    def gain(self, rank: np.ndarray) -> np.ndarray:
        assert self.k is not None, "precision has a cutoff"
        return np.full_like(rank, 1 / self.k)


class NDCG(RankMetric):
    title = "NDCG"
    meaning = "1 / log2(1 + rank) if the target is among the first K (Järvelin & Kekäläinen 2002)"

    def gain(self, rank: np.ndarray) -> np.ndarray:
        return 1 / np.log2(1 + rank)


class MRR(RankMetric):
    title = "MRR"
    meaning = "1 / rank if the target is among the first K; without @K, of the whole ranking"
    cutoff: ClassVar[Cutoff] = "optional"

    def gain(self, rank: np.ndarray) -> np.ndarray:
        return 1 / rank


class MAP(MRR):
    title = "MAP"
    meaning = "mean average precision at K: with one target, 1 / rank if the target is among the first K, as MRR@K"
    cutoff = "required"


def per_user(name: str, rank: np.ndarray) -> np.ndarray:
    """(U,) values of a rank metric for (U,) ranks: 1-based floats, NaN where the target was not ranked."""
    metric = find(name)
    assert isinstance(metric, RankMetric)
    return metric.of(rank)


@functools.lru_cache(maxsize=4)
def tie_places(n_items: int) -> np.ndarray:
    """(n_items,) int64: where each item stands among items of equal score. A shuffled order, the same for every model.

    Item ids would not do: they count up in the order of first appearance, so that small ones are popular, and a
    model whose scores tie (colliding codes, a constant) would gain from them.
    """
    draws = np.random.PCG64(0).random_raw(n_items)  # the raw stream is the same for every version of numpy
    places = np.empty(n_items, dtype=np.int64)
    places[np.argsort(draws, kind="stable")] = np.arange(n_items)
    places.flags.writeable = False
    return places
