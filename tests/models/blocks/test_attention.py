from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.interface import Batch
from harness.models.blocks.attention import SelfAttention, causal_softmax, evaluation_mode, event_positions


def test_causal_softmax_equals_a_double_loop():
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    expected = torch.zeros(2, 5, 5)
    for n in range(2):
        for t in range(5):
            scores = [math.exp(q[n, t].dot(k[n, s]).item() / math.sqrt(3)) for s in range(t + 1)]
            for s, score in enumerate(scores):
                expected[n, t, s] = score / sum(scores)
    torch.testing.assert_close(causal_softmax(q, k), expected)


def test_equals_torchs_multi_head_attention():
    torch.manual_seed(0)
    ours = SelfAttention(12, 3, dropout=0.4).eval()
    peer = nn.MultiheadAttention(12, 3, batch_first=True)
    peer.in_proj_weight.data, peer.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    peer.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(4, 7, 12)
    mask = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected, maps = peer(x, x, x, attn_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(ours(x)[0], expected, atol=1e-6, rtol=1e-5)
    captured, our_maps = ours(x, capture=True)
    torch.testing.assert_close(captured, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(our_maps, maps)


def test_training_without_dropout_computes_what_evaluation_does_and_with_dropout_does_not():
    x = torch.randn(3, 6, 8)
    plain = SelfAttention(8, 2, dropout=0.0)
    torch.testing.assert_close(plain.train()(x)[0], plain.eval()(x)[0])
    thinned = SelfAttention(8, 2, dropout=0.5)
    assert not torch.allclose(thinned.train()(x)[0], thinned.eval()(x)[0])


def test_dropped_attention_is_unbiased():
    """Averaged over many draws, thinned attention comes back to the plain one: dropout falls on the maps alone."""
    torch.manual_seed(0)
    layer = SelfAttention(8, 2, dropout=0.3)
    x = torch.randn(1, 6, 8)
    mean = layer.train()(x.expand(20_000, -1, -1))[0].mean(0)
    torch.testing.assert_close(mean, layer.eval()(x)[0][0], atol=0.02, rtol=0)


def test_evaluation_mode_puts_every_part_back():
    layers = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2), nn.Dropout(0.5))
    layers[2].eval()
    with evaluation_mode(layers):
        assert not any(part.training for part in layers.modules())
        assert not layers(torch.ones(1, 2)).requires_grad
    with pytest.raises(RuntimeError), evaluation_mode(layers):
        layers(torch.ones(1, 3))
    assert [part.training for part in layers] == [True, True, False]
    assert torch.is_grad_enabled()


def test_event_positions_are_minus_one_where_padded():
    items = torch.tensor([[4, 5, 0], [6, 0, 0]])
    batch = Batch(items=items, lengths=torch.tensor([2, 1]), users=torch.arange(2))
    assert event_positions(batch).tolist() == [[0, 1, -1], [0, -1, -1]]
