"""Where tokens stand: their positions and times, and the rotary embedding (RoPE) of queries and keys.

RoPE: Su et al., "RoFormer", arXiv 2104.09864, Eq. 34: the pair (2i, 2i+1) of a head's width D is turned by the
angle position * 10000^(-2i/D), so that a query's product with a key depends on their distance alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Places", "places", "rotate"]


class Places(NamedTuple):
    """S tokens' places."""

    position: Tensor
    """(S,) or (B, S) int64."""
    time: Tensor | None
    """(B, S) int64 seconds."""
    rotation: Tensor
    """(S, D/2) or (B, S, D/2) complex64 of modulus 1."""

    def every(self, start: int, step: int) -> Places:
        """The places of the tokens start, start + step, ..."""
        chosen = slice(start, None, step)
        time = None if self.time is None else self.time[:, chosen]
        return Places(self.position[..., chosen], time, self.rotation[..., chosen, :])

    def upto(self, end: int) -> Places:
        """The places of the first ``end`` tokens."""
        time = None if self.time is None else self.time[:, :end]
        return Places(self.position[..., :end], time, self.rotation[..., :end, :])


def places(position: Tensor, time: Tensor | None, head_dim: int) -> Places:
    """Places of tokens at ``position`` for heads of width ``head_dim``, which is even."""
    even = torch.arange(0, head_dim, 2, device=position.device, dtype=torch.float32)
    angle = position.unsqueeze(-1) * 10000 ** (-even / head_dim)  # (..., S, D/2)
    return Places(position, time, torch.polar(torch.ones_like(angle), angle))


def rotate(x: Tensor, at: Places) -> Tensor:
    """Queries or keys (B, S, ..., D) turned by the angles of their places."""
    pairs = torch.view_as_complex(x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)))
    between = (slice(None),) * (at.rotation.dim() - 1) + (None,) * (x.dim() - 3)
    return torch.view_as_real(pairs * at.rotation[between]).flatten(-2).to(x.dtype)  # (B, S, ..., D)
