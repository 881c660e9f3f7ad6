from __future__ import annotations

from itertools import permutations

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from harness.errors import InputError
from harness.items import quantisers
from harness.items.config import OptimisedProduct, Product, ResidualKMeans, ResidualVAE
from harness.items.kmeans import k_means
from harness.items.quantisers import quantise

EVERY = np.arange(600)
SMALL_VAE = {"hidden": (16,), "latent": 4, "epochs": 3, "batch_size": 128}
SMALL = [
    OptimisedProduct(levels=4, size=16, rotations=5),
    Product(levels=4, size=10),
    ResidualKMeans(size=10),
    ResidualVAE(size=8, last_level="nearest", **SMALL_VAE),
]


def squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.square(points[:, None].astype(float) - centroids[None].astype(float)).sum(-1)


def error(made) -> float:
    return float(np.square(made.input - made.reconstruction).sum(1).mean())


def test_no_warning_about_few_points(clouds, capfd):
    quantise(clouds[:260], np.arange(260), OptimisedProduct(levels=4, rotations=2))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def codes_from_reconstruction(made, part: slice) -> np.ndarray:
    """Brute force: the distinct decoded parts are the codebook in use; each item must lie nearest to its own."""
    book, code = np.unique(made.reconstruction[:, part].round(4), axis=0, return_inverse=True)
    np.testing.assert_array_equal(squared_distances(made.input[:, part], book).argmin(1), code.reshape(-1))
    return code.reshape(-1)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(np.unique(np.stack([a, b], 1), axis=0)) == len(np.unique(a)) == len(np.unique(b))


def test_product_codes_are_the_nearest_centroids_of_each_slice(clouds):
    made = quantise(clouds, EVERY, Product(levels=4, size=10))
    for level in range(4):
        assert same_partition(made.codes[:, level], codes_from_reconstruction(made, slice(4 * level, 4 * level + 4)))


def test_product_sees_whitened_principal_components(clouds):
    made = quantise(clouds, EVERY, Product(levels=4, size=10, dim=8))
    assert made.input.shape == (600, 8)
    np.testing.assert_allclose(np.cov(made.input.T), np.eye(8), atol=1e-2)
    plain = quantise(clouds, EVERY, Product(levels=4, size=10, dim=8, whiten=False)).input
    ordered = np.sort(np.linalg.eigvalsh(np.cov(clouds.T)))[::-1][:8]
    np.testing.assert_allclose(plain.var(0, ddof=1), ordered, rtol=1e-3)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_optimised_product_loses_less_than_product(clouds, whiten, seed):
    shared = {"levels": 4, "size": 16, "whiten": whiten}
    assert error(quantise(clouds, EVERY, OptimisedProduct(**shared), seed=seed)) < error(
        quantise(clouds, EVERY, Product(**shared), seed=seed)
    )


def test_opq_rotation_is_orthonormal(clouds):
    turn = quantisers._opq_rotation(clouds, OptimisedProduct(levels=4, size=16, rotations=5), seed=0)
    np.testing.assert_allclose(turn @ turn.T, np.eye(16), atol=1e-4)


def test_residual_k_means_refines_level_by_level(clouds):
    """Level k is the plain k-means of what the levels before left over, so that fewer levels are a prefix."""
    three = quantise(clouds, EVERY, ResidualKMeans(size=10))
    residual = clouds
    for level in range(3):
        centroids = k_means(residual, 10, iterations=50, seed=level)
        code = squared_distances(residual, centroids).argmin(1)
        np.testing.assert_array_equal(three.codes[:, level], code)
        residual = residual - centroids[code]
    np.testing.assert_allclose(three.input - three.reconstruction, residual, atol=1e-4)
    two = quantise(clouds, EVERY, ResidualKMeans(size=10, levels=2))
    np.testing.assert_array_equal(three.codes[:, :2], two.codes)
    assert error(three) < error(two)


@pytest.mark.parametrize("config", SMALL)
def test_codes_are_in_range_and_come_out_the_same_again(clouds, config):
    made = quantise(clouds, EVERY, config, seed=5)
    assert made.codes.dtype == np.int64
    assert made.codes.shape == (600, config.levels)
    assert made.codes.min() >= 0
    assert made.codes.max() < config.size
    assert made.input.shape == made.reconstruction.shape
    again = quantise(clouds, EVERY, config, seed=5)
    assert again.codes.tobytes() == made.codes.tobytes()
    assert again.reconstruction.tobytes() == made.reconstruction.tobytes()


@pytest.mark.parametrize("config", SMALL)
def test_items_outside_training_are_encoded_but_not_learned_from(clouds, config):
    train = np.arange(400)
    made = quantise(clouds, train, config)
    changed = np.concatenate([clouds[:400], clouds[400:] * 7 + 3])
    np.testing.assert_array_equal(quantise(changed, train, config).codes[:400], made.codes[:400])
    assert len(np.unique(made.codes[400:], axis=0)) > 1


@pytest.mark.parametrize("config", SMALL)
def test_codes_do_not_hang_on_the_number_of_threads(clouds, config):
    made = []
    for threads in (1, 3):
        with threadpool_limits(threads):
            made.append(quantise(clouds, EVERY, config).codes.tobytes())
            assert faiss.omp_get_max_threads() == threads
    assert made[0] == made[1]


def test_more_codes_than_items_to_fit_on(clouds):
    with pytest.raises(InputError, match=r"size is 256, but there are only 100 items.*size: 64 or less"):
        quantise(clouds, np.arange(100), OptimisedProduct())


def test_vectors_too_narrow_for_the_levels(clouds):
    with pytest.raises(InputError, match=r"quantiser\.levels is 32.* at most 16"):
        quantise(clouds, EVERY, Product(levels=32, size=8))
    with pytest.raises(InputError, match=r"quantiser\.dim is 64.* at most 16"):
        quantise(clouds, EVERY, Product(levels=4, dim=64, size=8))


def test_separate_is_the_cheapest_assignment_of_different_codes():
    """Against every assignment there is."""
    rng = np.random.default_rng(0)
    centroids, residual = rng.standard_normal((5, 3)), rng.standard_normal((7, 3))
    prefix = np.array([0, 1, 0, 0, 1, 0, 2])
    distances = squared_distances(residual, centroids)
    codes = np.stack([prefix, distances.argmin(1)], 1)
    codes[codes[:, 0] == 1, 1] = [3, 4]  # already different: left alone
    separated, moved = quantisers._separate(codes, residual, centroids)
    group = np.flatnonzero(prefix == 0)
    best = min(permutations(range(5), len(group)), key=lambda taken: distances[group, list(taken)].sum())
    assert separated[group, 1].tolist() == list(best)
    np.testing.assert_array_equal(separated[prefix > 0], codes[prefix > 0])
    assert moved == (separated[:, 1] != codes[:, 1]).mean()


def test_separate_leaves_a_group_that_does_not_fit():
    codes, residual = np.zeros((4, 2), dtype=np.int64), np.zeros((4, 2))
    separated, moved = quantisers._separate(codes, residual, np.ones((3, 2)))
    np.testing.assert_array_equal(separated, codes)
    assert moved == 0


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_distinct_last_level_changes_that_level_alone(clouds, levels):
    twins = np.repeat(clouds[:100], 2, axis=0) + np.tile([[0], [1e-3]], (100, 1)).astype(np.float32)
    near = quantise(twins, np.arange(200), ResidualKMeans(levels=levels, size=64))
    apart = quantise(twins, np.arange(200), ResidualKMeans(levels=levels, size=64, last_level="distinct"))
    np.testing.assert_array_equal(near.codes[:, :-1], apart.codes[:, :-1])
    assert apart.moved == (near.codes[:, -1] != apart.codes[:, -1]).mean()
    if levels > 1:
        assert len(np.unique(apart.codes, axis=0)) == 200 > len(np.unique(near.codes, axis=0))
        assert error(near) < error(apart)
