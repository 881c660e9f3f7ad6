"""The loss of multi-token prediction over many code levels, with its gradient worked out on the way forward.

Shapes: V positions, m code levels, K the largest codebook, d width.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["code_cross_entropy", "level_rows", "level_states"]

_CACHED_FLOATS = 2**19
"""2 MiB of each intermediate stay in a CPU core's cache."""


def level_rows(sizes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where each level's codes stand in a table that holds level 0, level 1 and so on, of the given sizes (m,).

    Returns:
        Rows of the table (m, K), and the bias (m, 1, K) of a level's logits. Short levels are filled up with their
        first row, which the bias then bars; it is None where all levels have K codes.
    """
    first = sizes.cumsum(0) - sizes  # (m,)
    places = torch.arange(int(sizes.max()))
    within = places < sizes[:, None]  # (m, K)
    rows = torch.where(within, places, 0) + first[:, None]
    if within.all():
        return rows, None
    return rows, torch.zeros(within.shape).masked_fill(~within, -torch.inf).unsqueeze(1)


def level_states(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """g_k(h) = h + SiLU(W_k h + b_k) for every level: hidden (V, d), weight (m * d, d), bias (m * d,) -> (V, m, d)."""
    return hidden.unsqueeze(1) + F.silu(F.linear(hidden, weight, bias).unflatten(1, (-1, hidden.shape[1])))


def code_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, table: Tensor, codes: Tensor, level_bias: Tensor | None = None
) -> Tensor:
    """Mean over positions and levels of the cross-entropy of the logits cos(g_k(h), E_k) / tau.

    The same value as written out with autograd (RPG, Hou et al., KDD 2025, Eq. of L_MTP), in about a third of the time
    on a CPU: piece by piece, so that nothing leaves the cache, and without keeping anything for a backward pass.

    Args:
        hidden: (V, d).
        weight: (m * d, d), bias: (m * d,): the map of every level's head.
        table: (m, d, K): every level's code embeddings, of length 1 / tau.
        codes: (V, m) int64.
        level_bias: (m, 1, K), -inf at codes that a short level does not have; None where all have K.
    """
    return _CodeCrossEntropy.apply(hidden, weight, bias, table, codes, level_bias)


def _rows_per_piece(rows: int, floats: int, kind: str) -> int:
    """How many of ``rows`` positions, each of ``floats`` numbers, to work on at a time: all of them but on a CPU."""
    return max(32, _CACHED_FLOATS // floats) if kind == "cpu" else rows


class _CodeCrossEntropy(torch.autograd.Function):
    """Computes in bfloat16 where autocast says so; sums and softmax are float32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, table: Tensor, codes: Tensor, level_bias: Tensor | None
    ) -> Tensor:
        levels, dim, width = table.shape
        kind = hidden.device.type
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        low = torch.get_autocast_dtype(kind) if mixed else hidden.dtype
        with torch.autocast(kind, enabled=False) if mixed else nullcontext():
            w, b, t = weight.to(low), bias.to(low), table.to(low)
            t_back = t.mT.contiguous()  # (m, K, d)
            d_hidden = torch.empty_like(hidden, dtype=torch.float32)
            d_weight = torch.zeros_like(weight, dtype=torch.float32)
            d_bias = torch.zeros_like(bias, dtype=torch.float32)
            d_table = torch.zeros_like(table, dtype=torch.float32)
            total = hidden.new_zeros((), dtype=torch.float32)
            rows = _rows_per_piece(len(hidden), levels * max(dim, width), kind)
            for start in range(0, len(hidden), rows):
                piece = slice(start, start + rows)
                h = hidden[piece]
                code = codes[piece].T.unsqueeze(2)  # (m, r, 1)
                inner = F.linear(h.to(low), w, b).float()  # (r, m * d)
                gate = inner.sigmoid()
                state = (inner * gate).unflatten(1, (levels, dim)) + h.float().unsqueeze(1)  # (r, m, d)
                scale = state.square().sum(2, keepdim=True).clamp_min(1e-24).rsqrt_()  # (r, m, 1)
                unit = state.mul_(scale)
                unit_low = unit.to(low).transpose(0, 1)  # (m, r, d)
                logits = torch.bmm(unit_low, t).float()  # (m, r, K)
                if level_bias is not None:
                    logits += level_bias
                logits = logits.log_softmax(dim=2)
                total -= logits.gather(2, code).sum()
                slope = logits.exp_()  # d loss / d logits = softmax - one hot
                slope.scatter_add_(2, code, slope.new_full((), -1.0).expand(code.shape))
                slope = slope.to(low)
                d_table += torch.bmm(unit_low.mT, slope)
                d_unit = torch.bmm(slope, t_back).transpose(0, 1).float()  # (r, m, d)
                along = (d_unit * unit).sum(2, keepdim=True)
                d_state = (d_unit - unit * along).mul_(scale)  # through the normalisation
                d_inner = d_state.flatten(1) * (gate * (1 + inner * (1 - gate)))  # through SiLU: (r, m * d)
                d_bias += d_inner.sum(0)
                d_inner = d_inner.to(low)
                d_weight += d_inner.T @ h.to(low)
                d_hidden[piece] = d_state.sum(1) + (d_inner @ w).float()
            ctx.count = codes.numel()
            ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype, table.dtype
            ctx.save_for_backward(d_hidden, d_weight, d_bias, d_table)
            return total / codes.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad / ctx.count
        found = [(part * scale).to(kind) for part, kind in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return *found, None, None
