"""Causal softmax attention over a union of key sets, in one softmax, with a fused kernel.

A query n may see several sets of N keys (``Part``), each inclusive (m <= n) or strict (m < n), and besides a key
and value of its own, which nobody else sees. That is all that the action models need: AttnMVP's corrected
diagonal is a strict part with mixed values and an own key with an item value; AttnLFA's null key is an own key;
the queries of an interleaved sequence see items inclusively and actions strictly.

The fused kernel is run once per part and the results are merged by their log-sum-exp, as in ring attention (Liu
et al. 2023, arXiv 2310.01889, Eq. 3): O(N d) extra work, and never an N x N matrix. The kernel's backward pass
is exact when it is given the merged output and log-sum-exp. ``benchmarks/mixing.py`` times it against the other
exact form, one call with a mask over all keys. Shapes: B sequences, H heads, N queries, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import flop_registry, register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

__all__ = ["Part", "attend", "attend_beside", "attend_masked", "union_weights"]

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

# The counter knows the kernels of CUDA alone; like those, the causal half that is skipped counts.
if _flash not in flop_registry:

    @register_flop_formula(_flash)
    def _count_forward(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    @register_flop_formula(_flash_backward)
    def _count_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)


class Part(NamedTuple):
    """N keys and values that all queries share. A strict part may leave out the last, which nobody sees."""

    key: Tensor
    """(B, H, N, D)"""
    value: Tensor
    """(B, H, N, D)"""
    strict: bool
    """True: query n sees m < n; False: m <= n."""


def attend(query: Tensor, parts: Sequence[Part], own: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """softmax(q k / sqrt(D)) v over the union of ``parts`` and the own key and value: (B, H, N, D).

    ``own`` holds a key and a value for each query, (B, H, N, D) each. Without it, one part must be inclusive, or
    query 0 sees nothing.
    """
    if own is None and all(part.strict for part in parts):
        raise ValueError("query 0 sees no key: give it one of its own, or an inclusive part")
    if own is None and len(parts) == 1:
        return F.scaled_dot_product_attention(query, parts[0].key, parts[0].value, is_causal=True)
    if query.device.type != "cpu":
        return attend_masked(query, parts, own)
    parts = sorted(parts, key=lambda part: part.strict)
    if own is not None:  # which may be a null key under autocast, say
        own = own[0].to(query.dtype), own[1].to(query.dtype)
    flat = [tensor for part in parts for tensor in (part.key, part.value)]
    return _Union.apply(query, *(own or (None, None)), tuple(part.strict for part in parts), *flat)


def attend_masked(query: Tensor, parts: Sequence[Part], own: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """:func:`attend` as one call with a mask over all keys; for devices whose kernel hides its log-sum-exp."""
    n = query.shape[2]
    square = torch.ones(n, n, dtype=torch.bool, device=query.device)
    keys = [part.key for part in parts]
    values = [part.value for part in parts]
    masks = [square.tril(-1 if part.strict else 0)[:, : part.key.shape[2]] for part in parts]
    if own is not None:
        keys.append(own[0])
        values.append(own[1])
        masks.append(square.triu().tril())
    return F.scaled_dot_product_attention(query, torch.cat(keys, 2), torch.cat(values, 2), torch.cat(masks, 1))


def union_weights(query: Tensor, parts: Sequence[Part], own_key: Tensor | None = None) -> list[Tensor]:
    """The weights that :func:`attend` gives: (B, H, N, N) per part, then (B, H, N) for the own key if there is one."""
    n = query.shape[2]
    square = torch.ones(n, n, dtype=torch.bool, device=query.device)
    scores = []
    for part in parts:
        future = square.triu(0 if part.strict else 1)[:, : part.key.shape[2]]
        scores.append((query @ part.key.mT).masked_fill(future, -math.inf))
    if own_key is not None:
        scores.append((query * own_key).sum(-1, keepdim=True))
    weights = (torch.cat(scores, -1) / math.sqrt(query.shape[-1])).softmax(-1)  # (B, H, N, N * parts [+ 1])
    split = list(weights.split([score.shape[-1] for score in scores], -1))
    if own_key is not None:
        split[-1] = split[-1].squeeze(-1)
    return split


def attend_beside(
    query: Tensor, history: Sequence[tuple[Tensor, Tensor]], seen: Tensor, own: tuple[Tensor, Tensor]
) -> Tensor:
    """K queries that see the whole history and each its own key, not each other: (B, H, K, D).

    Args:
        query: (B, H, K, D).
        history: keys and values of S tokens, (B, H, S, D) each.
        seen: (B, S) bool, which tokens of the history are not padding.
        own: key and value of each query, (B, H, K, D).
    """
    hidden = ~seen[:, None, None]
    scores = [(query @ key.mT).masked_fill(hidden, -math.inf) for key, _ in history]
    scores.append((query * own[0]).sum(-1, keepdim=True))
    weights = (torch.cat(scores, -1) / math.sqrt(query.shape[-1])).softmax(-1)  # (B, H, K, S * sets + 1)
    *per_set, last = weights.split([score.shape[-1] for score in scores], -1)
    out = last * own[1]
    for weight, (_, value) in zip(per_set, history, strict=True):
        out = out + weight @ value
    return out


def _rows(strict: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of (B, H, N, ...) tensors whose query sees something of the part."""
    return tuple(tensor[:, :, 1:] for tensor in tensors) if strict else tensors


def _own_score(query: Tensor, own_key: Tensor) -> Tensor:
    """(B, H, N): the logit of the own key, in the precision of the kernel's log-sum-exp."""
    precise = torch.promote_types(query.dtype, torch.float32)
    return (query * own_key).sum(-1, dtype=precise) / math.sqrt(query.shape[-1])


class _Union(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, own_key: Tensor | None, own_value: Tensor | None, stricts: tuple, *flat: Tensor
    ) -> Tensor:
        out: Tensor | None = None
        total: Tensor | None = None
        if own_key is not None and own_value is not None:
            out, total = own_value.clone(), _own_score(query, own_key)  # (B, H, N, D), (B, H, N)
        for strict, key, value in zip(stricts, flat[::2], flat[1::2], strict=True):
            shift = int(strict)
            n = query.shape[2] - shift
            if n == 0:
                continue
            # Query n and key m = n - shift share a row, so that the kernel's own causal mask is the right one.
            part, log_sum = _flash(query[:, :, shift:], key[:, :, :n], value[:, :, :n], 0.0, True)
            if out is None or total is None:
                out, total = part, log_sum
                continue
            (seen,) = _rows(strict, total)
            share = (log_sum - seen).sigmoid_()  # of the probability mass that lies in this part
            _rows(strict, out)[0].lerp_(part, share.unsqueeze(-1).to(part.dtype))
            merged = torch.logaddexp(seen, log_sum)
            total = torch.cat((total[:, :, :shift], merged), 2) if strict else merged
        ctx.save_for_backward(query, own_key, own_value, out, total, *flat)
        ctx.stricts = stricts
        assert out is not None, "see `attend`: query 0 sees a key"
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        query, own_key, own_value, out, total, *flat = ctx.saved_tensors
        grad_query = grad_own_key = grad_own_value = None
        if own_key is not None:
            weight = _own_score(query, own_key).sub_(total).exp_()  # (B, H, N)
            grad_score = (weight / math.sqrt(query.shape[-1]) * (grad * (own_value - out)).sum(-1)).unsqueeze(-1)
            grad_query, grad_own_key = grad_score * own_key, grad_score * query
            grad_own_value = weight.unsqueeze(-1) * grad
        grads = []
        for strict, key, value in zip(ctx.stricts, flat[::2], flat[1::2], strict=True):
            shift = int(strict)
            n = query.shape[2] - shift
            if n == 0:
                grads += [torch.zeros_like(key), torch.zeros_like(value)]
                continue
            (rows_grad, rows_query, rows_out), (rows_total,) = _rows(strict, grad, query, out), _rows(strict, total)
            for_query, for_key, for_value = _flash_backward(
                rows_grad, rows_query, key[:, :, :n], value[:, :, :n], rows_out, rows_total, 0.0, True
            )
            if strict:
                unseen = (0, 0, 0, key.shape[2] - n)
                for_key, for_value = F.pad(for_key, unseen), F.pad(for_value, unseen)
            if grad_query is None:
                grad_query = F.pad(for_query, (0, 0, 1, 0)) if strict else for_query
            else:
                _rows(strict, grad_query)[0].add_(for_query)
            grads += [for_key, for_value]
        return grad_query, grad_own_key, grad_own_value, None, *grads
