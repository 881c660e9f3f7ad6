"""Focused attention: the difference of two softmax maps, so that what both share cancels out.

FAIR's (Xiao et al., arXiv 2512.11254), with the parts of the Differential Transformer (Ye et al., arXiv 2410.05258).
Shapes: B sequences, T tokens, d width, H heads, dh = d / H.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.blocks.attention import causal_softmax, maps_are_cheaper
from harness.models.blocks.dropout import dropout

__all__ = ["FocusLambda", "FocusedAttention", "LambdaPer", "Normalisation", "lambda_init"]

Normalisation = Literal["rmsnorm", "signed-l1", "none"]
FocusLambda = Literal["learnable", "fixed", "two-scalars"]
LambdaPer = Literal["layer", "head"]


def lambda_init(layer: int) -> float:
    """Where lambda starts in ``layer``, counted from 0 (Ye et al., Differential Transformer, arXiv 2410.05258)."""
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


class FocusedAttention(nn.Module):
    """O = Norm(A1 - lambda A2) V with A_j = softmax(Q_j K_j^T / sqrt(dh)): what both maps share cancels out.

    The same interface as :class:`harness.models.blocks.attention.SelfAttention`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layer: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        matched: bool = False,
        normalisation: Normalisation = "rmsnorm",
        norm_gain: bool = True,
        norm_eps: float = 1e-5,
        focus_lambda: FocusLambda = "learnable",
        lambda_per: LambdaPer = "layer",
        lambda_value: float = 1.0,
    ) -> None:
        """``layer``, counted from 0, decides lambda_init. The options are those of :class:`harness.models.fair.FAIR`;
        ``dropout`` falls on A."""
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.query_dim = self.head_dim // 2 if matched else self.head_dim
        self.normalisation = normalisation
        self.norm_eps = norm_eps
        self.dropout = dropout
        self.lambda_init = lambda_init(layer)
        self.qk = nn.Linear(dim, 4 * heads * self.query_dim, bias=bias)  # Q1, Q2, K1, K2
        self.v = nn.Linear(dim, dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self.gain = nn.Parameter(torch.ones(self.head_dim)) if norm_gain and normalisation == "rmsnorm" else None
        self.focus_lambda = focus_lambda
        lambdas = heads if lambda_per == "head" else 1
        if focus_lambda == "learnable":
            self.lambda_q = nn.Parameter(torch.randn(2, lambdas, self.query_dim) * 0.1)
            self.lambda_k = nn.Parameter(torch.randn(2, lambdas, self.query_dim) * 0.1)
        elif focus_lambda == "two-scalars":
            self.scalars = nn.Parameter(torch.tensor([[1.0], [self.lambda_init]]).repeat(1, lambdas))
        else:
            self.lambda_value = lambda_value

    def subtract(self, first: Tensor, second: Tensor) -> Tensor:
        """first - lambda second, or lambda1 first - lambda2 second: (B, H, ., .) each."""
        if self.focus_lambda == "fixed":
            return first - self.lambda_value * second
        if self.focus_lambda == "two-scalars":
            one, two = self.scalars.view(2, -1, 1, 1)
            return one * first - two * second
        one, two = (self.lambda_q * self.lambda_k).sum(dim=-1).exp().view(2, -1, 1, 1)
        return first - (one - two + self.lambda_init) * second

    def forward(self, x: Tensor, capture: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, T, d) -> (B, T, d), and A (B, H, T, T) before dropout, signed, if ``capture``, else None."""
        batch, length, _ = x.shape
        qk = self.qk(x).view(batch, length, 4, self.heads, self.query_dim).permute(2, 0, 3, 1, 4)
        q, k = qk.flatten(1, 2).unflatten(0, (2, 2))  # each (2, B * H, T, query_dim)
        v = self.v(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)  # (B, H, T, dh)
        maps = None
        thinned = self.training and self.dropout > 0  # one dropout on A, which no fused kernel sees
        explicit = thinned or maps_are_cheaper(x, self.dropout, self.training)
        if capture or explicit or self.normalisation == "signed-l1":
            pair = causal_softmax(q.flatten(0, 1), k.flatten(0, 1))  # (2 * B * H, T, T)
            a1, a2 = pair.view(2, batch, self.heads, length, length)
            focused = self.subtract(a1, a2)  # (B, H, T, T)
            if self.normalisation == "signed-l1":
                focused = focused / (focused.abs().sum(dim=-1, keepdim=True) + self.norm_eps)
            maps = focused if capture else None
            mixed = dropout(focused, self.dropout, self.training) @ v  # (B, H, T, dh)
        else:
            # (A1 - lambda A2) V = A1 V - lambda A2 V: two fused attentions and no map
            q, k = (part.unflatten(1, (batch, self.heads)).flatten(0, 1) for part in (q, k))  # (2 * B, H, T, query_dim)
            both = F.scaled_dot_product_attention(q, k, torch.cat([v, v]), is_causal=True)  # (2 * B, H, T, dh)
            mixed = self.subtract(*both.chunk(2))  # (B, H, T, dh)
        if self.normalisation == "rmsnorm":
            gain = None if self.gain is None else self.gain.to(mixed.dtype)  # of one type, the norm is one kernel
            mixed = F.rms_norm(mixed, (self.head_dim,), gain, self.norm_eps) * (1 - self.lambda_init)
        return self.out(mixed.transpose(1, 2).flatten(2)), maps
