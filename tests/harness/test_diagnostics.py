"""What is measured of a training, against autograd by hand and brute force; measuring leaves no trace."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from harness import training as trainer
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.diagnostics import Diagnostics, gradient_shares, mean_cosine
from harness.errors import Interrupted
from harness.interface import Needs, Recommender, Task
from harness.settings import Settings
from harness.tasks.retrieval import Retrieval
from harness.training_config import Budget, TrainingConfig


class Watched(Recommender):
    """Draws dropout and keeps running statistics, so that a pass too many would show in what is trained."""

    Config = Settings
    tasks = frozenset({Task.RETRIEVAL})
    needs = Needs()

    def __init__(self, config, schema):
        super().__init__(config, schema)
        self.table = nn.Embedding(schema.n_items + 1, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(8, schema.n_items)
        self.side = nn.Linear(8, 1)

    def states(self, items):
        return self.dropout(self.norm(self.table(items)))

    def losses(self, batch):
        states = self.states(batch.items.flatten()[batch.valid])
        return {
            "ce": nn.functional.cross_entropy(self.head(states), batch.targets.flatten()[batch.valid] - 1),
            "side": 0.1 * self.side(states).square().mean(),
            "decay": 1e-3 * self.head.weight.square().sum(),
        }

    def user_states(self, batch):
        return self.states(batch.items.flatten()[batch.last()])

    def score_items(self, batch):
        return self.head(self.user_states(batch))


class Plain(Watched):
    """The same without states to show."""

    user_states = Recommender.user_states

    def score_items(self, batch):
        return self.head(self.states(batch.items.flatten()[batch.last()]))


@pytest.fixture(scope="module")
def data():
    log = load("synthetic-sessions:users=60,items=30", DataConfig())
    return Retrieval(log, make_split(log, DataConfig()), max_length=10, metrics=["ndcg@10"])


TRAINING = TrainingConfig(batch_size=16, learning_rate=0.02, clip_norm=1.0)


def train(data, folder, kind=Watched, stop_after=None):
    torch.manual_seed(0)
    model = kind(Settings(), data.schema())
    calls = itertools.count(1)
    fitted = trainer.fit(
        model,
        data,
        training=TRAINING,
        budget=Budget(epochs=3),
        primary="ndcg@10",
        seed=3,
        folder=folder,
        should_stop=lambda: stop_after is not None and next(calls) > stop_after,
    )
    return model, fitted


def without_seconds(history):
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in history]


# -- the quantities ---------------------------------------------------------------------------------------------


def test_shares_are_those_of_the_derivatives_by_hand():
    a, b, c = (nn.Parameter(torch.tensor(x)) for x in ([3.0, 4.0], [1.0], [2.0]))
    terms = {
        "main": 0.5 * (a.square().sum() + b.square().sum()),  # gradient (3, 4) and (1)
        "aux": 0.2 * a.sum() + 7.0 * c.sum(),  # (0.2, 0.2) on what is shared; c is the term's own
        "other": -2.0 * b.sum() + a[0],  # (1, 0) and (-2)
        "alone": c.square().sum(),
        "constant": torch.tensor(1.0),
    }
    found = gradient_shares(terms, [a, b, c])
    assert found["main"] == pytest.approx(26**0.5)
    assert found["aux"] == pytest.approx(0.2 * 2**0.5 / 5)
    assert found["other"] == pytest.approx((5 / 26) ** 0.5)
    assert found["alone"] is None
    assert found["constant"] is None
    assert all(p.grad is None for p in (a, b, c))


def test_a_main_loss_without_gradient_gives_no_share():
    a = nn.Parameter(torch.ones(2))
    assert gradient_shares({"main": 0 * a.sum(), "aux": a.sum()}, [a]) == {"main": 0.0, "aux": None}
    assert gradient_shares({"main": torch.tensor(2.0)}, []) == {"main": 0.0}


@given(arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(1, 5)), elements=st.floats(-5, 5, width=16)))
def test_the_cosine_is_the_mean_over_all_pairs(states):
    states = torch.from_numpy(states)
    pairs = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in itertools.combinations(states, 2)]
    assert mean_cosine(states) == pytest.approx(np.mean(pairs), abs=1e-9)


def test_the_cosine_of_one_state_and_of_its_copies():
    assert mean_cosine(torch.ones(1, 3)) is None
    assert mean_cosine(torch.randn(1, 5).expand(4, 5)) == pytest.approx(1)


# -- what is measured of a model --------------------------------------------------------------------------------


def test_what_is_measured_is_what_backward_gives(data):
    torch.manual_seed(1)
    model = Watched(Settings(), data.schema())
    diagnostics = Diagnostics(model, data, TRAINING)
    row = diagnostics.measure()
    assert set(row) == {"gradient/ce", "gradient/side", "gradient/decay", "state_cosine", "diagnostics_seconds"}

    model.eval()
    users = np.unique(torch.cat([batch.users for batch in diagnostics.histories]).numpy())
    histories = data.histories("valid")
    assert len(users) == len(histories) == 60
    last = torch.from_numpy(data.log.item[histories.end - 1])
    states = model.states(last).detach()
    pairs = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in itertools.combinations(states, 2)]
    assert row["state_cosine"] == pytest.approx(np.mean(pairs), abs=1e-6)

    norms = {}
    for term in ("ce", "side", "decay"):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        model.train()
        model.losses(diagnostics.batch)[term].backward()
        norms[term] = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert row["gradient/ce"] == pytest.approx(np.linalg.norm(list(norms["ce"].values())))
    assert "side.weight" not in norms["ce"]
    for term in ("side", "decay"):
        shared = norms[term].keys() & norms["ce"].keys()
        share = np.divide(*(np.linalg.norm([norms[t][name] for name in shared]) for t in (term, "ce")))
        assert row[f"gradient/{term}"] == pytest.approx(share)


def test_no_event_of_validation_or_test_is_read(data):
    model = Watched(Settings(), data.schema())
    torch.manual_seed(0)
    row = Diagnostics(model, data, TRAINING).measure()
    poisoned = Retrieval(data.log, data.split, max_length=10, metrics=["ndcg@10"])
    held_out = np.concatenate([data.split.events(phase)[1] for phase in ("valid", "test")])
    poisoned.sequences.items = data.sequences.items.clone()
    poisoned.sequences.items[held_out] = 1
    assert without_seconds([Diagnostics(model, poisoned, TRAINING).measure()]) == without_seconds([row])


def test_the_batch_is_no_larger_than_one_of_training(data, monkeypatch):
    model = Watched(Settings(), data.schema())
    epoch = data.training_epoch(rows="positions", batch_size=1, rng=np.random.default_rng(0))[0]
    for most, size, expected in ((64, 5, 5), (64, 512, epoch), (20, 512, 20)):
        monkeypatch.setattr("harness.diagnostics.WINDOWS", most)
        assert len(Diagnostics(model, data, TrainingConfig(batch_size=size)).batch.items) == expected


def test_measuring_leaves_random_state_buffers_gradients_and_modes(data):
    model = Watched(Settings(), data.schema())
    diagnostics = Diagnostics(model, data, TRAINING)
    model.train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (without_seconds([diagnostics.measure()]) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not model.norm.training


# -- in a training ----------------------------------------------------------------------------------------------


def test_training_has_the_same_bytes_with_and_without(data, tmp_path, monkeypatch):
    watched, fitted = train(data, tmp_path / "watched")
    monkeypatch.setattr(Diagnostics, "measure", lambda self: {})
    alone, unwatched = train(data, tmp_path / "alone")
    for name, tensor in watched.state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name
    measured = {"state_cosine", "gradient/ce", "gradient/side", "gradient/decay"}
    assert [
        {k: v for k, v in row.items() if k not in measured} for row in without_seconds(fitted.history)
    ] == without_seconds(unwatched.history)
    assert all(measured <= set(row) for row in fitted.history)


def test_a_resumed_training_measures_the_same(data, tmp_path):
    model, fitted = train(data, tmp_path / "whole")
    for stop in (5, 4):
        with pytest.raises(Interrupted):
            train(data, tmp_path / "parts", stop_after=stop)
    resumed, again = train(data, tmp_path / "parts")
    assert again.cost["resumed"] == 2
    assert without_seconds(again.history) == without_seconds(fitted.history)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_model_without_states_has_no_cosine(data, tmp_path):
    _, fitted = train(data, tmp_path, Plain)
    assert all("state_cosine" not in row and row["gradient/side"] > 0 for row in fitted.history)
    with pytest.raises(NotImplementedError, match="Plain does not show its users' states"):
        Plain(Settings(), data.schema()).user_states(None)


def test_bfloat16_measures_what_it_trains(data):
    torch.manual_seed(0)
    model = Watched(Settings(), data.schema())
    full = Diagnostics(model, data, TRAINING).measure()
    half = Diagnostics(model, data, TRAINING.model_copy(update={"precision": "bfloat16"})).measure()
    assert half["gradient/side"] == pytest.approx(full["gradient/side"], rel=0.05)
    assert half["gradient/side"] != full["gradient/side"]
