"""AttnMVP against loops written from its equations, in float64, on both backbones."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from harness.errors import InputError
from harness.interface import Batch, Schema
from harness.models.attn_mvp import AttnMVP, AttnMVPConfig
from harness.settings import parse

LENGTH = 6
OPTIONS = [
    {
        "value_projection": projection,
        "mixing": mixing,
        "diagonal": diagonal,
        "action_softmax": softmax,
        "action_scale": on,
    }
    for projection, mixing, diagonal, softmax, on in itertools.product(
        ("per-layer", "shared"),
        ("sum", "concat", "gate"),
        ("inclusive", "strict"),
        ("shared", "separate"),
        (True, False),
    )
]


def made(options: dict) -> tuple[AttnMVP, Batch]:
    torch.manual_seed(0)
    schema = Schema(n_items=12, n_users=3, max_length=LENGTH + 1, actions=("like", "love"))
    model = AttnMVP(AttnMVPConfig(dim=8, layers=2, heads=2, **options), schema).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    lengths = torch.tensor([LENGTH, 1, 4])
    inside = torch.arange(LENGTH) < lengths[:, None]
    items = torch.randint(1, 13, (3, LENGTH)) * inside
    actions = torch.randint(0, 2, (3, LENGTH, 2)).double() * inside[..., None]
    return model, Batch(items, lengths, torch.arange(3), actions=actions)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_logits_equal_loops(options, reference):
    model, batch = made(options)
    config, rms = model.config, reference.rms
    strict = config.diagonal == "strict"

    def logits_of(x: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        for index, layer in enumerate(model.layers):
            normed = rms(x, layer.norm)
            query, key, item = (normed @ layer.projection.weight.T).chunk(3, -1)
            project = model.values[0 if config.value_projection == "shared" else index]
            action = rms(encoded, model.action_norm) @ project.weight.T
            if config.mixing == "gate":
                share = torch.sigmoid(normed @ model.gates[index].weight.T + model.gates[index].bias)
                item, action = share * item, (1 - share) * action
            rows = []
            for n in range(len(x)):
                row = []
                for h, head in enumerate(reference.heads(model)):
                    of_items, of_actions = torch.zeros(2, 4, dtype=x.dtype)
                    if strict:
                        null = model.null[index, :, h, 0]
                        weight = reference.softmax_weights(query, key, n, head, last=n - 1, null=null[0])
                        first, weight = weight[0], weight[1:]
                        of_items = of_items + first * null[1]
                        if config.mixing == "concat":
                            of_actions = of_actions + first * null[1]
                    else:
                        weight = reference.softmax_weights(query, key, n, head, last=n)
                        of_items = of_items + weight[n] * item[n, head]
                    for m in range(n):
                        of_items = of_items + weight[m] * item[m, head]
                    if config.action_softmax == "separate":
                        null = model.action_null[index, :, h, 0]
                        weight = reference.softmax_weights(query, key, n, head, last=n - 1, null=null[0])
                        first, weight = weight[0], weight[1:]
                        of_actions = first * null[1]
                    for m in range(n):
                        of_actions = of_actions + weight[m] * action[m, head]
                    row.append(
                        torch.cat((of_items, of_actions)) if config.mixing == "concat" else of_items + of_actions
                    )
                rows.append(torch.cat(row))
            x = reference.feed_forward(layer, x + torch.stack(rows) @ layer.out.weight.T)
        return model.action_head(rms(x, model.final_norm))

    for found, expected in reference.each_sequence(model, batch, logits_of):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("diagonal", ["inclusive", "strict"])
@pytest.mark.parametrize("mixing", ["sum", "concat", "gate"])
def test_logits_on_the_hstu_backbone_equal_loops(mixing, diagonal, reference):
    model, batch = made({"backbone": "hstu", "mixing": mixing, "diagonal": diagonal})

    def logits_of(x: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        sets = 2 if mixing == "concat" else 1
        for index, layer in enumerate(model.layers):
            normed = F.layer_norm(x, (8,), eps=1e-6)
            projected = F.silu(normed @ layer.projection.weight.T)
            query, gate, key, item = projected.split((8, 8 * sets, 8, 8), -1)
            action = reference.rms(encoded, model.action_norm) @ model.values[index].weight.T
            if mixing == "gate":
                share = torch.sigmoid(model.gates[index](normed))
                item, action = share * item, (1 - share) * action
            rows = []
            for n in range(len(x)):
                row = []
                for head in reference.heads(model):
                    of_items, of_actions = torch.zeros(2, 4, dtype=x.dtype)
                    for m in range(n + (diagonal == "inclusive")):
                        score = F.silu(query[n, head] @ key[m, head] + layer.bias.position[n - m, 0])
                        weight = score / layer.max_tokens
                        of_items = of_items + weight * item[m, head]
                        if m < n:
                            of_actions = of_actions + weight * action[m, head]
                    row.append(torch.cat((of_items, of_actions)) if mixing == "concat" else of_items + of_actions)
                rows.append(torch.cat(row))
            x = x + layer.out(F.layer_norm(torch.stack(rows), (8 * sets,), eps=1e-6) * gate)
        return model.action_head(reference.rms(x, model.final_norm))

    for found, expected in reference.each_sequence(model, batch, logits_of):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_actions_enter_from_the_first_layer_on():
    """After one layer the item stream knows the actions before, so later queries and keys do too (progressive)."""
    model, batch = made({})
    batch.actions.requires_grad_()
    states = []
    model.layers[1].norm.register_forward_hook(lambda _module, given, _out: states.append(given[0]))
    model.predict_actions(batch)
    (grad,) = torch.autograd.grad(states[0][0, 3].sum(), batch.actions)
    assert grad[0, :3].abs().sum(-1).min() > 0
    assert grad[0, 3:].abs().max() == 0


def test_a_separate_softmax_needs_a_softmax():
    with pytest.raises(InputError, match="has no softmax"):
        parse(AttnMVPConfig, {"backbone": "hstu", "action_softmax": "separate"}, "variant 'x'")
