"""Metrics of a ranking with one relevant item per user, from the rank of that item. Imports no torch.

With one target, Recall@K is the hit rate and the ideal DCG is 1. A target that was not ranked (NaN) scores 0.
"""

from __future__ import annotations

import functools
import re

import numpy as np

from harness.errors import InputError, nearest

__all__ = ["FAMILIES", "check_metric", "per_user", "tie_places"]

FAMILIES = {
    "recall": "1 if the target is among the first K (hit rate)",
    "ndcg": "1 / log2(1 + rank) if the target is among the first K (Järvelin & Kekäläinen 2002)",
    "mrr": "1 / rank if the target is among the first K; without @K, of the whole ranking",
}


def check_metric(name: str) -> str:
    """``name`` in its canonical spelling (``ndcg@10``). Raises InputError for an unknown one."""
    match = re.fullmatch(r"(\w+)(?:@([1-9]\d*))?", name.strip().lower())
    family, cutoff = match.groups() if match else (name, None)
    if family not in FAMILIES:
        raise InputError(f"unknown metric '{name}'; {nearest(family, FAMILIES)}, written as in 'ndcg@10'")
    if cutoff is None and family != "mrr":
        raise InputError(f"metric '{name}' needs a cutoff, as in '{family}@10'")
    return family if cutoff is None else f"{family}@{cutoff}"


def per_user(name: str, rank: np.ndarray) -> np.ndarray:
    """(U,) values of metric ``name`` for (U,) ranks: 1-based floats, NaN where the target was not ranked."""
    family, _, cutoff = check_metric(name).partition("@")
    rank = np.asarray(rank, dtype=float)
    hit = rank <= (int(cutoff) if cutoff else np.inf)  # NaN compares false
    with np.errstate(invalid="ignore"):
        gain = {"recall": np.ones_like(rank), "ndcg": 1 / np.log2(1 + rank), "mrr": 1 / rank}[family]
    return np.where(hit, gain, 0.0)


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
