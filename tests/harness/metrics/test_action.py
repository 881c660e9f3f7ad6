from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from harness.errors import InputError
from harness.metrics import action as metrics
from harness.metrics import check_metric, find, lower_is_better
from harness.metrics.base import Evidence


def value(name, label, probability, user=None):
    """A metric of one action's events."""
    rows = {
        "user": np.zeros(len(label), int) if user is None else user,
        "action": np.full(len(label), "x"),
        "label": label,
        "probability": probability,
    }
    labels = metrics.labels_of(rows)
    return find(name).value(Evidence({"label": lambda: labels}))


def summarise(rows):
    return metrics.summarise(metrics.labels_of(rows))


def drawn(seed: int, n: int = 400, users: int = 30, ties: bool = False):
    rng = np.random.default_rng(seed)
    probability = rng.random(n)
    if ties:
        probability = np.round(probability, 1)
    label = (rng.random(n) < probability).astype(np.int8)
    return label, probability.astype(np.float32), rng.integers(0, users, n)


def test_normalized_entropy_of_the_published_example():
    # torcheval's documentation of binary_normalized_entropy; an event of weight 5 is five events.
    assert value("ne", np.array([1, 0]), np.array([0.2, 0.3])) == pytest.approx(1.4183, abs=1e-4)
    label, probability = np.array([1] * 5 + [0]), np.array([0.2] * 5 + [0.3])
    assert value("ne", label, probability) == pytest.approx(3.1087, abs=1e-4)


def test_predicting_the_base_rate_has_normalized_entropy_one():
    label = np.array([1, 0, 0, 0])
    assert value("ne", label, np.full(4, 0.25)) == pytest.approx(1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_bce_and_auc_equal_scikit_learn(seed, ties):
    label, probability, _ = drawn(seed, ties=ties)
    clipped = np.clip(probability.astype(float), metrics.SMALLEST, 1 - metrics.SMALLEST)
    assert value("bce", label, probability) == pytest.approx(log_loss(label, clipped), rel=1e-9)
    assert value("auc", label, probability) == pytest.approx(roc_auc_score(label, probability), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("users", [1, 7, 300])
def test_gauc_equals_a_loop_over_users(users, ties):
    label, probability, user = drawn(users, users=users, ties=ties)
    total = weight = used = 0
    for one in np.unique(user):
        own = user == one
        if 0 < label[own].sum() < own.sum():
            total += own.sum() * roc_auc_score(label[own], probability[own])
            weight += own.sum()
            used += 1
    assert value("gauc", label, probability, user) == pytest.approx(total / weight, abs=1e-12)
    rows = {"user": user, "action": ["like"] * len(user), "label": label, "probability": probability}
    counted = summarise(rows)["like"]
    assert (counted["gauc_users"], counted["gauc_skipped"]) == (used, len(np.unique(user)) - used)


def test_calibration_error_equals_a_loop_over_bins():
    label, probability, _ = drawn(3)
    expected = 0.0
    for low in range(15):
        inside = (probability * 15).astype(int) == low
        if inside.any():
            gap = abs(probability[inside].astype(float).mean() - label[inside].mean())
            expected += inside.mean() * gap
    assert value("ece", label, probability) == pytest.approx(expected, abs=1e-9)
    assert value("ece", np.array([1, 0]), np.array([1.0, 0.0])) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=1, max_size=40))
def test_metrics_are_finite_or_none_and_bounded(events):
    label = np.array([int(y) for y, _, _ in events])
    probability = np.array([p / 20 for _, p, _ in events])
    user = np.array([u for _, _, u in events])
    for found in (value("auc", label, probability), value("gauc", label, probability, user)):
        assert np.isnan(found) or 0 <= found <= 1
    for found in (value("bce", label, probability), value("ne", label, probability)):
        assert np.isnan(found) or (np.isfinite(found) and found >= 0)
    assert 0 <= value("ece", label, probability) <= 1
    assert np.isnan(value("auc", label, probability)) == (label.min() == label.max())


@pytest.mark.parametrize("label", [np.zeros(4, int), np.ones(4, int)])
def test_an_action_that_never_or_always_occurs_is_undefined(label):
    probability, user = np.array([0.0, 0.2, 0.9, 1.0]), np.array([0, 0, 1, 1])
    assert np.isnan(value("ne", label, probability))
    assert np.isnan(value("auc", label, probability))
    assert np.isnan(value("gauc", label, probability, user))
    assert np.isfinite(value("bce", label, probability))


def table(label, probability, user, action):
    return {"user": user, "action": action, "label": label, "probability": probability}


def test_summary_takes_each_action_apart_and_averages_the_defined_ones():
    label, probability, user = drawn(0)
    names = np.array(["b like", "a love"])[np.arange(400) % 2]
    rows = table(label, probability, np.array([f"u{u}" for u in user]), names)
    never = table(np.zeros(10, np.int8), np.full(10, 0.1, np.float32), np.array(["u0"] * 10), np.array(["never"] * 10))
    both = {key: np.concatenate((rows[key], never[key])) for key in rows}
    summary = summarise(pa.table(both))
    assert list(summary) == ["mean", "b like", "a love", "never"]
    own = names == "a love"
    assert summary["a love"]["auc"] == pytest.approx(roc_auc_score(label[own], probability[own]))
    assert summary["never"]["ne"] is None
    assert summary["never"]["gauc_skipped"] == 1
    assert summary["mean"]["ne"] == pytest.approx((summary["b like"]["ne"] + summary["a love"]["ne"]) / 2)
    assert summary["mean"]["bce"] == pytest.approx(np.mean([summary[a]["bce"] for a in ("b like", "a love", "never")]))
    assert summary == summarise(pd.DataFrame(both)) == summarise(both)


def test_summary_of_undefined_actions_alone_is_none():
    summary = summarise(table(np.zeros(3), np.full(3, 0.5), np.arange(3), np.array(["x"] * 3)))
    assert summary["mean"]["auc"] is None
    assert summary["mean"]["bce"] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"label": np.array([0, 2])}, "label"), ({"probability": np.array([0.1, np.nan])}, "probability")],
)
def test_damaged_rows_are_a_clear_error(change, word):
    rows = table(np.array([0, 1]), np.array([0.1, 0.9]), np.arange(2), np.array(["x", "x"])) | change
    with pytest.raises(InputError, match=word):
        summarise(rows)


def test_names():
    assert check_metric("NE/like", "action") == "ne/like"
    assert not lower_is_better("auc/like")
    assert lower_is_better("ne")
    with pytest.raises(InputError, match="did you mean 'gauc'"):
        check_metric("gauk", "action")


def test_no_torch_is_imported():
    code = "import sys, harness.metrics.action; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["bce", "ne", "gauc", "bce/a", "gauc/b"])
def test_users_values_average_to_the_metric_and_spread_as_a_bootstrap_over_users(metric):
    label, probability, user = drawn(3, n=3000, users=120)
    user = np.minimum(user, np.random.default_rng(4).integers(0, 120, 3000))  # some have many more events than others
    action = np.where(np.random.default_rng(5).random(3000) < 0.7, "a", "b")
    rows = pd.DataFrame({"user": user.astype(str), "action": action, "label": label, "probability": probability})
    family, _, name = metric.partition("/")
    labels = metrics.labels_of(rows)
    values = find(metric).users(Evidence({"label": lambda: labels}))
    assert values.shape == (rows["user"].nunique(),)
    assert values.mean() == pytest.approx(summarise(rows)[name or "mean"][family], rel=1e-12)
    rng = np.random.default_rng(0)
    by_user = [group for _, group in rows.groupby("user")]
    again = []
    for _ in range(150):
        drawn_users = rng.integers(0, len(by_user), len(by_user))
        frames = [by_user[u].assign(user=str(place)) for place, u in enumerate(drawn_users)]
        again.append(summarise(pd.concat(frames))[name or "mean"][family])
    assert values.std(ddof=1) / np.sqrt(len(values)) == pytest.approx(np.std(again), rel=0.25)


def test_what_is_no_mean_over_users_has_no_values_of_users():
    label, probability, user = drawn(0)
    rows = {"user": user, "action": np.full(len(user), "a"), "label": label, "probability": probability}
    never = rows | {"label": np.zeros_like(label)}
    for name, given_rows in (("auc", rows), ("ece", rows), ("ne", never), ("gauc", never)):
        evidence = Evidence({"label": lambda given_rows=given_rows: metrics.labels_of(given_rows)})
        assert find(name).users(evidence) is None
