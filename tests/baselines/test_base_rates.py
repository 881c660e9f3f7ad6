"""Base rates against pandas, window by window, and against what they must not see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from harness.baselines.base_rates import BaseRate, UserBaseRate
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.errors import InputError
from harness.interface import Batch, Schema, Task
from harness.metrics.action import NE
from harness.settings import Settings
from harness.tasks.action import ActionPrediction
from harness.training import Fitted, fit
from harness.training_config import Budget, TrainingConfig

CONFIG = DataConfig(split="within-user")


def prepared(max_length: int) -> ActionPrediction:
    log = load("synthetic-clusters:users=40,items=20,length=30", CONFIG)
    return ActionPrediction(log, make_split(log, CONFIG), max_length=max_length, metrics=["bce"])


@pytest.fixture(scope="module")
def data():
    return prepared(max_length=30)


def events_of(data: ActionPrediction) -> pd.DataFrame:
    """All events in order: user, position, the one action, and whether the event is in the training part."""
    length = np.diff(data.log.offsets)
    frame = pd.DataFrame({"user": np.repeat(np.arange(len(length)), length), "label": data.log.actions[:, 0]})
    frame["position"] = frame.groupby("user").cumcount()
    frame["train"] = frame.index < data.split.train_end[frame["user"]]
    return frame


def test_the_constant_is_the_training_parts_rate(data):
    frame = events_of(data)
    rows = data.evaluate(BaseRate(Settings(), data.schema()), "test").to_pandas()
    assert rows["probability"].nunique() == 1
    assert rows["probability"][0] == pytest.approx(frame.loc[frame["train"], "label"].mean(), abs=1e-6)
    assert frame["label"].mean() != pytest.approx(rows["probability"][0], abs=1e-6)  # other parts have another rate
    assert NE("ne").of_action(rows["label"].to_numpy(), rows["probability"].to_numpy(), rows["user"].to_numpy()) >= 1


@pytest.mark.parametrize("max_length", [30, 8])
@pytest.mark.parametrize("phase", ["valid", "test"])
def test_a_users_rate_is_that_of_the_events_before_in_the_window(phase, max_length):
    data = prepared(max_length)
    model = UserBaseRate(Settings(), data.schema())
    with torch.no_grad():
        model.log_strength.fill_(np.log(3.5))
    frame = events_of(data)
    rate = frame.loc[frame["train"], "label"].mean()
    rows = data.evaluate(model, phase).to_pandas().set_index(["user", "position"])["probability"]
    windows = data.windows(phase)
    compared = 0
    for start, end, supervised in zip(windows.start, windows.end, windows.supervised, strict=True):
        window = frame.iloc[start:end]
        before = window["label"].expanding().sum().shift(fill_value=0)
        seen = pd.Series(range(len(window)), index=window.index)
        expected = ((before + 3.5 * rate) / (seen + 3.5)).loc[supervised:]
        for index, value in expected.items():
            event = frame.loc[index]
            found = rows[data.log.users[event["user"]], event["position"]]
            assert found == pytest.approx(value, abs=1e-5)
            compared += 1
    assert compared == len(rows)


def drawn() -> Batch:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([6, 1, 4])
    inside = torch.arange(6) < lengths[:, None]
    return Batch(
        items=inside.long(),
        lengths=lengths,
        users=torch.arange(3),
        valid=inside.flatten().nonzero()[:, 0],
        actions=torch.randint(0, 2, (3, 6, 2), generator=generator).float() * inside[..., None],
    )


def small(kind: type[BaseRate]) -> BaseRate:
    counts = torch.tensor([0, 30, 70])
    schema = Schema(2, 3, 6, actions=("like", "never"), item_counts=counts, action_counts=torch.tensor([25, 0]))
    return kind(Settings(), schema)


def test_neither_own_nor_later_actions_nor_items_move_a_prediction():
    model, batch = small(UserBaseRate), drawn()
    batch.actions.requires_grad_()
    logits = model.predict_actions(batch)
    for n in range(6):
        (grad,) = torch.autograd.grad(logits[:, n].sum(), batch.actions, retain_graph=True)
        assert grad[:, n:].abs().max() == 0
        assert (grad[:, :n] > 0).all()
    batch.items = batch.items * 2
    torch.testing.assert_close(model.predict_actions(batch), logits, atol=0, rtol=0)


@pytest.mark.parametrize("kind", [BaseRate, UserBaseRate])
def test_labels_outside_the_training_part_change_nothing(data, kind):
    """The counts of the schema, and so what is known before any history is read."""
    log = load("synthetic-clusters:users=40,items=20,length=30", CONFIG)
    outside = ~events_of(data)["train"].to_numpy()
    log.actions[outside] = 1 - log.actions[outside]
    poisoned = ActionPrediction(log, data.split, max_length=30, metrics=["bce"])
    torch.testing.assert_close(kind(Settings(), poisoned.schema()).rate, kind(Settings(), data.schema()).rate)


def test_an_action_that_never_occurs_stays_finite():
    for kind in (BaseRate, UserBaseRate):
        model, batch = small(kind), drawn()
        assert model.predict_actions(batch).isfinite().all()
        assert model.rate.tolist() == pytest.approx([0.25, 0.005])


def fitted_to(data: ActionPrediction, model: BaseRate, folder, epochs: int) -> Fitted:
    training = TrainingConfig(**model.training_defaults)
    return fit(model, data, training=training, budget=Budget(epochs=epochs), primary="bce", seed=0, folder=folder)


def test_the_constant_is_not_trained(data, tmp_path):
    model = BaseRate(Settings(), data.schema())
    fitted = fitted_to(data, model, tmp_path, epochs=7)
    assert (fitted.epochs, fitted.cost["parameters"]) == (0, 0)
    torch.testing.assert_close(model.rate, BaseRate(Settings(), data.schema()).rate, atol=0, rtol=0)


def test_the_strength_is_fitted_to_the_best_on_a_grid(data, tmp_path):
    def of(strength: float) -> UserBaseRate:
        model = UserBaseRate(Settings(), data.schema())
        with torch.no_grad():
            model.log_strength.fill_(np.log(strength))
        return model

    def loss(strength: float) -> float:
        with torch.no_grad():
            _, batches = data.training_epoch(rows="positions", batch_size=64, rng=np.random.default_rng(0))
            return float(np.mean([of(strength).losses(batch)["bce"] for batch in batches]))

    best = min(loss(strength) for strength in np.geomspace(0.1, 1000, 200))
    assert loss(200.0) > best + 1e-3
    assert fitted_to(data, of(200.0), tmp_path, epochs=150).history[-1]["loss"] == pytest.approx(best, abs=1e-5)


def test_data_without_actions_are_refused():
    for kind in (BaseRate, UserBaseRate):
        with pytest.raises(InputError, match=r"declare them under data\.actions"):
            kind(Settings(), Schema(n_items=3, n_users=1, max_length=4))
        assert kind.tasks == {Task.ACTION}
