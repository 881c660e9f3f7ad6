"""Controls for action prediction on the shared backbone: what is gained without interleaving or value mixing.

* :class:`ItemOnly`: the floor; no action is ever seen.
* :class:`ItemActionSum`: merged tokens, as in Meta's ranker without interleaving (``dlrm_hstu`` of
  generative-recommenders): an event is i_n + a_n, and at the event to be predicted a learned placeholder stands for
  its action.
* :class:`LaggedAction`: event n carries i_n and the action before it, a_{n-1} (LAC, arXiv 2510.16804). Nothing leaks
  at any position, at almost no cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.interface import AttentionMaps, Batch, Fidelity, Schema, Task
from harness.models.blocks.causal_union import Part
from harness.models.blocks.ranker import Cache, Ranker, RankerConfig, Weights

__all__ = ["ItemActionSum", "ItemOnly", "LaggedAction"]


class ItemOnly(Ranker[RankerConfig]):
    """Causal layers over items alone."""

    fidelity = Fidelity(paper="item tower alone: the floor of the action models", status="control")

    def states(self, batch: Batch, own_action: bool, record: Weights | None = None) -> Tensor:
        x, at = self.tokens(batch), self.places(batch)  # (B, L, d)
        for layer in self.layers:
            x = self.causal(layer, x, at, record)
        return self.final_norm(x)

    def candidate_states(self, batch: Batch, candidates: Tensor) -> Tensor:
        x, at = self.tokens(batch), self.places(batch)
        cache: Cache = []
        for layer in self.layers:
            x = self.causal(layer, x, at, cache=cache)
        there = self.candidate_places(batch, batch.lengths, candidates)
        new = self.candidate_tokens(batch, candidates)  # (B, K, d)
        return self.beside(new, there, cache, at, self.seen(batch))

    def attention_maps(self, batch: Batch, own_action: bool) -> AttentionMaps:
        record: Weights = []
        self.states(batch, own_action, record)
        return self.event_maps(batch, [weights for (weights,) in record])

    def tokens(self, batch: Batch) -> Tensor:
        """(B, L, d)"""
        return self.dropout(self.item_embedding(batch.items))

    def candidate_tokens(self, batch: Batch, candidates: Tensor) -> Tensor:
        """(B, K, d)"""
        return self.dropout(self.item_embedding(candidates))


class LaggedAction(ItemOnly):
    """Event n is i_n + a_{n-1}; before the first event stands a learned start vector.

    Action prediction only: with its own action visible, an event would be i_n + a_n, which is ItemActionSum.
    """

    tasks = frozenset({Task.ACTION})
    fidelity = Fidelity(
        paper="lagged action conditioning, after Roblox, arXiv 2510.16804",
        status="control",
        departures=("the shared backbone of this project instead of the paper's",),
    )

    def __init__(self, config: RankerConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.start = nn.Parameter(torch.empty(config.dim).normal_(std=0.02))

    def tokens(self, batch: Batch) -> Tensor:
        actions = self.action_encoder(batch.labels()[:, :-1])  # (B, L - 1, d)
        start = self.start.expand(len(actions), 1, -1)
        return super().tokens(batch) + torch.cat((start, actions), 1)

    def candidate_tokens(self, batch: Batch, candidates: Tensor) -> Tensor:
        before = self.action_encoder(batch.labels().flatten(0, 1)[batch.last()])  # (B, d)
        return super().candidate_tokens(batch, candidates) + before[:, None]


class ItemActionSum(Ranker[RankerConfig]):
    """History tokens i_m + a_m, and a query i_n + placeholder that sees the history m < n and itself.

    Only an appended event can be scored, since an event's own token holds its action. So each event is entered twice:
    in the history, and as a query at the same position. Queries don't see each other, and all of them are trained in
    one pass: the same as appending each event to its own history.
    """

    fidelity = Fidelity(
        paper="merged tokens with a placeholder action, after Meta's generative-recommenders (interleaving off)",
        status="control",
        departures=(
            "trained at every event, where the code trains at the last few",
            "the shared backbone and action encoder of this project",
        ),
    )

    def __init__(self, config: RankerConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.placeholder = nn.Parameter(torch.empty(config.dim).normal_(std=0.02))

    def states(self, batch: Batch, own_action: bool, record: Weights | None = None) -> Tensor:
        items, at = self.item_embedding(batch.items), self.places(batch)
        x = self.dropout(items) + self.action_encoder(batch.labels())  # (B, L, d)
        if own_action:
            for layer in self.layers:
                x = self.causal(layer, x, at, record)
            return self.final_norm(x)
        y = self.dropout(items) + self.placeholder  # (B, L, d)
        for index, layer in enumerate(self.layers):
            query, key, value, gate = layer.project(layer.norm(y), at)
            if index < len(self.layers) - 1:
                cache: Cache = []
                x = self.causal(layer, x, at, cache=cache)
                ((keys, values),) = cache
            else:
                keys, values = layer.keys(layer.norm(x), at)  # of the last layer nothing else is read
            parts = [Part(keys, values, strict=True)]
            if record is not None:
                record.append(layer.weights(query, at, parts, None, key))
            y = layer.finish(y, layer.attend(query, at, parts, None, (key, value)), gate)
        return self.final_norm(y)

    def candidate_states(self, batch: Batch, candidates: Tensor) -> Tensor:
        at = self.places(batch)
        x = self.dropout(self.item_embedding(batch.items)) + self.action_encoder(batch.labels())
        cache: Cache = []
        for layer in self.layers:
            x = self.causal(layer, x, at, cache=cache)
        there = self.candidate_places(batch, batch.lengths, candidates)
        y = self.dropout(self.item_embedding(candidates)) + self.placeholder  # (B, K, d)
        return self.beside(y, there, cache, at, self.seen(batch))

    def attention_maps(self, batch: Batch, own_action: bool) -> AttentionMaps:
        """For actions, the weights of the queries: an event's weight on itself is that of its query's own key."""
        record: Weights = []
        self.states(batch, own_action, record)
        maps = [square + own[0].diag_embed() if own else square for square, *own in record]
        return self.event_maps(batch, maps)
