"""The interleaved recommender against a per-token loop written from HSTU's equations, and its tuned last layer
against the plain one."""

from __future__ import annotations

import math

import pytest
import torch

from harness.baselines.interleaved import Interleaved, InterleavedConfig
from harness.interface import Batch, Schema, Task

LENGTH = 5
BACKBONES = [{"backbone": "transformer"}, {"backbone": "hstu"}, {"backbone": "hstu", "time_bias": True}]


def made(options: dict, layers: int = 2) -> tuple[Interleaved, Batch]:
    torch.manual_seed(0)
    schema = Schema(n_items=12, n_users=3, max_length=LENGTH + 1, actions=("like", "love"))
    model = Interleaved(InterleavedConfig(dim=8, layers=layers, heads=2, **options), schema).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    lengths = torch.tensor([LENGTH, 1, 3])
    inside = torch.arange(LENGTH) < lengths[:, None]
    items = torch.randint(1, 13, (3, LENGTH)) * inside
    actions = torch.randint(0, 2, (3, LENGTH, 2)).double() * inside[..., None]
    times = torch.tensor([3, 3, 50, 4000, 10**6]) * inside
    valid = inside.flatten().nonzero()[:, 0]
    return model, Batch(items, lengths, torch.arange(3), times=times, actions=actions, valid=valid)


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def layer_norm(x: list[float]) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / math.sqrt(variance + 1e-6) for v in x]


def times_matrix(weight: list[list[float]], x: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(row, x, strict=True)) for row in weight]


def hstu_layer(layer, tokens: list[list[float]], position: list[int], time: list[int]) -> list[list[float]]:
    """Y = W2(LN(sum over c <= r of SiLU(q_r k_c + rab) / n v_c) * u_r) + x_r, one token and one number at a time."""
    dim = len(tokens[0])
    width = dim // layer.heads
    w1, w2, bias = layer.projection.weight.tolist(), layer.out.weight.tolist(), layer.out.bias.tolist()
    by_position = layer.bias.position[:, 0].tolist()
    by_time = None if layer.bias.time is None else layer.bias.time[:, 0].tolist()
    query, gate, key, value = [], [], [], []
    for token in tokens:
        projected = [silu(v) for v in times_matrix(w1, layer_norm(token))]
        for part, start in zip((query, gate, key, value), range(0, 4 * dim, dim), strict=True):
            part.append(projected[start : start + dim])
    out = []
    for r, token in enumerate(tokens):
        pooled = [0.0] * dim
        for h in range(layer.heads):
            of_head = range(h * width, (h + 1) * width)
            for c in range(r + 1):
                score = sum(query[r][i] * key[c][i] for i in of_head) + by_position[position[r] - position[c]]
                if by_time is not None:
                    score += by_time[min(128, math.floor(math.log(max(1, abs(time[r] - time[c]))) / 0.301))]
                for i in of_head:
                    pooled[i] += silu(score) / layer.max_tokens * value[c][i]
        gated = [a * b for a, b in zip(layer_norm(pooled), gate[r], strict=True)]
        out.append([x + y + z for x, y, z in zip(token, times_matrix(w2, gated), bias, strict=True)])
    return out


@pytest.mark.parametrize("last_layer", ["read", "all"])
@pytest.mark.parametrize("positions", ["token", "event"])
@pytest.mark.parametrize("time_bias", [False, True])
def test_hstu_equals_a_per_token_loop(time_bias, positions, last_layer):
    options = {"backbone": "hstu", "time_bias": time_bias, "positions": positions, "last_layer": last_layer}
    model, batch = made(options)
    found = model.predict_actions(batch)
    for b, length in enumerate(batch.lengths.tolist()):
        tokens, position, time = [], [], []
        for n in range(length):
            tokens.append(model.item_embedding.weight[batch.items[b, n]].tolist())
            tokens.append(model.action_encoder.encode(batch.actions[b, n]).tolist())
            position += [2 * n, 2 * n + 1] if positions == "token" else [n, n]
            time += [int(batch.times[b, n])] * 2
        for layer in model.layers:
            tokens = hstu_layer(layer, tokens, position, time)
        items = torch.tensor(tokens[0::2], dtype=torch.double)
        normed = items / (items.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * model.final_norm.weight
        torch.testing.assert_close(found[b, :length], model.action_head(normed), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("positions", ["token", "event"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_reading_fewer_tokens_in_the_last_layer_changes_neither_logits_nor_gradients(backbone, positions, layers):
    model, batch = made({**backbone, "positions": positions}, layers)
    plain, _ = made({**backbone, "positions": positions, "last_layer": "all"}, layers)
    plain.load_state_dict(model.state_dict())
    supervised = torch.randint(1, 13, batch.items.shape) * (batch.items > 0)
    retrieval = Batch(batch.items, batch.lengths, batch.users, supervised, batch.valid, batch.times, batch.actions)
    for given in (batch, retrieval):
        ours, theirs = (sum(m.losses(given).values()) for m in (model, plain))
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
        used = [name for name, _ in model.named_parameters()]
        options = {"allow_unused": True, "materialize_grads": True}
        got = torch.autograd.grad(ours, list(model.parameters()), **options)
        want = torch.autograd.grad(theirs, list(plain.parameters()), **options)
        for name, a, b in zip(used, got, want, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def test_transformer_equals_one_that_masks_a_plain_sequence():
    """The same weights in a plain masked softmax over the 2N tokens, with explicit cosines and sines."""
    model, batch = made({"last_layer": "read"})
    x = torch.stack((model.item_embedding(batch.items), model.action_encoder.encode(batch.actions)), 2).reshape(
        3, 2 * LENGTH, 8
    )
    angle = torch.arange(2 * LENGTH)[:, None] * 10000 ** (-torch.arange(0, 4, 2) / 4)  # (2L, D / 2)
    cos, sin = angle.cos().double().repeat_interleave(2, -1), angle.sin().double().repeat_interleave(2, -1)
    hidden = torch.ones(2 * LENGTH, 2 * LENGTH, dtype=torch.bool).triu(1)

    def turn(v: torch.Tensor) -> torch.Tensor:
        swapped = torch.stack((-v[..., 1::2], v[..., 0::2]), -1).flatten(-2)
        return v * cos + swapped * sin

    for layer in model.layers:
        qkv = layer.projection(layer.norm(x)).view(3, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        scores = (turn(qkv[0]) @ turn(qkv[1]).mT / 2).masked_fill(hidden, -math.inf)
        x = layer.finish(x, scores.softmax(-1) @ qkv[2], None)
    expected = model.action_head(model.final_norm(x))[:, 0::2]
    torch.testing.assert_close(model.predict_actions(batch), expected, atol=1e-6, rtol=0)


def test_maps_are_over_tokens_in_the_order_item_action():
    model, batch = made({})
    maps = model.attention(batch, Task.ACTION)
    assert maps.key_event[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert maps.query_event[0].tolist() == [0, -1, 1, -1, 2, -1, 3, -1, 4, -1]  # an action token predicts no action
    assert model.attention(batch, Task.RETRIEVAL).query_event.equal(maps.key_event)
    assert len(maps.maps) == 2
    for weights in maps.maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 10).double())
        assert weights.triu(1).abs().max() == 0
