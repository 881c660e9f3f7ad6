"""Metrics beyond accuracy, from the lists that are recommended: coverage, concentration, novelty, diversity, bias.

Each looks at the first K items of every test user's list (K at most 50, as many as a cell keeps). Lists of a search
may be shorter. Popularity is the number of an item's events in the training part.
"""

from __future__ import annotations

import numpy as np

from harness.errors import InputError
from harness.metrics.base import Evidence, Metric

__all__ = ["KEPT", "Coverage", "Gini", "IntraListDiversity", "ListMetric", "Novelty", "PopularityBias"]

KEPT = 50
"""How many items per test user a cell keeps."""


class ListMetric(Metric):
    """A metric of the first ``k`` items of each list."""

    task = "retrieval"
    needs = frozenset({"list"})
    cutoff = "required"

    def __init__(self, name: str, k: int | None = None, action: str | None = None) -> None:
        super().__init__(name, k, action)
        if k is not None and k > KEPT:
            raise InputError(f"metric '{name}': a cell keeps {KEPT} items per user; choose a cutoff of at most {KEPT}")

    def top(self, evidence: Evidence) -> np.ndarray:
        """(U, k) items, 0 where a list is shorter."""
        return evidence.lists[:, : self.k]

    def per_user(self, evidence: Evidence) -> np.ndarray | None:
        return None


def _mean_over_items(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(U,) mean of the items' values in each list; NaN for an empty list."""
    there = items > 0
    count = there.sum(1)
    total = np.where(there, values[items], 0.0).sum(1)
    return np.divide(total, count, out=np.full(len(items), np.nan), where=count > 0)


class Coverage(ListMetric):
    title = "Coverage"
    meaning = "share of the catalogue that is in at least one user's first K (catalogue coverage, Ge et al. 2010)"
    needs = frozenset({"list", "popularity"})

    def value(self, evidence: Evidence) -> float:
        catalogue = len(evidence.popularity) - 1
        return float(np.count_nonzero(np.unique(self.top(evidence))) / catalogue) if catalogue else float("nan")


class Gini(ListMetric):
    title = "Gini"
    meaning = "Gini index of how often each item is in a first K: 0, all alike; 1, one item has all (Fleder 2009)"
    needs = frozenset({"list", "popularity"})
    higher_is_better = False

    def value(self, evidence: Evidence) -> float:
        shown = np.bincount(self.top(evidence).ravel(), minlength=len(evidence.popularity))[1:]
        if not shown.sum():
            return float("nan")
        ascending, n = np.sort(shown), len(shown)
        return float((2 * np.arange(1, n + 1) - n - 1) @ ascending / (n * ascending.sum()))


class Novelty(ListMetric):
    title = "Novelty"
    meaning = "mean self-information -log2(share of training users' events) of the first K (Zhou et al. 2010)"
    needs = frozenset({"list", "popularity"})

    def per_user(self, evidence: Evidence) -> np.ndarray:
        counts = evidence.popularity.astype(float)
        counts[0] = 0
        # An item that training never saw counts as seen once: its information is bounded, not infinite.
        return _mean_over_items(-np.log2(np.maximum(counts, 1) / counts.sum()), self.top(evidence))


class PopularityBias(ListMetric):
    title = "Popularity bias"
    meaning = "average recommendation popularity: mean percentile of the first K by training events (ARP, Yin 2012)"
    needs = frozenset({"list", "popularity"})
    higher_is_better = False

    def per_user(self, evidence: Evidence) -> np.ndarray:
        counts = evidence.popularity[1:]
        ascending = np.sort(counts)
        below = np.searchsorted(ascending, counts, "left") + np.searchsorted(ascending, counts, "right")
        return _mean_over_items(np.r_[0.0, below / (2 * len(counts))], self.top(evidence))


class IntraListDiversity(ListMetric):
    title = "ILD"
    meaning = "intra-list diversity: mean of 1 - cosine over pairs of the first K, by co-occurrence (Ziegler 2005)"
    needs = frozenset({"list", "vectors"})

    def per_user(self, evidence: Evidence) -> np.ndarray:
        items = self.top(evidence)
        found = np.full(len(items), np.nan)
        for begin in range(0, len(items), 4096):
            part = items[begin : begin + 4096]
            vectors = evidence.vectors[part]  # (u, k, d); row 0 is zero
            known = (np.linalg.norm(vectors, axis=2) > 0).sum(1)
            pairs = known * (known - 1)
            # The sum over all pairs of cosines is the squared length of the sum of unit vectors.
            cosines = (vectors.sum(1) ** 2).sum(1) - known
            found[begin : begin + 4096] = np.divide(
                pairs - cosines, pairs, out=np.full(len(part), np.nan), where=pairs > 0
            )
        return found
