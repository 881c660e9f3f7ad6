"""The benchmarks measure the same work on both sides. Their times are asserted nowhere."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("recbole", reason="RecBole is not installed")

from benchmarks import attention, evaluation, training
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.tasks.retrieval import Retrieval

LENGTH = 6


@pytest.fixture(scope="module")
def data() -> Retrieval:
    config = DataConfig(max_length=LENGTH)
    log = load("synthetic-clusters:users=30", config)
    metrics = [f"{name}@{k}" for name in ("recall", "ndcg") for k in evaluation.CUTOFFS]
    return Retrieval(log, make_split(log, config), max_length=LENGTH, metrics=metrics)


def test_recboles_rows_are_its_own_augmentation(data):
    """Each event of a user's training part but the first, with the events before it (RecBole's data_augmentation)."""
    expected = []
    for user in range(len(data.log.users)):
        items = data.log.item[data.log.offsets[user] : data.split.train_end[user]].tolist()
        for place in range(1, len(items)):
            history = items[max(0, place - LENGTH) : place]
            expected.append((user + 1, history + [0] * (LENGTH - len(history)), len(history), items[place]))
    rows = training.prefix_rows(data)
    columns = [rows[name].tolist() for name in ("user_id", "item_id_list", "item_length", "item_id")]
    assert sorted(zip(*columns, strict=True)) == sorted(expected)


def test_an_epoch_has_the_same_targets_on_both_sides(data):
    rows = training.prefix_rows(data)
    assert training.our_epoch(data)[0] == len(rows)
    assert training.recbole_steps(data, rows, steps=2, batch_size=16)[0] == 32
    found = training.compare(data, repeats=1, steps=1)
    assert min(found.ours + found.peer) > 0


def test_both_evaluations_find_the_same_metrics(data):
    model = evaluation.build("recbole:SASRec", data)
    ours, _ = evaluation.our_evaluation(model, data)
    for batch_size in (7, 4096):
        theirs, _ = evaluation.recbole_evaluation(model.model, evaluation.held_out_rows(data), batch_size)
        assert theirs == pytest.approx(ours, abs=1e-9)
    assert len(evaluation.compare(data, repeats=1)) == 2


def test_focused_attention_and_its_twin_differ_in_nothing_else():
    schema, batch = attention.invented(length=4, batch_size=2)
    common = {"dim": 16, **attention.ATTENTION_ALONE}
    focused, softmax = (attention.build(schema, attention=kind, **common) for kind in ("focused", "softmax"))
    shapes = [
        {name: tensor.shape for name, tensor in model.state_dict().items() if ".attention." not in name}
        for model in (focused, softmax)
    ]
    assert shapes[0] == shapes[1]
    assert focused.losses(batch).keys() == softmax.losses(batch).keys()
    before = [parameter.clone() for parameter in focused.parameters()]
    assert attention.training_step(focused, batch)() > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, focused.parameters(), strict=True))
    assert len(attention.compare(schema, batch, dim=16, repeats=1)) == 4
