"""Losses and scores over a large set of classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["corrected_softmax", "linear_cross_entropy", "rows_per_piece", "sampled_scores", "sampled_softmax"]

_CACHED_FLOATS = 2**19
"""2 MiB of logits stay in a CPU core's cache from the product to the softmax and back."""


def rows_per_piece(n_rows: int, width: int, device: torch.device) -> int:
    """How many of ``n_rows`` rows of ``width`` logits to compute at a time: all of them but on a CPU.

    On a CPU, pieces that fit the cache take about two thirds of the time of one large product (64 features,
    1,700 to 12,000 classes).
    """
    if device.type != "cpu":
        return n_rows
    return max(64, _CACHED_FLOATS // width)


def linear_cross_entropy(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the logits ``hidden @ table.T``.

    Args:
        hidden: (V, d), at least one row.
        table: (N, d), one row per class.
        targets: (V,) int64 in 0..N-1.
    """
    rows = rows_per_piece(hidden.shape[0], table.shape[0], hidden.device)
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, part_targets in zip(hidden.split(rows), targets.split(rows), strict=True):
        logits = F.linear(part, table)  # (rows, N)
        total = total + F.cross_entropy(logits.float(), part_targets, reduction="sum")
    return total / targets.shape[0]


def sampled_scores(hidden: Tensor, table: Tensor, classes: Tensor) -> Tensor:
    """The products of ``hidden`` (V, d) with the rows of ``table`` (N, d) that ``classes`` (V, k) names: (V, k).

    Up to about 32 classes per sample it is faster to score all of them and pick than to gather the rows.
    """
    n_classes, samples = table.shape[0], classes.shape[1]
    score_all = n_classes <= 32 * samples
    width = n_classes if score_all else samples * table.shape[1]
    rows = rows_per_piece(hidden.shape[0], width, hidden.device)
    scores = []
    for part, part_classes in zip(hidden.split(rows), classes.split(rows), strict=True):
        if score_all:
            scores.append(F.linear(part, table).gather(1, part_classes))
        else:
            picked = F.embedding(part_classes, table)  # (rows, k, d)
            scores.append(torch.bmm(picked, part.unsqueeze(2)).squeeze(2))
    return torch.cat(scores)


def sampled_softmax(hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Mean cross-entropy of each target among itself and its own negatives, uncorrected for how they were drawn.

    A negative that is the target does not count, so a draw of every class once gives the full cross-entropy.

    Args:
        hidden: (V, d), at least one row.
        table: (N, d), one row per class.
        targets: (V,) int64 in 0..N-1.
        negatives: (V, k) int64 in 0..N-1.
    """
    scores = sampled_scores(hidden, table, torch.cat([targets.unsqueeze(1), negatives], dim=1)).float()  # (V, 1 + k)
    positive, negative = scores[:, :1], scores[:, 1:].masked_fill(negatives == targets.unsqueeze(1), -math.inf)
    return (torch.cat([positive, negative], dim=1).logsumexp(dim=1) - positive.squeeze(1)).mean()


def corrected_softmax(hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor) -> Tensor:
    """Mean of -s_y + log Z', where Z' estimates the full softmax's sum without bias from k classes that all share.

    Z' = exp(s_y) + 1/k sum_j [j is not y] exp(s_j) / q_j, for k classes drawn with replacement with the probabilities q
    (Bengio & Senecal, 2008). The target is always in the sum and was not drawn, so it is not corrected (Khrylchenko et
    al., RecSys 2025). The gradient's bias falls as 1/k; every class once, with uniform q, gives the full cross-entropy.

    Args:
        hidden: (V, d), at least one row.
        table: (N, d), one row per class.
        targets: (V,) int64 in 0..N-1.
        negatives: (k,) int64 in 0..N-1.
        log_q: (k,) float, log q of each of them.
    """
    drawn = F.embedding(negatives, table)  # (k, d)
    positive = (hidden * F.embedding(targets, table)).sum(dim=1).float()  # (V,)
    weight = log_q.float() + math.log(len(negatives))  # (k,)
    rows = rows_per_piece(len(hidden), len(negatives), hidden.device)
    total = positive.new_zeros(())
    for part, own, part_targets in zip(hidden.split(rows), positive.split(rows), targets.split(rows), strict=True):
        scores = F.linear(part, drawn).float() - weight  # (rows, k)
        scores = scores.masked_fill(negatives == part_targets.unsqueeze(1), -math.inf)
        total = total + (torch.cat([own.unsqueeze(1), scores], dim=1).logsumexp(dim=1) - own).sum()
    return total / len(targets)
