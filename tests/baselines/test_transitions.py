"""The transition graph against counting in numpy; that it sees the training part alone; that nothing is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.baselines.transitions import Transitions, TransitionsConfig, transition_graph
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.errors import InputError
from harness.fidelity import card
from harness.interface import Batch, Schema
from harness.settings import parse
from harness.tasks.retrieval import Retrieval


def counted(sequences: list[list[int]], histories: list[list[int]], n_items: int, c: TransitionsConfig) -> np.ndarray:
    """(B, n_items) scores, one pair of events at a time."""
    graph = np.zeros((n_items + 1, n_items + 1))
    seen = np.zeros(n_items + 1)
    for sequence in sequences:
        for t, item in enumerate(sequence):
            seen[item] += 1
            if t + 1 < len(sequence):
                graph[item, sequence[t + 1]] += c.forward
                graph[sequence[t + 1], item] += c.backward
            if t + 2 < len(sequence):
                graph[item, sequence[t + 2]] += c.two_steps
    total = graph.sum(axis=1, keepdims=True)
    graph = np.divide(graph, total, out=np.zeros_like(graph), where=total > 0)
    scores = []
    for history in histories:
        reached = graph[history[-1]].copy()
        if len(history) > 1:
            reached += c.previous * graph[history[-2]]
        scores.append(reached + c.further * reached @ graph + c.popularity * seen / seen.sum())
    return np.array(scores)[:, 1:]


def schema_of(sequences: list[list[int]], n_items: int) -> Schema:
    items = torch.tensor([item for sequence in sequences for item in sequence])
    users = torch.tensor([user for user, sequence in enumerate(sequences) for _ in sequence])
    counts = torch.bincount(items, minlength=n_items + 1)
    return Schema(n_items, len(sequences), 9, item_counts=counts, train_events=lambda: (items, users))


def batch_of(histories: list[list[int]]) -> Batch:
    items = torch.zeros(len(histories), max(map(len, histories)), dtype=torch.int64)
    for row, history in enumerate(histories):
        items[row, : len(history)] = torch.tensor(history)
    lengths = torch.tensor([len(history) for history in histories])
    return Batch(items=items, lengths=lengths, users=torch.arange(len(histories)))


weight = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])
sequences = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=9), min_size=1, max_size=8)
configs = st.builds(
    TransitionsConfig,
    forward=st.sampled_from([0.2, 1.0]), backward=weight, two_steps=weight, previous=weight, further=weight,
    popularity=weight,
)  # fmt: skip


@given(trained=sequences, histories=sequences, config=configs)
def test_scores_equal_counting(trained, histories, config):
    model = Transitions(config, schema_of(trained, 8))
    found = model.score_items(batch_of(histories)).numpy()
    np.testing.assert_allclose(found, counted(trained, histories, 8, config), rtol=1e-5, atol=1e-6)


def test_events_after_the_training_part_change_nothing():
    config = DataConfig()
    log = load("synthetic-sessions:users=60,items=30,length=12", config)
    split = make_split(log, config)
    options = {"max_length": 8, "metrics": ["ndcg@10"]}
    clean = Transitions(TransitionsConfig(), Retrieval(log, split, **options).schema())
    later = np.ones(len(log.item), dtype=bool)
    later[split.events("train")[1]] = False
    log.item[later] = 1
    poisoned = Transitions(TransitionsConfig(), Retrieval(log, split, **options).schema())
    assert torch.equal(clean.graph.to_dense(), poisoned.graph.to_dense())
    assert torch.equal(clean.shares, poisoned.shares)
    log.item[split.events("train")[1][:2]] = 1  # the same change would show within the training part
    changed = Transitions(TransitionsConfig(), Retrieval(log, split, **options).schema())
    assert not torch.equal(clean.graph.to_dense(), changed.graph.to_dense())


def test_the_graph_holds_no_more_than_the_pairs_that_occur():
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(1, 200_001, (5000,), generator=generator)
    graph = transition_graph(TransitionsConfig(), items, torch.arange(5000) // 10, 200_000)
    assert graph.is_sparse  # a dense one would take 160 GB
    assert graph.values().numel() <= 2 * 4500 + 4000
    rows = torch.zeros(200_001).index_add_(0, graph.indices()[0], graph.values())
    torch.testing.assert_close(rows[rows > 0], torch.ones(int((rows > 0).sum())))


STUDY = """
study: floor
task: retrieval
datasets: ["synthetic-sessions:users=60,items=30"]
seeds: 2
control: bce
references: [transitions]
variants:
  bce: {model: sasrec, set: {dim: 8, layers: 1, heads: 1, inner: 8, loss: bce}}
  transitions: {model: transitions, label: Transitions}
budget: {epochs: 1}
metrics: [ndcg@10]
primary: ndcg@10
"""


def test_a_study_takes_it_as_a_reference_that_trains_no_epoch(harness, tmp_path):
    (tmp_path / "floor.yaml").write_text(STUDY)
    done = harness("run", "--study", "floor.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "out" / "floor"
    cells = [json.loads(path.read_text()) for path in run.glob("cells/*/cell.json")]
    untrained = [cell for cell in cells if cell["model"] == "transitions"]
    assert [cell["outcome"]["epochs"] for cell in untrained] == [0, 0]
    assert all(cell["outcome"]["validation"] > 0 for cell in untrained)
    log = load("synthetic-sessions:users=60,items=30", DataConfig())
    data = Retrieval(log, make_split(log, DataConfig()), max_length=50, metrics=["ndcg@10"])
    expected = data.summarise(data.evaluate(Transitions(TransitionsConfig(), data.schema()), "test"))
    for cell in untrained:
        assert json.loads((run / "cells" / cell["id"] / "metrics.json").read_text())["test"] == expected
    assert "On synthetic-sessions:users=60,items=30, Transitions (NDCG@10 " in (run / "report.html").read_text()
    planned = harness("plan", "--study", "floor.yaml")
    assert planned.returncode == 0, planned.stderr


def test_bad_input():
    with pytest.raises(InputError, match="no training events"):
        Transitions(TransitionsConfig(), Schema(n_items=3, n_users=1, max_length=4))
    with pytest.raises(InputError, match="the graph has no edge"):
        parse(TransitionsConfig, {"forward": 0, "backward": 0, "two_steps": 0}, "test")
    assert {choice["option"] for choice in card(Transitions)["choices"]} == set(TransitionsConfig.model_fields)
