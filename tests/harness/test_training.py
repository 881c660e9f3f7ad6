"""The training loop: resuming, stopping, schedules, failures."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import nn

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.diagnostics import Diagnostics
from harness.errors import CellFailed, InputError, Interrupted
from harness.interface import Needs, Recommender, Task
from harness.settings import Settings
from harness.tasks.retrieval import Retrieval
from harness.training import _learning_rate, fit
from harness.training_config import Budget, TrainingConfig


class Bigram(Recommender):
    """The next item from the last one, with dropout so that randomness matters."""

    Config = Settings
    tasks = frozenset({Task.RETRIEVAL})
    needs = Needs()

    def __init__(self, config, schema):
        super().__init__(config, schema)
        self.table = nn.Embedding(schema.n_items + 1, 8)
        self.head = nn.Linear(8, schema.n_items)
        self.dropout = nn.Dropout(0.3)
        self.poison = False

    def _logits(self, items):
        return self.head(self.dropout(self.table(items)))

    def losses(self, batch):
        logits = self._logits(batch.items.flatten()[batch.valid])
        loss = nn.functional.cross_entropy(logits, batch.targets.flatten()[batch.valid] - 1)
        return {"ce": loss * (math.nan if self.poison else 1), "decay": 1e-4 * self.head.weight.square().sum()}

    def score_items(self, batch):
        return self._logits(batch.items.flatten()[batch.last()])


@pytest.fixture(scope="module")
def data():
    log = load("synthetic-sessions:users=60,items=30", DataConfig())
    return Retrieval(log, make_split(log, DataConfig()), max_length=10, metrics=["ndcg@10"])


def train(data, folder, *, budget=None, stop_after=None, training=None, poison=False, made_with=""):
    torch.manual_seed(0)
    model = Bigram(Settings(), data.schema())
    model.poison = poison
    calls = []

    def should_stop():
        calls.append(1)
        return stop_after is not None and len(calls) > stop_after

    fitted = fit(
        model,
        data,
        training=training or TrainingConfig(batch_size=16, learning_rate=0.02, clip_norm=1.0, schedule="cosine"),
        budget=budget or Budget(epochs=5),
        primary="ndcg@10",
        seed=3,
        folder=folder,
        made_with=made_with,
        should_stop=should_stop,
    )
    return model, fitted


def without_seconds(history):
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in history]


@pytest.mark.parametrize("stops", [[7], [1, 9, 3]])
def test_an_interrupted_cell_ends_as_an_uninterrupted_one(data, tmp_path, stops):
    model, fitted = train(data, tmp_path / "whole")
    for stop in stops:
        with pytest.raises(Interrupted):
            train(data, tmp_path / "parts", stop_after=stop)
    resumed, again = train(data, tmp_path / "parts")
    assert without_seconds(again.history) == without_seconds(fitted.history)
    assert again.best_epoch == fitted.best_epoch
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_checkpoint_of_other_code_is_left_aside(data, tmp_path):
    with pytest.raises(Interrupted):
        train(data, tmp_path, stop_after=9, made_with="old")
    _, fitted = train(data, tmp_path, made_with="new")
    assert fitted.cost["resumed"] == 0
    assert fitted.epochs == 5


class Rows(Settings):
    prefixes: bool


class Recording(Bigram):
    """Asks for the rows that its settings name and keeps the (user, position) of every target that it is given."""

    @classmethod
    def needs_with(cls, config):
        return Needs(rows="prefixes" if config.prefixes else "positions")

    def losses(self, batch):
        row, position = batch.valid // batch.items.shape[1], batch.valid % batch.items.shape[1]
        self.seen.append((len(batch.items), list(zip(batch.users[row].tolist(), position.tolist(), strict=True))))
        return super().losses(batch)


@pytest.mark.parametrize("prefixes", [True, False])
def test_the_rows_are_those_of_the_settings_and_half_the_prefixes_come_in_every_second_epoch(
    tmp_path, prefixes, monkeypatch
):
    monkeypatch.setattr(Diagnostics, "measure", lambda self: {})  # it asks for losses of a batch of its own
    log = load("synthetic-sessions:users=20,items=30,length=8", DataConfig())
    data = Retrieval(log, make_split(log, DataConfig()), max_length=50, metrics=["ndcg@10"])
    model = Recording(Rows(prefixes=prefixes), data.schema())
    model.seen = []
    training = TrainingConfig(batch_size=4, prefixes=0.5)
    fit(model, data, training=training, budget=Budget(epochs=2), primary="ndcg@10", seed=3, folder=tmp_path)
    batches = model.seen[1:]  # the first one measures the operations of a step
    lengths = data.split.train_end - log.offsets[:-1] - 1
    every = [(user, position) for user, length in enumerate(lengths) for position in range(length)]
    targets = sorted(target for _, found in batches for target in found)
    assert targets == (every if prefixes else sorted(2 * every))
    assert all(rows == len(found) for rows, found in batches) is prefixes


def test_patience_waits_for_a_validation(data, tmp_path):
    training = TrainingConfig(learning_rate=1e-12, batch_size=64)
    _, fitted = train(data, tmp_path, budget=Budget(epochs=40, patience=4, eval_every=3), training=training)
    assert fitted.best_epoch == 3
    assert fitted.epochs == 9
    with pytest.raises(ValueError, match="shorter than eval_every"):
        Budget(patience=2, eval_every=3)


def test_the_model_is_left_with_the_weights_of_the_best_epoch(data, tmp_path):
    model, fitted = train(data, tmp_path, budget=Budget(epochs=6))
    values = [row["valid/ndcg@10"] for row in fitted.history]
    assert fitted.best_epoch == 1 + values.index(max(values))
    found = data.value(data.summarise(data.evaluate(model, "valid")), "ndcg@10")
    assert found == max(values)


def test_patience_ends_the_training(data, tmp_path):
    training = TrainingConfig(learning_rate=1e-12, batch_size=64)  # nothing ever gets better
    _, fitted = train(data, tmp_path, budget=Budget(epochs=30, patience=3), training=training)
    assert fitted.stopped == "patience"
    assert fitted.epochs == fitted.best_epoch + 3


def test_loss_terms_are_in_the_history_by_name_and_add_up(data, tmp_path):
    _, fitted = train(data, tmp_path, budget=Budget(epochs=1))
    row = fitted.history[0]
    assert row["loss"] == pytest.approx(row["loss/ce"] + row["loss/decay"])


def test_training_learns(data, tmp_path):
    _, fitted = train(data, tmp_path, budget=Budget(epochs=15))
    assert fitted.history[-1]["loss"] < 0.8 * fitted.history[0]["loss"]


def test_a_loss_that_is_no_number_names_its_term(data, tmp_path):
    with pytest.raises(CellFailed, match="loss term 'ce' is nan in epoch 1"):
        train(data, tmp_path, poison=True)


def test_a_damaged_checkpoint_says_what_to_do(data, tmp_path):
    with pytest.raises(Interrupted):
        train(data, tmp_path, stop_after=9)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="delete"):
        train(data, tmp_path)


def test_bfloat16_trains_too(data, tmp_path):
    _, plain = train(data, tmp_path / "a", budget=Budget(epochs=3))
    training = TrainingConfig(batch_size=16, learning_rate=0.02, clip_norm=1.0, schedule="cosine", precision="bfloat16")
    _, low = train(data, tmp_path / "b", budget=Budget(epochs=3), training=training)
    assert low.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a C compiler on a CPU, and there is none")
def test_a_compiled_step_trains_as_the_plain_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Bigram, "_logits", lambda self, items: self.head(self.table(items)))  # dropout draws otherwise
    _, plain = train(data, tmp_path / "a", budget=Budget(epochs=2))
    training = TrainingConfig(batch_size=16, learning_rate=0.02, clip_norm=1.0, schedule="cosine", compile=True)
    _, compiled = train(data, tmp_path / "b", budget=Budget(epochs=2), training=training)
    assert compiled.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.0]),
        ("inverse-sqrt", [0.5, 1.0, 1.0, math.sqrt(2 / 6), math.sqrt(2 / 10)]),
    ],
)
def test_schedules(schedule, expected):
    config = TrainingConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2)
    assert [_learning_rate(config, step, 10) for step in (0, 1, 2, 6, 10)] == pytest.approx(expected)


def test_cost_counts_parameters_and_operations(data, tmp_path):
    model, fitted = train(data, tmp_path, budget=Budget(epochs=1))
    assert fitted.cost["parameters"] == sum(p.numel() for p in model.parameters())
    # One 8 x 30 product forward, and two backward (for input and weight).
    assert fitted.cost["training_flops_per_event"] == pytest.approx(3 * 2 * 8 * 30)
    assert fitted.cost["peak_memory_bytes"] > 0


def test_tokens_are_those_of_the_histories_that_were_read(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Bigram, "tokens_per_event", 3, raising=False)
    _, fitted = train(data, tmp_path, budget=Budget(epochs=2))
    assert fitted.cost["tokens_per_event"] == 3
    # All positions are trained once an epoch: what is read is what is supervised, whatever the padding.
    assert fitted.cost["tokens_per_second"] == pytest.approx(3 * fitted.cost["events_per_second"])
