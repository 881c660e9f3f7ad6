"""T5's encoder and decoder (Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", JMLR 2020), whose decoder can follow one sequence at many positions, and many beams at one.

Shapes: B sequences, L events, S tokens, m code levels, P decoded positions, W beams, H heads, Dh width of a head,
D width.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.blocks.attention import maps_are_cheaper
from harness.models.blocks.dropout import Dropout, dropout
from harness.models.blocks.module_list import ModuleList

__all__ = ["BUCKETS", "MAX_DISTANCE", "Attention", "Positions", "Stack", "T5Config", "relative_buckets"]

BUCKETS, MAX_DISTANCE = 32, 128  # T5's relative positions


class T5Config(Protocol):
    """The settings that a stack reads."""

    @property
    def dim(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def feed_forward(self) -> int: ...
    @property
    def dropout(self) -> float: ...


class Positions(NamedTuple):
    """The P positions of (B, L) sequences whose next items are decoded; the decoder's rows are these."""

    flat: Tensor
    """(P,) flat indices b * L + t."""
    batch: int
    length: int

    def spread(self, x: Tensor) -> Tensor:
        """(P, m, N) -> (B, L * m, N), zero at the positions that are not decoded."""
        full = x.new_zeros(self.batch * self.length, *x.shape[1:])
        return full.index_copy(0, self.flat, x).view(self.batch, -1, x.shape[2])

    def collect(self, x: Tensor) -> Tensor:
        """(B, L * m, N) -> (P, m, N)."""
        return x.reshape(self.batch * self.length, -1, x.shape[2]).index_select(0, self.flat)


class Attention(nn.Module):
    """Multi-head attention of T5: no biases, and scores that are not divided by the square root of the width."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.heads, self.head_dim, self.dropout = config.heads, config.head_dim, config.dropout
        inner = config.heads * config.head_dim
        self.query = nn.Linear(config.dim, inner, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, config.dim, bias=False)
        # The query's scale stands for the division by sqrt(head_dim) that T5 leaves out.
        nn.init.normal_(self.query.weight, std=(config.dim * config.head_dim) ** -0.5)
        nn.init.normal_(self.key_value.weight, std=config.dim**-0.5)
        nn.init.normal_(self.out.weight, std=inner**-0.5)

    def split(self, x: Tensor) -> Tensor:
        """(B, S, H * Dh) -> (B, H, S, Dh)."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(x).chunk(2, dim=-1)
        return self.split(keys), self.split(values)  # (B, H, S, Dh)

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], bias: Tensor, positions: Positions | None = None
    ) -> Tensor:
        """x (B, Q, D), keys and values (B, H, S, Dh), bias broadcast to (B, H, Q, S) -> (B, Q, D).

        With ``positions`` x is (P, m, D), and the m queries of each attend to the keys of their sequence; Q is L * m.
        """
        query = self.query(x)
        query = self.split(query if positions is None else positions.spread(query))  # (B, H, Q, Dh)
        keys, values = keys_values
        if maps_are_cheaper(x, self.dropout, self.training):
            query, keys, values = (part.flatten(0, 1) for part in (query, keys, values))  # (B * H, ...)
            scores = torch.bmm(query, keys.mT).unflatten(0, (-1, self.heads)).add_(bias)  # (B, H, Q, S)
            weights = scores.softmax(dim=-1).flatten(0, 1)  # (B * H, Q, S)
            mixed = torch.bmm(dropout(weights, self.dropout, self.training), values)  # (B * H, Q, Dh)
            mixed = mixed.unflatten(0, (-1, self.heads))  # (B, H, Q, Dh)
        else:
            p = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, dropout_p=p, scale=1.0)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, Q, H * Dh)
        return self.out(mixed if positions is None else positions.collect(mixed))  # (B, Q, D) or (P, m, D)

    def step(self, x: Tensor, past: list[tuple[Tensor, Tensor]], bias: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One position per beam: x (B, W, D), the keys and values of the positions before it, bias (H, t + 1).

        The keys and values of each position are (B, W or 1, H * Dh): a position that all beams share is kept once.
        """
        own = self.key_value(x).chunk(2, dim=-1)  # (B, W, H * Dh) each
        query = self.query(x)
        shape = (self.heads, self.head_dim)
        scores = [(query * keys).unflatten(-1, shape).sum(dim=-1) for keys, _ in (*past, own)]  # (B, W, H) each
        weights = (torch.stack(scores, dim=-1) + bias).softmax(dim=-1).unsqueeze(-2)  # (B, W, H, 1, t + 1)
        mixed = [weights[..., t] * values.unflatten(-1, shape) for t, (_, values) in enumerate((*past, own))]
        return self.out(torch.stack(mixed).sum(dim=0).flatten(2)), own


class FeedForward(nn.Module):
    """T5's feed-forward network, ReLU between two linear maps without biases: (B, S, D) -> (B, S, D)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.inner = nn.Linear(config.dim, config.feed_forward, bias=False)
        self.out = nn.Linear(config.feed_forward, config.dim, bias=False)
        nn.init.normal_(self.inner.weight, std=config.dim**-0.5)
        nn.init.normal_(self.out.weight, std=config.feed_forward**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(dropout(self.inner(x).relu(), self.dropout, self.training))


class Layer(nn.Module):
    """Pre-norm layer of the encoder, or with ``cross`` of the decoder."""

    def __init__(self, config: T5Config, cross: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.attention = Attention(config)
        self.cross_norm = nn.RMSNorm(config.dim, eps=1e-6) if cross else None
        self.cross = Attention(config) if cross else None
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        """x (B, S, D), bias for the self-attention, the encoder's output (B, S', D) and what is visible of it."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, self.attention.keys_values(normed), bias))
        if memory is not None and mask is not None:
            x = x + self.dropout(self.cross_attention(x, self.memory(memory), mask, positions))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def memory(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S', Dh) of the encoder's output (B, S', D)."""
        assert self.cross is not None, "a layer of the encoder reads no memory"
        return self.cross.keys_values(encoded)

    def cross_attention(
        self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor, positions: Positions | None = None
    ) -> Tensor:
        assert self.cross is not None, "a layer of the encoder reads no memory"
        assert self.cross_norm is not None
        return self.cross(self.cross_norm(x), memory, mask, positions)

    def step(
        self,
        x: Tensor,
        past: list[tuple[Tensor, Tensor]],
        bias: Tensor,
        memory: tuple[Tensor, Tensor],
        mask: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One position of the decoder for W beams: x (B, W, D), without dropout.

        All beams of a user attend to the one copy of the user's encoder keys and values: beams are queries.
        """
        mixed, own = self.attention.step(self.attention_norm(x), past, bias)
        x = x + mixed
        x = x + self.cross_attention(x, memory, mask)
        return x + self.feed_forward(self.feed_forward_norm(x)), own


class Stack(nn.Module):
    """Encoder or decoder: layers that share one table of relative position biases."""

    buckets: Tensor

    def __init__(self, config: T5Config, layers: int, length: int, decoder: bool) -> None:
        super().__init__()
        self.layers = ModuleList(Layer(config, cross=decoder) for _ in range(layers))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.dropout = Dropout(config.dropout)
        self.position = nn.Embedding(BUCKETS, config.heads)
        nn.init.normal_(self.position.weight, std=config.dim**-0.5)
        self.register_buffer("buckets", relative_buckets(length, two_sided=not decoder), persistent=False)

    def bias(self, length: int) -> Tensor:
        """(1, H, S, S) added to the attention scores, by the relative position of key and query."""
        return self.position(self.buckets[:length, :length]).permute(2, 0, 1).unsqueeze(0)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, bias, memory, mask, positions)
        return self.dropout(self.norm(x))


def relative_buckets(length: int, two_sided: bool) -> Tensor:
    """(length, length) bucket of query q and key k (Raffel et al. 2020, section 2.1, and their published code).

    Half of the buckets of a side are for one distance each, the others for ranges that grow logarithmically up
    to MAX_DISTANCE. The decoder has one side: keys after the query are masked anyway and fall into bucket 0.
    """
    position = torch.arange(length)
    distance = position[None, :] - position[:, None]  # (Q, K), negative for keys before the query
    buckets = BUCKETS // 2 if two_sided else BUCKETS
    side = (distance > 0).long() * buckets if two_sided else torch.zeros_like(distance)
    distance = distance.abs() if two_sided else (-distance).clamp(min=0)
    single = buckets // 2
    growth = torch.log(distance.clamp(min=1).float() / single) / math.log(MAX_DISTANCE / single)
    ranged = (single + (growth * (buckets - single)).long()).clamp(max=buckets - 1)
    return side + torch.where(distance < single, distance, ranged)
