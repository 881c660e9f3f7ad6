from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import InputError
from harness.metrics import Evidence, find

ITEMS, USERS, WIDTH = 12, 7, 6


def drawn(seed: int = 0, full: bool = True):
    """(U, W) lists without repetition, some shorter; (I + 1,) counts; (I + 1, d) unit vectors, one of them zero."""
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(ITEMS)[:WIDTH] + 1 for _ in range(USERS)]).astype(np.int32)
    if not full:
        lists[0, 2:], lists[1, :], lists[2, 1:] = 0, 0, 0
    counts = np.r_[0, rng.integers(0, 30, ITEMS)]
    vectors = rng.normal(size=(ITEMS + 1, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[0, 5]] = 0
    return lists, counts, vectors


def evidence(lists, counts, vectors) -> Evidence:
    return Evidence({"list": lambda: lists, "popularity": lambda: counts, "vectors": lambda: vectors})


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_against_loops_over_users(k, full):
    lists, counts, vectors = drawn(1, full)
    given = evidence(lists, counts, vectors)
    tops = [[i for i in row[:k] if i] for row in lists]
    shown = [item for top in tops for item in top]
    assert find(f"coverage@{k}").value(given) == pytest.approx(len(set(shown)) / ITEMS)

    exposure = np.array([shown.count(item) for item in range(1, ITEMS + 1)])
    differences = np.abs(exposure[:, None] - exposure[None, :]).sum()
    assert find(f"gini@{k}").value(given) == pytest.approx(differences / (2 * ITEMS * exposure.sum()))

    share = np.maximum(counts, 1) / counts.sum()
    rank = [(np.sum(counts[1:] < c) + np.sum(counts[1:] <= c)) / (2 * ITEMS) for c in counts]
    for name, of_item in (("novelty", -np.log2(share)), ("popularity-bias", rank)):
        expected = [np.mean([of_item[i] for i in top]) if top else np.nan for top in tops]
        np.testing.assert_allclose(find(f"{name}@{k}").users(given), expected)
        assert find(f"{name}@{k}").value(given) == pytest.approx(np.nanmean(expected))

    for row, top in enumerate(tops):
        pairs = [1 - vectors[a] @ vectors[b] for a, b in combinations([i for i in top if i != 5], 2)]
        found = find(f"diversity@{k}").users(given)[row]
        assert np.isnan(found) if not pairs else found == pytest.approx(np.mean(pairs), abs=1e-5)


def test_an_empty_catalogue_of_lists_is_undefined():
    lists, counts, vectors = drawn()
    nothing = evidence(np.zeros_like(lists), counts, vectors)
    assert find("coverage@5").value(nothing) == 0
    for name in ("gini@5", "novelty@5", "diversity@5", "popularity-bias@5"):
        assert np.isnan(find(name).value(nothing))


def test_means_over_users_where_there_are_some():
    given = evidence(*drawn())
    assert find("coverage@5").users(given) is None
    assert find("gini@5").users(given) is None
    assert not find("coverage@5").in_validation
    assert find("ndcg@5").in_validation


@settings(deadline=None)
@given(arrays(np.int32, (5, 4), elements=st.integers(1, 9)))
def test_gini_is_0_for_equal_and_nearly_1_for_one_item(lists):
    counts = np.ones(10, int)
    found = find("gini@4").value(evidence(lists, counts, None))
    assert -1e-12 <= found <= 1
    same = np.tile(np.arange(1, 10, dtype=np.int32), (3, 1))
    assert find("gini@9").value(evidence(same, counts, None)) == pytest.approx(0)
    one = np.ones((3, 1), np.int32)
    assert find("gini@1").value(evidence(one, counts, None)) == pytest.approx(8 / 9)


def test_what_is_not_there_is_named():
    with pytest.raises(InputError, match="there is no 'list'"):
        find("coverage@5").value(Evidence({"popularity": lambda: np.ones(3)}))
