"""What all action models share: embeddings, backbone, heads, losses. An arm says only how actions enter.

A layer of either backbone is taken in steps, so that an arm reads like its equations::

    query, key, value, gate = layer.project(layer.norm(x), places)
    attended = layer.attend(query, places, [Part(key, value, strict=False)])
    x = layer.finish(x, attended, gate)

Everything is causal and sequences are right-padded, so no step needs a padding mask. Shapes: B sequences, L events,
S tokens, A actions, K candidates, H heads of width D, d = H * D.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import NO_ACTIONS, AttentionMaps, Batch, Needs, Recommender, Schema, Task
from harness.models.blocks import causal_union
from harness.models.blocks.causal_union import Part
from harness.models.blocks.dropout import Dropout
from harness.models.blocks.hstu import HSTULayer, Scale
from harness.models.blocks.module_list import ModuleList
from harness.models.blocks.places import Places, places, rotate
from harness.settings import Settings

__all__ = ["ActionEncoder", "Cache", "Layer", "Ranker", "RankerConfig", "TransformerLayer", "Weights", "rms_norm"]

Cache = list[tuple[Tensor, Tensor]]
"""Per layer the keys and values of a history, (B, H, S, D) each."""
Weights = list[list[Tensor]]
"""Per attention: the weights on each part and on the own key."""


class RankerConfig(Settings):
    """Options that all arms share."""

    dim: int = Field(64, ge=2, description="width of embeddings and layers")
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1, description="of the embedded items and of each residual branch")
    action_dropout: float | None = Field(None, ge=0, lt=1, description="of the embedded actions; null: as dropout")
    backbone: Literal["transformer", "hstu"] = "transformer"
    time_bias: bool = Field(False, description="hstu: bias by the time between two events")
    attention_scale: Scale = Field(
        "longest",
        description="hstu: attention divided by the longest sequence, by the number of visible keys, or by nothing",
    )
    head: Literal["linear", "mlp"] = "mlp"
    action_encoder: Literal["embedding", "mlp"] = Field(
        "embedding", description="embedding: one row per action, summed; mlp: 8 numbers per action, then an MLP"
    )

    @model_validator(mode="after")
    def _consistent(self) -> RankerConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim ({self.dim}) must be an even multiple of heads ({self.heads})")
        for name in ("time_bias", "attention_scale"):
            if getattr(self, name) != type(self).model_fields[name].default and self.backbone != "hstu":
                raise ValueError(f"{name} is an option of the hstu backbone; set backbone: hstu, or leave it out")
        return self


RankerConfigT = TypeVar("RankerConfigT", bound=RankerConfig)


def rms_norm(dim: int) -> nn.RMSNorm:
    return nn.RMSNorm(dim, eps=1e-6)


class ActionEncoder(nn.Module):
    """An event's 0/1 actions as one vector; no action at all is a vector of its own.

    The one way by which actions enter any arm, so their dropout is here: what an arm does with them can't change it.
    ``mlp`` follows the encoder of Meta's generative-recommenders: 8 numbers per action, N(0, 0.1), zero where the
    action did not occur, concatenated and sent through an MLP.
    """

    def __init__(self, actions: int, dim: int, kind: str, dropout: float) -> None:
        super().__init__()
        if kind == "embedding":
            linear = nn.Linear(actions, dim)
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.normal_(linear.bias, std=0.02)
            self.encode: nn.Module = linear
        else:
            self.rows = nn.Parameter(torch.empty(actions, 8).normal_(std=0.1))
            self.encode = nn.Sequential(nn.Linear(8 * actions, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.kind = kind
        self.dropout = Dropout(dropout)

    def forward(self, actions: Tensor) -> Tensor:
        """(..., A) in {0, 1} to (..., d)."""
        if self.kind == "mlp":
            actions = (actions.unsqueeze(-1) * self.rows).flatten(-2)  # (..., 8 A)
        return self.dropout(self.encode(actions))


class Layer(Protocol):
    """The steps of a layer of either backbone. What a gate is, only the layer knows."""

    @property
    def norm(self) -> nn.Module: ...

    def queries(self, normed: Tensor, at: Places, /) -> tuple[Tensor, Any]:
        """Queries (B, H, S, D) of (B, S, d) normed tokens, and their gate."""

    def keys(self, normed: Tensor, at: Places, /) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, S, D) each, of (B, S, d) normed tokens."""

    def project(self, normed: Tensor, at: Places, /) -> tuple[Tensor, Tensor, Tensor, Any]:
        """Queries, keys, values and gate."""

    def weights(
        self,
        query: Tensor,
        at: Places,
        parts: Sequence[Part],
        key_places: Sequence[Places] | None = None,
        own_key: Tensor | None = None,
        /,
    ) -> list[Tensor]:
        """What multiplies the values: (B, H, N, N) per part, then (B, H, N) for the own key if there is one."""

    def attend(
        self,
        query: Tensor,
        at: Places,
        parts: Sequence[Part],
        key_places: Sequence[Places] | None = None,
        own: tuple[Tensor, Tensor] | None = None,
        /,
    ) -> Tensor:
        """(B, H, N, D): the weighted values of the union of ``parts`` and the own key."""

    def attend_beside(
        self,
        query: Tensor,
        at: Places,
        history: Cache,
        key_places: Sequence[Places],
        seen: Tensor,
        own: tuple[Tensor, Tensor] | None,
        /,
    ) -> Tensor:
        """K candidates beside a history of which ``seen`` (B, S) are not padding: (B, H, K, D)."""

    def finish(self, x: Tensor, attended: Tensor, gate: Any, /) -> Tensor:
        """(B, S, d): the stream ``x`` after the layer."""


class TransformerLayer(nn.Module):
    """Pre-norm Transformer layer: RMSNorm, RoPE, softmax attention, SwiGLU of width 8d/3; no biases.

    ``value_sets`` is how many values of width D each head returns.
    """

    def __init__(self, dim: int, heads: int, dropout: float, value_sets: int = 1) -> None:
        super().__init__()
        hidden = 8 * -(-dim // 3)  # 8d/3, rounded up to a multiple of 8
        self.heads = heads
        self.norm = rms_norm(dim)
        self.projection = nn.Linear(dim, 3 * dim, bias=False)  # Q, K, V
        self.out = nn.Linear(dim * value_sets, dim, bias=False)
        self.ffn_norm = rms_norm(dim)
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.dropout = Dropout(dropout)

    def queries(self, normed: Tensor, at: Places) -> tuple[Tensor, None]:
        """Queries (B, H, S, D) of (B, S, d) normed tokens; this layer has no gate."""
        query = F.linear(normed, self.projection.weight[: normed.shape[-1]])
        return rotate(query.unflatten(-1, (self.heads, -1)), at).transpose(1, 2), None

    def keys(self, normed: Tensor, at: Places) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, S, D) each, of (B, S, d) normed tokens."""
        both = F.linear(normed, self.projection.weight[normed.shape[-1] :]).unflatten(-1, (2, self.heads, -1))
        key, value = both.unbind(2)  # (B, S, H, D)
        return rotate(key, at).transpose(1, 2), value.transpose(1, 2)

    def project(self, normed: Tensor, at: Places) -> tuple[Tensor, Tensor, Tensor, None]:
        """Queries, keys and values."""
        qkv = self.projection(normed).unflatten(-1, (3, self.heads, -1))  # (B, S, 3, H, D)
        query, key = rotate(qkv[:, :, :2], at).transpose(1, 3).unbind(2)  # (B, H, S, D)
        return query, key, qkv[:, :, 2].transpose(1, 2), None

    def weights(
        self,
        query: Tensor,
        at: Places,
        parts: Sequence[Part],
        key_places: Sequence[Places] | None = None,
        own_key: Tensor | None = None,
    ) -> list[Tensor]:
        """What multiplies the values: (B, H, N, N) per part, then (B, H, N) for the own key if there is one."""
        return causal_union.union_weights(query, parts, own_key)

    def attend(
        self,
        query: Tensor,
        at: Places,
        parts: Sequence[Part],
        key_places: Sequence[Places] | None = None,
        own: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, H, N, D): the weighted values of the union of ``parts`` and the own key."""
        return causal_union.attend(query, parts, own)

    def attend_beside(
        self,
        query: Tensor,
        at: Places,
        history: Cache,
        key_places: Sequence[Places],
        seen: Tensor,
        own: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """K candidates beside a history of which ``seen`` (B, S) are not padding: (B, H, K, D)."""
        assert own is not None, "softmax needs a key that every candidate sees"
        return causal_union.attend_beside(query, history, seen, own)

    def finish(self, x: Tensor, attended: Tensor, gate: None) -> Tensor:
        """(B, S, d): the stream ``x`` after the attention's output and the feed-forward block."""
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        gated, linear = self.up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.dropout(self.down(F.silu(gated) * linear))


class Ranker(Recommender[RankerConfigT]):
    """Base of the action models. An arm gives the states that the heads read.

    In every arm the embedded items and the embedded actions are dropped out once, each on its own, and attention
    weights never are. A batch with ``targets`` is trained on the next item, one
    without on its actions.
    """

    Config = RankerConfig
    tasks = frozenset({Task.ACTION, Task.RETRIEVAL})
    needs = Needs(actions=True)
    training_defaults: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, "batch_size": 128}

    tokens_per_event = 1
    value_sets = 1

    def __init__(self, config: RankerConfigT, schema: Schema, *, width: int | None = None) -> None:
        """``width`` is that of the states, where it isn't ``config.dim``."""
        super().__init__(config, schema)
        if not schema.actions:
            raise InputError(NO_ACTIONS)
        dim, width = config.dim, width or config.dim
        self.item_embedding = nn.Embedding(schema.n_items + 1, dim, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight[1:], std=0.02)
        lost = config.dropout if config.action_dropout is None else config.action_dropout
        self.action_encoder = ActionEncoder(len(schema.actions), dim, config.action_encoder, lost)
        self.dropout = Dropout(config.dropout)
        self.layers = ModuleList(self._layer() for _ in range(config.layers))
        self.final_norm = rms_norm(dim)
        hidden = nn.Sequential(nn.Linear(width, dim), nn.SiLU()) if config.head == "mlp" else nn.Identity()
        self.action_head = nn.Sequential(hidden, nn.Linear(dim if config.head == "mlp" else width, len(schema.actions)))
        self.item_query = nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)

    @classmethod
    def needs_with(cls, config: RankerConfigT) -> Needs:
        return dataclasses.replace(cls.needs, times=config.time_bias)

    def _layer(self) -> Layer:
        config = self.config
        if config.backbone == "transformer":
            return TransformerLayer(config.dim, config.heads, config.dropout, self.value_sets)
        tokens = self.tokens_per_event * (self.schema.max_length + 1)
        return HSTULayer(
            config.dim,
            config.heads,
            config.dropout,
            tokens,
            config.time_bias,
            self.value_sets,
            config.attention_scale,
        )

    # -- what an arm answers ------------------------------------------------------------------------------------

    @abstractmethod
    def states(self, batch: Batch, own_action: bool, record: Weights | None = None) -> Tensor:
        """(B, L, width): what is known at each event. ``own_action``: including its own action.

        With ``record``, each attention appends its weights: those of ``layer.weights``.
        """

    @abstractmethod
    def candidate_states(self, batch: Batch, candidates: Tensor) -> Tensor:
        """(B, K, width): the states of K items, each as the event after the sequence's last."""

    @abstractmethod
    def attention_maps(self, batch: Batch, own_action: bool) -> AttentionMaps:
        """The maps behind :meth:`states`."""

    # -- the interface ------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy over all items where the batch has targets, else BCE, the mean over events and actions."""
        if batch.targets is None:
            labels = batch.supervised(batch.labels())  # (V, A)
            logits = self.action_head(batch.supervised(self.states(batch, own_action=False)))
            return {"bce": F.binary_cross_entropy_with_logits(logits, labels)}
        logits = self._item_logits(batch.supervised(self.states(batch, own_action=True)))  # (V, n_items)
        return {"cross_entropy": F.cross_entropy(logits, batch.next_items() - 1)}

    def predict_actions(self, batch: Batch) -> Tensor:
        return self.action_head(self.states(batch, own_action=False))

    def score_candidates(self, batch: Batch, candidates: Tensor) -> Tensor:
        """(B, K, A) logits of the actions of ``candidates`` (B, K), each as the event after the sequence's last.

        The history is computed once and the candidates don't see each other: the same as appending each of them
        alone and asking for the last event's actions. A candidate's time is that of the last event.
        """
        return self.action_head(self.candidate_states(batch, candidates))

    def score_items(self, batch: Batch) -> Tensor:
        return self._item_logits(self.states(batch, own_action=True).flatten(0, 1)[batch.last()])

    def attention(self, batch: Batch, task: Task) -> AttentionMaps:
        """In retrieval an event's own action is visible, in action prediction it is not."""
        was_training = self.training
        self.eval()
        maps = self.attention_maps(batch, own_action=task is Task.RETRIEVAL)
        self.train(was_training)
        return maps

    def _item_logits(self, states: Tensor) -> Tensor:
        return self.item_query(states) @ self.item_embedding.weight[1:].T

    # -- steps that arms share ----------------------------------------------------------------------------------

    def places(self, batch: Batch, position: Tensor | None = None) -> Places:
        """One token per event at positions 0..L-1, or at ``position``."""
        if position is None:
            position = torch.arange(batch.items.shape[1], device=batch.items.device)
        return places(position, batch.times, self.config.dim // self.config.heads)

    def candidate_places(self, batch: Batch, position: Tensor, candidates: Tensor) -> Places:
        """The places of K candidates at ``position`` (B,), at the time of the last event."""
        spread = position[:, None].expand_as(candidates)  # (B, K)
        time = None if batch.times is None else batch.times.flatten()[batch.last()][:, None].expand_as(candidates)
        return places(spread, time, self.config.dim // self.config.heads)

    def causal(
        self,
        layer: Layer,
        x: Tensor,
        at: Places,
        record: Weights | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """One layer of plain causal self-attention; leaves its keys and values in ``cache``."""
        query, key, value, gate = layer.project(layer.norm(x), at)
        parts = [Part(key, value, strict=False)]
        if record is not None:
            record.append(layer.weights(query, at, parts))
        if cache is not None:
            cache.append((key, value))
        return layer.finish(x, layer.attend(query, at, parts), gate)

    def beside(self, x: Tensor, at: Places, cache: Cache, key_places: Places, seen: Tensor) -> Tensor:
        """(B, K, d): candidate tokens ``x`` through all layers, each seeing the cached history and itself."""
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            query, key, value, gate = layer.project(layer.norm(x), at)
            attended = layer.attend_beside(query, at, [(keys, values)], [key_places], seen, (key, value))
            x = layer.finish(x, attended, gate)
        return self.final_norm(x)

    @staticmethod
    def seen(batch: Batch, per_event: int = 1) -> Tensor:
        """(B, L * per_event) bool: which tokens belong to an event."""
        tokens = torch.arange(batch.items.shape[1] * per_event, device=batch.items.device)
        return tokens < batch.lengths[:, None] * per_event

    @staticmethod
    def event_maps(batch: Batch, maps: list[Tensor], null: bool = False) -> AttentionMaps:
        """Maps of one token per event; with ``null`` the first key belongs to no event."""
        events = torch.arange(batch.items.shape[1], device=batch.items.device).expand_as(batch.items)
        return AttentionMaps(maps, events, F.pad(events, (1, 0), value=-1) if null else events)
