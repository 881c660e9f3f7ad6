"""Inference on means over seeds: is method A better than method B, by how much, and how sure is that?

The unit of replication is the seed. The same users are ranked by every run, so a test over users asks whether two
*checkpoints* differ, and answers yes for two runs of one method that differ in nothing but their seed. Here A and B
are paired by seed, and the default test is the paired t-test on the seeds' means, with Holm's correction in the
declared family; the exact sign-flip test stands beside it. That speaks of these test users alone. "Better" and
"worse" also need the difference to hold for new users, by :mod:`harness.analysis.two_levels`; between the two lies
"on these users only".

Tests are SciPy's, statsmodels' and scikit-posthocs'. The two-level intervals are ours, since no library has them.
Nothing here is NaN: a number that does not exist is None, and ``note`` says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy import stats

from harness.analysis.crossed import over_draws, over_users_and_draws
from harness.analysis.over_seeds import ENUMERATED, over_seeds
from harness.analysis.pooled import Pooled
from harness.analysis.two_levels import widened
from harness.errors import InputError, nearest

__all__ = [
    "TESTS",
    "Comparison",
    "Test",
    "Verdict",
    "compare",
    "family",
    "wilcoxon",
    "wilcoxon_warning",
]

Verdict = Literal["better", "worse", "equivalent", "on these users only", "undecided"]

Key = TypeVar("Key")
Test = Literal["t", "exact", "wilcoxon", "pooled"]
Correction = Literal["holm", "benjamini-hochberg"]

TESTS: dict[Test, str] = {
    "t": "paired t-test",
    "exact": "exact sign-flip test",
    "wilcoxon": "exact Wilcoxon test",
    "pooled": "pooled or paired t-test",
}
"""The tests over seeds that a verdict may come from, in words."""

CORRECTIONS: dict[str, str] = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}
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
    known, or the metric is not a mean over users (AUC)."""
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
    p_pooled: float | None
    """Two-sided t-test with the variance that all arms share, where it was asked for and given."""
    test: Test
    """Which p decides."""
    note: str
    """Why a number above is None, or another than usual; empty otherwise."""
    p_adjusted: float | None = None
    """The deciding p within the family; as it is before :func:`family`."""
    p_users_adjusted: float | None = None
    p_equivalence_adjusted: float | None = None
    family_size: int = 1
    correction: str = "none"
    """"none" or one of :data:`CORRECTIONS`."""
    alpha: float = 0.05
    verdict: Verdict = "undecided"
    draws: int = 1
    """Draws of the item codes that each seed was compared with."""

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
        return {"t": self.p, "exact": self.p_exact, "wilcoxon": self.p_wilcoxon, "pooled": self.p_pooled}[self.test]


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
    draws: int = 1,
    pooled: Pooled | None = None,
) -> Comparison:
    """Compares methods A and B by (S,) values, one per seed in one order, or for each seed one per draw of the codes.

    ``of_users``: the values are means over a sample of users, of whom ``users`` holds the (S, U) differences where
    known. Tests are two-sided. The verdict is "equivalent" if TOST places the difference within ``margin`` (in units of
    the metric), be it significant or not, else "better" or "worse" if ``test`` rejects at 1 - ``confidence``, else
    "undecided". Of means over users both need the two levels, seeds and users, to say so too; where only ``test``
    rejects, it is "on these users only". ``pooled``, the variance that all arms of the data set share, replaces the
    pair's own in intervals, ``test: pooled``, TOST and the two levels; without it ``test: pooled`` is the t-test.

    Raises:
        InputError: the arms have different numbers of seeds or none, or hold NaN or infinity; an unknown test.
    """
    a, b = _paired(a, b)
    _check_options(test, confidence, margin)
    seeds, difference, mean_b = len(a) // draws, float((a - b).mean()), float(b.mean())
    scale = 100 / abs(mean_b) if mean_b else None
    found = over_draws(a, b, draws, margin, confidence) if draws > 1 else over_seeds(a, b, margin, confidence, pooled)
    test = "t" if test == "pooled" and found.p_pooled is None else test
    both = over_users_and_draws(users, draws, confidence, found.pooled) if users is not None and seeds > 1 else None
    return _alone(
        Comparison(
            seeds=seeds,
            mean_a=float(a.mean()),
            mean_b=mean_b,
            difference=difference,
            percent=scale * difference if scale else None,
            higher_is_better=higher_is_better,
            confidence=confidence,
            interval=found.interval,
            interval_percent=_scaled(found.interval, scale),
            of_users=of_users,
            interval_users=both.interval if both else None,
            p_users=both.p() if both and found.p is not None else None,
            p=found.p,
            p_exact=found.p_exact,
            # Its warning stands beside the tables; a copied run has no p by any test.
            p_wilcoxon=wilcoxon(a, b) if test == "wilcoxon" and found.p is not None else None,
            p_pooled=found.p_pooled,
            d_z=found.d_z,
            probability_a_better=_probability_better(a, b) if higher_is_better else _probability_better(b, a),
            margin=margin,
            p_equivalence=widened(found.p_equivalence, both, margin) if of_users else found.p_equivalence,
            test=test,
            note=found.note,
            draws=draws,
        )
    )


def _alone(c: Comparison) -> Comparison:
    """``c`` as a family of its own, with its verdict."""
    own = dataclasses.replace(
        c,
        p_adjusted=c.p_deciding,
        p_users_adjusted=c.p_users,
        p_equivalence_adjusted=c.p_equivalence,
        alpha=round(1 - c.confidence, 12),
    )
    return dataclasses.replace(own, verdict=_verdict(own))


def _probability_better(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.mannwhitneyu(a, b).statistic) / len(a) ** 2


def _check_options(test: str, confidence: float, margin: float | None) -> None:
    if test not in TESTS:
        raise InputError(f"unknown test '{test}'; {nearest(test, TESTS)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    if margin is not None and not margin > 0:
        raise InputError(f"equivalence margin {margin} is not positive; state the smallest difference that matters")


def _scaled(interval: tuple[float, float] | None, scale: float | None) -> tuple[float, float] | None:
    return (scale * interval[0], scale * interval[1]) if scale and interval else None


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
    absent: list[float | None] = [None] * max(declared - len(members), 0)

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


def _paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(
            f"arms with {a.size} and {b.size} seeds can't be paired; give both arms the same seeds, at least one"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a metric is NaN or infinite in some seed; fix or leave out that run")
    return a, b


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
