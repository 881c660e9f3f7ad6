from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.models.blocks.causal_union import Part
from harness.models.blocks.hstu import HSTULayer, RelativeBias
from harness.models.blocks.places import places, rotate

N, DIM, HEADS = 256, 64, 2


def test_bias_looks_up_distance_and_time_bucket():
    torch.manual_seed(0)
    bias = RelativeBias(distances=6, time=True)
    time = torch.tensor([[0, 1, 2, 100, 10**9], [5, 5, 6, 7, 8]])
    at = places(torch.arange(5), time, 4)
    found = bias(at, at)
    assert found.shape == (2, 1, 5, 5)
    for b in range(2):
        for r in range(5):
            for c in range(r + 1):
                bucket = min(128, math.floor(math.log(max(1, abs(int(time[b, r] - time[b, c])))) / 0.301))
                assert found[b, 0, r, c] == bias.position[r - c, 0] + bias.time[bucket, 0]
    assert bias.own() == bias.position[0] + bias.time[0]


def test_bias_without_times_is_shared_by_the_batch():
    bias = RelativeBias(distances=4, time=False)
    at = places(torch.arange(4), None, 4)
    assert bias(at, at).shape == (4, 4)


@pytest.mark.parametrize("shift", [1, 17])
def test_rotated_products_depend_on_the_distance_alone(shift):
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 6, 2, 8)
    near, far = (places(torch.arange(6) + offset, None, 8) for offset in (0, shift))

    def products(at):
        return torch.einsum("bqhd,bkhd->bhqk", rotate(query, at), rotate(key, at))

    torch.testing.assert_close(products(near), products(far), atol=1e-4, rtol=0)
    torch.testing.assert_close(rotate(query, near).norm(dim=-1), query.norm(dim=-1))


def published(x: np.ndarray, layer: HSTULayer, divisor: np.ndarray) -> np.ndarray:
    """Eqs. 1-3 of Zhai et al. for one sequence (N, d), with the norms and the division of the authors' code."""

    def silu(value):
        return value / (1 + np.exp(-value))

    def norm(value):
        centred = value - value.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)

    w1, w2, b2 = (p.detach().numpy() for p in (layer.projection.weight, layer.out.weight, layer.out.bias))
    query, gate, key, value = np.split(silu(norm(x) @ w1.T), 4, axis=-1)
    distance = np.maximum(np.subtract.outer(np.arange(len(x)), np.arange(len(x))), 0)
    rab = layer.bias.position.detach().numpy()[distance, 0]
    width = DIM // HEADS
    pooled = []
    for head in (slice(h * width, (h + 1) * width) for h in range(HEADS)):
        attention = np.tril(silu(query[:, head] @ key[:, head].T + rab)) / divisor[:, None]
        pooled.append(attention @ value[:, head])
    return x + (norm(np.concatenate(pooled, -1)) * gate) @ w2.T + b2


def made(scale: str = "longest", max_tokens: int = N) -> tuple[HSTULayer, torch.Tensor]:
    torch.manual_seed(0)
    layer = HSTULayer(DIM, HEADS, 0.0, max_tokens, time_bias=False, scale=scale).double()
    return layer, torch.randn(N, DIM, dtype=torch.double)


def pooled(layer: HSTULayer, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, H, N, D) weighted values and the gates."""
    at = places(torch.arange(len(x)), None, DIM // HEADS)
    query, key, value, gate = layer.project(layer.norm(x[None]), at)
    return layer.attend(query, at, [Part(key, value, strict=False)]), gate


@pytest.mark.parametrize("scale", ["longest", "visible", "none"])
def test_layer_equals_the_published_equations_at_256_tokens(scale):
    layer, x = made(scale)
    ours = layer.finish(x[None], *pooled(layer, x))[0].detach().numpy()
    divisor = {"longest": np.full(N, N), "visible": np.arange(1, N + 1), "none": np.ones(N)}[scale]
    expected = published(x.numpy(), layer, divisor)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)
    assert np.abs(published(x.numpy(), layer, 2 * divisor) - expected).max() > 1e-3  # the scale matters


def test_a_longer_model_keeps_less_of_a_new_branch_unless_the_sum_is_not_divided():
    """What the norm behind the attention leaves of unit scale, at initialisation: the epsilon's doing."""
    kept = {}
    for scale in ("longest", "visible", "none"):
        for max_tokens in (N, 2 * N):
            layer, x = made(scale, max_tokens)
            out = layer.out_norm(pooled(layer, x)[0].transpose(1, 2).flatten(2))
            kept[scale, max_tokens] = out.std(-1).mean().item()
    assert kept["longest", 2 * N] < 0.07 < kept["longest", N] < 0.13
    assert 0.2 < kept["visible", N] < 0.3
    assert kept["visible", 2 * N] == pytest.approx(kept["visible", N], rel=0.1)
    assert kept["none", 2 * N] == pytest.approx(1, abs=0.02)
