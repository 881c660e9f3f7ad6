"""Inference on means over seeds: is method A better than method B, by how much, and how sure is that?

The unit of replication is the seed. The same users are ranked by every run, so a test over users asks whether two
*checkpoints* differ, and answers yes for two runs of one method that differ in nothing but their seed. Here A and B
are paired by seed, and the default test is the paired t-test on the seeds' means, with Holm's correction in the
declared family; the exact sign-flip test stands beside it. That speaks of these test users alone. "Better" and
"worse" also need the difference to hold for new users, by :func:`two_level_interval`; between the two lies "on these
users only".

Tests are SciPy's, statsmodels' and scikit-posthocs'. The two-level intervals are ours, since no library has them.
Nothing here is NaN: a number that does not exist is None, and ``note`` says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.weightstats import ttost_paired

from harness.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MINIMUM_BLOCKS",
    "TESTS",
    "Comparison",
    "Friedman",
    "Test",
    "TwoLevel",
    "Verdict",
    "compare",
    "family",
    "friedman",
    "two_level_interval",
    "wilcoxon",
    "wilcoxon_warning",
]

Verdict = Literal["better", "worse", "equivalent", "on these users only", "undecided"]

Key = TypeVar("Key")
Test = Literal["t", "exact", "wilcoxon"]
Correction = Literal["holm", "benjamini-hochberg"]

TESTS: dict[Test, str] = {
    "t": "paired t-test",
    "exact": "exact sign-flip test",
    "wilcoxon": "exact Wilcoxon test",
}
"""The tests over seeds that a verdict may come from, in words."""

MINIMUM_BLOCKS = 6
"""Friedman's test is refused below this number of data sets: its chi-squared approximation does not hold there."""

ENUMERATED = 2**14
"""Sign flips are enumerated up to this many (14 seeds); beyond, as many are drawn at random."""

CORRECTIONS: dict[Correction, str] = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}
"""Of the p in a family: family-wise error (Holm 1979), false discoveries (Benjamini & Hochberg 1995)."""


@dataclass(frozen=True)
class Comparison:
    """A against B over paired seeds. Differences are A - B in the metric's own direction."""

    seeds: int
    mean_a: float
    mean_b: float
    difference: float
    percent: float | None
    """The difference in percent of |mean_b|; None where mean_b is 0."""
    higher_is_better: bool
    confidence: float
    interval: tuple[float, float] | None
    """Of the difference: Student's t over the seeds' differences. Not widened for the family."""
    interval_percent: tuple[float, float] | None
    """``interval`` in percent of |mean_b|, which is taken as known."""
    of_users: bool
    """Whether the values are means over a sample of users, so that a verdict needs ``p_users`` too."""
    interval_users: tuple[float, float] | None
    """Of the difference, for new seeds and new users: :func:`two_level_interval`. None where no user's values are
    known, or the metric is no mean over users (AUC)."""
    p_users: float | None
    """Of the hypothesis that new seeds and new users show no difference; from the same two levels."""
    p: float | None
    """Two-sided paired t-test over seeds."""
    p_exact: float | None
    """Two-sided sign-flip permutation test over seeds; never below 2 / 2^seeds."""
    d_z: float | None
    """Mean of the seeds' differences over their standard deviation."""
    probability_a_better: float
    """P(A > B) + P(A = B) / 2 for two independent runs (Mann-Whitney's U / n^2); P(A < B) where lower is better."""
    margin: float | None
    """Differences smaller than this were declared not to matter."""
    p_equivalence: float | None
    """TOST: the larger of the two one-sided p against -margin and +margin; of a mean over users the larger of those
    over seeds and over both levels. None without a margin, or where it needs users' values that are not known."""
    p_wilcoxon: float | None
    """Two-sided Wilcoxon signed-rank test over seeds, where it was asked for."""
    test: Test
    """Which p decides."""
    p_adjusted: float | None
    """The deciding p within the family; as it is before :func:`family`."""
    p_users_adjusted: float | None
    p_equivalence_adjusted: float | None
    family_size: int
    correction: str
    """"none" or one of :data:`CORRECTIONS`."""
    alpha: float
    verdict: Verdict
    note: str
    """Why a number above is None, or another than usual; empty otherwise."""

    def reversed(self) -> Comparison:
        """The same comparison as B against A; every p and the family stay."""
        turned: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
        scale = 100 / abs(self.mean_a) if self.mean_a else None
        interval, interval_users = (
            None if found is None else (-found[1], -found[0]) for found in (self.interval, self.interval_users)
        )
        return dataclasses.replace(
            self,
            mean_a=self.mean_b,
            mean_b=self.mean_a,
            difference=-self.difference,
            percent=-scale * self.difference if scale else None,
            interval=interval,
            interval_percent=(scale * interval[0], scale * interval[1]) if scale and interval else None,
            interval_users=interval_users,
            d_z=None if self.d_z is None else -self.d_z,
            probability_a_better=1 - self.probability_a_better,
            verdict=turned.get(self.verdict, self.verdict),
        )

    @property
    def p_deciding(self) -> float | None:
        return {"t": self.p, "exact": self.p_exact, "wilcoxon": self.p_wilcoxon}[self.test]


def compare(
    a: np.ndarray,
    b: np.ndarray,
    *,
    confidence: float = 0.95,
    margin: float | None = None,
    higher_is_better: bool = True,
    test: Test = "t",
    of_users: bool = False,
    users: np.ndarray | None = None,
) -> Comparison:
    """Compares method A with method B by their (S,) metric values, one per seed, in the same order of seeds.

    ``of_users``: the values are means over a sample of users, of whom ``users`` holds the (S, U) differences where
    they are known. All tests are two-sided. The verdict is "equivalent" if TOST places the difference within the stated
    ``margin`` (in units of the metric), else "better" or "worse" if ``test`` rejects at 1 - ``confidence``, else
    "undecided". Of means over users both need the two levels, seeds and users, to say so too; where only ``test``
    rejects, it is "on these users only". A significant difference inside a stated margin is thus "equivalent": the
    margin says that it does not matter.

    Where t has no denominator: identical arms have p = 1 and the interval (0, 0); arms that vary while their
    difference is the same for every seed take the sign-flip p as ``p``, and no interval; two arms that don't vary at
    all are copies of one run, so they have no p. One seed has no test.

    Raises:
        InputError: the arms have different numbers of seeds or none, or hold NaN or infinity; an unknown test.
    """
    a, b = _paired(a, b)
    if test not in TESTS:
        raise InputError(f"unknown test '{test}'; {nearest(test, TESTS)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    if margin is not None and not margin > 0:
        raise InputError(f"equivalence margin {margin} is not positive; state the smallest difference that matters")
    seeds, differences = len(a), a - b
    difference, mean_b = float(differences.mean()), float(b.mean())
    scale = 100 / abs(mean_b) if mean_b else None
    deviation = float(differences.std(ddof=1)) if seeds > 1 else 0.0
    interval = p = p_exact = d_z = p_equivalence = None
    both = two_level_interval(users, confidence=confidence) if users is not None and seeds > 1 else None
    note = ""
    if seeds == 1:
        note = "one seed: no test and no interval"
    elif not differences.any():
        p, p_exact, interval = 1.0, 1.0, (0.0, 0.0)
        p_equivalence = 0.0 if margin else None
        note = "identical in every seed: what was varied had no effect at all"
    elif _constant(differences, a, b):
        if _constant(a, a, b):
            note = "neither arm varies over seeds: copies of one run, no replication and no test"
        else:
            p = p_exact = _sign_flip(differences)
            note = "the same difference in every seed: t has no denominator, p is the sign-flip test's"
    else:
        student = stats.ttest_rel(a, b)
        p, p_exact = float(student.pvalue), _sign_flip(differences)
        bounds = student.confidence_interval(confidence)
        interval = (float(bounds.low), float(bounds.high))
        d_z = difference / deviation
        if margin:
            p_equivalence = float(ttost_paired(a, b, -margin, margin)[0])
    p_users = both.p() if both and p is not None else None
    if of_users and p_equivalence is not None:
        p_equivalence = None if both is None else max(p_equivalence, both.p_equivalence(margin))
    # Its warning stands beside the tables; a copied run has no p by any test.
    p_wilcoxon = wilcoxon(a, b) if test == "wilcoxon" and p is not None else None
    better, worse = (a, b) if higher_is_better else (b, a)
    alone = Comparison(
        seeds=seeds,
        mean_a=float(a.mean()),
        mean_b=mean_b,
        difference=difference,
        percent=scale * difference if scale else None,
        higher_is_better=higher_is_better,
        confidence=confidence,
        interval=interval,
        interval_percent=(scale * interval[0], scale * interval[1]) if scale and interval else None,
        of_users=of_users,
        interval_users=both.interval if both else None,
        p_users=p_users,
        p=p,
        p_exact=p_exact,
        p_wilcoxon=p_wilcoxon,
        d_z=d_z,
        probability_a_better=float(stats.mannwhitneyu(better, worse).statistic) / seeds**2,
        margin=margin,
        p_equivalence=p_equivalence,
        test=test,
        p_adjusted={"t": p, "exact": p_exact, "wilcoxon": p_wilcoxon}[test],
        p_users_adjusted=p_users,
        p_equivalence_adjusted=p_equivalence,
        family_size=1,
        correction="none",
        alpha=round(1 - confidence, 12),
        verdict="undecided",
        note=note,
    )
    return dataclasses.replace(alone, verdict=_verdict(alone))


def family(
    comparisons: Mapping[Key, Comparison],
    method: Correction | Literal["none"] = "holm",
    alpha: float = 0.05,
    declared: int = 0,
    looks: int = 1,
) -> dict[Key, Comparison]:
    """The comparisons with p adjusted within their family, and verdicts at ``alpha``, in the same order.

    Holm for a declared family, Benjamini-Hochberg for exploration. A comparison without a p (one seed, say) counts
    towards the family's size: it was declared. So does one that is not here because its runs failed: ``declared`` is
    the size that the design gave the family, where that is larger. The p over both levels are corrected in the same
    way. Equivalence p are a family of their own with the same method; since no difference can be both zero and beyond
    its margin, each kind of false verdict is controlled at ``alpha``. ``looks``: how often the family is looked at
    while seeds are added; every p is multiplied by it besides (Bonferroni), so that going on until p is small does not
    pay.

    Raises:
        InputError: unknown method, or alpha outside (0, 1).
    """
    if method not in CORRECTIONS and method != "none":
        raise InputError(f"unknown correction '{method}'; {nearest(method, [*CORRECTIONS, 'none'])}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha} is not between 0 and 1; 0.05 is usual")
    members = list(comparisons.values())
    absent = [None] * max(declared - len(members), 0)

    def adjust(p: list[float | None]) -> list[float | None]:
        adjusted = _adjust(p + absent, method)[: len(members)]
        return [None if value is None else min(1.0, looks * value) for value in adjusted]

    different = adjust([c.p_deciding for c in members])
    over_users = adjust([c.p_users for c in members])
    equivalent = adjust([c.p_equivalence for c in members])
    adjusted = {}
    for name, member, p, p_users, p_equivalence in zip(
        comparisons, members, different, over_users, equivalent, strict=True
    ):
        within = dataclasses.replace(
            member,
            p_adjusted=p,
            p_users_adjusted=p_users,
            p_equivalence_adjusted=p_equivalence,
            family_size=max(len(members), declared),
            correction=method,
            alpha=alpha,
        )
        adjusted[name] = dataclasses.replace(within, verdict=_verdict(within))
    return adjusted


@dataclass(frozen=True)
class TwoLevel:
    """The mean difference with users and seeds both taken as samples."""

    difference: float
    interval: tuple[float, float]
    standard_error: float
    seed_error: float
    """The standard error that the seeds alone give: the paired t-test's."""
    seed_share: float
    """Share of the random-effects variance that more seeds would shrink and more users alone would not, 0 to 1."""
    seeds: int
    users: int
    confidence: float
    method: str

    def half_width(self, alpha: float) -> float:
        """Of the interval at confidence 1 - alpha, by random effects."""
        over_seeds, over_users = stats.t.isf(alpha / 2, [self.seeds - 1, self.users - 1])
        half = (self.seed_share * over_seeds + (1 - self.seed_share) * over_users) * self.standard_error
        # The averaged quantile can fall faster than a small user effect adds to the error.
        return float(max(half, over_seeds * self.seed_error))

    def p(self, value: float = 0.0) -> float:
        """Two-sided p of a true mean of ``value``: where the interval's end touches it."""
        distance = abs(self.difference - value)
        if distance == 0:
            return 1.0
        smallest = -70.0  # ln p; far below, SciPy's quantiles break down
        if self.half_width(math.exp(smallest)) <= distance:
            return 0.0
        return math.exp(optimize.brentq(lambda log: self.half_width(math.exp(log)) - distance, smallest, 0.0))

    def p_equivalence(self, margin: float) -> float:
        """The larger of the one-sided p against -margin and +margin."""
        half = max(self.p(-margin), self.p(margin)) / 2
        return half if abs(self.difference) < margin else 1 - half


def two_level_interval(
    differences: np.ndarray,
    *,
    method: Literal["random-effects", "pigeonhole"] = "random-effects",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> TwoLevel:
    """Interval of the mean of (S, U) differences, one per seed and user, for new seeds *and* new users.

    The interval of :func:`compare` speaks of these test users; this one also of users like them, and is wider where
    some users consistently gain and others lose.

    "random-effects", the default, is closed-form: in the two-way layout d = mean + seed + user + residual, the
    variance of the mean is estimated by (MS_seeds + max(MS_users - MS_residual, 0)) / (S U), and the half-width takes
    Cochran's approximate t, the average of t(S - 1) and t(U - 1) weighted by the two terms (Cochran & Cox 1957,
    section 4.14); it is never narrower than the paired t-interval over seeds, and equal to it without a consistent user
    effect. In simulation it covers
    94.8 to 96.5 % from 5 seeds on, 94.8 to 97.2 % with 3 and 93.8 to 97.9 % with 2.

    "pigeonhole" resamples users and seeds independently (Owen 2007) and takes percentiles of ``resamples`` means. It
    counts the residual thrice and knows nothing of degrees of freedom, so it covers too much where residuals dominate
    (99 to 100 %) and too little where seeds do (82 % with 3 seeds, 88 % with 5, 91 % with 8): for comparison, not for
    claims.

    Raises:
        InputError: fewer than 2 seeds or users, NaN (a user who is missing for some seed), an unknown method.
    """
    d = np.asarray(differences, dtype=float)
    if method not in ("random-effects", "pigeonhole"):
        raise InputError(f"unknown interval '{method}'; {nearest(method, ['random-effects', 'pigeonhole'])}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    if d.ndim != 2 or min(d.shape) < 2:
        raise InputError(f"a two-level interval needs (seeds, users) with at least 2 of each, not shape {d.shape}")
    if not np.isfinite(d).all():
        row, column = np.argwhere(~np.isfinite(d))[0]
        raise InputError(f"no difference for user {column} in seed {row} (counted from 0): every seed needs every user")
    seeds, users = d.shape
    mean, by_seed, by_user = d.mean(), d.mean(axis=1), d.mean(axis=0)
    mean_square_seeds = users * by_seed.var(ddof=1)
    mean_square_users = seeds * by_user.var(ddof=1)
    residual = d - by_seed[:, None] - by_user + mean
    mean_square_residual = float(np.vdot(residual, residual)) / ((seeds - 1) * (users - 1))
    of_users = max(mean_square_users - mean_square_residual, 0.0)
    variance = mean_square_seeds + of_users  # of the mean, times S U
    found = TwoLevel(
        difference=float(mean),
        interval=(float(mean), float(mean)),
        standard_error=math.sqrt(variance / (seeds * users)),
        seed_error=math.sqrt(mean_square_seeds / (seeds * users)),
        seed_share=float(mean_square_seeds / variance) if variance else 1.0,
        seeds=seeds,
        users=users,
        confidence=confidence,
        method=method,
    )
    if method == "pigeonhole":
        means = _pigeonhole(d, resamples, np.random.default_rng(seed))
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
        return dataclasses.replace(found, interval=(float(low), float(high)), standard_error=float(means.std(ddof=1)))
    half = found.half_width(1 - confidence)
    return dataclasses.replace(found, interval=(found.difference - half, found.difference + half))


def wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """p of Wilcoxon's signed-rank test (two-sided, exact, Pratt's zeros) of (S,) values over paired seeds.

    The null distribution is that of the sign flips, so that p stays exact with ties and zeros, where SciPy's
    ``method="exact"`` is not. Offered, never a default.

    Raises:
        InputError: fewer than two seeds, unequal numbers of seeds, NaN or infinity.
    """
    a, b = _paired(a, b)
    if len(a) < 2:
        raise InputError("Wilcoxon's test needs at least 2 seeds; run more, or compare without a test")
    if np.array_equal(a, b):
        return 1.0
    flips = stats.PermutationMethod(n_resamples=ENUMERATED, rng=np.random.default_rng(0))
    result = stats.wilcoxon(a, b, zero_method="pratt", method=flips)
    return float(result.pvalue)


def wilcoxon_warning(seeds: int) -> str:
    """What goes with a Wilcoxon test wherever it is shown."""
    return (
        "Wilcoxon's test asks whether the differences are symmetric about 0, not whether their mean is 0; "
        "over users it rejects equal means in up to every case (Ihemelandu & Ekstrand 2023), so only seeds are tested; "
        f"with {seeds} seeds p is never below {2 / 2**seeds:.3g}."
    )


@dataclass(frozen=True)
class Friedman:
    """Methods ranked within data sets: Friedman's test and Nemenyi's comparison of average ranks."""

    blocks: int
    methods: tuple[str, ...]
    statistic: float
    """Chi-squared with methods - 1 degrees of freedom, corrected for ties."""
    p: float
    average_ranks: pd.Series
    """By method, 1 = best."""
    nemenyi: pd.DataFrame
    """(methods, methods) p of Nemenyi's pairwise test."""
    critical_difference: float
    """Average ranks that are further apart differ at ``alpha`` (Demšar 2006)."""
    alpha: float


def friedman(table: pd.DataFrame, *, higher_is_better: bool = True, alpha: float = 0.05) -> Friedman:
    """Friedman's test of a (blocks, methods) table: one row per data set, one column per method, means over seeds.

    Raises:
        InputError: fewer than ``MINIMUM_BLOCKS`` rows or 3 columns, a missing value, an alpha outside (0, 1).
    """
    import scikit_posthocs  # takes seconds to import

    blocks, k = table.shape
    if k < 3:
        raise InputError(f"Friedman's test needs at least 3 methods, not {k}; compare two methods over their seeds")
    if blocks < MINIMUM_BLOCKS:
        raise InputError(
            f"Friedman's test needs at least {MINIMUM_BLOCKS} data sets, not {blocks}: "
            "its chi-squared approximation does not hold for fewer; compare the methods within each data set"
        )
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha} is not between 0 and 1; 0.05 is usual")
    values = table.to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise InputError(
            f"no value for method '{table.columns[column]}' on data set '{table.index[row]}': "
            "Friedman's test needs every method on every data set; run it, or leave one of the two out"
        )
    ranks = (-table if higher_is_better else table).rank(axis=1)
    same = bool((ranks == (k + 1) / 2).all(axis=None))
    result = None if same else stats.friedmanchisquare(*values.T)
    return Friedman(
        blocks=blocks,
        methods=tuple(str(name) for name in table.columns),
        statistic=0.0 if result is None else float(result.statistic),
        p=1.0 if result is None else float(result.pvalue),
        average_ranks=ranks.mean(),
        nemenyi=scikit_posthocs.posthoc_nemenyi_friedman(table),
        critical_difference=float(
            stats.studentized_range.ppf(1 - alpha, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * blocks))
        ),
        alpha=alpha,
    )


def _paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(
            f"arms with {a.size} and {b.size} seeds can't be paired; give both arms the same seeds, at least one"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a metric is NaN or infinite in some seed; fix or leave out that run")
    return a, b


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


def _pigeonhole(d: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples,) means of (S, U) ``d`` with seeds and users drawn independently with replacement.

    Holds the user counts of a few resamples at a time: 16 MB.
    """
    seeds, users = d.shape
    chunk = max(1, 2**21 // users)
    means = np.empty(resamples)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(users, size=(size, users), dtype=np.int32)
        counts = np.stack([np.bincount(row, minlength=users) for row in drawn])  # (size, U)
        seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)  # (size, S)
        means[start : start + size] = np.einsum("rs,rs->r", counts @ d.T, seed_counts) / (seeds * users)
    return means


def _adjust(p: list[float | None], method: str) -> list[float | None]:
    """p adjusted in one family; None stays None and counts as 1."""
    if method == "none" or not p:
        return list(p)
    filled = np.array([1.0 if value is None else value for value in p])
    adjusted = _holm(filled) if method == "holm" else stats.false_discovery_control(filled)
    return [None if before is None else float(after) for before, after in zip(p, adjusted, strict=True)]


def _holm(p: np.ndarray) -> np.ndarray:
    """(k,) p adjusted by Holm's step-down: the i-th smallest times k - i, i from 0, never below an earlier one.

    As statsmodels' ``multipletests``, which collects garbage at every call: 40 ms, and more in a full process.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return adjusted


def _verdict(c: Comparison) -> Verdict:
    if c.p_equivalence_adjusted is not None and c.p_equivalence_adjusted <= c.alpha:
        return "equivalent"
    if c.p_adjusted is None or c.p_adjusted > c.alpha:
        return "undecided"
    if c.of_users and (c.p_users_adjusted is None or c.p_users_adjusted > c.alpha):
        return "on these users only"
    return "better" if (c.difference > 0) == c.higher_is_better else "worse"
