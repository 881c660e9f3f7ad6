"""Transformer layers around any attention module."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.blocks.dropout import Dropout
from harness.models.blocks.module_list import ModuleList

__all__ = [
    "ACTIVATIONS", "Activation", "AttentionModule", "FeedForward", "NormOrder", "Transformer", "TransformerLayer",
    "init_weights",
]  # fmt: skip

Activation = Literal["gelu", "gelu-tanh", "relu", "silu"]
NormOrder = Literal["post", "pre"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
"""gelu-tanh is GPT-2's ``gelu_new``; on a CPU it costs about twice the exact gelu."""


class AttentionModule(Protocol):
    """What a layer asks of its attention."""

    @property
    def out(self) -> nn.Linear:
        """The last map."""

    def __call__(self, x: Tensor, capture: bool) -> tuple[Tensor, Tensor | None]:
        """x (B, L, d) -> (B, L, d), and the maps (B, H, L, L) if ``capture``, else None."""


class FeedForward(nn.Module):
    """Position-wise network d -> inner -> d."""

    def __init__(self, dim: int, inner: int, activation: Activation) -> None:
        super().__init__()
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each in a residual branch with dropout at its end.

    ``norm`` "post" normalises after each sum (Vaswani et al., 2017; BERT), "pre" at the start of each branch (GPT-2).
    """

    def __init__(
        self,
        attention: AttentionModule,
        dim: int,
        inner: int,
        *,
        activation: Activation,
        dropout: float,
        norm: NormOrder,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.feed_forward = FeedForward(dim, inner, activation)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.dropout = Dropout(dropout)
        self.pre_norm = norm == "pre"

    def forward(self, x: Tensor, capture: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, L, d) -> (B, L, d), and the attention's maps if ``capture``."""
        if self.pre_norm:
            mixed, maps = self.attention(self.attention_norm(x), capture)
            x = x + self.dropout(mixed)
            x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        else:
            mixed, maps = self.attention(x, capture)
            x = self.attention_norm(x + self.dropout(mixed))
            x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x, maps


class Transformer(nn.Module):
    """A stack of layers; with pre-norm a last normalisation closes it.

    Args:
        make_attention: layer index, from 0 -> the layer's attention module.
    """

    def __init__(
        self,
        make_attention: Callable[[int], AttentionModule],
        layers: int,
        dim: int,
        inner: int,
        *,
        activation: Activation,
        dropout: float,
        norm: NormOrder,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.layers = ModuleList(
            TransformerLayer(
                make_attention(index), dim, inner, activation=activation, dropout=dropout, norm=norm, norm_eps=norm_eps
            )
            for index in range(layers)
        )
        self.final_norm = nn.LayerNorm(dim, eps=norm_eps) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, capture: bool = False) -> tuple[Tensor, list[Tensor]]:
        """x (B, L, d) -> (B, L, d), and the maps of every layer if ``capture``, else an empty list."""
        maps = []
        for layer in self.layers:
            x, layer_maps = layer(x, capture)
            if layer_maps is not None:
                maps.append(layer_maps)
        return self.final_norm(x), maps

    def scale_residual_branches(self, std: float) -> None:
        """GPT-2's initialisation: the last map of each residual branch shrinks with the number of branches."""
        for layer in self.layers:
            for last in (layer.attention.out, layer.feed_forward.down):
                nn.init.normal_(last.weight, std=std / math.sqrt(2 * len(self.layers)))


def init_weights(module: nn.Module, std: float) -> None:
    """Weights of linear maps and embeddings from N(0, std^2), biases 0 (BERT, GPT-2). Norms keep 1 and 0."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
