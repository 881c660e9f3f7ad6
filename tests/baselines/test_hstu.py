"""The HSTU retriever against the published formula, written event by event, and what it may see."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.baselines.hstu import HSTU, HSTUConfig
from harness.errors import InputError
from harness.fidelity import card
from harness.interface import Batch, Schema, Task
from harness.settings import parse

N, LENGTH = 30, 9
SCHEMA = Schema(n_items=N, n_users=10, max_length=LENGTH)
SMALL = {"dim": 8, "heads": 2, "dropout": 0.0}
VARIANTS = [{}, {"time_bias": True}, {"normalise": False, "temperature": 1.0}]


def make_batch(lengths: list[int], padded_to: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    items, targets, times = torch.zeros(3, len(lengths), max(padded_to, *lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        drawn = torch.randint(1, N + 1, (length + 1,), generator=generator)
        items[row, :length], targets[row, :length] = drawn[:-1], drawn[1:]
        times[row, :length] = torch.randint(0, 10**6, (length,), generator=generator).cumsum(0)
    valid = targets.flatten().nonzero().squeeze(1)
    users = torch.arange(len(lengths))
    return Batch(items, torch.tensor(lengths), users, targets=targets, valid=valid, times=times)


def build(**options) -> HSTU:
    torch.manual_seed(0)
    model = HSTU(parse(HSTUConfig, SMALL | options, "test"), SCHEMA)
    for parameter in model.parameters():  # larger than at the start, so that nothing is hidden by being small
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + (-x).exp())


def formula(model: HSTU, items: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """(L, d): Eqs. 1-3 for one user, one pair of events at a time."""
    dim, heads = model.config.dim, model.config.heads
    x = model.items.weight[items] * math.sqrt(dim) + model.positions.weight[: len(items)]
    for layer in model.layers:
        eps = layer.norm.eps
        projected = silu(F.layer_norm(x, (dim,), eps=eps) @ layer.projection.weight.T)
        query, gate, key, value = projected.split(dim, dim=1)
        mixed = torch.zeros_like(x)
        for h in range(heads):
            own = slice(h * dim // heads, (h + 1) * dim // heads)
            for i in range(len(items)):
                for j in range(i + 1):
                    bias = layer.bias.position[i - j, 0]
                    if model.config.time_bias:
                        bias = bias + layer.bias.time[int(math.log(max(1, abs(int(times[i] - times[j])))) / 0.301), 0]
                    mixed[i, own] += silu(query[i, own] @ key[j, own] + bias) / LENGTH * value[j, own]
        x = x + layer.out(F.layer_norm(mixed, (dim,), eps=layer.out_norm.eps) * gate)
    return x / x.norm(dim=1, keepdim=True) if model.config.normalise else x


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_states_and_scores_equal_the_formula(options):
    model = build(**options)
    batch = make_batch([4, 7])
    states, scores = model.encode(batch), model.score_items(batch)
    rows = model.items.weight[1:]
    for row, length in enumerate([4, 7]):
        expected = formula(model, batch.items[row, :length], batch.times[row, :length])
        torch.testing.assert_close(states[row, :length], expected, atol=1e-4, rtol=1e-4)
        product = rows @ expected[-1]
        if model.config.normalise:
            product = product / rows.norm(dim=1) / 0.05
        torch.testing.assert_close(scores[row], product, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("options", VARIANTS)
def test_no_state_depends_on_a_later_event(options):
    model = build(**options)
    batch = make_batch([6])
    drawn = torch.randn(1, 6, 8, requires_grad=True)
    model.items.forward = lambda items: drawn
    weight = torch.randn(8)  # a normalised state's own length has no gradient
    states = model.encode(batch)
    for t in range(6):
        gradient = torch.autograd.grad(states[0, t] @ weight, drawn, retain_graph=True)[0][0].abs().sum(dim=1)
        assert torch.all(gradient[: t + 1] > 0)
        assert torch.all(gradient[t + 1 :] == 0)


@pytest.mark.parametrize("options", VARIANTS)
def test_a_user_scores_the_same_alone_in_a_batch_and_padded_more(options):
    model = build(**options)
    batch = make_batch([3, 7, 1, 5])
    together = model.score_items(batch)
    padded = model.score_items(make_batch([3, 7, 1, 5], padded_to=LENGTH))
    torch.testing.assert_close(padded, together, atol=1e-4, rtol=1e-4)
    for row, length in enumerate([3, 7, 1, 5]):
        items, times = batch.items[row : row + 1, :length], batch.times[row : row + 1, :length]
        alone = Batch(items, torch.tensor([length]), torch.tensor([row]), times=times)
        torch.testing.assert_close(model.score_items(alone)[0], together[row], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"normalise": False, "temperature": 0.7}])
def test_the_sampled_loss_is_the_full_one_once_every_item_is_drawn(options, monkeypatch):
    batch = make_batch([4, 2])
    full = build(loss="ce", **options).losses(batch)["ce"]
    model = build(negatives=N, **options)
    assert abs(model.losses(batch)["sampled_softmax"] - full) > 1e-3  # drawn with replacement
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: torch.arange(high).expand(shape))
    torch.testing.assert_close(model.losses(batch)["sampled_softmax"], full)
    targets = batch.targets.flatten()[batch.valid] - 1
    states, rows = model.encode(batch).flatten(0, 1)[batch.valid], model.items.weight[1:]
    products = states @ rows.T / (states.norm(dim=1)[:, None] * rows.norm(dim=1) if not options else 1)
    torch.testing.assert_close(full, F.cross_entropy(products / model.config.temperature, targets))


def test_training_lowers_the_loss():
    batch = make_batch([9, 5, 7, 3])
    torch.manual_seed(0)
    model = HSTU(HSTUConfig(dim=8, negatives=8), SCHEMA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        loss = model.losses(batch)["sampled_softmax"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


@pytest.mark.parametrize("options", VARIANTS)
def test_attention_is_what_multiplies_the_values(options):
    model = build(**options, layers=1)
    batch = make_batch([3, 7])
    (shown,) = model.attention(batch, Task.RETRIEVAL).maps
    assert shown.shape == (2, 2, 7, 7)
    assert shown.triu(1).abs().max() == 0
    layer = model.layers[0]
    x = model.items(batch.items) * math.sqrt(8) + model.positions.weight[:7]
    _, gate, _, value = F.silu(layer.projection(layer.norm(x))).chunk(4, dim=-1)
    mixed = (shown @ value.unflatten(-1, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(2)
    states = x + layer.out(layer.out_norm(mixed) * gate)
    expected = F.normalize(states, dim=-1) if model.config.normalise else states
    torch.testing.assert_close(model.encode(batch), expected, atol=1e-4, rtol=1e-4)


def test_needs_card_and_bad_settings():
    assert HSTU.needs_with(HSTUConfig(time_bias=True)).times
    assert not HSTU.needs_with(HSTUConfig()).times
    assert card(HSTU)["status"] == "reproduction"
    with pytest.raises(InputError, match="dim \\(10\\) must be a multiple of heads \\(4\\)"):
        parse(HSTUConfig, {"dim": 10, "heads": 4}, "study")
