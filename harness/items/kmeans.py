"""k-means and nearest codes, by faiss."""

from __future__ import annotations

import faiss
import numpy as np

__all__ = ["k_means", "nearest_code"]


def k_means(points: np.ndarray, size: int, *, iterations: int, seed: int, restarts: int = 1) -> np.ndarray:
    """(size, d) float32 centroids of (n, d) points; n >= size.

    faiss would otherwise sample large inputs down and complain of small ones: every point counts here.
    """
    clustering = faiss.Kmeans(
        points.shape[1],
        size,
        niter=iterations,
        nredo=restarts,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    clustering.train(np.ascontiguousarray(points, dtype=np.float32))
    assert clustering.centroids is not None, "training sets them"
    return clustering.centroids


def nearest_code(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(n,) int64: the index of each point's nearest centroid in squared Euclidean distance."""
    _, index = faiss.knn(np.ascontiguousarray(points), np.ascontiguousarray(centroids), 1)
    return index[:, 0].astype(np.int64)
