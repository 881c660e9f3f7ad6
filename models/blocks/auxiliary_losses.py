"""Losses beside a prediction's own: how far noise moves a model, and how far states and targets share information.

Shapes: V supervised positions, d width, H heads, T tokens.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["KL_FLOOR", "NoiseForm", "info_nce", "layers_noise_loss", "map_noise_loss", "noise_loss"]

NoiseForm = Literal["representation", "triplet", "attention-mse", "attention-kl"]

KL_FLOOR = 1e-2
"""Added to each weight before a logarithm: a signed weight may cross zero, where the gradient would have no bound.
For plain differences (lambda 1) on MovieLens 100K, single batches had more than twice the prediction loss' gradient
with 1e-4; with 1e-2 none had more than a fifth of it."""


def noise_loss(clean: Tensor, noisy: Tensor, form: NoiseForm, margin: float) -> Tensor:
    """How far noise moves the states, clean and noisy (V, d).

    representation: mean of 1 - cos(noisy, clean), the clean side fixed.
    triplet: mean of max(0, margin + d(clean, noisy) - d(clean, other)), d = 1 - cos, the other state being one
    that stands a random number of positions further on in the batch.
    """
    if form == "representation":
        return (1 - F.cosine_similarity(noisy, clean.detach(), dim=-1)).mean()
    count = clean.shape[0]
    shift = torch.randint(1, max(count, 2), (1,), device=clean.device)
    other = clean[(torch.arange(count, device=clean.device) + shift) % count]
    near, far = F.cosine_similarity(clean, noisy, dim=-1), F.cosine_similarity(clean, other, dim=-1)
    return (margin - near + far).clamp_min(0).mean()  # the ones of both distances cancel


def map_noise_loss(clean: Tensor, noisy: Tensor, form: NoiseForm) -> Tensor:
    """How far noise moves one layer's attention, clean and noisy (V, H, T), the clean side fixed.

    attention-mse: the squared distance between the rows. attention-kl: KL(clean || noisy) of the absolute weights,
    each raised by a floor, as the sum of p log(p / q) - p + q. Where both rows have the same sum, as those of a softmax
    have, this is the usual form. Signed rows, which may almost vanish (lambda 1), are not scaled up. Both losses are
    means over positions and heads.
    """
    clean = clean.detach()
    if form == "attention-mse":
        return (noisy - clean).square().sum(dim=-1).mean()
    p, q = clean.abs() + KL_FLOOR, noisy.abs() + KL_FLOOR
    return (p * (p.log() - q.log()) - p + q).sum(dim=-1).mean()


def layers_noise_loss(pairs: Iterable[Sequence[Tensor]], form: NoiseForm) -> Tensor:
    """The mean of :func:`map_noise_loss` over layers."""
    losses = [map_noise_loss(clean, noisy, form) for clean, noisy in pairs]
    return reduce(operator.add, losses) / len(losses)


def info_nce(hidden: Tensor, vectors: Tensor, targets: Tensor, temperature: float, negatives: int) -> Tensor:
    """Mean of -log exp(s_ii) / (exp(s_ii) + sum_j exp(s_ij)), s_ij = cos(hidden_i, vectors_j) / temperature.

    The j run over the other targets of the batch, but for those equal to i's own (van den Oord et al., 2018).

    Args:
        hidden, vectors: (V, d), states and the vectors of their targets.
        targets: (V,) item ids.
        negatives: how many of the V targets to draw as negatives for all positions; 0 = all.
    """
    hidden, vectors = F.normalize(hidden, dim=-1) / temperature, F.normalize(vectors, dim=-1)
    positive = (hidden * vectors).sum(dim=-1, keepdim=True)  # (V, 1)
    drawn = slice(None) if negatives == 0 else torch.randperm(len(targets), device=targets.device)[:negatives]
    others = hidden @ vectors[drawn].T  # (V, C)
    others = others.masked_fill(targets.unsqueeze(1) == targets[drawn], -math.inf)
    logits = torch.cat([positive, others], dim=1).float()
    return (logits.logsumexp(dim=1) - logits[:, 0]).mean()
