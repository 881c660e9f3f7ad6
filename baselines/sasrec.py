"""SASRec (Kang & McAuley, ICDM 2018), trained on all positions, with four losses.

Shapes: B sequences, L positions, V supervised positions, N items, d width, k negatives.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Recommender, Schema, Task
from harness.models.blocks.attention import SelfAttention, evaluation_mode, event_positions
from harness.models.blocks.dropout import Dropout
from harness.models.blocks.heads import corrected_softmax, linear_cross_entropy, sampled_scores
from harness.models.blocks.transformer import Activation, NormOrder, Transformer, init_weights
from harness.settings import Settings

__all__ = ["SASRec", "SASRecConfig", "gbce", "gbce_beta"]


class SASRecConfig(Settings):
    """The defaults are RecBole's."""

    dim: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    inner: int = Field(256, ge=1)
    """Width of the feed-forward network; the paper uses ``dim``."""
    activation: Activation = "gelu"
    norm: NormOrder = "post"
    """"post": normalise after each residual sum, and the embeddings too; "pre": before each branch, and at the end."""
    norm_eps: float = Field(1e-12, gt=0)
    scale_embedding: bool = False
    """Multiply item embeddings by sqrt(dim) before the positions are added."""
    tied: bool = True
    """Items are scored with the embeddings of the input, as in the paper; otherwise with a table of their own. Tied
    scores favour the items that were just read, which costs accuracy where nobody repeats one and the history is kept
    among the candidates."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """On the embeddings and at the end of each residual branch."""
    attention_dropout: float = Field(0.5, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    loss: Literal["ce", "bce", "gbce", "sampled-softmax"] = "ce"
    """sampled-softmax: cross-entropy over the target and ``negatives`` that all positions of a batch share, corrected
    for how they were drawn. For catalogues whose full softmax is too large."""
    negatives: int = Field(1, ge=1)
    """Sampled for each position (bce, gbce), never the position's own target; or for each batch (sampled-softmax)."""
    sampling: Literal["uniform", "popularity", "log-uniform", "in-batch"] = "uniform"
    """Of negatives. Popularity: in proportion to the item's events in the training part. Log-uniform: in proportion to
    log(1 + 1 / r) for the r-th most frequent item. In-batch, of sampled-softmax alone: among the targets of the batch,
    whose probabilities are taken to be those of popularity."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of gBCE: 0 is plain BCE, 1 gives scores that are calibrated over the whole catalogue."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> SASRecConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        if self.sampling == "in-batch" and self.loss != "sampled-softmax":
            raise ValueError("sampling: in-batch is an option of loss: sampled-softmax; choose another of the two")
        return self


class SASRec(Recommender[SASRecConfig]):
    """Causal Transformer over item embeddings; an item's score is its embedding's product with the last state."""

    Config = SASRecConfig
    tasks = frozenset({Task.RETRIEVAL})
    tokens_per_event = 1
    fidelity = Fidelity(
        paper="Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018; gBCE from Petrov & Macdonald, "
        "gSASRec, RecSys 2023",
        status="reproduction",
        verified=("outputs equal RecBole 1.2.1's SASRec to 1e-5 with its weights copied in",),
        choices=(
            Choice("loss", "full cross-entropy is the stronger and now usual loss; the paper's own is bce"),
            Choice("negatives", "one per position, as in the paper; gSASRec takes 256", "recalled"),
            Choice("sampling", "the paper draws uniformly", "verified"),
            Choice("calibration", "gSASRec's recommended t", "recalled"),
            Choice("norm", "RecBole normalises after each sum; the authors' code before each branch", "verified"),
            Choice("inner", "RecBole's default; the paper's network is as wide as its input", "verified"),
            Choice("activation", "RecBole's default; the paper uses relu", "verified"),
            Choice("tied", "as in the paper and in RecBole", "verified"),
            Choice("scale_embedding", "off in RecBole; the authors' code has it on", "recalled"),
            Choice("dropout", "RecBole's default; the paper tunes it per data set", "verified"),
        ),
        departures=(
            "every position of a sequence is supervised in one pass; RecBole trains on one target per prefix",
            "padding is not a class of the softmax; in RecBole it is",
            "negatives exclude the position's own target only; the authors' code excludes the user's whole history",
        ),
    )
    training_defaults: ClassVar[dict[str, Any]] = {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "batch_size": 128,
        "schedule": "constant",
        "warmup_steps": 0,
    }

    mass: Tensor

    def __init__(self, config: SASRecConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        c = config
        self.items = nn.Embedding(schema.n_items + 1, c.dim, padding_idx=0)
        self.output_items = None if c.tied else nn.Embedding(schema.n_items + 1, c.dim, padding_idx=0)
        self.positions = nn.Embedding(schema.max_length, c.dim)
        self.input_norm = nn.LayerNorm(c.dim, eps=c.norm_eps) if c.norm == "post" else nn.Identity()
        self.input_dropout = Dropout(c.dropout)
        self.transformer = Transformer(
            lambda _: SelfAttention(c.dim, c.heads, c.attention_dropout),
            c.layers,
            c.dim,
            c.inner,
            activation=c.activation,
            dropout=c.dropout,
            norm=c.norm,
            norm_eps=c.norm_eps,
        )
        init_weights(self, c.init_std)
        if c.loss != "ce":
            self.register_buffer("mass", _cumulative_mass(schema, c.sampling), persistent=False)  # (N + 1,) float64
        if c.sampling == "in-batch":
            self.in_batch = ("sampled_softmax",)

    def encode(self, items: Tensor, capture: bool = False) -> tuple[Tensor, list[Tensor]]:
        """items (B, L) -> states (B, L, d), and each layer's maps (B, H, L, L) if ``capture``."""
        x = self.items(items)  # (B, L, d)
        if self.config.scale_embedding:
            x = x * self.config.dim**0.5
        x = x + self.positions.weight[: items.shape[1]]
        return self.transformer(self.input_dropout(self.input_norm(x)), capture)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        states, _ = self.encode(batch.items)
        hidden = batch.supervised(states)  # (V, d)
        targets = batch.next_items()  # (V,)
        if self.config.loss == "ce":
            return {"ce": linear_cross_entropy(hidden, self.output_weight()[1:], targets - 1)}
        if self.config.loss == "sampled-softmax":
            drawn = self.draw_shared(targets)  # (k,)
            log_q = ((self.mass[drawn] - self.mass[drawn - 1]) / self.mass[-1]).log()
            return {"sampled_softmax": corrected_softmax(hidden, self.output_weight(), targets, drawn, log_q)}
        negatives = self.sample_negatives(targets)  # (V, k)
        sampled = torch.cat([targets.unsqueeze(1), negatives], dim=1)  # (V, 1 + k)
        scores = sampled_scores(hidden, self.output_weight(), sampled)
        t = self.config.calibration if self.config.loss == "gbce" else 0.0
        beta = gbce_beta(self.config.negatives, self.schema.n_items, t)
        return {self.config.loss: gbce(scores[:, 0], scores[:, 1:], beta)}

    def output_weight(self) -> Tensor:
        """(N + 1, d): what the states are multiplied with; row 0 belongs to padding."""
        return (self.output_items or self.items).weight

    def sample_negatives(self, targets: Tensor) -> Tensor:
        """(V,) -> (V, k) items other than the target, by inverting the cumulative mass without the target's share."""
        below, upto = self.mass[targets - 1].unsqueeze(1), self.mass[targets].unsqueeze(1)  # (V, 1)
        own = upto - below
        draws = torch.rand(targets.shape[0], self.config.negatives, dtype=torch.float64, device=targets.device)
        draws = draws * (self.mass[-1] - own)
        draws = torch.where(draws < below, draws, draws + own)
        return torch.searchsorted(self.mass, draws, right=True).clamp_(max=self.schema.n_items)

    def draw_shared(self, targets: Tensor) -> Tensor:
        """(k,) items for all positions, drawn with replacement; in-batch, k of ``targets`` (V,) and at most all."""
        if self.config.sampling == "in-batch":
            return targets[torch.randperm(len(targets), device=targets.device)[: self.config.negatives]]
        draws = torch.rand(self.config.negatives, dtype=torch.float64, device=targets.device) * self.mass[-1]
        return torch.searchsorted(self.mass, draws, right=True).clamp_(max=self.schema.n_items)

    def user_states(self, batch: Batch) -> Tensor:
        states, _ = self.encode(batch.items)
        return states.flatten(0, 1).index_select(0, batch.last())  # (B, d)

    def score_items(self, batch: Batch) -> Tensor:
        return self.user_states(batch) @ self.output_weight()[1:].T  # (B, N)

    def attention(self, batch: Batch, task: Task) -> AttentionMaps:
        with evaluation_mode(self):
            _, maps = self.encode(batch.items, capture=True)
        events = event_positions(batch)
        return AttentionMaps(maps=maps, query_event=events, key_event=events)


def gbce_beta(negatives: int, n_items: int, calibration: float) -> float:
    """The exponent of the positive's probability (Petrov & Macdonald 2023): alpha (t (1 - 1 / alpha) + 1 / alpha)."""
    alpha = negatives / (n_items - 1)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def gbce(positive_scores: Tensor, negative_scores: Tensor, beta: float) -> Tensor:
    """Mean over positions of -(log sigmoid(s+)^beta + sum log(1 - sigmoid(s-))) / (k + 1); beta 1 is plain BCE.

    Args:
        positive_scores: (V,).
        negative_scores: (V, k).
    """
    positive = beta * F.logsigmoid(positive_scores.float())
    negative = F.logsigmoid(-negative_scores.float()).sum(dim=1)
    return -(positive + negative).mean() / (negative_scores.shape[1] + 1)


def _cumulative_mass(schema: Schema, sampling: str) -> Tensor:
    """(N + 1,) float64: the sampling weights of items 1..i added up, 0 at the front."""
    if schema.n_items < 2:
        raise InputError("sasrec: 'loss': sampled negatives need at least two items; use loss: ce")
    if sampling == "uniform":
        weights = torch.ones(schema.n_items + 1, dtype=torch.float64)
    elif schema.item_counts is None:
        raise InputError("sasrec: 'sampling': the data give no item counts; use sampling: uniform")
    elif sampling == "log-uniform":
        rank = schema.item_counts[1:].argsort(descending=True, stable=True).argsort()  # from 0
        weights = F.pad(1 / (rank + 1), (1, 0)).double().log1p()
    else:
        weights = schema.item_counts.to(torch.float64)
    weights = weights.clone()
    weights[0] = 0
    return weights.cumsum(0)
