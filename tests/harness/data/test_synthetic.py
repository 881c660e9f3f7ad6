from __future__ import annotations

import numpy as np
import pytest

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.errors import InputError

SMALL = "synthetic-clusters:users=50,items=40,clusters=5,length=30,seed=3"


def test_clusters_have_the_asked_for_size_and_are_the_same_every_time():
    log = load(SMALL, DataConfig())
    assert (log.n_users, log.n_events) == (50, 1500)
    assert log.n_items <= 40
    assert log.name == SMALL
    assert log.fingerprint == load(SMALL, DataConfig()).fingerprint
    assert log.fingerprint != load(SMALL.replace("seed=3", "seed=4"), DataConfig()).fingerprint


def test_an_action_is_the_users_sign_for_the_cluster():
    log = load(SMALL, DataConfig())
    cluster = log.item_table["cluster"].to_numpy()[log.item - 1]
    user = np.repeat(np.arange(log.n_users), log.lengths)
    signs: dict[tuple, int] = {}
    for key, action in zip(zip(user, cluster, strict=True), log.actions[:, 0], strict=True):
        assert signs.setdefault(key, action) == action
    assert 0.4 < np.mean(list(signs.values())) < 0.6
    assert log.text_fields == ()  # the answer is not text


def test_without_the_users_past_the_action_is_a_coin():
    """Items alone say nothing: over users, every cluster is liked about half the time."""
    log = load("synthetic-clusters:users=2000,items=40,clusters=5,length=20", DataConfig())
    rates = [log.actions[log.item == item, 0].mean() for item in range(1, log.n_items + 1)]
    assert np.all(np.abs(np.array(rates) - 0.5) < 0.08)


def test_noise_turns_actions_round():
    clean = load("synthetic-clusters:users=500", DataConfig())
    noisy = load("synthetic-clusters:users=500,noise=0.1", DataConfig())
    assert np.array_equal(clean.item, noisy.item)
    assert np.mean(clean.actions != noisy.actions) == pytest.approx(0.1, abs=0.01)


def test_sessions_follow_their_rings_and_have_texts():
    log = load("synthetic-sessions:users=400,order=0.8", DataConfig())
    number = np.array([int(i[1:]) for i in log.items[1:]])[log.item - 1]
    inside = np.ones(log.n_events - 1, dtype=bool)
    inside[log.offsets[1:-1] - 1] = False
    follows = np.isin(number[1:] - number[:-1], [12, 12 - 120])[inside]
    assert np.mean(follows) == pytest.approx(0.8, abs=0.03)
    assert log.lengths.min() >= 3
    assert log.item_table.loc[1, "title"] == f"group{number[0] % 12} shade{number[0] % 7} model{number[0]}"
    assert log.action_names == ("like",)


def test_golden_fingerprints():
    """The same on every machine and for every version of numpy."""
    assert load("synthetic-clusters", DataConfig()).fingerprint.startswith("43aa5e986ed34c56")
    assert load("synthetic-sessions", DataConfig()).fingerprint.startswith("44504d81e1dcda7e")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synthetic-clusters:user=5", "unknown key 'user'; did you mean 'users'"),
        ("synthetic-clusters:users=0", "'users'"),
        ("synthetic-clusters:users", "'users' is not of the form KEY=VALUE"),
        ("synthetic-cluster", "did you mean 'synthetic-clusters'"),
    ],
)
def test_bad_parameters_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        load(name, DataConfig())
