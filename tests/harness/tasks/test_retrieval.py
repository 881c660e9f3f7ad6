"""Ranks against sorting, user by user, with ties, repeated items and histories."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.errors import CellFailed
from harness.interface import Ranking, Recommender
from harness.metrics.ranking import per_user, tie_places
from harness.settings import Settings
from harness.tasks import retrieval
from harness.tasks.lists import unpack
from harness.tasks.retrieval import Retrieval


class Scripted(Recommender):
    """Scores are a fixed coarse function of user and item, so that many tie."""

    Config = Settings

    def losses(self, batch):
        return {}

    def score_items(self, batch):
        item = torch.arange(1, self.schema.n_items + 1)
        return ((batch.users[:, None] * 7 + item * 5) % 6).float()


class Listed(Scripted):
    exact = False
    width = 5

    def rank_items(self, batch, k):
        whole = super().rank_items(batch, self.schema.n_items)
        items, scores = whole.items[:, : self.width].clone(), whole.scores[:, : self.width].clone()
        items[batch.users % 3 == 0, 3:] = 0  # short lists
        return Ranking(items, scores, complete=False)


@pytest.fixture(scope="module")
def data():
    log = load("synthetic-sessions:users=50,items=25,length=20", DataConfig())
    return Retrieval(log, make_split(log, DataConfig()), max_length=6, metrics=["ndcg@10", "mrr"])


def brute_force(data, model, phase, width=None):
    users, targets = data.split.targets(phase)
    for user, event in zip(users, targets, strict=True):
        item = np.arange(1, len(data.log.items))
        score = (user * 7 + item * 5) % 6
        place = tie_places(len(item))
        order = item[np.lexsort((place, -score))]
        if width is not None:  # a search has an order of its own
            order = item[np.lexsort((item, -score))][: 3 if user % 3 == 0 else width]
        seen = set(data.log.item[data.log.offsets[user] : event])
        fresh = [i for i in order if i not in seen]
        target = data.log.item[event]
        yield (
            data.log.users[user],
            data.log.items[target],
            list(order).index(target) + 1 if target in order else None,
            fresh.index(target) + 1 if target in fresh else None,
            len(order),
            len(fresh),
            event - data.log.offsets[user],
        )


COLUMNS = ["user", "target", "rank_all", "rank_unseen", "length_all", "length_unseen", "history"]


@pytest.mark.parametrize("phase", ["valid", "test"])
@pytest.mark.parametrize(("kind", "width"), [(Scripted, None), (Listed, 5)])
def test_rows_equal_a_loop_over_users(data, phase, kind, width):
    rows = data.evaluate(kind(Settings(), data.schema()), phase)
    expected = list(brute_force(data, kind, phase, width))
    assert list(zip(*(rows[c].to_pylist() for c in COLUMNS), strict=True)) == expected
    assert any(row[3] is None for row in expected)  # repeated targets occur in this data, or lists end


@pytest.mark.parametrize("targets", ["last", "first", "all"])
@pytest.mark.parametrize(("kind", "width"), [(Scripted, None), (Listed, 5)])
def test_rows_of_a_temporal_split_equal_a_loop_over_targets(targets, kind, width):
    config = DataConfig(split="temporal", test_fraction=0.3, targets=targets)
    log = load("synthetic-sessions:users=30,items=25,length=20", config)
    data = Retrieval(log, make_split(log, config), max_length=6, metrics=["ndcg@10"])
    model = kind(Settings(), data.schema())
    for phase in ("valid", "test"):
        predicted = data.predict(model, phase, lists=True)
        expected = list(brute_force(data, kind, phase, width))
        assert list(zip(*(predicted.rows[c].to_pylist() for c in COLUMNS), strict=True)) == expected
        assert predicted.lists["user"].to_pylist() == [row[0] for row in expected]
        windows = data.histories(
            phase
        )  # what a model reads ends before the target, and holds the part's earlier events
        assert (log.item[windows.end] == [list(log.items).index(row[1]) for row in expected]).all()
        assert (windows.end - windows.start == np.minimum(6, [row[-1] for row in expected])).all()
        repeated = len(expected) > len({row[0] for row in expected})
        assert repeated == (targets == "all")


@pytest.mark.parametrize("k", [1, 4, 10, 50])
@pytest.mark.parametrize(("kind", "width"), [(Scripted, None), (Listed, 5)])
def test_lists_equal_a_loop_over_users(data, kind, width, k, monkeypatch):
    """Both protocols' first k, from one list, with ties, shorter lists and scores that stay as they are."""
    name = "best_by_list" if width else "best_by_scores"
    monkeypatch.setattr(retrieval, name, partial(getattr(retrieval, name), k=k))
    predicted = data.predict(kind(Settings(), data.schema()), "test", lists=True)
    assert predicted.rows.equals(data.evaluate(kind(Settings(), data.schema()), "test"))
    users, targets = data.split.targets("test")
    assert predicted.lists["user"].to_pylist() == data.log.users[users].tolist()
    found = {name: unpack(predicted.lists, name, k) for name in ("all", "unseen")}
    for row, (user, event) in enumerate(zip(users, targets, strict=True)):
        item = np.arange(1, len(data.log.items))
        score = (user * 7 + item * 5) % 6
        order = item[np.lexsort((tie_places(len(item)), -score))]
        if width is not None:
            order = item[np.lexsort((item, -score))][: 3 if user % 3 == 0 else width]
        seen = set(data.log.item[data.log.offsets[user] : event])
        for name, expected in (("all", order), ("unseen", np.array([i for i in order if i not in seen], int))):
            items, scores = (part[row] for part in found[name])
            assert items[items > 0].tolist() == expected[:k].tolist()
            assert scores[items > 0].tolist() == score[expected[:k] - 1].tolist()
            assert not items[len(expected[:k]) :].any()


@given(st.data())
def test_the_first_of_scores_are_those_of_a_sort(draw):
    shape = draw.draw(st.tuples(st.integers(1, 4), st.integers(1, 30)))
    levels = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])
    scores = draw.draw(arrays(np.float32, shape, elements=levels))
    k = draw.draw(st.integers(1, 35))
    column, value = retrieval._top(torch.from_numpy(scores), k)
    for row, given_scores in enumerate(scores):
        order = np.lexsort((tie_places(shape[1]), -given_scores))[:k]
        assert column[row].tolist() == order.tolist()
        assert value[row].tolist() == given_scores[order].tolist()


@pytest.mark.parametrize("levels", [3, 1000, 10**9])
def test_the_first_of_many_scores_are_those_of_a_sort(levels):
    """Enough of them for the way over blocks, few and many of them equal."""
    rng = np.random.default_rng(levels)
    scores = (rng.integers(0, levels, (5, 3001)) / levels).astype(np.float32)
    column, value = retrieval._top(torch.from_numpy(scores), 5)
    for row, own in enumerate(scores):
        order = np.lexsort((tie_places(3001), -own))[:5]
        assert column[row].tolist() == order.tolist()
        assert value[row].tolist() == own[order].tolist()


@settings(deadline=None)
@given(st.data())
def test_counts_equal_those_of_comparisons(draw):
    shape = draw.draw(st.tuples(st.integers(1, 9), st.integers(1, 40)))
    scores = draw.draw(arrays(np.float32, shape, elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.25, np.inf])))
    places, rows = tie_places(shape[1]), np.arange(shape[0])
    target = draw.draw(arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
    own, own_place = scores[rows, target][:, None], places[target]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "TILE_BYTES", draw.draw(st.integers(1, 200)))
        found = retrieval._before(*map(torch.from_numpy, (scores, own, places.copy(), own_place)))
    expected = (scores > own) | ((scores == own) & (places < own_place[:, None]))
    assert found.tolist() == expected.sum(1).tolist()


def test_chunks_do_not_change_the_rows(data, monkeypatch):
    model = Scripted(Settings(), data.schema())
    whole = data.evaluate(model, "test")
    monkeypatch.setattr(retrieval, "SCORE_BYTES", 6 * 25 * 3)
    assert data.evaluate(model, "test").equals(whole)


def test_summary_is_the_mean_over_rows(data):
    rows = data.evaluate(Scripted(Settings(), data.schema()), "test")
    summary = data.summarise(rows)
    ranks = [r or np.inf for r in rows["rank_unseen"].to_pylist()]
    assert summary["unseen"]["mrr"] == pytest.approx(np.mean([1 / r for r in ranks]))
    assert summary["unseen"]["ndcg@10"] == pytest.approx(np.mean(per_user("ndcg@10", np.array(ranks))))


def test_scores_that_are_not_finite_end_the_cell(data):
    class Broken(Scripted):
        def score_items(self, batch):
            return super().score_items(batch) * torch.nan

    class BrokenList(Listed):
        def rank_items(self, batch, k):
            found = super().rank_items(batch, k)
            return Ranking(found.items, found.scores * torch.nan, complete=False)

    for kind in (Broken, BrokenList):
        with pytest.raises(CellFailed, match="not finite"):
            data.evaluate(kind(Settings(), data.schema()), "test")


def test_item_counts_come_from_training_alone(data):
    counts = data.schema().item_counts.numpy()
    expected = np.zeros_like(counts)
    for user in range(len(data.log.users)):
        for event in range(data.log.offsets[user], data.split.train_end[user]):
            expected[data.log.item[event]] += 1
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("phase", ["valid", "test"])
def test_what_training_knew_of_the_targets_comes_from_training_alone(data, phase):
    rows = data.evaluate(Scripted(Settings(), data.schema()), phase)
    log, split, pairs, counts = data.log, data.split, {}, {}
    for user in range(len(log.users)):
        items = log.item[log.offsets[user] : split.train_end[user]].tolist()
        for item in items:
            counts[item] = counts.get(item, 0) + 1
        for pair in pairwise(items):
            pairs[pair] = pairs.get(pair, 0) + 1
    targets = split.targets(phase)[1]
    assert rows["target_events"].to_pylist() == [counts.get(log.item[t], 0) for t in targets]
    expected = [pairs.get((log.item[t - 1], log.item[t]), 0) for t in targets]
    assert rows["target_follows"].to_pylist() == expected
    assert 0 < sum(map(bool, expected)) < len(expected)


def test_a_model_that_knows_nothing_does_not_profit_from_ties():
    """Small item ids are popular ones, so a tie broken by id would be a recommendation."""
    log = load("ml-100k", DataConfig())
    data = Retrieval(log, make_split(log, DataConfig()), max_length=6, metrics=["recall@10"])

    class Constant(Scripted):
        def score_items(self, batch):
            return torch.zeros(len(batch.items), self.schema.n_items)

    rank = np.array(data.evaluate(Constant(Settings(), data.schema()), "test")["rank_all"].to_pylist())
    n_items = len(log.items) - 1
    # The mean of a uniform rank, within four standard errors.
    assert abs(rank.mean() - (n_items + 1) / 2) < 4 * n_items / np.sqrt(12 * len(rank))
    counts = data.schema().item_counts[1:].numpy()
    assert abs(np.corrcoef(tie_places(n_items), counts)[0, 1]) < 0.1
