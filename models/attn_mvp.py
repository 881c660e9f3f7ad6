"""AttnMVP: attention-based mixed value pooling.

Cheng, "Beyond Interleaving", arXiv 2603.10369. Only the abstract is public; its equations are not. What follows is a
reconstruction; each choice is an option. In every layer queries and keys come from the item stream, and values mix
the item state with the raw action (X_0 = E, C the action embeddings)::

    Q, K, Vi = Norm(X) (Wq, Wk, Wv),  Va = RMSNorm(C) Wa
    o_n = sum over m <= n of alpha_nm Vi_m  +  sum over m < n of alpha_nm Va_m,   alpha = softmax over m <= n
    X <- X + o Wo;  X <- X + SwiGLU(Norm(X))

So X_n depends on items up to n and on actions before n. The action of an event never enters the residual stream at
its own position, which is itself a place of prediction: it enters through values only.

The mixed values need no second softmax: keys m < n carry Vi + Va, and the query's own key carries Vi alone
(:func:`harness.models.blocks.causal_union.attend`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Schema
from harness.models.blocks.causal_union import Part
from harness.models.blocks.places import Places
from harness.models.blocks.ranker import Layer, Ranker, RankerConfig, Weights, rms_norm

__all__ = ["AttnMVP", "AttnMVPConfig"]

Own = tuple[Tensor, Tensor] | None
"""A key and a value that one query alone sees."""


class AttnMVPConfig(RankerConfig):
    """Options of the mixed values, beside those of every arm."""

    value_projection: Literal["per-layer", "shared"] = "per-layer"
    mixing: Literal["sum", "concat", "gate"] = "sum"
    """sum: Vi + Va; concat: both are pooled and projected side by side; gate: g Vi + (1 - g) Va, g from the item."""
    diagonal: Literal["inclusive", "strict"] = "inclusive"
    """strict: an event attends only to earlier ones (and a learned null key); its item enters by the residual."""
    action_softmax: Literal["shared", "separate"] = "shared"
    """separate: action values have a softmax of their own over m < n and a learned null key."""
    action_scale: bool = True
    """RMS-normalise the action embeddings before their value projection."""

    @model_validator(mode="after")
    def _softmax(self) -> AttnMVPConfig:
        if self.action_softmax == "separate" and self.backbone == "hstu":
            raise ValueError("action_softmax: separate has no meaning for backbone: hstu, which has no softmax")
        return self


class AttnMVP(Ranker[AttnMVPConfig]):
    """Causal layers over the L items, in each of which the values of earlier events mix item state and action.

    States are (B, L, d). Reconstructed from Cheng, arXiv 2603.10369.
    """

    Config = AttnMVPConfig
    fidelity = Fidelity(
        paper="Cheng, Beyond Interleaving: Causal Attention Reformulations for Generative Recommender Systems, "
        "arXiv 2603.10369",
        status="reconstruction",
        verified=("N item positions instead of 2N tokens", "the name: mixed values", "strict causality"),
        choices=(
            Choice("value_projection", "as the item values have it"),
            Choice("mixing", "the plainest reading of mixed values"),
            Choice("diagonal", "with its own key a query can choose not to look back"),
            Choice("action_softmax", "mixed value pooling: one set of weights"),
            Choice("action_scale", "an interleaved layer normalises its action tokens, so this arm must too"),
            Choice("head", "not published"),
            Choice("backbone", "pre-norm, RoPE and softmax as in Feed SR (arXiv 2602.12354)", "inferred"),
            Choice("action_encoder", "not published"),
            Choice("action_dropout", "as items have it, equally in all arms"),
        ),
    )

    def __init__(self, config: AttnMVPConfig, schema: Schema) -> None:
        self.value_sets = 2 if config.mixing == "concat" else 1
        super().__init__(config, schema)
        dim, heads, layers = config.dim, config.heads, config.layers
        self.action_norm = rms_norm(dim) if config.action_scale else nn.Identity()
        projections = 1 if config.value_projection == "shared" else layers
        self.values = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(projections))
        if config.mixing == "gate":
            self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        strict = config.diagonal == "strict" and config.backbone == "transformer"
        shape = (layers, 2, heads, 1, dim // heads)  # key and value
        self.null = nn.Parameter(torch.empty(shape).normal_(std=0.02)) if strict else None
        separate = config.action_softmax == "separate"
        self.action_null = nn.Parameter(torch.empty(shape).normal_(std=0.02)) if separate else None

    def states(self, batch: Batch, own_action: bool, record: Weights | None = None) -> Tensor:
        x, _ = self._run(batch, own_action, record)
        return self.final_norm(x)

    def candidate_states(self, batch: Batch, candidates: Tensor) -> Tensor:
        _, cache = self._run(batch, own_action=False)
        at, seen = self.places(batch), self.seen(batch)
        there = self.candidate_places(batch, batch.lengths, candidates)
        x = self.dropout(self.item_embedding(candidates))  # (B, K, d)
        for index, layer in enumerate(self.layers):
            keys, items, actions = cache[index]
            normed = layer.norm(x)
            query, key, value, gate = layer.project(normed, there)
            if self.config.mixing == "gate":
                value = value * self._gate(index, normed)
            see = partial(self._see_beside, layer, query, there, keys, at, seen)
            x = layer.finish(x, self._mix(index, see, items, actions, (key, value)), gate)
        return self.final_norm(x)

    def attention_maps(self, batch: Batch, own_action: bool) -> AttentionMaps:
        """Each layer's map; where action values have their own sum (concat, separate), its map follows.

        The diagonal multiplies the item value alone. With a null key that key comes first.
        """
        record: Weights = []
        self._run(batch, own_action, record)
        strict, separate = self.null is not None, self.action_null is not None
        null = (strict or separate) and not own_action
        maps = []
        for number, (square, *own) in enumerate(record):
            of_actions = self._two_sums(own_action) and number % 2 == 1
            if own and (strict or (separate and of_actions)):
                maps.append(torch.cat((own[0].unsqueeze(-1), square), -1))  # (B, H, L, 1 + L)
                continue
            if own and not of_actions:  # an event's own action value is zero
                maps.append(F.pad(square + own[0].diag_embed(), (int(null), 0)))
                continue
            maps.append(F.pad(square, (int(null), 0)))
        return self.event_maps(batch, maps, null)

    # -- inside -------------------------------------------------------------------------------------------------

    def _run(
        self, batch: Batch, own_action: bool, record: Weights | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """The item stream (B, L, d) after all layers, and each layer's keys, item values and action values."""
        at = self.places(batch)
        x = self.dropout(self.item_embedding(batch.items))  # (B, L, d)
        encoded = self.action_norm(self.action_encoder(batch.labels()))  # (B, L, d)
        projected = [self._heads(project(encoded)) for project in self.values]  # (B, H, L, D) each
        cache = []
        for index, layer in enumerate(self.layers):
            normed = layer.norm(x)
            query, key, items, gate = layer.project(normed, at)
            actions = projected[index % len(projected)]
            if self.config.mixing == "gate":
                share = self._gate(index, normed)
                items, actions = items * share, actions * (1 - share)
            see = partial(self._see, layer, query, at, key, not own_action, record)
            if not own_action:
                attended = self._mix(index, see, items, actions, (key, items))
            elif self._two_sums(own_action):
                attended = torch.cat((see(items, None), see(actions, None)), -1)  # (B, H, L, 2D)
            else:
                attended = see(items + actions, None)
            x = layer.finish(x, attended, gate)
            cache.append((key, items, actions))
        return x, cache

    def _mix(
        self,
        index: int,
        see: Callable[[Tensor, Own], Tensor],
        items: Tensor,
        actions: Tensor,
        own: tuple[Tensor, Tensor],
    ) -> Tensor:
        """What layer ``index`` reads: ``see`` pools the values of earlier events and the query's own key and value."""
        strict = self.config.diagonal == "strict"
        seen: Own = self._null_of(self.null, index, own[1]) if strict else own
        if not self._two_sums(own_action=False):
            return see(items + actions, seen)
        read_items = see(items, seen)
        if self.action_null is not None:
            seen = self._null_of(self.action_null, index, read_items)
        elif not strict:
            seen = own[0], torch.zeros_like(own[1])
        read_actions = see(actions, seen)
        if self.config.mixing == "concat":
            return torch.cat((read_items, read_actions), -1)  # (B, H, L, 2D)
        return read_items + read_actions

    @staticmethod
    def _see(
        layer: Layer,
        query: Tensor,
        at: Places,
        key: Tensor,
        strict: bool,
        record: Weights | None,
        values: Tensor,
        own: Own,
    ) -> Tensor:
        """(B, H, L, D): each query's weights on ``values`` of the events before it and on what is its own."""
        parts = [Part(key, values, strict)]
        if record is not None:
            record.append(layer.weights(query, at, parts, None, own and own[0]))
        return layer.attend(query, at, parts, None, own)

    @staticmethod
    def _see_beside(
        layer: Layer,
        query: Tensor,
        there: Places,
        key: Tensor,
        at: Places,
        seen: Tensor,
        values: Tensor,
        own: Own,
    ) -> Tensor:
        """(B, H, K, D): the same for candidates beside a history."""
        return layer.attend_beside(query, there, [(key, values)], [at], seen, own)

    def _two_sums(self, own_action: bool) -> bool:
        """Whether items and actions are pooled apart. With an inclusive mask, separate weights are the shared ones."""
        return self.config.mixing == "concat" or (self.config.action_softmax == "separate" and not own_action)

    def _null_of(self, null: Tensor | None, index: int, like: Tensor) -> Own:
        """Layer ``index``'s null key and value for each query; a layer without softmax needs none."""
        if null is None:
            return None
        key, value = null[index].unsqueeze(1).expand(2, *like.shape).unbind(0)  # (B, H, N, D) each
        return key, value

    def _gate(self, index: int, normed: Tensor) -> Tensor:
        """(B, H, S, D): how much of the item's value the mix holds. From the item stream: no own action leaks."""
        return self._heads(self.gates[index](normed).sigmoid())

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)  # (B, H, S, D)
