"""eSASRec (Tikhonovich et al., RecSys 2025, arXiv 2508.06450): SASRec's objective, LiGR layers and sampled softmax.

The layer is that of LiGR (Borisyuk et al., arXiv 2502.03417): each residual branch is multiplied by a sigmoid gate that
reads the branch's input. Shapes: B sequences, L positions, V supervised positions, N items, d width, k negatives.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Recommender, Schema, Task
from harness.models.blocks.attention import SelfAttention, evaluation_mode, event_positions
from harness.models.blocks.dropout import Dropout
from harness.models.blocks.heads import linear_cross_entropy, sampled_softmax
from harness.models.blocks.module_list import ModuleList
from harness.settings import Settings

__all__ = ["ESASRec", "ESASRecConfig", "LiGRLayer"]


class ESASRecConfig(Settings):
    """The defaults are the authors' for Amazon Beauty."""

    dim: int = Field(64, ge=1)
    layers: int = Field(1, ge=1)
    heads: int = Field(1, ge=1)
    inner: int = Field(256, ge=1)
    """Width of the gated feed-forward network (SwiGLU)."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """On the embeddings, the attention maps, within the feed-forward network and at the end of each branch."""
    table_dropout: float = Field(0.2, ge=0, lt=1)
    """On the item table, with one mask for the input and the scores of a step."""
    positions: Literal["from-end", "from-start"] = "from-end"
    """Whether a position embedding belongs to a distance from the window's last event, or from its first."""
    loss: Literal["sampled-softmax", "ce"] = "sampled-softmax"
    """"ce": the softmax over the whole catalogue."""
    negatives: int = Field(256, ge=1)
    """Drawn uniformly from the catalogue for each position (sampled-softmax)."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> ESASRecConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


class LiGRLayer(nn.Module):
    """x + sigmoid(G x) * branch(LN(x)), once for self-attention and once for a SwiGLU network without biases."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads, dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention_gate = nn.Linear(dim, dim)
        self.up = nn.Linear(dim, inner, bias=False)
        self.linear = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward_gate = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, capture: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, L, d) -> (B, L, d), and the attention's maps (B, H, L, L) if ``capture``."""
        mixed, maps = self.attention(self.attention_norm(x), capture)
        x = x + torch.sigmoid(self.attention_gate(x)) * self.dropout(mixed)
        normed = self.feed_forward_norm(x)
        inner = self.dropout(F.silu(self.up(normed)) * self.linear(normed))  # (B, L, inner)
        x = x + torch.sigmoid(self.feed_forward_gate(x)) * self.dropout(self.down(inner))
        return x, maps


class ESASRec(Recommender[ESASRecConfig]):
    """Causal LiGR Transformer over item embeddings; an item's score is its embedding's product with the last state."""

    Config = ESASRecConfig
    tasks = frozenset({Task.RETRIEVAL})
    tokens_per_event = 1
    fidelity = Fidelity(
        paper="Tikhonovich et al., eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion, RecSys "
        "2025, arXiv 2508.06450",
        status="reproduction",
        verified=(
            "the layer equals the formula of RecTools' LiGRLayer, on which the authors build, over PyTorch's own "
            "attention",
            "loss, negatives, dropout, depth and heads are those of the authors' table for Beauty",
        ),
        choices=(
            Choice("dim", "64 in the authors' table for Beauty, 256 in their configuration file", "verified"),
            Choice("inner", "4 d for Beauty; the authors take 2 d for Sports and d for Toys", "verified"),
            Choice("layers", "1 for the Amazon data; 2 for ML-1M, 4 for ML-20M", "verified"),
            Choice("table_dropout", "RecTools has it, at the rate of the other dropouts", "verified"),
            Choice("positions", "RecTools pads on the left and counts from the end", "verified"),
        ),
        departures=(
            "batches of 32 at a rate of 0.002, for short budgets; the authors take 128 at 0.001 for up to 200 epochs",
            "a negative that is the position's own target is left out; RecTools keeps it",
            "windows of long histories cover all of their events; RecTools takes the last ones",
        ),
    )
    training_defaults: ClassVar[dict[str, Any]] = {
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "beta2": 0.98,
        "weight_decay": 0.0,
        "batch_size": 32,
        "schedule": "constant",
    }

    def __init__(self, config: ESASRecConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        c = config
        self.items = nn.Embedding(schema.n_items + 1, c.dim)
        self.positions = nn.Embedding(schema.max_length, c.dim)
        self.table_dropout = Dropout(c.table_dropout)
        self.input_dropout = Dropout(c.dropout)
        self.layers = ModuleList(LiGRLayer(c.dim, c.heads, c.inner, c.dropout) for _ in range(c.layers))
        for name, parameter in self.named_parameters():  # no norm closes the stack
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
            elif "attention.qkv" in name or "attention.out" in name:
                nn.init.zeros_(parameter)

    def encode(self, batch: Batch, table: Tensor, capture: bool = False) -> tuple[Tensor, list[Tensor]]:
        """States (B, L, d) of items embedded by ``table`` (N + 1, d), and maps (B, H, L, L) by layer if ``capture``."""
        place = torch.arange(batch.items.shape[1], device=batch.items.device)  # (L,)
        if self.config.positions == "from-end":
            place = (batch.lengths.unsqueeze(1) - 1 - place).clamp(min=0)  # (B, L)
        x = self.input_dropout(F.embedding(batch.items, table) + self.positions(place))  # (B, L, d)
        maps = []
        for layer in self.layers:
            x, layer_maps = layer(x, capture)
            if layer_maps is not None:
                maps.append(layer_maps)
        return x, maps

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        table = self.table_dropout(self.items.weight)  # (N + 1, d)
        hidden = batch.supervised(self.encode(batch, table)[0])  # (V, d)
        targets = batch.next_items() - 1  # (V,)
        if self.config.loss == "ce":
            return {"ce": linear_cross_entropy(hidden, table[1:], targets)}
        shape = (len(targets), self.config.negatives)
        negatives = torch.randint(self.schema.n_items, shape, device=targets.device)
        return {"sampled_softmax": sampled_softmax(hidden, table[1:], targets, negatives)}

    def score_items(self, batch: Batch) -> Tensor:
        last = self.encode(batch, self.items.weight)[0].flatten(0, 1).index_select(0, batch.last())  # (B, d)
        return last @ self.items.weight[1:].T  # (B, N)

    def attention(self, batch: Batch, task: Task) -> AttentionMaps:
        with evaluation_mode(self):
            _, maps = self.encode(batch, self.items.weight, capture=True)
        events = event_positions(batch)
        return AttentionMaps(maps=maps, query_event=events, key_event=events)
