"""The fused loss of multi-token prediction against the same written out with autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.models.blocks import code_heads
from harness.models.blocks.code_heads import code_cross_entropy, level_rows, level_states


def inputs(positions=37, levels=5, dim=16, width=12, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True)

    codes = torch.randint(width - 4, (positions, levels), generator=generator)
    return draw(positions, dim), draw(levels * dim, dim), draw(levels * dim), draw(levels, dim, width), codes


def written_out(hidden, weight, bias, table, codes, level_bias=None):
    states = F.normalize(level_states(hidden, weight, bias), dim=-1).transpose(0, 1)
    logits = torch.bmm(states, table)
    logits = logits if level_bias is None else logits + level_bias
    return F.cross_entropy(logits.flatten(0, 1), codes.T.flatten())


def short_level(levels=5, width=12):
    bias = torch.zeros(levels, 1, width, dtype=torch.float64)
    bias[2, :, width - 4 :] = -torch.inf
    return bias


@pytest.mark.parametrize("level_bias", [None, short_level()], ids=["equal levels", "a short level"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_equals_autograd(monkeypatch, level_bias, rows):
    monkeypatch.setattr(code_heads, "_rows_per_piece", lambda *_: rows)
    *parts, codes = inputs()
    expected = written_out(*parts, codes, level_bias)
    found = code_cross_entropy(*parts, codes, level_bias)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    # A factor behind the loss reaches every gradient.
    for one, other in zip(torch.autograd.grad(3 * found, parts), torch.autograd.grad(3 * expected, parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_bfloat16_stays_near_float32():
    *parts, codes = inputs(dtype=torch.float32)
    expected = written_out(*parts, codes)
    with torch.autocast("cpu", torch.bfloat16):
        found = code_cross_entropy(*parts, codes)
    assert found.item() == pytest.approx(expected.item(), rel=2e-2)
    for one, other in zip(torch.autograd.grad(found, parts), torch.autograd.grad(expected, parts), strict=True):
        assert one.dtype == torch.float32
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


def test_a_zero_state_has_a_finite_loss():
    *parts, codes = inputs()
    with torch.no_grad():
        for part in parts[:3]:
            part.zero_()
    loss = code_cross_entropy(*parts, codes)
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, parts))


@pytest.mark.parametrize("sizes", [(3, 3), (2, 4, 1)])
def test_level_rows_stand_one_level_behind_the_other(sizes):
    rows, bias = level_rows(torch.tensor(sizes))
    first = 0
    for level, size in enumerate(sizes):
        assert rows[level].tolist() == [first + code if code < size else first for code in range(max(sizes))]
        first += size
    if len(set(sizes)) == 1:
        assert bias is None
    else:
        barred = [[-torch.inf if code >= size else 0.0 for code in range(max(sizes))] for size in sizes]
        assert bias.squeeze(1).tolist() == barred
