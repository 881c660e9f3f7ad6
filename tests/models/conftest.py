"""The parts of a Transformer layer written from their equations, for one sequence: (L, d) tensors and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


def rms(x: Tensor, norm: torch.nn.Module) -> Tensor:
    """x / sqrt(mean x^2) * g; ``norm`` may be an identity."""
    if isinstance(norm, torch.nn.Identity):
        return x
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight


def rope(vector: Tensor, position: int) -> Tensor:
    """Each pair (2i, 2i + 1) of one head's vector turned by position * 10000^(-2i / D)."""
    width = len(vector)
    turned = []
    for i in range(0, width, 2):
        angle = position * 10000 ** (-i / width)
        a, b = vector[i], vector[i + 1]
        turned += [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
    return torch.stack(turned)


def score(query: Tensor, key: Tensor, n: int, m: int, head: slice) -> Tensor:
    """RoPE(q_n) RoPE(k_m) / sqrt(D) of one head."""
    return rope(query[n, head], n) @ rope(key[m, head], m) / math.sqrt(head.stop - head.start)


def softmax_weights(query: Tensor, key: Tensor, n: int, head: slice, last: int, null: Tensor | None = None) -> Tensor:
    """Softmax of query n over the keys 0..last; with ``null``, a key without position, that one comes first."""
    scores = [] if null is None else [rope(query[n, head], n) @ null / math.sqrt(len(null))]
    scores += [score(query, key, n, m, head) for m in range(last + 1)]
    return torch.stack(scores).softmax(0)


def heads(model: torch.nn.Module) -> list[slice]:
    width = model.config.dim // model.config.heads
    return [slice(h * width, (h + 1) * width) for h in range(model.config.heads)]


def feed_forward(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """SwiGLU on the normed stream, added to it."""
    gated, linear = (rms(x, layer.ffn_norm) @ layer.up.weight.T).chunk(2, -1)
    return x + (F.silu(gated) * linear) @ layer.down.weight.T


def item_layer(model: torch.nn.Module, layer: torch.nn.Module, x: Tensor) -> Tensor:
    """A causal layer over items alone."""
    query, key, value = (rms(x, layer.norm) @ layer.projection.weight.T).chunk(3, -1)
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for head in heads(model):
            weight = softmax_weights(query, key, n, head, last=n)
            for m in range(n + 1):
                out[n, head] += weight[m] * value[m, head]
    return feed_forward(layer, x + out @ layer.out.weight.T)


def each_sequence(model: torch.nn.Module, batch, logits_of: Callable[[Tensor, Tensor], Tensor]) -> list[tuple]:
    """(model's logits, reference's logits) of each sequence, cut to its length."""
    found = model.predict_actions(batch)
    pairs = []
    for b, length in enumerate(batch.lengths.tolist()):
        embedded = model.item_embedding.weight[batch.items[b, :length]]
        actions = model.action_encoder.encode(batch.actions[b, :length])
        pairs.append((found[b, :length], logits_of(embedded, actions)))
    return pairs


@pytest.fixture
def reference() -> SimpleNamespace:
    return SimpleNamespace(
        rms=rms,
        score=score,
        softmax_weights=softmax_weights,
        heads=heads,
        feed_forward=feed_forward,
        item_layer=item_layer,
        each_sequence=each_sequence,
    )
