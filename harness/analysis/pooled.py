"""The pooled test: one variance over seeds, estimated from all arms of a data set (block ANOVA, the seeds as blocks).

A paired test estimates the variance of each pair from that pair alone, with S - 1 degrees of freedom. Where all K arms
vary alike, the residual of ``value = arm + seed + residual`` estimates it with (S - 1)(K - 1), so that few seeds see
smaller differences. Where they do not, a pair that varies more than the others is called different too often. So a
pair is pooled only behind two checks, at a level (:data:`LIMIT`) that is high because few seeds see unequal variances
badly; else it is tested by the paired t-test. With both, and arms of which one varies twice or thrice as much as the
others, any false difference in a family turns up in at most 7 % of the studies (``test_error_rates.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

__all__ = ["FEWEST_SEEDS", "LIMIT", "Pooled", "VarianceCheck", "check_variances"]

LIMIT = 0.3
"""A pair is pooled where both checks have a larger p than this."""
FEWEST_SEEDS = 5
"""With fewer seeds the checks miss too many unequal variances."""
DRAWS = 4999
"""Of the null distribution of Bartlett's statistic."""


@dataclass(frozen=True)
class Pooled:
    """The variance of one seed's difference between two arms, as all arms estimate it."""

    variance: float
    degrees: int


@dataclass(frozen=True)
class VarianceCheck:
    """Whether the arms of a data set vary alike over seeds."""

    seeds: int = 0
    arms: int = 0
    p: float | None = None
    """Bartlett's statistic of the residuals, its p simulated for normal values; None where it was not computed."""
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)
    """Pair -> p of the F-test that its differences vary more than what all other residuals say."""
    pooled: dict[tuple[str, str], Pooled] = field(default_factory=dict)
    """The pairs that may be tested with the pooled variance."""
    reason: str = ""
    """Why none was checked; empty where they were."""

    @property
    def said(self) -> str:
        """The check and its result, for the footer of a table."""
        if self.reason:
            return f"paired t-test, because pooling needs {self.reason}"
        assert self.p is not None, "see check_variances"
        result = f"residual variances of {self.arms} arms over {self.seeds} seeds, Bartlett's statistic, p {self.p:.2f}"
        if self.p <= LIMIT:
            return f"{result}, so paired t-test"
        paired = len(self.pairs) - len(self.pooled)
        return f"{result}; {len(self.pooled)} of {len(self.pairs)} pairs pooled" + (
            f", {paired} paired, whose differences vary more than the rest (F-test)" if paired else ""
        )


def check_variances(values: Mapping[str, Mapping[int, float]], pairs: Iterable[tuple[str, str]]) -> VarianceCheck:
    """Which ``pairs`` of arms may share one variance; ``values``: arm -> seed -> mean.

    Arms that do not vary over seeds (a ranking by popularity) have no part in it, and neither have their pairs. All
    others must have the same seeds: a block with a missing value is none.
    """
    varying = {arm: found for arm, found in values.items() if len({*found.values()}) > 1}
    own = [pair for pair in pairs if varying.keys() >= {*pair}]
    arms = list(dict.fromkeys(arm for pair in own for arm in pair))
    seeds = sorted({seed for arm in arms for seed in varying[arm]})
    if len(arms) < 3:  # of two arms the pooled test is the paired one
        return VarianceCheck(reason="three arms that vary over seeds")
    y = np.array([[varying[arm].get(seed, np.nan) for arm in arms] for seed in seeds])  # (S, K)
    if not np.isfinite(y).all():
        return VarianceCheck(reason="the same seeds in every arm")
    if len(seeds) < FEWEST_SEEDS:
        return VarianceCheck(reason=f"{FEWEST_SEEDS} seeds to notice unequal variances")
    square, (s, k) = _residuals(y) ** 2, y.shape
    if (square.sum(0) <= 1e-24 * (y**2).sum()).any():
        return VarianceCheck(reason="residuals that vary in every arm")
    degrees = (s - 1) * (k - 1)
    drawn = stats.monte_carlo_test(
        y.ravel(), np.random.default_rng(0).standard_normal, _bartlett(s, k), vectorized=True, n_resamples=DRAWS,
        alternative="greater",
    )  # fmt: skip
    by_arm = dict(zip(arms, y.T, strict=True))
    found = {}
    for arm, than in own:
        # Half the pair's sum of squares is one part of the residual's, with s - 1 degrees of freedom.
        within = float((by_arm[arm] - by_arm[than]).var(ddof=1)) * (s - 1) / 2
        rest = max(float(square.sum()) - within, 0.0) / (degrees - (s - 1))
        found[arm, than] = float(stats.f.sf(within / (s - 1) / rest, s - 1, degrees - (s - 1))) if rest else 0.0
    shared = Pooled(2 * float(square.sum()) / degrees, degrees)
    alike = float(drawn.pvalue) > LIMIT
    pooled = {pair: shared for pair, p in found.items() if alike and p > LIMIT}
    return VarianceCheck(s, k, float(drawn.pvalue), found, pooled)


def _residuals(y: np.ndarray) -> np.ndarray:
    """(..., S, K) values without the means of their seeds and arms."""
    whole = y.mean((-2, -1), keepdims=True)
    return y - y.mean(-1, keepdims=True) - y.mean(-2, keepdims=True) + whole


def _bartlett(seeds: int, arms: int):  # type: ignore[no-untyped-def]  # SciPy's own signature of a statistic
    """Bartlett's statistic of the residual variances of (..., S K) values, but for a constant factor.

    Its textbook null takes arms for independent; residuals are not, so the null is drawn.
    """

    def statistic(flat: np.ndarray, axis: int = -1) -> np.ndarray:
        flat = np.moveaxis(flat, axis, -1)
        variance = (_residuals(flat.reshape(*flat.shape[:-1], seeds, arms)) ** 2).sum(-2)
        return np.log(variance.mean(-1)) - np.log(variance).mean(-1)

    return statistic
