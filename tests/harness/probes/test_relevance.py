"""Relevance against counting pairs one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.probes import relevance
from harness.probes.relevance import Relevance, decile_shares


def by_hand(data, context):
    """(I + 1, I + 1) cosines of PPMI rows, from sets of items."""
    n = len(data.log.items)
    count = np.zeros((n, n))
    for user in range(data.log.n_users):
        end = data.split.train_end[user]
        items = set(data.log.item[max(data.log.offsets[user], end - context) : end].tolist())
        for i in items:
            for j in items:
                count[i, j] += i != j
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(count * count.sum() / np.outer(count.sum(1), count.sum(1)))
    ppmi = np.where(count > 0, np.maximum(pmi, 0), 0)
    norm = np.linalg.norm(ppmi, axis=1)
    return np.divide(ppmi @ ppmi.T, np.outer(norm, norm), out=np.zeros((n, n)), where=np.outer(norm, norm) > 0)


@pytest.mark.parametrize("context", [100, 4])
def test_cosines_against_counting(data, monkeypatch, context):
    monkeypatch.setattr(relevance, "CONTEXT", context)
    monkeypatch.setattr(relevance, "PAIRS", 50)
    expected = by_hand(data, context)
    found = Relevance(data.log, data.split)
    one, other = (grid.ravel() for grid in np.meshgrid(np.arange(31), np.arange(31)))
    assert found.cosine(one, other) == pytest.approx(expected[one, other], abs=1e-12)


def test_only_the_training_part_counts(data):
    """Whatever stands in the last two events of a user, relevance is the same."""
    before = Relevance(data.log, data.split).vectors.toarray()
    changed = data.log.item.copy()
    changed[data.log.offsets[1:] - 1] = 1
    changed[data.log.offsets[1:] - 2] = 2
    other = type(data.log)(**{**data.log.__dict__, "item": changed})
    assert np.array_equal(Relevance(other, data.split).vectors.toarray(), before)


def test_histories_are_padded_with_minus_one(data):
    windows = data.histories("test")
    found = Relevance(data.log, data.split)(windows, 9)
    for row, (start, end) in enumerate(zip(windows.start, windows.end, strict=True)):
        target = np.full(end - start, data.log.item[end])
        expected = Relevance(data.log, data.split).cosine(data.log.item[start:end], target)
        assert found[row, : end - start] == pytest.approx(expected)
        assert (found[row, end - start :] == -1).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.1, 0.5, 0.9]), min_size=1, max_size=23), st.integers(0, 4))
def test_deciles_share_every_history_evenly(values, padding):
    row = np.array([values + [-1.0] * padding])
    shares = decile_shares(row)[0]
    assert shares[: len(values)].sum(1) == pytest.approx(1)
    assert shares.sum(0) == pytest.approx(len(values) / 10)
    assert not shares[len(values) :].any()
    place = shares[: len(values)] @ np.arange(10)
    for i, value in enumerate(values):
        for j, other in enumerate(values):
            assert place[i] <= place[j] + 1e-9 if value < other else True
            assert abs(place[i] - place[j]) < 1e-9 if value == other else True


def test_deciles_of_ten_different_events_are_theirs():
    order = np.random.default_rng(0).permutation(10)
    assert np.array_equal(decile_shares(order[None] / 10.0)[0], np.eye(10)[order])
