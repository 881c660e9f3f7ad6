"""What the seeds alone say of a difference: the paired t-test, or the pooled one, and the exact sign-flip test."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from harness.analysis.pooled import Pooled

__all__ = ["ENUMERATED", "OverSeeds", "over_seeds"]

ENUMERATED = 2**14
"""Sign flips are enumerated up to this many (14 seeds); beyond, as many are drawn at random."""


class OverSeeds(NamedTuple):
    """What the seeds alone say; None for a number that does not exist, and ``note`` why."""

    interval: tuple[float, float] | None = None
    p: float | None = None
    p_exact: float | None = None
    d_z: float | None = None
    p_equivalence: float | None = None
    note: str = ""
    p_pooled: float | None = None
    pooled: Pooled | None = None
    """What ``p_pooled``, the interval and TOST were computed from; None where they are the pair's own."""


def over_seeds(
    a: np.ndarray, b: np.ndarray, margin: float | None, confidence: float, pooled: Pooled | None = None
) -> OverSeeds:
    """What the (S,) values of A and B, paired by seed, say.

    Where t has no denominator: identical arms have p = 1 and the interval (0, 0); arms that vary while their
    difference is the same for every seed take the sign-flip p as ``p``, and no interval; two arms that don't vary at
    all are copies of one run, so they have no p. One seed has no test.
    """
    differences = a - b
    if len(a) == 1:
        return OverSeeds(note="one seed: no test and no interval")
    if not differences.any():
        note = "identical in every seed: what was varied had no effect at all"
        return OverSeeds((0.0, 0.0), 1.0, 1.0, p_equivalence=0.0 if margin else None, note=note)
    if _constant(differences, a, b):
        if _constant(a, a, b):
            return OverSeeds(note="neither arm varies over seeds: copies of one run, no replication and no test")
        p = _sign_flip(differences)
        note = "the same difference in every seed: t has no denominator, p is the sign-flip test's"
        return OverSeeds(p=p, p_exact=p, note=note)
    alone = _alone(a, b, margin, confidence)
    return alone if pooled is None else _with_shared_variance(alone, differences, margin, confidence, pooled)


def _alone(a: np.ndarray, b: np.ndarray, margin: float | None, confidence: float) -> OverSeeds:
    differences, student = a - b, stats.ttest_rel(a, b)
    bounds = student.confidence_interval(confidence)
    return OverSeeds(
        interval=(float(bounds.low), float(bounds.high)),
        p=float(student.pvalue),
        p_exact=_sign_flip(differences),
        d_z=float(differences.mean()) / float(differences.std(ddof=1)),
        p_equivalence=float(ttost_paired(a, b, -margin, margin)[0]) if margin else None,
    )


def _with_shared_variance(
    alone: OverSeeds, differences: np.ndarray, margin: float | None, confidence: float, pooled: Pooled
) -> OverSeeds:
    """The t-test of the (S,) differences' mean with a variance that is known from elsewhere."""
    mean, error = float(differences.mean()), math.sqrt(pooled.variance / len(differences))
    half = float(stats.t.isf((1 - confidence) / 2, pooled.degrees)) * error
    nearest = float(stats.t.sf((margin - abs(mean)) / error, pooled.degrees)) if margin else None
    return alone._replace(
        interval=(mean - half, mean + half),
        p_pooled=2 * float(stats.t.sf(abs(mean) / error, pooled.degrees)),
        p_equivalence=nearest,
        pooled=pooled,
    )


def _constant(values: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether ``values`` vary by no more than the rounding of ``a`` and ``b``."""
    return float(np.ptp(values)) <= 1e-12 * max(np.abs(a).max(), np.abs(b).max())


def _sign_flip(differences: np.ndarray) -> float:
    """Two-sided p of the (S,) differences' mean under all sign flips (Fisher 1935; random ones beyond 14 seeds)."""
    rng = np.random.default_rng(0)  # p is a function of the data alone
    return float(
        stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=ENUMERATED, rng=rng
        ).pvalue
    )
