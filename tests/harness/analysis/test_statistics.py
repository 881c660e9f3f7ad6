"""Against published worked examples, SciPy, statsmodels, scikit-posthocs, closed forms and brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from harness.analysis.blocks import friedman
from harness.analysis.statistics import compare, family, wilcoxon, wilcoxon_warning
from harness.analysis.two_levels import two_level_interval
from harness.errors import InputError

# Student (1908): extra hours of sleep of ten patients under two drugs; R's data set `sleep`.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])

# Demšar (2006), Table 6: AUC of four decision trees on 14 data sets, and the ranks that it prints.
DEMSAR = pd.DataFrame(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.975, 0.9749],  # printed .975 twice, with ranks 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)

# Benjamini & Hochberg (1995), section 3.3: 15 p of a myocardial infarction trial.
BENJAMINI_HOCHBERG = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
    0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
]  # fmt: skip

values = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=9)


def with_p(p: float, **changes):
    """A comparison of two seeds whose paired t-test has exactly this p (Cauchy: p = 1 - 2/pi atan t)."""
    t = math.tan(math.pi / 2 * (1 - p))
    return compare(np.array([t + 1, t - 1]), np.zeros(2), **changes)


def test_paired_t_of_students_sleep_data():
    result = compare(SLEEP_1, SLEEP_2)  # R: t.test(extra ~ group, paired = TRUE)
    assert result.seeds == 10
    assert result.difference == pytest.approx(-1.58)
    assert result.p == pytest.approx(0.002833, abs=5e-7)
    assert result.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert result.d_z == pytest.approx(-4.0621 / math.sqrt(10), abs=1e-5)
    assert result.percent == pytest.approx(100 * -1.58 / SLEEP_2.mean())
    assert result.interval_percent == pytest.approx([100 * x / SLEEP_2.mean() for x in result.interval])
    assert result.verdict == "worse"


def test_equivalence_of_students_sleep_data():
    # TOSTER's introduction: bounds of .5 give t(9) = -2.777 and p = .989.
    result = compare(SLEEP_1, SLEEP_2, margin=0.5)
    assert result.p_equivalence == pytest.approx(0.989, abs=5e-4)
    assert result.p_equivalence == pytest.approx(ttost_paired(SLEEP_1, SLEEP_2, -0.5, 0.5)[0])
    assert result.verdict == "worse"
    # The 90 % interval lies within the margin exactly when both one-sided tests reject at 5 %.
    low = compare(SLEEP_1, SLEEP_2, confidence=0.90).interval[0]
    assert compare(SLEEP_1, SLEEP_2, margin=-low + 1e-6).verdict == "equivalent"
    assert compare(SLEEP_1, SLEEP_2, margin=-low - 1e-6).verdict == "worse"


def test_darwins_maize_has_fishers_exact_p():
    # Fisher (1935), section 21: of the 2^15 sign patterns of Darwin's 15 pairs 863 reach the observed sum on one side,
    # 5.267 % on both. Flips are drawn beyond 14 seeds, so the last pair's flip is enumerated by hand here.
    pairs = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
    result = compare(pairs, np.zeros(15))
    assert result.p == pytest.approx(0.0497, abs=1e-4)  # Fisher's t = 2.148
    assert result.p_exact == pytest.approx(0.05267, abs=0.005)
    flips = pairs @ np.array(list(itertools.product([1, -1], repeat=15))).T
    assert (flips >= pairs.sum() - 1e-9).sum() == 863


@given(values.flatmap(lambda a: st.tuples(st.just(a), st.lists(st.floats(-1, 1), min_size=len(a), max_size=len(a)))))
def test_sign_flip_p_equals_brute_force(arms):
    a, b = (np.round(arm, 3) for arm in arms)
    d = a - b
    flips = np.abs(np.array(list(itertools.product([1, -1], repeat=len(d)))) @ d)
    brute = (flips >= abs(d.sum()) - 1e-9).mean()
    result = compare(a, b)
    if result.p_exact is None:
        assert np.ptp(a) == np.ptp(b) == 0
    else:
        assert result.p_exact == pytest.approx(brute)
        assert result.p_exact >= 2 / 2 ** len(d)


def test_sign_flip_p_is_reproducible_where_flips_are_drawn():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 20))
    assert compare(a, b).p_exact == compare(a, b).p_exact
    assert compare(a, b).p_exact == pytest.approx(compare(a, b).p, abs=0.05)


def test_probability_is_the_share_of_won_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, size=(2, 8)) / 10 + 0.05  # with ties
    wins = np.mean([(x > y) + (x == y) / 2 for x in a for y in b])
    assert compare(a, b).probability_a_better == pytest.approx(wins)
    assert compare(a, b, higher_is_better=False).probability_a_better == pytest.approx(1 - wins)


def test_lower_is_better_turns_the_verdict_and_nothing_else():
    a, b = np.array([0.50, 0.51, 0.52, 0.50]), np.array([0.60, 0.61, 0.62, 0.61])
    up, down = compare(a, b), compare(a, b, higher_is_better=False)
    assert (up.verdict, down.verdict) == ("worse", "better")
    assert (up.difference, up.p, up.interval) == (down.difference, down.p, down.interval)


def test_one_seed_has_no_test():
    result = compare(np.array([0.2]), np.array([0.1]), margin=0.5)
    assert (result.p, result.p_exact, result.interval, result.d_z, result.p_equivalence) == (None,) * 5
    assert result.percent == pytest.approx(100)
    assert result.verdict == "undecided"
    assert "one seed" in result.note


def test_identical_arms_have_p_1_and_a_point_interval():
    a = np.array([0.1, 0.2, 0.3])
    result = compare(a, a.copy())
    assert (result.p, result.p_exact, result.interval, result.d_z) == (1.0, 1.0, (0.0, 0.0), None)
    assert result.probability_a_better == 0.5
    assert result.verdict == "undecided"
    assert "identical" in result.note
    assert compare(a, a.copy(), margin=1e-9).verdict == "equivalent"


def test_a_constant_difference_takes_the_sign_flip_p():
    b = np.array([0.11, 0.17, 0.23, 0.31, 0.37, 0.41, 0.47, 0.53])
    result = compare(b + 0.01, b, margin=0.02)  # equal up to rounding
    assert result.p == result.p_exact == 2 / 2**8
    assert (result.interval, result.d_z, result.p_equivalence) == (None, None, None)
    assert result.verdict == "better"
    assert "sign-flip" in result.note


def test_copies_of_one_run_are_no_replication():
    result = compare(np.full(8, 0.3), np.full(8, 0.2))
    assert (result.p, result.p_exact, result.interval) == (None, None, None)
    assert result.verdict == "undecided"
    assert "no replication" in result.note


def test_percent_of_zero_is_none():
    result = compare(np.array([0.1, 0.2]), np.zeros(2))
    assert (result.percent, result.interval_percent) == (None, None)


def test_percent_of_a_negative_mean_keeps_the_sign():
    result = compare(np.array([-0.5, -0.6]), np.array([-1.0, -1.2]))
    assert result.percent == pytest.approx(50)
    assert result.interval_percent[0] < result.interval_percent[1]


@pytest.mark.parametrize(
    ("a", "b", "changes", "message"),
    [
        ([1, 2], [1, 2, 3], {}, "2 and 3 seeds"),
        ([], [], {}, "at least one"),
        ([1, math.nan], [1, 2], {}, "NaN or infinite"),
        ([1, 2], [1, math.inf], {}, "NaN or infinite"),
        ([1, 2], [1, 3], {"margin": 0}, "margin 0"),
        ([1, 2], [1, 3], {"margin": -1.0}, "margin -1"),
        ([1, 2], [1, 3], {"margin": math.nan}, "margin nan"),
        ([1, 2], [1, 3], {"confidence": 95}, "confidence 95"),
    ],
)
def test_bad_arms_are_one_clear_line(a, b, changes, message):
    with pytest.raises(InputError, match=message) as error:
        compare(np.array(a, dtype=float), np.array(b, dtype=float), **changes)
    assert "\n" not in str(error.value)


def test_holm_of_the_textbook_example():
    alone = {f"H{i + 1}": with_p(p) for i, p in enumerate([0.01, 0.04, 0.03, 0.005])}
    assert [c.p for c in alone.values()] == pytest.approx([0.01, 0.04, 0.03, 0.005])
    within = family(alone)
    assert list(within) == list(alone)
    assert [c.p_adjusted for c in within.values()] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [c.verdict for c in within.values()] == ["better", "undecided", "undecided", "better"]
    assert {(c.family_size, c.correction, c.alpha) for c in within.values()} == {(4, "holm", 0.05)}


def test_benjamini_hochberg_of_their_own_example():
    alone = {str(i): with_p(p) for i, p in enumerate(BENJAMINI_HOCHBERG)}
    exploratory, declared = family(alone, "benjamini-hochberg"), family(alone, "holm")
    assert sum(c.verdict == "better" for c in exploratory.values()) == 4  # as in the paper
    assert sum(c.verdict == "better" for c in declared.values()) == 3
    adjusted = [c.p_adjusted for c in exploratory.values()]
    assert adjusted == pytest.approx(stats.false_discovery_control(BENJAMINI_HOCHBERG))
    assert [c.p_adjusted for c in family(alone, "none").values()] == [c.p for c in alone.values()]


@settings(max_examples=12, deadline=None)  # statsmodels collects garbage at every call
@given(st.lists(st.floats(1e-6, 1).map(lambda p: round(p, 2) or 0.001), min_size=1, max_size=12))
def test_adjusted_p_equal_those_of_statsmodels(p):
    base = compare(np.array([1.0, 2.0]), np.zeros(2))
    alone = {str(i): dataclasses.replace(base, p=value) for i, value in enumerate(p)}  # with ties
    for method, theirs in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
        expected = multipletests(p, method=theirs)[1]
        assert [c.p_adjusted for c in family(alone, method).values()] == pytest.approx(expected)


def test_a_comparison_without_p_counts_in_its_family():
    one_seed = compare(np.array([1.0]), np.array([0.0]))
    within = family({"a": with_p(0.02), "b": with_p(0.9), "c": one_seed})
    assert within["a"].p_adjusted == pytest.approx(0.06)
    assert within["a"].verdict == "undecided"
    assert within["c"].p_adjusted is None
    assert within["c"].verdict == "undecided"
    assert family({}) == {}


def test_equivalence_is_adjusted_in_the_family_too():
    rng = np.random.default_rng(2)
    b = rng.normal(size=8)
    alone = {str(i): compare(b + rng.normal(scale=0.1, size=8), b, margin=0.08) for i in range(5)}
    within = family(alone)
    assert [c.verdict for c in alone.values()].count("equivalent") > 0
    for c in within.values():
        assert c.p_equivalence <= c.p_equivalence_adjusted
        assert (c.verdict == "equivalent") == (c.p_equivalence_adjusted <= 0.05)


def test_an_unknown_correction_names_its_neighbour():
    with pytest.raises(InputError, match="did you mean 'holm'"):
        family({}, "holms")


def test_friedman_and_nemenyi_of_demsar():
    result = friedman(DEMSAR)
    assert result.blocks == 14
    assert result.average_ranks.to_list() == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    # Demšar's 9.28 has no correction for ties; ours is divided by 1 - sum(t^3 - t) / (N k (k^2 - 1)), with one
    # block of four equal values and three of two.
    uncorrected = 12 * 14 / (4 * 5) * ((result.average_ranks**2).sum() - 4 * 5**2 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.005)
    assert result.statistic == pytest.approx(uncorrected / (1 - (60 + 3 * 6) / (14 * 4 * 15)))
    assert result.statistic == pytest.approx(stats.friedmanchisquare(*DEMSAR.to_numpy().T).statistic)
    assert result.critical_difference == pytest.approx(1.25, abs=0.005)
    assert friedman(DEMSAR, alpha=0.10).critical_difference == pytest.approx(1.12, abs=0.005)


def test_nemenyi_rejects_exactly_beyond_the_critical_difference():
    rng = np.random.default_rng(4)
    table = pd.DataFrame(rng.normal(size=(8, 5)) + np.arange(5), columns=list("abcde"))
    result = friedman(table)
    gaps = np.abs(np.subtract.outer(result.average_ranks.to_numpy(), result.average_ranks.to_numpy()))
    rejected = (result.nemenyi.to_numpy() < 0.05) & (gaps > 0)
    assert rejected.any()
    assert not rejected.all()
    np.testing.assert_array_equal(rejected, gaps > result.critical_difference)
    assert result.average_ranks.idxmin() == "e"
    assert friedman(table, higher_is_better=False).average_ranks.idxmin() == "a"


def test_friedman_of_methods_that_are_all_equal():
    result = friedman(pd.DataFrame(np.ones((6, 3))))
    assert (result.statistic, result.p) == (0.0, 1.0)
    assert (result.nemenyi.to_numpy() == 1).all()


def test_friedman_is_refused_where_it_can_not_speak():
    with pytest.raises(InputError, match="at least 6 data sets, not 5"):
        friedman(DEMSAR.head(5))
    with pytest.raises(InputError, match="at least 3 methods, not 2"):
        friedman(DEMSAR.iloc[:, :2])
    holed = DEMSAR.copy()
    holed.loc[3, "C4.5+cf"] = np.nan
    with pytest.raises(InputError, match=r"method 'C4\.5\+cf' on data set '3'"):
        friedman(holed)


def test_wilcoxon_of_demsar():
    # Demšar (2006), Table 2: significant at 0.05.
    a, b = (DEMSAR[["C4.5+m", "C4.5"]].to_numpy() * 1000).round().T
    assert wilcoxon(a, b) < 0.05
    assert "symmetric" in wilcoxon_warning(len(a))


def test_wilcoxon_p_is_exact_with_ties_and_zeros():
    d = np.array([0, 0, 1, 2, 3, -1], dtype=float)
    ranks = stats.rankdata(np.abs(d)) * (d != 0)
    sums = [np.dot(signs, ranks) for signs in itertools.product([1, -1], repeat=len(d))]
    brute = np.mean(np.abs(sums) >= abs(np.dot(np.sign(d), ranks)) - 1e-9)
    assert wilcoxon(d, np.zeros(6)) == pytest.approx(brute)


def test_wilcoxon_without_ties_is_scipys_exact_one():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9))
    assert wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)
    assert wilcoxon(a, a) == 1.0
    with pytest.raises(InputError, match="at least 2 seeds"):
        wilcoxon(a[:1], b[:1])


def test_two_level_is_the_t_interval_over_seeds_without_a_user_effect():
    rng = np.random.default_rng(0)
    d = rng.normal(size=(5, 40))
    d -= d.mean(axis=0) - d.mean()  # every user has the same mean: MS_users = 0
    result = two_level_interval(d)
    assert result.seed_share == 1
    assert result.interval == pytest.approx(compare(d.mean(axis=1), np.zeros(5)).interval)


def test_two_level_is_the_t_interval_over_users_without_a_seed_effect():
    d = np.tile(np.random.default_rng(0).normal(size=40), (5, 1))
    result = two_level_interval(d)
    assert result.seed_share == 0
    assert result.interval == pytest.approx(stats.ttest_1samp(d[0], 0).confidence_interval())


def test_two_level_variance_is_that_of_the_anova_table():
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    rng = np.random.default_rng(3)
    d = rng.normal(size=(4, 12)) + rng.normal(size=(4, 1)) + rng.normal(size=12)
    long = pd.DataFrame(
        {"d": d.ravel(), "seed": np.repeat(np.arange(4), 12), "user": np.tile(np.arange(12), 4)},
    )
    table = sm.stats.anova_lm(ols("d ~ C(seed) + C(user)", long).fit())
    square = table["sum_sq"] / table["df"]
    variance = (square["C(seed)"] + square["C(user)"] - square["Residual"]) / d.size
    assert square["C(user)"] > square["Residual"]
    assert two_level_interval(d).standard_error == pytest.approx(math.sqrt(variance))


def test_pigeonhole_has_its_closed_form_variance():
    rng = np.random.default_rng(1)
    d = rng.normal(size=(4, 60)) + rng.normal(size=(4, 1)) / 2
    result = two_level_interval(d, method="pigeonhole", resamples=20_000)
    moment = [np.eye(n) + (1 - 1 / n) for n in d.shape]  # E[w w'] of multinomial counts
    variance = (np.trace(moment[0] @ d @ moment[1] @ d.T) - d.sum() ** 2) / d.size**2
    assert result.standard_error == pytest.approx(math.sqrt(variance), rel=0.02)
    assert result.interval[0] < d.mean() < result.interval[1]
    again = two_level_interval(d, method="pigeonhole", resamples=20_000)
    assert result == again


def test_two_level_of_no_difference_is_a_point():
    assert two_level_interval(np.zeros((3, 10))).interval == (0.0, 0.0)


@pytest.mark.parametrize(
    ("differences", "changes", "message"),
    [
        (np.zeros((1, 10)), {}, "at least 2 of each"),
        (np.zeros(10), {}, "at least 2 of each"),
        (np.where(np.arange(20).reshape(2, 10) == 13, np.nan, 0), {}, "user 3 in seed 1"),
        (np.zeros((2, 10)), {"method": "pigeon"}, "did you mean 'pigeonhole'"),
        (np.zeros((2, 10)), {"confidence": 0}, "confidence 0"),
    ],
)
def test_two_level_refuses_in_one_line(differences, changes, message):
    with pytest.raises(InputError, match=message):
        two_level_interval(differences, **changes)


def test_the_exact_test_decides_where_it_is_asked_for():
    """Five seeds can't reach 0.05 by sign flips, however clear the difference."""
    b = np.array([0.10, 0.11, 0.12, 0.11, 0.10])
    a = b + np.array([0.050, 0.051, 0.049, 0.052, 0.048])
    assert compare(a, b).verdict == "better"
    exact = compare(a, b, test="exact")
    assert exact.test == "exact"
    assert exact.verdict == "undecided"
    assert family({"x": exact})["x"].verdict == "undecided"
    assert family({"x": exact})["x"].p_adjusted == 0.0625


def test_a_member_whose_runs_failed_counts_in_the_family():
    b = np.array([0.10, 0.11, 0.12, 0.11, 0.10])
    one = compare(b + np.array([0.010, 0.021, 0.009, 0.022, 0.018]), b)
    alone = family({"x": one})["x"]
    among = family({"x": one}, declared=4)["x"]
    assert among.p_adjusted == pytest.approx(4 * alone.p_adjusted)
    assert among.family_size == 4


def _matrix(rng, seeds=5, users=40, shift=0.0, sds=(0.01, 0.05, 0.1)):
    d = rng.normal(scale=sds[2], size=(seeds, users)) + shift
    return d + rng.normal(scale=sds[0], size=(seeds, 1)) + rng.normal(scale=sds[1], size=users)


@pytest.mark.parametrize("number", range(6))
def test_the_p_over_users_is_where_the_interval_touches(number):
    rng = np.random.default_rng(number)
    d = _matrix(rng, seeds=2 + number, shift=0.02 * number)
    p = two_level_interval(d).p()
    low, high = two_level_interval(d, confidence=1 - max(p, 1e-12)).interval
    assert p < 1e-12 or min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9)
    for value in (-0.01, 0.03):
        p = two_level_interval(d).p(value)
        touching = two_level_interval(d, confidence=1 - max(p, 1e-12)).interval
        assert p < 1e-12 or min(abs(end - value) for end in touching) == pytest.approx(0, abs=1e-9)


def test_without_a_user_effect_the_p_over_users_is_the_paired_ts():
    rng = np.random.default_rng(0)
    d = rng.normal(size=(4, 1)) + np.zeros(30) + 1e-9 * rng.normal(size=(4, 30))
    assert two_level_interval(d).p() == pytest.approx(stats.ttest_1samp(d.mean(axis=1), 0).pvalue, rel=1e-6)
    far = two_level_interval(d + 1e6)
    assert far.p() < 1e-12
    assert two_level_interval(np.zeros((3, 4))).p() == 1.0
    assert two_level_interval(np.ones((3, 4))).p() == 0.0


@given(st.integers(0, 10_000), st.integers(2, 6), st.floats(0, 0.2), st.floats(0, 0.3))
def test_better_needs_both_levels(number, seeds, shift, user_sd):
    rng = np.random.default_rng(number)
    d = _matrix(rng, seeds=seeds, shift=shift, sds=(0.02, user_sd, 0.1))
    b = rng.normal(size=seeds)
    a = b + d.mean(axis=1)
    both = compare(a, b, of_users=True, users=d)
    assert both.p_users >= both.p * (1 - 1e-6)
    over_seeds = both.p <= 0.05
    expected = "undecided" if not over_seeds else "on these users only" if both.p_users > 0.05 else "better or worse"
    assert both.verdict in expected
    assert compare(a, b, of_users=True).verdict == ("on these users only" if over_seeds else "undecided")
    assert compare(a, b).verdict in (("better", "worse") if over_seeds else ("undecided",))
    turned = compare(b, a, of_users=True, users=-d)
    again = both.reversed()
    for field in dataclasses.fields(again):
        mine, theirs = getattr(again, field.name), getattr(turned, field.name)
        assert mine == (pytest.approx(theirs) if isinstance(theirs, float | tuple) else theirs), field.name


def test_equivalence_needs_both_levels():
    """Users differ widely and cancel out: equivalent for these users, and nothing is known of others."""
    rng = np.random.default_rng(1)
    of_user = rng.normal(scale=0.3, size=50)
    d = of_user - of_user.mean() + rng.normal(scale=0.001, size=(6, 1)) + rng.normal(scale=0.001, size=(6, 50))
    b = rng.normal(size=6)
    a = b + d.mean(axis=1)
    assert compare(a, b, margin=0.01).verdict == "equivalent"
    assert compare(a, b, margin=0.01, of_users=True, users=d).verdict == "undecided"
    assert compare(a, b, margin=0.01, of_users=True).verdict == "undecided"
    wide = compare(a, b, margin=0.2, of_users=True, users=d)
    assert wide.verdict == "equivalent"
    low, high = two_level_interval(d, confidence=1 - 2 * wide.p_equivalence).interval
    assert max(-low, high) == pytest.approx(0.2)
