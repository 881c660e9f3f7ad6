"""AttnLFA: attention-based late fusion of actions.

Cheng, "Beyond Interleaving", arXiv 2603.10369. Only the abstract is public: causal attention pools past actions by
the similarity of their items to the item at hand. What follows is a reconstruction; each choice is an option.

With item embeddings E and action embeddings C, both (N, d)::

    H = Transformer(E), causal (m <= n); it never sees an action
    z_n = sum over m < n of softmax_m(q_n k_m / sqrt(D)) v_m,  q, k = RoPE(H Wq), RoPE(H Wk),  v = RMSNorm(C) Wv
    logits_n = head([H_n ; RMSNorm(z_n Wo)])

A learned null key and value stand beside the strict mask, so that n = 0 sees something.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Schema
from harness.models.blocks import causal_union
from harness.models.blocks.causal_union import Part
from harness.models.blocks.places import Places, rotate
from harness.models.blocks.ranker import Cache, Ranker, RankerConfig, Weights, rms_norm

__all__ = ["AttnLFA", "AttnLFAConfig"]


class AttnLFAConfig(RankerConfig):
    """Options of the pooling and of its fusion with the items' states, beside those of every arm."""

    pooling: Literal["after-last", "reuse-last-weights"] = "after-last"
    similarity: Literal["hidden", "embedding"] = "hidden"
    """What the pooling's queries and keys are made of: the tower's output, or the item embeddings."""
    kernel: Literal["softmax", "silu"] = "softmax"
    fusion: Literal["concat", "sum", "gate", "action-only"] = "concat"
    action_scale: bool = True
    """RMS-normalise the action embeddings before their value projection."""

    @model_validator(mode="after")
    def _pooling(self) -> AttnLFAConfig:
        if self.pooling == "reuse-last-weights" and (self.similarity, self.kernel) != ("hidden", "softmax"):
            raise ValueError(
                "pooling: reuse-last-weights takes the last layer's weights as they are; "
                "leave similarity and kernel out, or set pooling: after-last"
            )
        return self


class AttnLFA(Ranker[AttnLFAConfig]):
    """Causal layers over the L items alone; past actions are pooled once, behind them, by the similarity of items.

    States are (B, L, d), with ``fusion: concat`` (B, L, 2d). Reconstructed from Cheng, arXiv 2603.10369.
    """

    Config = AttnLFAConfig
    fidelity = Fidelity(
        paper="Cheng, Beyond Interleaving: Causal Attention Reformulations for Generative Recommender Systems, "
        "arXiv 2603.10369",
        status="reconstruction",
        verified=("N item positions instead of 2N tokens", "strict causal pooling of past actions by item similarity"),
        choices=(
            Choice("pooling", "the name says late, and pooling once explains the larger saving of time"),
            Choice("similarity", "the tower's output knows the item's context"),
            Choice("kernel", "softmax attention is the practice of the author's group", "inferred"),
            Choice("fusion", "late fusion means concatenation after the Transformer in Feed SR", "inferred"),
            Choice("action_scale", "an interleaved layer normalises its action tokens, so this arm must too"),
            Choice("head", "not published"),
            Choice("backbone", "pre-norm, RoPE and softmax as in Feed SR (arXiv 2602.12354)", "inferred"),
            Choice("action_encoder", "not published"),
            Choice("action_dropout", "as items have it, equally in all arms"),
        ),
        departures=("a learned null key and value beside the strict mask",),
    )

    def __init__(self, config: AttnLFAConfig, schema: Schema) -> None:
        super().__init__(config, schema, width=config.dim * (2 if config.fusion == "concat" else 1))
        dim, heads = config.dim, config.heads
        self.action_norm = rms_norm(dim) if config.action_scale else nn.Identity()
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.pooled_norm = rms_norm(dim)
        if config.pooling == "after-last":
            self.similarity_norm = rms_norm(dim) if config.similarity == "embedding" else nn.Identity()
            self.query_key = nn.Linear(dim, 2 * dim, bias=False)
        if self._has_null:
            self.null = nn.Parameter(torch.empty(2, heads, dim // heads).normal_(std=0.02))  # key and value
        if config.fusion == "gate":
            self.gate = nn.Linear(2 * dim, dim)

    @property
    def _has_null(self) -> bool:
        return self.config.pooling == "after-last" and self.config.kernel == "softmax"

    def states(self, batch: Batch, own_action: bool, record: Weights | None = None) -> Tensor:
        embedded, at = self.item_embedding(batch.items), self.places(batch)  # (B, L, d)
        x = self.dropout(embedded)
        values = self._values(batch)  # (B, H, L, D)
        reuse = self.config.pooling == "reuse-last-weights"
        for layer in self.layers[: -1 if reuse else None]:
            x = self.causal(layer, x, at, record)
        if not reuse:
            hidden = self.final_norm(x)
            return self._fuse(hidden, self._pool(self._similarity(hidden, embedded, at), values, own_action, record))
        layer = self.layers[-1]
        query, key, item_values, gate = layer.project(layer.norm(x), at)
        parts = [Part(key, item_values, strict=False)]
        pooled = layer.attend(query, at, *self._last_weights(key, values, own_action))
        if record is not None:
            record += [layer.weights(query, at, parts)] * 2
        return self._fuse(self.final_norm(layer.finish(x, layer.attend(query, at, parts), gate)), pooled)

    def candidate_states(self, batch: Batch, candidates: Tensor) -> Tensor:
        embedded, at, seen = self.item_embedding(batch.items), self.places(batch), self.seen(batch)
        cache: Cache = []
        x = self.dropout(embedded)
        for layer in self.layers:
            x = self.causal(layer, x, at, cache=cache)
        values = self._values(batch)  # (B, H, L, D)
        new, there = self.item_embedding(candidates), self.candidate_places(batch, batch.lengths, candidates)
        if self.config.pooling == "after-last":
            hidden = self.beside(self.dropout(new), there, cache, at, seen)  # (B, K, d)
            query, _ = self._similarity(hidden, new, there)
            _, key = self._similarity(self.final_norm(x), embedded, at)
            if self.config.kernel == "silu":
                pooled = (self._silu(query, key) * seen[:, None, None]) @ values
            else:
                pooled = causal_union.attend_beside(query, [(key, values)], seen, self._null_of(query))
            return self._fuse(hidden, pooled)
        y = self.dropout(new)
        for layer, (keys, item_values) in zip(self.layers, cache, strict=True):
            query, key, value, gate = layer.project(layer.norm(y), there)
            attended = layer.attend_beside(query, there, [(keys, item_values)], [at], seen, (key, value))
            y = layer.finish(y, attended, gate)
        nothing = (key, torch.zeros_like(value))  # the last layer's
        pooled = layer.attend_beside(query, there, [(keys, values)], [at], seen, nothing)
        return self._fuse(self.final_norm(y), pooled)

    def attention_maps(self, batch: Batch, own_action: bool) -> AttentionMaps:
        """Each layer's map, then the pooling's. With a null key that key comes first; the layers never see it."""
        record: Weights = []
        self.states(batch, own_action, record)
        *tower, pooling = record
        maps = [weights for (weights,) in tower]
        if self.config.pooling == "reuse-last-weights":
            return self.event_maps(batch, [*maps, pooling[0] if own_action else pooling[0].tril(-1)])
        if not self._has_null or own_action:
            return self.event_maps(batch, [*maps, pooling[0]])
        pooled = torch.cat((pooling[1].unsqueeze(-1), pooling[0]), -1)  # (B, H, L, 1 + L)
        return self.event_maps(batch, [*(F.pad(m, (1, 0)) for m in maps), pooled], null=True)

    # -- the pooling --------------------------------------------------------------------------------------------

    def _values(self, batch: Batch) -> Tensor:
        """(B, H, L, D): what an event's actions are worth to later ones."""
        encoded = self.action_norm(self.action_encoder(batch.labels()))
        return self.value(encoded).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

    def _similarity(self, hidden: Tensor, embedded: Tensor, at: Places) -> tuple[Tensor, Tensor]:
        """Queries and keys of the pooling, (B, H, S, D) each."""
        source = hidden if self.config.similarity == "hidden" else self.similarity_norm(embedded)
        both = self.query_key(source).unflatten(-1, (2, self.config.heads, -1))  # (B, S, 2, H, D)
        query, key = rotate(both, at).transpose(1, 3).unbind(2)
        return query, key

    def _pool(
        self, similarity: tuple[Tensor, Tensor], values: Tensor, own_action: bool, record: Weights | None
    ) -> Tensor:
        """(B, H, L, D): past actions, pooled by the similarity of their items."""
        query, key = similarity
        if self.config.kernel == "silu":
            weights = self._silu(query, key).tril(0 if own_action else -1)  # (B, H, L, L)
            if record is not None:
                record.append([weights])
            return weights @ values
        parts = [Part(key, values, strict=not own_action)]
        null = None if own_action else self._null_of(query)
        if record is not None:
            record.append(causal_union.union_weights(query, parts, null and null[0]))
        return causal_union.attend(query, parts, null)

    def _silu(self, query: Tensor, key: Tensor) -> Tensor:
        """SiLU(q k / sqrt(D)) / n with n the longest sequence, so that padding changes nothing."""
        return F.silu(query @ key.mT / math.sqrt(query.shape[-1])) / self.schema.max_length

    def _null_of(self, query: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.null[:, None, :, None].expand(2, *query.shape).unbind(0)
        return key, value

    @staticmethod
    def _last_weights(key: Tensor, values: Tensor, own_action: bool) -> tuple:
        """Arguments of ``layer.attend`` for its own weights on action values; the event's own one is taken out."""
        if own_action:
            return [Part(key, values, strict=False)], None, None
        return [Part(key, values, strict=True)], None, (key, torch.zeros_like(values))

    def _fuse(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        """(B, S, d), or (B, S, 2d) for concat."""
        pooled = self.pooled_norm(self.out(pooled.transpose(1, 2).flatten(2)))
        if self.config.fusion == "action-only":
            return pooled
        if self.config.fusion == "sum":
            return hidden + pooled
        both = torch.cat((hidden, pooled), -1)
        if self.config.fusion == "concat":
            return both
        return torch.lerp(pooled, hidden, self.gate(both).sigmoid())
