"""How good codes are: what a level uses of its codebook, who collides, what is lost, who is near whom."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["code_neighbours", "code_quality", "loss_quality", "shared_codes"]

_ENOUGH = 0.9
"""Share of items with codes of their own below which codes come with a warning."""


def code_quality(codes: np.ndarray, sizes: tuple[int, ...]) -> dict[str, Any]:
    """What (I, m) codes of I items say of themselves.

    Returns:
        ``levels``, a list with, per level, ``size``, ``used`` (codes that at least one item has), ``use`` (their
        share), ``entropy`` (nats) and ``perplexity`` (its exponential: the number of equally frequent codes with
        the same entropy); ``items``; ``distinct`` (different tuples per item); ``alone`` (share of items that no
        other item shares its tuple with); ``collisions`` (items per tuple -> number of such tuples, from 2 on).
    """
    levels = []
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        share = counts[counts > 0] / len(codes)
        entropy = max(0.0, float(-(share * np.log(share)).sum()))
        used = int((counts > 0).sum())
        perplexity = float(np.exp(entropy))
        levels.append({"size": size, "used": used, "use": used / size, "entropy": entropy, "perplexity": perplexity})
    _, holders = np.unique(codes, axis=0, return_counts=True)  # (tuples,)
    sizes_of_groups, groups = np.unique(holders, return_counts=True)
    return {
        "levels": levels,
        "items": len(codes),
        "distinct": len(holders) / len(codes),
        "alone": int((holders == 1).sum()) / len(codes),
        "collisions": {str(s): int(n) for s, n in zip(sizes_of_groups, groups, strict=True) if s > 1},
    }


def shared_codes(quality: dict[str, Any]) -> list[str]:
    """A warning, where too few items have codes of their own and no collision level tells the others apart."""
    if quality["alone"] >= _ENOUGH or quality["collision_level"]:
        return []
    most = max(map(int, quality["collisions"]))
    return [
        f"only {quality['alone']:.1%} of {quality['items']} items have codes of their own (up to {most} share them), "
        "and a model can't tell apart those that share: set items.collisions: level, take more levels, or an encoder "
        "that tells items apart (items.encoder.kind: fused or cooccurrence)"
    ]


def loss_quality(vectors: np.ndarray, reconstruction: np.ndarray) -> dict[str, float]:
    """What the codes lose of (I, d) vectors.

    Returns:
        ``error``: mean squared error per item as a share of the vectors' variance (0 nothing is lost, 1 as bad
        as the mean vector for everybody); ``cosine``: mean over items of the cosine between the two.
    """
    variance = float(np.square(vectors - vectors.mean(0)).sum())
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reconstruction, axis=1)
    cosine = (vectors * reconstruction).sum(1) / np.maximum(lengths, 1e-12)
    return {
        "error": float(np.square(vectors - reconstruction).sum()) / max(variance, 1e-12),
        "cosine": float(cosine.mean()),
    }


def code_neighbours(codes: np.ndarray, item: int, count: int, *, residual: bool) -> np.ndarray:
    """The rows of (I, m) codes most like row ``item``, best first, without itself; at most ``count``.

    In residual codes a level refines those before it, so likeness is the length of the common prefix. Otherwise
    it is the number of equal levels. Equal likeness: by ascending row.
    """
    equal = codes == codes[item]  # (I, m)
    likeness = np.cumprod(equal, axis=1).sum(1) if residual else equal.sum(1)  # (I,)
    likeness[item] = -1
    return np.argsort(-likeness, kind="stable")[: min(count, len(codes) - 1)]
