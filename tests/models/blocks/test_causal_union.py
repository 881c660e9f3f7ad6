"""Attention over unions of key sets against loops over queries and keys, gradients included."""

from __future__ import annotations

import math

import pytest
import torch

from harness.models.blocks.causal_union import Part, attend, attend_beside, attend_masked, union_weights

B, H, D = 2, 2, 4
CASES = [
    "strict, own",
    "inclusive, strict",
    "strict, strict, own",
    "inclusive, inclusive, own",
    "short, own",
    "inclusive",
]


def drawn(case: str, n: int):
    torch.manual_seed(0)

    def draw(rows: int = n) -> torch.Tensor:
        return torch.randn(B, H, rows, D, dtype=torch.double, requires_grad=True)

    kinds = case.split(", ")
    own = (draw(), draw()) if "own" in kinds else None
    rows = {"strict": n, "inclusive": n, "short": n - 1}
    parts = [Part(draw(rows[kind]), draw(rows[kind]), kind != "inclusive") for kind in kinds if kind != "own"]
    query = draw()
    return query, parts, own, [query, *(tensor for part in parts for tensor in part[:2]), *(own or ())]


def by_loops(query, parts, own):
    rows = []
    for b in range(B):
        for h in range(H):
            for n in range(query.shape[2]):
                seen = [(p.key[b, h, m], p.value[b, h, m]) for p in parts for m in range(n + (not p.strict))]
                seen += [(own[0][b, h, n], own[1][b, h, n])] if own else []
                weight = torch.stack([query[b, h, n] @ key / math.sqrt(D) for key, _ in seen]).softmax(0)
                rows.append(sum(w * value for w, (_, value) in zip(weight, seen, strict=True)))
    return torch.stack(rows).view_as(query)


@pytest.mark.parametrize("form", [attend, attend_masked])
@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_equal_loops(case, n, form):
    query, parts, own, leaves = drawn(case, n)
    weight = torch.randn(B, H, n, D, dtype=torch.double)
    found, expected = form(query, parts, own), by_loops(query, parts, own)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    options = {"allow_unused": True, "materialize_grads": True}
    got = torch.autograd.grad((found * weight).sum(), leaves, **options)
    want = torch.autograd.grad((expected * weight).sum(), leaves, **options)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_weights_reproduce_the_output(case):
    query, parts, own, _ = drawn(case, 9)
    weights = union_weights(query, parts, own and own[0])
    out = sum(weight @ part.value for weight, part in zip(weights, parts, strict=False))
    if own:
        out = out + weights[-1].unsqueeze(-1) * own[1]
    torch.testing.assert_close(out, attend(query, parts, own), atol=1e-10, rtol=0)


def test_an_own_key_far_above_all_others_takes_all_the_weight():
    query, parts, _, _ = drawn("strict, own", 5)
    value = torch.randn_like(query)
    out = attend(query, parts, (query * 1e4, value))
    assert out.isfinite().all()
    torch.testing.assert_close(out, value, atol=1e-6, rtol=0)


def test_bfloat16_is_near_float32():
    query, parts, own, _ = drawn("strict, own", 40)
    low = [tensor.detach().bfloat16() for tensor in (query, *parts[0][:2], *own)]
    found = attend(low[0], [Part(low[1], low[2], True)], (low[3], low[4]))
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.double(), attend(query, parts, own).detach(), atol=0.05, rtol=0)


def test_a_query_that_sees_nothing_is_refused():
    query, parts, _, _ = drawn("strict, own", 3)
    with pytest.raises(ValueError, match="query 0 sees no key"):
        attend(query, parts)


def test_candidates_see_the_unpadded_history_and_themselves():
    torch.manual_seed(0)
    query, own_key, own_value = torch.randn(3, B, H, 5, D).unbind(0)
    key, value = torch.randn(2, B, H, 7, D).unbind(0)
    lengths = torch.tensor([7, 3])
    found = attend_beside(query, [(key, value)], torch.arange(7) < lengths[:, None], (own_key, own_value))
    for b in range(B):
        for k in range(5):
            keys = torch.cat((key[b, :, : lengths[b]], own_key[b, :, k : k + 1]), 1)  # (H, S + 1, D)
            values = torch.cat((value[b, :, : lengths[b]], own_value[b, :, k : k + 1]), 1)
            weight = (keys @ query[b, :, k, :, None] / math.sqrt(D)).softmax(1)
            torch.testing.assert_close(found[b, :, k], (weight * values).sum(1), atol=1e-6, rtol=0)
