"""Base rates: how often an action occurs, whatever the item. What a model of actions must beat.

* :class:`BaseRate`: for every event the action's rate in the training part, one constant per action.
* :class:`UserBaseRate`: the user's own rate before the event, drawn towards that constant while little is known.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import Batch, Fidelity, Needs, Recommender, Schema, Task
from harness.settings import Settings

__all__ = ["BaseRate", "UserBaseRate"]


class BaseRate(Recommender[Settings]):
    """p_a = the share of the training part's events with action a: the best constant for the training part's BCE.

    Nothing is trained. A rate of 0 or 1 is moved half an event inwards, so that its logit is finite.
    """

    Config = Settings
    tasks = frozenset({Task.ACTION})
    needs = Needs(actions=True)
    fidelity = Fidelity(paper="base rate of each action: the constant that NE is measured against", status="control")

    rate: Tensor

    def __init__(self, config: Settings, schema: Schema) -> None:
        super().__init__(config, schema)
        if schema.action_counts is None or schema.item_counts is None:
            raise InputError("base rates: the data give no counts of actions; declare them under data.actions")
        events = schema.item_counts.sum()
        rate = schema.action_counts.double() / events  # (A,)
        self.register_buffer("rate", rate.clamp(0.5 / events, 1 - 0.5 / events).float())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        labels = batch.supervised(batch.labels())  # (V, A)
        logits = batch.supervised(self.predict_actions(batch))
        return {"bce": F.binary_cross_entropy_with_logits(logits, labels)}

    def predict_actions(self, batch: Batch) -> Tensor:
        return self.rate.logit().expand(*batch.items.shape, -1)


class UserBaseRate(BaseRate):
    """p_a = (k + s_a r_a) / (n + s_a): k of the user's n events before this one had action a, r_a is the base rate.

    That is the mean of a Beta posterior whose prior has mean r_a and is worth s_a events. The strength s_a > 0 is the
    one parameter of each action, fitted by cross-entropy like any model's. Like any model, it sees the events of the
    window, at most ``max_length``.

    It says nothing of one item against another: among a user's own events it ranks those after a positive one higher,
    so its GAUC is below 0.5 by construction where test parts are short (0 with one event of each kind).
    """

    fidelity = Fidelity(
        paper="a user's own rate of each action so far, smoothed by the base rate (Beta-Bernoulli)", status="control"
    )
    training_defaults: ClassVar[dict[str, Any]] = {"learning_rate": 0.03, "batch_size": 128}

    def __init__(self, config: Settings, schema: Schema) -> None:
        super().__init__(config, schema)
        self.log_strength = nn.Parameter(torch.full((len(schema.actions),), 10.0).log())

    def predict_actions(self, batch: Batch) -> Tensor:
        strength = self.log_strength.exp()  # (A,)
        labels = batch.labels()
        with_it = labels.cumsum(1) - labels  # (B, L, A): among the events before
        events = torch.arange(batch.items.shape[1], device=batch.items.device)[:, None]  # (L, 1)
        without_it = events - with_it
        return (with_it + strength * self.rate).log() - (without_it + strength * (1 - self.rate)).log()
