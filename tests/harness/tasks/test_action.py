"""Action prediction: every event of a phase once, with the probability that the model gives it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.errors import CellFailed, InputError
from harness.interface import Recommender, Task
from harness.settings import Settings
from harness.tasks.action import ActionPrediction


class Scripted(Recommender):
    """The logit of an event tells its item and how many events of the history are in sight."""

    Config = Settings
    tasks = frozenset({Task.ACTION})

    def losses(self, batch):
        return {}

    def predict_actions(self, batch):
        sight = torch.arange(batch.items.shape[1]).expand_as(batch.items)
        logits = batch.items / 10 - sight / 3
        return logits[..., None].expand(*batch.items.shape, len(self.schema.actions))


CONFIG = DataConfig(split="within-user")


@pytest.fixture(scope="module")
def data():
    log = load("synthetic-clusters:users=15,items=20,length=30", CONFIG)
    return ActionPrediction(log, make_split(log, CONFIG), max_length=8, metrics=["bce"])


@pytest.mark.parametrize("phase", ["valid", "test"])
def test_each_event_is_scored_once_with_a_long_enough_history(data, phase):
    rows = data.evaluate(Scripted(Settings(), data.schema()), phase).to_pandas()
    users, events = data.split.events(phase)
    log = data.log
    assert len(rows) == len(events) * len(log.action_names)
    np.testing.assert_array_equal(rows["position"], events - log.offsets[users])
    np.testing.assert_array_equal(rows["item"], log.items[log.item[events]])
    np.testing.assert_array_equal(rows["label"], log.actions[events, 0])
    logit = np.log(rows["probability"] / (1 - rows["probability"]))
    sight = np.round((log.item[events] / 10 - logit) * 3)
    assert sight.min() >= 3  # at least half of max_length, less the event itself
    assert sight.max() <= 7


def test_data_without_actions_is_refused():
    log = load("synthetic-sessions:users=20", DataConfig(actions={}))
    with pytest.raises(InputError, match="has no actions"):
        ActionPrediction(log, make_split(log, DataConfig()), max_length=8, metrics=["bce"])


def test_an_undefined_primary_metric_is_told(data):
    summary = {"mean": {"ne": None, "bce": 0.6}}
    with pytest.raises(CellFailed, match=r"'ne' is undefined .* never or always occurs"):
        data.value(summary, "ne")
    with pytest.raises(CellFailed, match=r"'bce' is undefined .* no events"):
        data.value({"mean": {"bce": None}}, "bce")
    with pytest.raises(InputError, match="no such action"):
        data.value(summary, "ne/likes")
