from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.models.blocks.focused_attention import FocusedAttention, lambda_init


def focused_by_hand(layer: FocusedAttention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output and maps for one sequence x (T, d), entry by entry."""
    heads, width, dh = layer.heads, layer.query_dim, layer.head_dim
    length = x.shape[0]
    qk, v = layer.qk(x).view(length, 4, heads, width), layer.v(x).view(length, heads, dh)
    maps, mixed = torch.zeros(heads, length, length), torch.zeros(length, heads, dh)
    for h in range(heads):
        if layer.focus_lambda == "fixed":
            one, two = 1.0, layer.lambda_value
        elif layer.focus_lambda == "two-scalars":
            one, two = layer.scalars[0].expand(heads)[h], layer.scalars[1].expand(heads)[h]
        else:
            vectors = [part.expand(2, heads, width)[:, h] for part in (layer.lambda_q, layer.lambda_k)]
            exponents = [vectors[0][j].dot(vectors[1][j]).exp() for j in (0, 1)]
            one, two = 1.0, exponents[0] - exponents[1] + layer.lambda_init
        for t in range(length):
            rows = []
            for j in (0, 1):
                scores = [qk[t, j, h].dot(qk[s, 2 + j, h]) / math.sqrt(width) for s in range(t + 1)]
                rows.append(torch.stack(scores).softmax(0))
            row = one * rows[0] - two * rows[1]
            if layer.normalisation == "signed-l1":
                row = row / (row.abs().sum() + layer.norm_eps)
            maps[h, t, : t + 1] = row
            out = sum(row[s] * v[s, h] for s in range(t + 1))
            if layer.normalisation == "rmsnorm":
                gain = 1 if layer.gain is None else layer.gain
                out = out / (out.square().mean() + layer.norm_eps).sqrt() * gain * (1 - layer.lambda_init)
            mixed[t, h] = out
    return layer.out(mixed.flatten(1)), maps


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("focus_lambda", ["learnable", "fixed", "two-scalars"])
@pytest.mark.parametrize("normalisation", ["rmsnorm", "signed-l1", "none"])
@pytest.mark.parametrize("others", [{}, {"lambda_per": "head", "norm_gain": False, "bias": False}])
def test_focused_attention_equals_a_double_loop(normalisation, focus_lambda, matched, others):
    torch.manual_seed(0)
    options = {"normalisation": normalisation, "focus_lambda": focus_lambda, "matched": matched, "lambda_value": 0.7}
    layer = FocusedAttention(8, 2, layer=1, **options, **others)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        outputs, maps = zip(*(focused_by_hand(layer, row) for row in x), strict=True)
        captured, our_maps = layer(x, capture=True)
        torch.testing.assert_close(layer(x)[0], torch.stack(outputs), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(captured, torch.stack(outputs), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(our_maps, torch.stack(maps), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lambda_per", ["layer", "head"])
@pytest.mark.parametrize("focus_lambda", ["learnable", "fixed", "two-scalars"])
@pytest.mark.parametrize("normalisation", ["rmsnorm", "signed-l1", "none"])
def test_focused_attention_gradients_are_right_on_both_paths(normalisation, focus_lambda, lambda_per):
    torch.manual_seed(0)
    options = {"normalisation": normalisation, "focus_lambda": focus_lambda, "lambda_value": 0.6}
    layer = FocusedAttention(4, 2, layer=0, lambda_per=lambda_per, **options).double()
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    parameters = [p for p in layer.parameters() if p.numel() < 40]
    for capture in (False, True):
        assert torch.autograd.gradcheck(lambda x, *_, capture=capture: layer(x, capture)[0], (x, *parameters))


def test_dropout_falls_once_on_the_difference():
    """Averaged over draws it is unbiased, and a dropped weight is gone from both maps at once."""
    torch.manual_seed(0)
    layer = FocusedAttention(8, 2, layer=0, dropout=0.5, normalisation="none", focus_lambda="fixed")
    x = torch.randn(1, 2, 8)
    with torch.no_grad():
        layer.v.bias.zero_()
        layer.v.weight.copy_(torch.eye(8))
        layer.out.weight.copy_(torch.eye(8))
        layer.out.bias.zero_()
        thinned = layer.train()(x.expand(20_000, -1, -1))[0][:, 1]
        torch.testing.assert_close(thinned.mean(0), layer.eval()(x)[0][0, 1], atol=0.02, rtol=0)
        # two visible events, each weight there or not: exactly 2^2 outcomes per head (3 where lambda = 1 leaves
        # weights a, -a), and not the 2^4 of dropping from both maps
        assert len(thinned[:, :4].unique(dim=0)) == 4
    assert layer(x, capture=True)[1][0, 0, 1].abs().min() > 0


def test_lambda_starts_where_the_differential_transformer_starts_it():
    assert [round(lambda_init(depth), 4) for depth in range(3)] == [0.2, 0.3555, 0.4707]
    torch.manual_seed(0)
    layer = FocusedAttention(4000, 2, layer=1)
    assert layer.lambda_q.std().item() == pytest.approx(0.1, rel=0.05)
    ones, zeros = torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    effective = -layer.subtract(zeros, ones)
    assert (effective - lambda_init(1)).abs().max() < 1
    assert FocusedAttention(448, 4, layer=0).lambda_k.shape == (2, 1, 112)  # the heads share it
    assert FocusedAttention(448, 4, layer=0, lambda_per="head").lambda_k.shape == (2, 4, 112)


@pytest.mark.parametrize("options", [{}, {"norm_gain": False, "matched": True}, {"bias": False}])
def test_lambda_0_is_softmax_attention_with_the_head_norm(options):
    """The control of the ablation: nothing is left of the second map, and norm and parameters are those of FAIR."""
    torch.manual_seed(0)
    focused = FocusedAttention(8, 2, layer=1, focus_lambda="fixed", lambda_value=0.0, **options)
    for parameter in focused.parameters():
        nn.init.normal_(parameter, std=0.5)
    width = focused.query_dim
    x = torch.randn(3, 5, 8)
    q, k = (focused.qk(x).view(3, 5, 4, 2, width)[:, :, j].transpose(1, 2) for j in (0, 2))  # each (3, H, 5, width)
    v = focused.v(x).view(3, 5, 2, 4).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    normed = mixed / (mixed.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * (1 - lambda_init(1))
    normed = normed if focused.gain is None else normed * focused.gain
    expected = focused.out(normed.transpose(1, 2).flatten(2))
    for capture in (False, True):
        torch.testing.assert_close(focused(x, capture)[0], expected, atol=1e-5, rtol=1e-5)
    full = FocusedAttention(8, 2, layer=1, focus_lambda="fixed", **options)
    assert [p.shape for p in focused.parameters()] == [p.shape for p in full.parameters()]


def test_the_matched_layer_has_the_shapes_of_the_published_one():
    """Ye et al.: Q and K of 2 heads x d / heads / 2, V of heads x d / heads, no biases, a gain and four vectors."""
    layer = FocusedAttention(24, 3, layer=0, matched=True, bias=False)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {
        "lambda_q": (2, 1, 4), "lambda_k": (2, 1, 4), "gain": (8,),
        "qk.weight": (48, 24), "v.weight": (24, 24), "out.weight": (24, 24),
    }  # fmt: skip
