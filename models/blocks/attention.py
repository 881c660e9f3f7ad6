"""Causal self-attention over right-padded sequences, with the maps on request.

Padding stands behind every real event, so the causal mask alone hides it. Shapes: B sequences, L positions,
H heads, dh width of a head, d = H * dh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.interface import Batch
from harness.models.blocks.dropout import dropout

__all__ = ["SelfAttention", "causal_softmax", "evaluation_mode", "event_positions", "maps_are_cheaper"]


def causal_softmax(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(dh) + causal mask): q, k (N, L, dh) -> (N, L, L)."""
    length = q.shape[1]
    mask = torch.full((length, length), -math.inf, dtype=q.dtype, device=q.device).triu_(1)
    return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=q.shape[2] ** -0.5).softmax(dim=-1)


def maps_are_cheaper(x: Tensor, p: float, training: bool) -> bool:
    """Whether explicit maps beat the fused kernel: on a CPU, where dropout thins the maps or autocast is on.

    PyTorch's fused kernel for CPUs takes 2 to 6 times as long in bfloat16 as the maps do, up to 200 positions at least.
    """
    return x.device.type == "cpu" and ((training and p > 0.0) or torch.is_autocast_enabled("cpu"))


class SelfAttention(nn.Module):
    """Multi-head causal softmax attention (Vaswani et al., 2017) with one projection for Q, K and V.

    Dropout falls on the maps.
    """

    def __init__(self, dim: int, heads: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor, capture: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, L, d) -> (B, L, d), and the maps (B, H, L, L) before dropout if ``capture``, else None."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, L, dh)
        maps = None
        if capture or maps_are_cheaper(x, self.dropout, self.training):
            weights = causal_softmax(q.flatten(0, 1), k.flatten(0, 1))  # (B * H, L, L)
            maps = weights.unflatten(0, (batch, self.heads)) if capture else None
            mixed = torch.bmm(dropout(weights, self.dropout, self.training), v.flatten(0, 1))
            mixed = mixed.unflatten(0, (batch, self.heads))  # (B, H, L, dh)
        else:
            p = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2)), maps


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Switches dropout and gradients off, and puts every part back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def event_positions(batch: Batch) -> Tensor:
    """(B, L) int64: each event's own position, -1 where padded."""
    positions = torch.arange(batch.items.shape[1], device=batch.items.device)
    return torch.where(positions < batch.lengths.unsqueeze(1), positions, -1)
