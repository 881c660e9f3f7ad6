from __future__ import annotations

import pytest
import torch

from harness.models.blocks.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_drops_the_stated_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    out = dropout(torch.ones(400_001), p, training=True)
    dropped = (out == 0).float()
    spread = (p * (1 - p) / out.numel()) ** 0.5
    assert abs(dropped.mean().item() - p) < 5 * spread
    assert abs(out.mean().item() - 1) < 5 * spread / (1 - p)
    assert out[out > 0].unique().numel() == 1
    # four elements share a random word: each of its quarters, the sign bit's included, drops as often
    quarters = dropped[:400_000].view(-1, 4).mean(0)
    assert (quarters - p).abs().max() < 10 * spread


def test_neighbours_are_independent():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5, training=True) > 0).float() - 0.5
    for distance in range(1, 9):
        correlation = (kept[:-distance] * kept[distance:]).mean() * 4
        assert abs(correlation.item()) < 5 / 400_000**0.5


def test_gradient_passes_where_values_did():
    x = torch.randn(7, 5, requires_grad=True)
    out = dropout(x, 0.5, training=True)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 2.0))


def test_is_seeded_by_torchs_global_generator_and_off_in_evaluation():
    x = torch.randn(64, 3)
    layer = Dropout(0.3)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert not torch.equal(first, layer(x))
    assert layer.eval()(x) is x
    assert dropout(x, 0.0, training=True) is x
