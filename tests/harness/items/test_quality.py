from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import r2_score

from harness.items.quality import code_neighbours, code_quality, loss_quality


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 6), st.integers(0, 1000))
def test_numbers_equal_plain_counting(items, levels, size, seed):
    codes = np.random.default_rng(seed).integers(0, size, (items, levels))
    found = code_quality(codes, (size,) * levels)
    for level, column in zip(found["levels"], codes.T, strict=True):
        counts = Counter(column.tolist())
        assert level["used"] == len(counts)
        assert level["use"] == len(counts) / size
        assert level["entropy"] == pytest.approx(entropy(list(counts.values())), abs=1e-12)
        assert level["perplexity"] == pytest.approx(np.exp(level["entropy"]))
    tuples = Counter(map(tuple, codes.tolist()))
    assert found["distinct"] == len(tuples) / items
    assert found["alone"] == sum(n == 1 for n in tuples.values()) / items
    expected = Counter(n for n in tuples.values() if n > 1)
    assert found["collisions"] == {str(n): times for n, times in expected.items()}


def test_perplexity_of_even_use_is_the_size():
    (level,) = code_quality(np.arange(8)[:, None] % 4, (4,))["levels"]
    assert level["perplexity"] == pytest.approx(4)


def test_loss_is_the_share_of_variance_that_is_missing(clouds):
    rng = np.random.default_rng(0)
    made = clouds + rng.standard_normal(clouds.shape).astype(np.float32)
    found = loss_quality(clouds, made)
    assert found["error"] == pytest.approx(1 - r2_score(clouds, made, multioutput="variance_weighted"), rel=1e-4)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(clouds, made, strict=True)]
    assert found["cosine"] == pytest.approx(np.mean(cosines), rel=1e-4)
    assert loss_quality(clouds, clouds)["error"] == 0


def test_neighbours_of_residual_and_of_parallel_codes():
    codes = np.array([[1, 2, 3], [1, 9, 3], [1, 2, 9], [9, 2, 3], [9, 9, 9], [1, 2, 3]])
    assert code_neighbours(codes, 0, 9, residual=True).tolist() == [5, 2, 1, 3, 4]
    assert code_neighbours(codes, 0, 4, residual=False).tolist() == [5, 1, 2, 3]
