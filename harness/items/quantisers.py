"""Vectors -> codes: product and residual quantisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from harness.errors import InputError
from harness.items.config import OptimisedProduct, Product, ResidualKMeans, ResidualVAE
from harness.items.kmeans import k_means, nearest_code
from harness.items.rqvae import fit_rqvae

__all__ = ["Quantised", "quantise"]

Quantiser = OptimisedProduct | Product | ResidualKMeans | ResidualVAE

_WIDEST = 256
"""Width of the vectors that product quantisers get unless the settings say otherwise. RPG takes 128 of
sentence-t5; the default TF-IDF vectors lose neighbours that matter below 256."""


@dataclass(frozen=True)
class Quantised:
    """Codes of all items, and what they stand for."""

    codes: np.ndarray
    """(I, m) int64."""
    input: np.ndarray
    """(I, d) float32: the vectors as the quantiser saw them, after its own scaling."""
    reconstruction: np.ndarray
    """(I, d) float32: the same vectors, made from the codes alone."""
    moved: float = 0.0
    """Share of items whose last code is not the nearest one, because another item has that."""


def quantise(
    vectors: np.ndarray,
    train: np.ndarray,
    config: Quantiser,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Quantised:
    """Fits a quantiser on the rows ``train`` of (I, D) vectors and encodes all of them.

    Runs on one thread: with several, the order in which numbers are added up, and so the codes, would depend on
    how many there are. faiss may still change its OPQ between versions, so codes are stored, never made again.

    Raises:
        InputError: fewer items to fit on than codes in a level, or vectors too narrow for the levels.
    """
    if config.size > len(train):
        raise InputError(
            f"items.quantiser.size is {config.size}, but there are only {len(train)} items to fit on; "
            f"set items.quantiser.size: {1 << (len(train).bit_length() - 1)} or less"
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    with threadpool_limits(1):  # reaches only libraries that are loaded by now, so all are imported at the top
        if isinstance(config, ResidualVAE):
            return _rqvae(vectors, train, config, seed, progress)
        if isinstance(config, ResidualKMeans):
            return _residual_k_means(vectors, train, config, seed)
        return _product(vectors, train, config, seed)


def _product(vectors: np.ndarray, train: np.ndarray, config: OptimisedProduct | Product, seed: int) -> Quantised:
    vectors = _principal_components(vectors, train, config, seed)  # (I, d)
    rotation = np.eye(vectors.shape[1], dtype=np.float32)  # (d, d)
    if isinstance(config, OptimisedProduct):
        rotation = _opq_rotation(vectors[train], config, seed)
    turned = vectors @ rotation.T  # (I, d)
    codes, decoded = [], []
    for level, part in enumerate(np.split(turned, config.levels, axis=1)):  # (I, d / m)
        centroids = k_means(part[train], config.size, iterations=config.iterations, seed=seed + level)
        code = nearest_code(part, centroids)
        codes.append(code)
        decoded.append(centroids[code])
    return Quantised(np.stack(codes, 1), vectors, np.concatenate(decoded, 1) @ rotation)


def _principal_components(
    vectors: np.ndarray, train: np.ndarray, config: OptimisedProduct | Product, seed: int
) -> np.ndarray:
    room = min(vectors.shape[1], len(train) - 1)
    dim = config.dim or min(_WIDEST, room) // config.levels * config.levels
    if not 0 < dim <= room:
        key = "dim" if config.dim else "levels"
        raise InputError(
            f"items.quantiser.{key} is {config.dim or config.levels}, but {len(train)} items to fit on and vectors of "
            f"width {vectors.shape[1]} allow at most {room}; lower it"
        )
    pca = PCA(dim, whiten=config.whiten, svd_solver="covariance_eigh", random_state=seed).fit(vectors[train])
    return np.ascontiguousarray(pca.transform(vectors), dtype=np.float32)  # (I, d)


def _opq_rotation(points: np.ndarray, config: OptimisedProduct, seed: int) -> np.ndarray:
    """(d, d) float32 orthonormal: the rotation after which a product quantiser loses least."""
    dim = points.shape[1]
    quantiser = faiss.ProductQuantizer(dim, config.levels, config.size.bit_length() - 1)
    quantiser.cp.seed = seed
    quantiser.cp.min_points_per_centroid = 1
    quantiser.cp.max_points_per_centroid = len(points)
    rotation = faiss.OPQMatrix(dim, config.levels, dim)
    rotation.pq = quantiser
    rotation.niter = config.rotations
    rotation.max_train_points = len(points)
    # faiss starts from a random rotation unless it is given one. From the principal axes the result is never
    # worse than plain product quantisation; from a random one it was on item texts.
    faiss.copy_array_to_vector(np.eye(dim, dtype=np.float32).ravel(), rotation.A)
    rotation.train(np.ascontiguousarray(points))
    return faiss.vector_to_array(rotation.A).reshape(dim, dim)


def _residual_k_means(vectors: np.ndarray, train: np.ndarray, config: ResidualKMeans, seed: int) -> Quantised:
    residual, codes = vectors, np.zeros((len(vectors), 0), dtype=np.int64)
    moved = 0.0
    for level in range(config.levels):
        centroids = k_means(
            residual[train], config.size, iterations=config.iterations, seed=seed + level, restarts=config.restarts
        )
        codes = np.column_stack([codes, nearest_code(residual, centroids)])  # (I, level + 1)
        if level == config.levels - 1 and config.last_level == "distinct":
            codes, moved = _separate(codes, residual, centroids)
        residual = residual - centroids[codes[:, level]]  # (I, d)
    return Quantised(codes, vectors, vectors - residual, moved)


def _rqvae(
    vectors: np.ndarray, train: np.ndarray, config: ResidualVAE, seed: int, progress: Callable[[str], None] | None
) -> Quantised:
    # One centre and one scale for all: a scale per dimension would make the noise of the last ones as loud as
    # the first ones, which carry the text's meaning.
    centre = vectors[train].mean(0)
    scaled = (vectors - centre) / max(float(vectors[train].std()), 1e-12)
    model = fit_rqvae(scaled[train], config, seed, progress)
    codes, residual = (part.cpu().numpy() for part in model.encode(torch.from_numpy(scaled).to(config.device)))
    moved = 0.0
    if config.last_level == "distinct":
        codes, moved = _separate(codes, residual, model.codebooks[-1].detach().cpu().numpy())
    decoded = model.decode(torch.from_numpy(codes).to(config.device))
    return Quantised(codes, scaled, decoded.cpu().numpy(), moved)


def _separate(codes: np.ndarray, residual: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, float]:
    """(I, m) codes whose last level tells items with the same levels before apart, and the share of items moved.

    Within such a group the last codes are the assignment of different codes to its items with the least sum of
    squared distances between ``residual`` (I, d) and ``centroids`` (K, d). A group of more than K items stays
    as it is.
    """
    codes = codes.copy()
    nearest = codes[:, -1].copy()
    _, group, counts = np.unique(codes[:, :-1], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    for items in np.split(order, np.cumsum(counts)[:-1]):
        if len(items) == len(np.unique(nearest[items])) or len(items) > len(centroids):
            continue
        distances = np.square(residual[items, None] - centroids).sum(-1)  # (n, K)
        codes[items, -1] = linear_sum_assignment(distances)[1]
    return codes, float((codes[:, -1] != nearest).mean())
