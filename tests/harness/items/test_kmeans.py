from __future__ import annotations

import numpy as np

from harness.items.kmeans import k_means, nearest_code


def squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.square(points[:, None].astype(float) - centroids[None].astype(float)).sum(-1)


def test_nearest_code_is_brute_force(clouds):
    centroids = k_means(clouds, 40, iterations=5, seed=0)
    np.testing.assert_array_equal(nearest_code(clouds, centroids), squared_distances(clouds, centroids).argmin(1))


def test_k_means_is_a_fixed_point_of_lloyds_steps(clouds):
    """Each centroid is the mean of the points nearest to it, once the iterations have converged."""
    centroids = k_means(clouds, 12, iterations=200, seed=0)
    owner = squared_distances(clouds, centroids).argmin(1)
    np.testing.assert_allclose(centroids, [clouds[owner == code].mean(0) for code in range(12)], atol=1e-4)


def test_no_warning_about_few_points(clouds, capfd):
    k_means(clouds[:260], 256, iterations=3, seed=0)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
