"""FAIR: Focused Attention Is All You Need for generative recommendation (Xiao et al., arXiv 2512.11254).

Rebuilt from the published description: what the paper's accessible text leaves open is an option, listed with its
default and reason in ``FAIR.fidelity``.

Shapes: B sequences, L events, m codes per item, V supervised positions, N items, K the largest codebook, H heads,
d width, T tokens (L item tokens, or L * m code tokens).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Needs, Recommender, Schema, Task
from harness.settings import Settings
from models.blocks.attention import SelfAttention, causal_softmax, evaluation_mode, event_positions, maps_are_cheaper
from models.blocks.dropout import Dropout, dropout
from models.blocks.heads import rows_per_piece
from models.blocks.transformer import Activation, Transformer, init_weights

__all__ = ["FAIR", "FAIRConfig", "FocusedAttention", "info_nce", "lambda_init", "noise_loss"]

NoiseForm = Literal["representation", "triplet", "attention-mse", "attention-kl"]


class FAIRConfig(Settings):
    """A weight of 0 switches its loss off, and spares what only that loss needs."""

    # Backbone
    dim: int = Field(448, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    inner: int = Field(1024, ge=1)
    activation: Activation = "gelu-tanh"
    norm_eps: float = Field(1e-5, gt=0)
    embedding_dropout: float = Field(0.5, ge=0, lt=1)
    attention_dropout: float = Field(0.5, ge=0, lt=1)
    """On the map that multiplies V, so after the subtraction."""
    residual_dropout: float = Field(0.0, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    granularity: Literal["item", "code"] = "item"
    """item: one token per item, the mean of its code embeddings; code: one token per code, the next item being
    predicted from the last code of each item."""

    # Focused attention
    attention: Literal["focused", "softmax"] = "focused"
    normalisation: Literal["rmsnorm", "signed-l1", "none"] = "rmsnorm"
    """rmsnorm: of each head's A V, times 1 - lambda_init; signed-l1: A divided by the sum of |A| of its row."""
    focus_lambda: Literal["learnable", "fixed", "two-scalars"] = "learnable"
    """learnable: A1 - lambda A2, the Differential Transformer's reparametrisation, per head; fixed: lambda is
    ``lambda_value``; two-scalars: lambda1 A1 - lambda2 A2, both learnable per head, starting at 1 and lambda_init."""
    lambda_value: float = 1.0
    matched: bool = False
    """Halve the width of Q and K, so that both pairs together have the parameters of one plain pair."""

    # Multi-token prediction
    temperature: float = Field(0.03, gt=0)

    # Noise robustness
    noise_weight: float = Field(0.1, ge=0)
    noise_form: NoiseForm = "representation"
    noise_unit: Literal["item", "code"] = "code"
    """What is corrupted as one: an item with all of its codes, or each code on its own."""
    noise_mask: float = Field(0.1, ge=0, le=1)
    """Probability that a unit becomes the mask token."""
    noise_replace: float = Field(0.1, ge=0, le=1)
    """Probability that a unit is replaced: an item by a random item, a code by a random code of the same level."""
    noise_margin: float = Field(0.5, ge=0)
    """delta of the triplet form."""

    # Mutual information
    mi_weight: float = Field(0.1, ge=0)
    mi_temperature: float = Field(0.07, gt=0)
    mi_negatives: int = Field(256, ge=0)
    """How many of the batch's targets, drawn anew for each batch, every position is contrasted with; 0 = all."""

    @model_validator(mode="after")
    def _consistent(self) -> FAIRConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        if self.matched and self.dim // self.heads % 2:
            raise ValueError(f"matched halves dim / heads, so {self.dim} / {self.heads} must be even")
        if self.noise_mask + self.noise_replace > 1:
            raise ValueError("noise_mask and noise_replace must not exceed 1 together")
        return self


def lambda_init(layer: int) -> float:
    """Where lambda starts in ``layer``, counted from 0 (Ye et al., Differential Transformer, arXiv 2410.05258)."""
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


class FocusedAttention(nn.Module):
    """O = Norm(A1 - lambda A2) V with A_j = softmax(Q_j K_j^T / sqrt(dh)): what both maps share cancels out.

    The same interface as :class:`models.blocks.attention.SelfAttention`.
    """

    def __init__(self, config: FAIRConfig, layer: int) -> None:
        super().__init__()
        c = config
        self.heads = c.heads
        self.head_dim = c.dim // c.heads
        self.query_dim = self.head_dim // 2 if c.matched else self.head_dim
        self.normalisation = c.normalisation
        self.norm_eps = c.norm_eps
        self.dropout = c.attention_dropout
        self.lambda_init = lambda_init(layer)
        self.qk = nn.Linear(c.dim, 4 * c.heads * self.query_dim)  # Q1, Q2, K1, K2
        self.v = nn.Linear(c.dim, c.dim)
        self.out = nn.Linear(c.dim, c.dim)
        self.focus_lambda = c.focus_lambda
        if c.focus_lambda == "learnable":
            self.lambda_q = nn.Parameter(torch.randn(2, c.heads, self.query_dim) * 0.1)
            self.lambda_k = nn.Parameter(torch.randn(2, c.heads, self.query_dim) * 0.1)
        elif c.focus_lambda == "two-scalars":
            self.scalars = nn.Parameter(torch.tensor([[1.0], [self.lambda_init]]).repeat(1, c.heads))
        else:
            self.lambda_value = c.lambda_value

    def lambdas(self) -> tuple[Tensor | float, Tensor | float]:
        """The factors of A1 and A2, each a number or one number per head (H, 1, 1)."""
        if self.focus_lambda == "learnable":
            first, second = (self.lambda_q * self.lambda_k).sum(dim=-1).exp()  # each (H,)
            return 1.0, (first - second + self.lambda_init)[:, None, None]
        if self.focus_lambda == "two-scalars":
            first, second = self.scalars
            return first[:, None, None], second[:, None, None]
        return 1.0, self.lambda_value

    def forward(self, x: Tensor, capture: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, T, d) -> (B, T, d), and A (B, H, T, T) before dropout, signed, if ``capture``, else None."""
        batch, length, dim = x.shape
        qk = self.qk(x).view(batch, length, 4, self.heads, self.query_dim).permute(2, 0, 3, 1, 4)
        q, k = qk.flatten(1, 2).unflatten(0, (2, 2))  # each (2, B * H, T, query_dim)
        v = self.v(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)  # (B, H, T, dh)
        first, second = self.lambdas()
        maps = None
        if capture or self.normalisation == "signed-l1" or maps_are_cheaper(x, self.dropout, self.training):
            pair = causal_softmax(q.flatten(0, 1), k.flatten(0, 1))  # (2 * B * H, T, T)
            a1, a2 = pair.view(2, batch, self.heads, length, length)
            focused = first * a1 - second * a2  # (B, H, T, T)
            if self.normalisation == "signed-l1":
                focused = focused / (focused.abs().sum(dim=-1, keepdim=True) + self.norm_eps)
            maps = focused if capture else None
            mixed = dropout(focused, self.dropout, self.training) @ v  # (B, H, T, dh)
        else:
            mixed = self._fused(q, k, v, first, second)
        if self.normalisation == "rmsnorm":
            mixed = F.rms_norm(mixed, (self.head_dim,), eps=self.norm_eps) * (1 - self.lambda_init)
        return self.out(mixed.transpose(1, 2).flatten(2)), maps
