"""HSTU as a retriever (Zhai et al., "Actions Speak Louder than Words", ICML 2024, arXiv 2402.17152): items alone,
trained with sampled softmax on cosines, as in the authors' research code for academic data sets (their Section 4.1.1).

The layer is :mod:`harness.models.blocks.hstu`.

Shapes: B sequences, L positions, V supervised positions, N items, d width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Needs, Recommender, Schema, Task
from harness.models.blocks.attention import evaluation_mode, event_positions
from harness.models.blocks.causal_union import Part
from harness.models.blocks.heads import linear_cross_entropy, sampled_softmax
from harness.models.blocks.hstu import HSTULayer
from harness.models.blocks.module_list import ModuleList
from harness.models.blocks.places import places
from harness.settings import Settings

__all__ = ["HSTU", "HSTUConfig"]


class HSTUConfig(Settings):
    """The defaults are the authors' for ML-1M, but for ``dim`` (50 there) and ``time_bias``."""

    dim: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    """On the embeddings and in each layer, before its output projection."""
    time_bias: bool = False
    """Bias the attention by the time between two events, beside their distance."""
    loss: Literal["sampled-softmax", "ce"] = "sampled-softmax"
    """"ce": the softmax over the whole catalogue."""
    negatives: int = Field(128, ge=1)
    """Drawn uniformly from the catalogue for each position (sampled-softmax)."""
    normalise: bool = True
    """Scale states and item embeddings to length 1 before their product."""
    temperature: float = Field(0.05, gt=0)
    """Scores are products divided by it."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> HSTUConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


class HSTU(Recommender[HSTUConfig]):
    """Item and position embeddings through HSTU layers; an item's score is a cosine over the temperature."""

    Config = HSTUConfig
    tasks = frozenset({Task.RETRIEVAL})
    tokens_per_event = 1
    fidelity = Fidelity(
        paper="Zhai et al., Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative "
        "Recommendations, ICML 2024, arXiv 2402.17152",
        status="reproduction",
        verified=(
            "loss, negatives, temperature, norms of states and items, depth, heads, dropout and learning rate are "
            "those of the authors' configuration for ML-1M",
        ),
        choices=(
            Choice("time_bias", "off, so that it runs on data without times; the authors' code has it on", "verified"),
            Choice(
                "loss",
                "the authors'; ce ranks better where the history may be recommended again, which few drawn negatives "
                "come from",
                "verified",
            ),
            Choice("heads", "1 for ML-1M; 2 in the authors' larger configuration", "recalled"),
            Choice("negatives", "128 for MovieLens; 512 for Amazon Books", "verified"),
        ),
        departures=(
            "attention is divided by the data's longest sequence; the authors add the number of predicted events",
            "a query's time is that of its own event, not of the next one, which is what is to be predicted",
            "item embeddings start from a normal distribution, in the authors' code from a truncated one",
        ),
    )
    training_defaults: ClassVar[dict[str, Any]] = {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "beta2": 0.98,
        "weight_decay": 0.0,
        "batch_size": 128,
        "schedule": "constant",
    }

    def __init__(self, config: HSTUConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        c = config
        self.items = nn.Embedding(schema.n_items + 1, c.dim, padding_idx=0)
        nn.init.normal_(self.items.weight[1:], std=0.02)
        self.positions = nn.Embedding(schema.max_length, c.dim)
        nn.init.xavier_normal_(self.positions.weight)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = ModuleList(
            HSTULayer(c.dim, c.heads, c.dropout, schema.max_length, c.time_bias) for _ in range(c.layers)
        )

    @classmethod
    def needs_with(cls, config: HSTUConfig) -> Needs:
        return dataclasses.replace(cls.needs, times=config.time_bias)

    def encode(self, batch: Batch, record: list[Tensor] | None = None) -> Tensor:
        """States (B, L, d), of length 1 where ``normalise``; each layer adds its weights (B, H, L, L) to ``record``."""
        position = torch.arange(batch.items.shape[1], device=batch.items.device)
        at = places(position, batch.times if self.config.time_bias else None, self.config.dim // self.config.heads)
        x = self.dropout(self.items(batch.items) * self.config.dim**0.5 + self.positions(position))  # (B, L, d)
        for layer in self.layers:
            query, key, value, gate = layer.project(layer.norm(x), at)
            parts = [Part(key, value, strict=False)]
            if record is not None:
                record += layer.weights(query, at, parts)
            x = layer.finish(x, layer.attend(query, at, parts), gate)
        return F.normalize(x, dim=-1) if self.config.normalise else x

    def table(self) -> Tensor:
        """(N, d): what states are multiplied with."""
        rows = self.items.weight[1:]
        return (F.normalize(rows, dim=-1) if self.config.normalise else rows) / self.config.temperature

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        hidden = batch.supervised(self.encode(batch))  # (V, d)
        targets = batch.next_items() - 1  # (V,)
        if self.config.loss == "ce":
            return {"ce": linear_cross_entropy(hidden, self.table(), targets)}
        shape = (len(targets), self.config.negatives)
        negatives = torch.randint(self.schema.n_items, shape, device=targets.device)
        return {"sampled_softmax": sampled_softmax(hidden, self.table(), targets, negatives)}

    def score_items(self, batch: Batch) -> Tensor:
        last = self.encode(batch).flatten(0, 1).index_select(0, batch.last())  # (B, d)
        return last @ self.table().T  # (B, N)

    def attention(self, batch: Batch, task: Task) -> AttentionMaps:
        maps: list[Tensor] = []
        with evaluation_mode(self):
            self.encode(batch, maps)
        events = event_positions(batch)
        return AttentionMaps(maps=maps, query_event=events, key_event=events)
