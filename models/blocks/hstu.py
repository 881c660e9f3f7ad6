"""The HSTU layer: pointwise SiLU attention without softmax and without a feed-forward block.

Zhai et al., "Actions Speak Louder than Words", ICML 2024 (arXiv 2402.17152), Eqs. 1-3, as in the authors' research
code (``research/modeling/sequential/hstu.py`` of meta-recsys/generative-recommenders): one projection without bias,
layer norms without affine parameters and with epsilon 1e-6, no 1/sqrt(d), relative biases that the heads share, and
attention divided by the length of the model's causal mask, which is its longest sequence whatever a batch holds. So
padding changes nothing. Departure: a query's time is that of its own event, not of the next one, which is unknown when
the next event is to be predicted.

The division and the epsilon belong together: the norm behind the attention undoes any scale that is large beside the
epsilon's root, 1e-3, and at initialisation the pooled values of a long model are smaller than that. With d = 64, two
heads and 514 tokens (256 events, interleaved) they leave the norm with 6 % of unit scale on average; divided by the
keys that a query sees with 26 %, undivided with 100 %.

It offers the same five steps as :class:`harness.models.blocks.ranker.TransformerLayer`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import InputError
from harness.models.blocks.causal_union import Part
from harness.models.blocks.dropout import Dropout
from harness.models.blocks.places import Places

__all__ = ["HSTULayer", "RelativeBias", "Scale"]

Scale = Literal["longest", "visible", "none"]
"""What SiLU's values are divided by: the longest sequence in tokens, the keys that the query sees, or nothing."""
EPSILON = 1e-6

TIME_BUCKETS = 128
"""Buckets of floor(ln(seconds) / 0.301): beyond the last lie 10^16 seconds."""


class RelativeBias(nn.Module):
    """rab: a learned weight per distance in tokens and, optionally, per bucket of the time between two events."""

    def __init__(self, distances: int, time: bool) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(distances, 1).normal_(std=0.02))
        self.time = nn.Parameter(torch.empty(TIME_BUCKETS + 1, 1).normal_(std=0.02)) if time else None

    def forward(self, query: Places, key: Places) -> Tensor:
        """(Q, K) where all sequences share it, else (B, 1, Q, K)."""
        distance = query.position.unsqueeze(-1) - key.position.unsqueeze(-2)  # (Q, K) or (B, Q, K)
        bias = F.embedding(distance.clamp(0, len(self.position) - 1), self.position).squeeze(-1)
        if self.time is None:
            return bias if bias.dim() == 2 else bias.unsqueeze(1)
        if query.time is None or key.time is None:
            raise InputError("time_bias needs event times and this data set has none; set time_bias: false")
        apart = (query.time.unsqueeze(-1) - key.time.unsqueeze(-2)).abs().clamp_min(1)  # (B, Q, K)
        bucket = (apart.double().log() / 0.301).long().clamp_max(TIME_BUCKETS)
        return (bias + F.embedding(bucket, self.time).squeeze(-1)).unsqueeze(1)  # (B, 1, Q, K)

    def own(self) -> Tensor:
        """(1,): the bias of a token towards itself."""
        return self.position[0] if self.time is None else self.position[0] + self.time[0]


class HSTULayer(nn.Module):
    """Y = W2(dropout(LN(A V) * U)) + X with U, V, Q, K = SiLU(LN(X) W1), A = SiLU(Q K^T + rab) / n under the mask.

    ``scale`` says what n is, see :data:`Scale`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        max_tokens: int,
        time_bias: bool,
        value_sets: int = 1,
        scale: Scale = "longest",
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.max_tokens, self.value_sets = dim, heads, max_tokens, value_sets
        self.scale = scale
        self.norm = nn.LayerNorm(dim, eps=EPSILON, elementwise_affine=False)
        self.projection = nn.Linear(dim, dim * (3 + value_sets), bias=False)  # Q, U, K, V
        nn.init.normal_(self.projection.weight, std=0.02)
        self.bias = RelativeBias(max_tokens, time_bias)
        self.out_norm = nn.LayerNorm(dim * value_sets, eps=EPSILON, elementwise_affine=False)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(dim * value_sets, dim)
        nn.init.xavier_uniform_(self.out.weight)

    def queries(self, normed: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Queries (B, H, S, D) and gates U (B, S, value_sets * d) of (B, S, d) normed tokens."""
        width = self.dim * (1 + self.value_sets)
        query, gate = F.silu(F.linear(normed, self.projection.weight[:width])).tensor_split((self.dim,), -1)
        return self._heads(query), gate

    def keys(self, normed: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, S, D) each, of (B, S, d) normed tokens."""
        width = self.dim * (1 + self.value_sets)
        key, value = F.silu(F.linear(normed, self.projection.weight[width:])).chunk(2, -1)
        return self._heads(key), self._heads(value)

    def project(self, normed: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values and gates."""
        sizes = (self.dim, self.dim * self.value_sets, self.dim, self.dim)
        query, gate, key, value = F.silu(self.projection(normed)).split(sizes, -1)
        return self._heads(query), self._heads(key), self._heads(value), gate

    def weights(
        self,
        query: Tensor,
        places: Places,
        parts: Sequence[Part],
        key_places: Sequence[Places] | None = None,
        own_key: Tensor | None = None,
    ) -> list[Tensor]:
        """What multiplies the values: (B, H, N, N) per part, then (B, H, N) for the own key if there is one."""
        n = query.shape[2]
        past = torch.ones(n, n, dtype=self.out.weight.dtype, device=query.device)
        masks = [past.tril(-1 if part.strict else 0)[:, : part.key.shape[2]] for part in parts]  # (N, N) each
        visible = reduce(operator.add, (mask.sum(-1) for mask in masks))  # (N,)
        divisor = self._divisor(visible + (own_key is not None))
        found = []
        for part, mask, place in zip(parts, masks, key_places or [places] * len(parts), strict=True):
            score = F.silu(query @ part.key.mT + self.bias(places, place))  # (B, H, N, N)
            found.append(score * (mask / divisor[:, None]))
        if own_key is not None:
            found.append(F.silu((query * own_key).sum(-1) + self.bias.own()) / divisor)  # (B, H, N)
        return found

    def attend(
        self,
        query: Tensor,
        places: Places,
        parts: Sequence[Part],
        key_places: Sequence[Places] | None = None,
        own: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, H, N, D): the weighted values of the union of ``parts`` and the own key."""
        weights = self.weights(query, places, parts, key_places, own[0] if own else None)
        out = reduce(operator.add, (weight @ part.value for weight, part in zip(weights, parts, strict=False)))
        return out if own is None else out + weights[-1].unsqueeze(-1) * own[1]

    def attend_beside(
        self,
        query: Tensor,
        places: Places,
        history: Sequence[tuple[Tensor, Tensor]],
        key_places: Sequence[Places],
        seen: Tensor,
        own: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """K candidates beside a history of which ``seen`` (B, S) are not padding: (B, H, K, D)."""
        seen = seen.to(self.out.weight.dtype)
        visible = seen.sum(-1) * len(history) + (own is not None)  # (B,)
        divisor = self._divisor(visible)[:, None, None, None]
        read = []
        for (key, value), place in zip(history, key_places, strict=True):
            score = F.silu(query @ key.mT + self.bias(places, place)) * seen[:, None, None]  # (B, H, K, S)
            read.append(score / divisor @ value)
        if own is not None:
            score = F.silu((query * own[0]).sum(-1, keepdim=True) + self.bias.own()) / divisor  # (B, H, K, 1)
            read.append(score * own[1])
        return reduce(operator.add, read)

    def finish(self, x: Tensor, attended: Tensor, gate: Tensor) -> Tensor:
        """(B, S, d): gated, projected and added to the stream ``x``."""
        return x + self.out(self.dropout(self.out_norm(_merge_heads(attended)) * gate))

    def _divisor(self, visible: Tensor) -> Tensor:
        """n for queries that see so many keys each, of the same shape."""
        if self.scale == "visible":
            return visible.clamp_min(1)
        return torch.full_like(visible, self.max_tokens if self.scale == "longest" else 1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, S, D)


def _merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, S, d)
