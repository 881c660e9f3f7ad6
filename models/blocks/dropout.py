"""Dropout whose mask is cheap to draw on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Dropout", "dropout"]

_STEPS = 2**16
"""A mask compares 16 random bits per element, so a probability is kept to within 2**-17."""


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Sets elements of ``x`` (any shape) to zero with probability ``p`` in [0, 1), scaling the rest up.

    The same as :func:`torch.nn.functional.dropout`, which draws one Bernoulli variable per element on a CPU and
    so costs as much as a matrix product there; here one 64-bit draw serves four elements.
    """
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = min(round(p * _STEPS), _STEPS - 1)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    words.random_(-(2**63), None)  # the whole range: without bounds the sign bit would never be set
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = torch.empty_like(x, requires_grad=False)
    torch.ge(bits, dropped - _STEPS // 2, out=keep)  # 0 or 1, without a mask of booleans in between
    return x * keep.mul_(_STEPS / (_STEPS - dropped))


class Dropout(nn.Module):
    """:func:`dropout` as a module."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
