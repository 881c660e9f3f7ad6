"""Popularity: every user gets the items that the training part holds most often. What a recommender must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import Batch, Fidelity, Recommender, Schema, Task
from harness.settings import Settings

__all__ = ["Popularity"]


class Popularity(Recommender[Settings]):
    """The unigram model p(i) ~ count(i)^tau over the training part's counts, whatever the history.

    tau > 0 is its one parameter, fitted by cross-entropy like any model's; the ranking is that of the counts for
    every tau.
    """

    Config = Settings
    tasks = frozenset({Task.RETRIEVAL})
    fidelity = Fidelity(paper="most popular items: the floor of the ranking models", status="control")

    log_counts: Tensor

    def __init__(self, config: Settings, schema: Schema) -> None:
        super().__init__(config, schema)
        if schema.item_counts is None:
            raise InputError("popularity: the data give no item counts")
        counts = schema.item_counts[1:].to(torch.float32)  # (N,)
        self.register_buffer("log_counts", torch.log(counts + 0.5), persistent=False)  # an item may be unseen
        self.log_tau = nn.Parameter(torch.zeros(()))

    def scores(self) -> Tensor:
        """(N,) of item i + 1 at i."""
        return self.log_tau.exp() * self.log_counts

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        targets = batch.next_items()  # (V,)
        return {"ce": -self.scores().log_softmax(dim=0).index_select(0, targets - 1).mean()}

    def score_items(self, batch: Batch) -> Tensor:
        return self.scores().expand(len(batch.items), -1)
