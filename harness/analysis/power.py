"""What a design can find out before it is run: the smallest p it can reach, the differences it can see.

A design with too few seeds for its test spends its compute on an answer that can't come: the sign-flip test of n
paired seeds has no two-sided p below 2 / 2^n, so 5 seeds never reach .05. A study over a family of k comparisons is
planned at alpha / k, the first and hardest step of Holm's procedure.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

from harness.analysis.statistics import TESTS, Test
from harness.errors import InputError, nearest

__all__ = [
    "LIMIT",
    "MAXIMUM_SEEDS",
    "achieved_power",
    "can_succeed",
    "detectable_difference",
    "deviation_limits",
    "pilot_deviation",
    "refusal",
    "seeds_needed",
    "smallest_p",
]

MAXIMUM_SEEDS = 10_000
"""``seeds_needed`` gives up beyond this."""
LIMIT = 0.8
"""Confidence of the one-sided limits of a pilot's standard deviation, as Browne (1995) plans with."""


def smallest_p(seeds: int, test: Test = "t", comparisons: int = 1) -> float:
    """The smallest two-sided p that ``seeds`` paired seeds can give, adjusted as the first of ``comparisons`` in Holm.

    0 for the t-tests from 2 seeds on: they have no floor. 1 where there is no test.
    """
    if test not in TESTS:
        raise InputError(f"unknown test '{test}'; {nearest(test, TESTS)}")
    _at_least_one(seeds=seeds, comparisons=comparisons)
    if seeds == 1:
        return 1.0
    return 0.0 if test in ("t", "pooled") else min(1.0, comparisons * 2 / 2**seeds)


def can_succeed(seeds: int, test: Test = "t", comparisons: int = 1, alpha: float = 0.05) -> bool:
    """Whether at least the most different of ``comparisons`` could ever be significant at ``alpha``."""
    return smallest_p(seeds, test, comparisons) <= alpha


def refusal(seeds: int, test: Test = "t", comparisons: int = 1, alpha: float = 0.05) -> str | None:
    """Why a design can't succeed and how many seeds it needs; None if it can."""
    if can_succeed(seeds, test, comparisons, alpha):
        return None
    needed = next(n for n in range(2, 100) if can_succeed(n, test, comparisons, alpha))
    family = f" under Holm's correction for {comparisons} comparisons" if comparisons > 1 else ""
    if seeds == 1:
        return f"one seed gives no test over seeds; use at least {needed}"
    floor = smallest_p(seeds, test, comparisons)
    return (
        f"{seeds} seeds with the {TESTS[test]}{family} never reach p <= {alpha:g}: the smallest p is {floor:.3g}; "
        f"use at least {needed} seeds" + ("" if test == "t" else ", or the paired t-test")
    )


def pilot_deviation(differences: np.ndarray) -> float:
    """Standard deviation over the (S,) paired seeds of a pilot; see :func:`deviation_limits` for what to plan with."""
    differences = np.asarray(differences, dtype=float)
    if differences.ndim != 1 or len(differences) < 2 or not np.isfinite(differences).all():
        raise InputError("a pilot needs the differences of at least 2 seeds, none of them NaN or infinite")
    return float(differences.std(ddof=1))


def deviation_limits(sd: float, seeds: int, confidence: float = LIMIT) -> tuple[float, float]:
    """Lower and upper one-sided limit of the true standard deviation, from the ``sd`` of ``seeds`` paired seeds.

    A pilot of few seeds knows its spread badly: a plan with ``sd`` itself misses its power in more than half of the
    cases, one with the upper limit in 1 - ``confidence`` of them.
    """
    _check(sd, 1 - confidence)
    if seeds < 2:
        raise InputError("a pilot needs at least 2 seeds to tell a spread")
    low, high = (stats.chi2.ppf(share, seeds - 1) for share in (confidence, 1 - confidence))
    return float(sd * np.sqrt((seeds - 1) / low)), float(sd * np.sqrt((seeds - 1) / high))


def achieved_power(difference: float, sd: float, seeds: int, *, alpha: float = 0.05, comparisons: int = 1) -> float:
    """Probability that the paired t-test over seeds finds a true ``difference``, given ``sd`` of the differences.

    t squared follows a noncentral F. The noncentral t that statsmodels' ``TTestPower`` goes through is NaN for the
    large effects of few seeds (SciPy 1.17: 3 seeds, effect 6), and its solver then returns a wrong difference.
    """
    _check(sd, alpha)
    _at_least_one(seeds=seeds, comparisons=comparisons)
    if seeds == 1:
        return 0.0
    critical = stats.f.isf(alpha / comparisons, 1, seeds - 1)
    return float(stats.ncf.sf(critical, 1, seeds - 1, seeds * (difference / sd) ** 2))


def detectable_difference(
    sd: float, seeds: int, *, power: float = 0.8, alpha: float = 0.05, comparisons: int = 1
) -> float | None:
    """The smallest true difference found with probability ``power``; None for one seed, which finds nothing."""
    _check(sd, alpha, power)
    _at_least_one(seeds=seeds, comparisons=comparisons)
    if seeds == 1:
        return None
    if power <= alpha / comparisons:
        return 0.0

    def short(effect: float) -> float:
        return achieved_power(effect, 1.0, seeds, alpha=alpha, comparisons=comparisons) - power

    enough = 1.0
    while short(enough) < 0:
        enough *= 2
    return sd * float(optimize.brentq(short, 0.0, enough))


def seeds_needed(
    difference: float, sd: float, *, power: float = 0.8, alpha: float = 0.05, comparisons: int = 1
) -> int | None:
    """The fewest seeds that find ``difference`` with probability ``power``; None beyond ``MAXIMUM_SEEDS``."""
    _check(sd, alpha, power)
    low, high = 1, 2  # achieved(low) < power <= achieved(high)
    while achieved_power(difference, sd, high, alpha=alpha, comparisons=comparisons) < power:
        low, high = high, 2 * high
        if low >= MAXIMUM_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = achieved_power(difference, sd, middle, alpha=alpha, comparisons=comparisons) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} = {count}; at least 1 is needed")


def _check(sd: float, alpha: float, power: float = 0.8) -> None:
    if not (sd > 0 and np.isfinite(sd)):
        raise InputError(f"a standard deviation of {sd} over seeds can't be planned with; give that of a pilot")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise InputError(f"{name} {value} is not between 0 and 1")
