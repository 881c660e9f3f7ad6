"""Against statsmodels, the noncentral t in closed form, the tests themselves and published sample sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from harness.analysis.power import (
    MAXIMUM_SEEDS,
    achieved_power,
    can_succeed,
    detectable_difference,
    deviation_limits,
    pilot_deviation,
    refusal,
    seeds_needed,
    smallest_p,
)
from harness.analysis.statistics import compare, family, wilcoxon
from harness.errors import InputError


@pytest.mark.parametrize("seeds", range(2, 11))
def test_smallest_p_is_what_the_tests_give_at_best(seeds):
    a, b = 1 + np.arange(seeds) / 100, np.zeros(seeds)  # every seed won
    assert smallest_p(seeds, "exact") == pytest.approx(compare(a, b).p_exact)
    assert smallest_p(seeds, "wilcoxon") == pytest.approx(wilcoxon(a, b))
    assert smallest_p(seeds, "t") == 0


def test_smallest_p_in_a_family_is_holms_first_step():
    a, b = 1 + np.arange(8) / 100, np.zeros(8)
    best = compare(a, b).p_exact
    alone = {"best": compare(a, a - 1), "none": compare(a, a), "nothing": compare(a, a)}
    assert family(alone)["best"].p_adjusted == pytest.approx(3 * best)
    assert smallest_p(8, "exact", comparisons=3) == pytest.approx(3 * best)
    assert smallest_p(2, "exact", comparisons=9) == 1.0


def test_the_rule_of_two_to_the_n():
    assert smallest_p(5, "exact") == 0.0625
    assert not can_succeed(5, "exact")
    assert can_succeed(6, "exact")
    assert next(n for n in range(1, 12) if can_succeed(n, "exact", 3)) == 7
    assert next(n for n in range(1, 12) if can_succeed(n, "exact", 5)) == 8
    assert can_succeed(2, "t", 5)
    assert not can_succeed(1, "t")


def test_refusal_names_the_reason_and_the_remedy():
    reason = refusal(5, "exact", comparisons=3)
    assert "5 seeds with the exact sign-flip test under Holm's correction for 3 comparisons" in reason
    assert "0.188" in reason
    assert "at least 7 seeds, or the paired t-test" in reason
    assert refusal(7, "exact", comparisons=3) is None
    assert refusal(5, "t", comparisons=3) is None
    assert refusal(1) == "one seed gives no test over seeds; use at least 2"
    assert "\n" not in reason


@pytest.mark.parametrize(("seeds", "comparisons"), [(2, 1), (5, 1), (5, 3), (8, 5), (30, 1)])
def test_power_equals_statsmodels(seeds, comparisons):
    reference = TTestPower().power(1.3, seeds, 0.05 / comparisons)
    assert achieved_power(1.3 * 0.01, 0.01, seeds, comparisons=comparisons) == pytest.approx(reference)
    assert achieved_power(-1.3 * 0.01, 0.01, seeds, comparisons=comparisons) == pytest.approx(reference)


@pytest.mark.parametrize(("seeds", "effect"), [(2, 44), (2, 100), (3, 6), (3, 20), (5, 30)])
def test_power_of_large_effects_by_integration(seeds, effect):
    """P(|Z + nc| > t s), over Z: where the noncentral t of SciPy and statsmodels is NaN or wrong."""
    critical, noncentrality = stats.t.ppf(1 - 0.05 / 3 / 2, seeds - 1), effect * math.sqrt(seeds)

    def density(z):
        return stats.norm.pdf(z) * stats.chi2.cdf((seeds - 1) * ((z + noncentrality) / critical) ** 2, seeds - 1)

    reference = integrate.quad(density, -9, 9)[0]
    assert achieved_power(effect, 1.0, seeds, comparisons=3) == pytest.approx(reference, abs=1e-7)


def test_sample_sizes_of_cohen():
    # Cohen (1988), tables 2.4.1, for one sample by his d_z; also G*Power's: 199, 34 and 15 pairs at 80 %.
    assert [seeds_needed(effect, 1.0) for effect in (0.2, 0.5, 0.8)] == [199, 34, 15]


@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 20])
def test_detectable_difference_is_found_at_the_planned_power(seeds):
    difference = detectable_difference(0.0017, seeds, power=0.9, comparisons=3)
    assert achieved_power(difference, 0.0017, seeds, comparisons=3) == pytest.approx(0.9)
    assert seeds_needed(difference * 1.0001, 0.0017, power=0.9, comparisons=3) == seeds


def test_limits():
    assert detectable_difference(1.0, 1) is None
    assert detectable_difference(1.0, 5, power=0.04) == 0.0  # false positives alone
    assert achieved_power(1.0, 1.0, 1) == 0.0
    assert seeds_needed(1e-6, 1.0) is None
    assert seeds_needed(100.0, 1.0) == 2
    assert 1000 < seeds_needed(0.04, 1.0) < MAXIMUM_SEEDS


def test_pilot_deviation():
    assert pilot_deviation([0.1, 0.3, 0.2]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smallest_p(5, "tt"), "unknown test 'tt'"),
        (lambda: smallest_p(0), "seeds = 0"),
        (lambda: smallest_p(5, comparisons=0), "comparisons = 0"),
        (lambda: achieved_power(1, 0, 5), "standard deviation of 0"),
        (lambda: seeds_needed(1, math.nan), "standard deviation of nan"),
        (lambda: seeds_needed(1, 1, power=80), "power 80"),
        (lambda: detectable_difference(1, 5, alpha=5), "alpha 5"),
        (lambda: pilot_deviation([0.1]), "at least 2 seeds"),
        (lambda: pilot_deviation([0.1, math.nan]), "NaN"),
    ],
)
def test_bad_plans_are_one_clear_line(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_limits_of_a_pilots_deviation_hold_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5, 8):
        limits = np.array([deviation_limits(d.std(ddof=1), seeds) for d in rng.normal(size=(4000, seeds))])
        low, high = limits.T
        assert np.mean(high >= 1) == pytest.approx(0.8, abs=0.02)
        assert np.mean(low <= 1) == pytest.approx(0.8, abs=0.02)
    with pytest.raises(InputError, match="at least 2 seeds"):
        deviation_limits(1.0, 1)


def test_a_plan_with_the_upper_limit_keeps_its_power():
    """Where the pilot's own deviation is planned with, half of the designs fall short, a small pilot's by much."""
    rng = np.random.default_rng(1)
    true = {"own": [], "upper": []}
    for d in rng.normal(size=(300, 3)):
        sd = d.std(ddof=1)
        for name, planned in (("own", sd), ("upper", deviation_limits(sd, 3)[1])):
            true[name].append(achieved_power(detectable_difference(planned, 5), 1.0, 5))
    assert np.mean(np.array(true["own"]) < 0.8) > 0.5
    assert np.mean(np.array(true["upper"]) >= 0.8) == pytest.approx(0.8, abs=0.06)
