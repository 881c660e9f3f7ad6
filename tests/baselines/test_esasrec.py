"""eSASRec's layer over PyTorch's own attention, its loss against the full softmax, and what it may see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.baselines.esasrec import ESASRec, ESASRecConfig, LiGRLayer
from harness.errors import InputError
from harness.fidelity import card
from harness.interface import Batch, Schema, Task
from harness.settings import parse

N, LENGTH = 30, 9
SCHEMA = Schema(n_items=N, n_users=10, max_length=LENGTH)
SMALL = {"dim": 8, "layers": 2, "heads": 2, "inner": 16, "dropout": 0.0, "table_dropout": 0.0}


def make_batch(lengths: list[int], padded_to: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    items, targets = torch.zeros(2, len(lengths), max(padded_to, *lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        drawn = torch.randint(1, N + 1, (length + 1,), generator=generator)
        items[row, :length], targets[row, :length] = drawn[:-1], drawn[1:]
    valid = targets.flatten().nonzero().squeeze(1)
    return Batch(items, torch.tensor(lengths), torch.arange(len(lengths)), targets=targets, valid=valid)


def build(**options) -> ESASRec:
    torch.manual_seed(0)
    model = ESASRec(parse(ESASRecConfig, SMALL | options, "test"), SCHEMA)
    for parameter in model.parameters():  # larger than at the start, so that nothing is hidden by being small
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def reference(layer: LiGRLayer, x: torch.Tensor) -> torch.Tensor:
    """The formula of RecTools' LiGRLayer over ``nn.MultiheadAttention``."""
    dim = x.shape[-1]
    attention = nn.MultiheadAttention(dim, layer.attention.heads, batch_first=True)
    attention.in_proj_weight.data, attention.in_proj_bias.data = layer.attention.qkv.weight, layer.attention.qkv.bias
    attention.out_proj.load_state_dict(layer.attention.out.state_dict())
    normed = F.layer_norm(x, (dim,), layer.attention_norm.weight, layer.attention_norm.bias)
    causal = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
    mixed, _ = attention(normed, normed, normed, attn_mask=causal, need_weights=False)
    x = x + mixed / (1 + (-layer.attention_gate(x)).exp())
    normed = F.layer_norm(x, (dim,), layer.feed_forward_norm.weight, layer.feed_forward_norm.bias)
    up = normed @ layer.up.weight.T
    inner = up / (1 + (-up).exp()) * (normed @ layer.linear.weight.T)
    return x + inner @ layer.down.weight.T / (1 + (-layer.feed_forward_gate(x)).exp())


def test_the_layer_equals_the_formula_and_so_do_its_gradients():
    layer = build().layers[0]
    for norm in (layer.attention_norm, layer.feed_forward_norm):
        nn.init.normal_(norm.weight, mean=1.0)
    x = torch.randn(3, 6, 8, requires_grad=True)
    ours, theirs = layer(x)[0], reference(layer, x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(ours.square().sum(), x), torch.autograd.grad(theirs.square().sum(), x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("positions", ["from-end", "from-start"])
def test_states_are_the_layers_over_items_and_their_places(positions):
    model = build(positions=positions)
    batch = make_batch([4, 7])
    for row, length in enumerate([4, 7]):
        places = range(length - 1, -1, -1) if positions == "from-end" else range(length)
        x = torch.stack(
            [model.items.weight[batch.items[row, t]] + model.positions.weight[p] for t, p in enumerate(places)]
        ).unsqueeze(0)
        for layer in model.layers:
            x = reference(layer, x)
        torch.testing.assert_close(model.encode(batch, model.items.weight)[0][row, :length], x[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            model.score_items(batch)[row], model.items.weight[1:] @ x[0, -1], atol=1e-4, rtol=1e-5
        )


def test_no_state_depends_on_a_later_event():
    model = build()
    x = torch.randn(1, 6, 8, requires_grad=True)
    states = x
    for layer in model.layers:
        states, _ = layer(states)
    for t in range(6):
        gradient = torch.autograd.grad(states[0, t].square().sum(), x, retain_graph=True)[0][0].abs().sum(dim=1)
        assert torch.all(gradient[: t + 1] > 0)
        assert torch.all(gradient[t + 1 :] == 0)


def test_a_user_scores_the_same_alone_in_a_batch_and_padded_more():
    model = build()
    batch = make_batch([3, 7, 1, 5])
    together = model.score_items(batch)
    torch.testing.assert_close(model.score_items(make_batch([3, 7, 1, 5], padded_to=LENGTH)), together)
    for row, length in enumerate([3, 7, 1, 5]):
        alone = Batch(batch.items[row : row + 1, :length], torch.tensor([length]), torch.tensor([row]))
        torch.testing.assert_close(model.score_items(alone)[0], together[row], atol=1e-5, rtol=1e-5)


def test_the_sampled_loss_is_the_full_one_once_every_item_is_drawn(monkeypatch):
    batch = make_batch([4, 2])
    full = build(loss="ce").losses(batch)["ce"]
    model = build(negatives=N)
    sampled = model.losses(batch)["sampled_softmax"]
    assert abs(sampled - full) > 1e-3  # drawn with replacement
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: torch.arange(high).expand(shape))
    torch.testing.assert_close(model.losses(batch)["sampled_softmax"], full)
    states = model.encode(batch, model.items.weight)[0].flatten(0, 1)[batch.valid]
    logits = states @ model.items.weight[1:].T
    torch.testing.assert_close(full, F.cross_entropy(logits, batch.targets.flatten()[batch.valid] - 1))


def test_the_tables_dropout_is_one_mask_for_the_input_and_the_scores():
    batch = make_batch([4, 2])
    model = build(loss="ce", table_dropout=0.5).train()
    torch.manual_seed(7)
    loss = model.losses(batch)["ce"]
    torch.manual_seed(7)
    table = model.table_dropout(model.items.weight)
    assert 0.3 < (table == 0).float().mean() < 0.7
    states = model.encode(batch, table)[0].flatten(0, 1)[batch.valid]
    torch.testing.assert_close(loss, F.cross_entropy(states @ table[1:].T, batch.targets.flatten()[batch.valid] - 1))


def test_training_lowers_the_loss():
    batch = make_batch([9, 5, 7, 3])
    torch.manual_seed(0)
    model = ESASRec(ESASRecConfig(dim=8, inner=16, negatives=8), SCHEMA)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        loss = model.losses(batch)["sampled_softmax"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


def test_attention_is_causal_sums_to_one_and_changes_nothing():
    model = build()
    batch, table = make_batch([3, 7]), model.items.weight
    shown = model.attention(batch, Task.RETRIEVAL)
    assert [tuple(layer.shape) for layer in shown.maps] == [(2, 2, 7, 7)] * 2
    for layer in shown.maps:
        torch.testing.assert_close(layer.sum(dim=-1), torch.ones(2, 2, 7))
        assert layer.triu(1).abs().max() == 0
    torch.testing.assert_close(
        model.encode(batch, table, capture=True)[0], model.encode(batch, table)[0], atol=1e-5, rtol=1e-5
    )


def test_card_and_bad_settings():
    assert card(ESASRec)["status"] == "reproduction"
    with pytest.raises(InputError, match="dim \\(10\\) must be a multiple of heads \\(4\\)"):
        parse(ESASRecConfig, {"dim": 10, "heads": 4}, "study")
