"""The popularity ranking against counting, and its one parameter against the best value on a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.baselines.popularity import Popularity
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.errors import InputError
from harness.interface import Schema
from harness.settings import Settings
from harness.tasks.retrieval import Retrieval


@pytest.fixture(scope="module")
def data():
    log = load("synthetic-sessions:users=60,items=30,length=12", DataConfig())
    return Retrieval(log, make_split(log, DataConfig()), max_length=8, metrics=["ndcg@10"])


@pytest.fixture
def model(data):
    return Popularity(Settings(), data.schema())


def test_ranks_by_counts_of_the_training_part(data, model):
    counts = np.bincount(data.log.item[data.split.events("train")[1]], minlength=31)[1:]
    rows = data.evaluate(model, "test").to_pandas()
    for target, rank in zip(rows["target"], rows["rank_all"], strict=True):
        item = data.log.items.tolist().index(target) - 1
        above, equal = (counts > counts[item]).sum(), (counts == counts[item]).sum()
        assert above < rank <= above + equal


def test_the_loss_is_that_of_the_unigram_model_and_ranks_stay_while_it_falls(data, model):
    windows = data.histories("valid")
    batch = data.sequences.batch(windows, data.task, supervise=True)
    assert batch.targets is not None
    before = model.score_items(batch).argsort(stable=True)
    share = (model.schema.item_counts[1:] + 0.5).double()
    target = batch.targets.flatten()[batch.valid] - 1

    def loss(tau):
        return -(share**tau / (share**tau).sum()).log()[target].mean()

    assert model.losses(batch)["ce"].item() == pytest.approx(loss(1.0).item(), abs=1e-5)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = model.losses(batch)["ce"]
        value.backward()
        return value

    optimiser.step(closure)
    best = min(loss(tau).item() for tau in np.linspace(0, 5, 501))
    assert model.losses(batch)["ce"].item() == pytest.approx(best, abs=1e-3)
    assert model.score_items(batch).argsort(stable=True).equal(before)


def test_without_counts():
    with pytest.raises(InputError, match="no item counts"):
        Popularity(Settings(), Schema(n_items=3, n_users=1, max_length=4))
