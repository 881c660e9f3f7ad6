from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.metrics import check_metric
from harness.metrics.ranking import per_user

CUTOFFS = [1, 5, 10, 20]


@pytest.fixture
def recbole_metrics():
    """RecBole's metric classes, with the old name of NumPy's that they use."""
    pytest.importorskip("recbole", reason="RecBole is not installed")
    from harness.baselines.recbole import import_recbole, numpy_float

    with numpy_float():
        yield import_recbole("recbole.evaluator.metrics")
    assert not hasattr(np, "float")


def random_ranks(seed: int, n_users: int = 500, n_items: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, n_items + 1, n_users)


def evidence(ranks: np.ndarray, width: int) -> dict[str, torch.Tensor]:
    """What RecBole's collector hands to its metrics: hits at each rank, and the number of targets behind them."""
    hits = torch.from_numpy(ranks[:, None] == np.arange(1, width + 1)).int()
    return {"rec.topk": torch.cat([hits, torch.ones(len(ranks), 1, dtype=torch.int)], dim=1)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("recall", "Recall"), ("ndcg", "NDCG"), ("mrr", "MRR"), ("recall", "Hit"), ("precision", "Precision")],
)
def test_means_equal_recboles(recbole_metrics, ours, theirs, seed):
    ranks = random_ranks(seed)
    metric = getattr(recbole_metrics, theirs)({"topk": CUTOFFS, "metric_decimal_place": 12})
    result = metric.calculate_metric(evidence(ranks, max(CUTOFFS)))
    for k in CUTOFFS:
        assert per_user(f"{ours}@{k}", ranks).mean() == pytest.approx(result[f"{theirs.lower()}@{k}"], abs=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [("recall", "Recall"), ("ndcg", "NDCG"), ("mrr", "MRR")])
def test_every_user_equals_recboles(recbole_metrics, ours, theirs):
    ranks = random_ranks(7)
    metric = getattr(recbole_metrics, theirs)({"topk": CUTOFFS, "metric_decimal_place": 12})
    position, count = metric.used_info(evidence(ranks, max(CUTOFFS)))
    table = metric.metric_info(position) if theirs == "MRR" else metric.metric_info(position, count)
    for k in CUTOFFS:
        np.testing.assert_allclose(per_user(f"{ours}@{k}", ranks), table[:, k - 1], atol=1e-12)


def test_mrr_of_the_whole_ranking_equals_recboles_at_the_size_of_the_catalogue(recbole_metrics):
    ranks = random_ranks(3, n_items=60)
    metric = recbole_metrics.MRR({"topk": [60], "metric_decimal_place": 12})
    assert per_user("mrr", ranks).mean() == pytest.approx(metric.calculate_metric(evidence(ranks, 60))["mrr@60"])


def test_recboles_collector_finds_the_same_ranks(recbole_metrics):
    """From scores to metrics, both ways: RecBole's top-K collector against a rank counted by hand."""
    collector = importlib.import_module("recbole.evaluator.collector").Collector(
        {"topk": CUTOFFS, "metrics": ["Recall", "NDCG", "MRR"], "eval_args": {"mode": "full"}, "device": "cpu"}
    )
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(300, 80, generator=generator)
    target = torch.randint(1, 80, (300,), generator=generator)
    scores[:, 0] = -torch.inf
    collector.eval_batch_collect(scores, None, torch.arange(300), target)
    struct = collector.get_data_struct()
    rank = (scores > scores.gather(1, target[:, None])).sum(1).numpy() + 1
    for ours, theirs in (("recall", "Recall"), ("ndcg", "NDCG"), ("mrr", "MRR")):
        metric = getattr(recbole_metrics, theirs)({"topk": CUTOFFS, "metric_decimal_place": 12})
        for name, value in metric.calculate_metric(struct).items():
            assert per_user(name.replace(theirs.lower(), ours), rank).mean() == pytest.approx(value, abs=1e-9)


@settings(deadline=None)  # the first call imports
@given(st.lists(st.one_of(st.integers(1, 200), st.none()), min_size=1), st.integers(1, 50))
def test_against_a_dcg_summed_over_the_list(ranks, k):
    """From the definition: gains over the first K places of a list with one relevant item, or with none."""
    values = np.array([np.nan if r is None else r for r in ranks], dtype=float)
    for row, rank in enumerate(ranks):
        relevant = [place == rank for place in range(1, k + 1)]
        dcg = sum(hit / np.log2(place + 1) for place, hit in enumerate(relevant, start=1))
        assert per_user(f"ndcg@{k}", values)[row] == pytest.approx(dcg)
        assert per_user(f"recall@{k}", values)[row] == float(any(relevant))
        reciprocal = sum(hit / place for place, hit in enumerate(relevant, start=1))
        assert per_user(f"mrr@{k}", values)[row] == per_user(f"map@{k}", values)[row] == pytest.approx(reciprocal)
        assert per_user(f"precision@{k}", values)[row] == pytest.approx(sum(relevant) / k)


def test_a_target_that_was_not_ranked_scores_nothing():
    for name in ("recall@10", "ndcg@10", "mrr@10", "mrr"):
        assert per_user(name, np.array([np.nan, 1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("given", "canonical"), [(" NDCG@10 ", "ndcg@10"), ("Recall@5", "recall@5"), ("MRR", "mrr")])
def test_names_are_read_in_any_case(given, canonical):
    assert check_metric(given, "retrieval") == canonical


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", "did you mean 'ndcg'"),
        ("accuracy@5", "unknown metric"),
        ("ne", "belongs to the task 'action'"),
        ("ndcg@10/like", "is not one of actions"),
        ("coverage@51", "keeps 50 items"),
        ("recall", "needs a cutoff"),
        ("ndcg@0", "unknown metric"),
        ("ndcg@-5", "unknown metric"),
        ("ndcg@ten", "unknown metric"),
        ("", "unknown metric"),
    ],
)
def test_bad_names_are_one_clear_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        check_metric(name, "retrieval")
    assert "\n" not in str(caught.value)
