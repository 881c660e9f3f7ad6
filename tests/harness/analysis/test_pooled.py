from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from benchmarks.synthetic_run import write_run
from harness.analysis import pooled
from harness.analysis.comparisons import check_variances_of, comparisons
from harness.analysis.pooled import LIMIT, Pooled, VarianceCheck, check_variances
from harness.analysis.rows import load_run
from harness.analysis.statistics import compare
from harness.analysis.tables.differences import Differences
from harness.analysis.two_levels import two_level_interval

ARMS = "abcde"
PAIRS = [(arm, "a") for arm in ARMS[1:]]


def drawn(seed=0, seeds=6, scale=(1, 1, 1, 1, 1), block=2.0):
    """(S, K) values of arms over seeds, with an effect of the seed that all arms share."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(seeds, len(scale))) * scale + block * rng.normal(size=(seeds, 1)) + np.arange(len(scale))


def by_arm(y):
    return {arm: dict(enumerate(column)) for arm, column in zip(ARMS, y.T, strict=False)}


def fitted(y):
    """statsmodels' fit of value = arm + seed."""
    frame = pd.DataFrame(y, columns=list(ARMS)).melt(var_name="arm", ignore_index=False)
    return ols("value ~ C(arm) + C(seed)", frame.rename_axis("seed").reset_index()).fit()


def test_the_variance_is_that_of_statsmodels_block_anova():
    y = drawn()
    (shared,) = {*check_variances(by_arm(y), PAIRS).pooled.values()}
    residual = anova_lm(fitted(y)).loc["Residual"]
    assert shared.degrees == residual["df"] == 5 * 4
    assert shared.variance == pytest.approx(2 * residual["mean_sq"])


def test_p_and_interval_are_those_of_statsmodels_contrasts():
    y = drawn(1)
    check, model = check_variances(by_arm(y), PAIRS), fitted(y)
    assert len(check.pooled) > 1
    for arm, than in check.pooled:
        a, b = y[:, ARMS.index(arm)], y[:, ARMS.index(than)]
        found = compare(a, b, test="pooled", pooled=check.pooled[arm, than])
        expected = model.t_test(f"C(arm)[T.{arm}] = 0")
        assert found.p_deciding == found.p_pooled == pytest.approx(float(expected.pvalue))
        assert found.interval == pytest.approx(tuple(expected.conf_int()[0]))
        assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_the_f_test_of_a_pair_holds_its_variance_against_all_other_residuals():
    y = drawn(2)
    design = fitted(y)
    check = check_variances(by_arm(y), PAIRS)
    for arm, than in PAIRS:
        pair = (y[:, ARMS.index(arm)] - y[:, ARMS.index(than)]) / np.sqrt(2)
        own = ((pair - pair.mean()) ** 2).sum()
        rest = (design.ssr - own) / (design.df_resid - 5)
        assert check.pairs[arm, than] == pytest.approx(1 - stats.f.cdf(own / 5 / rest, 5, 15))


def test_the_p_of_both_checks_are_uniform_where_variances_are_alike(monkeypatch):
    monkeypatch.setattr(pooled, "DRAWS", 199)
    checks = [check_variances(by_arm(drawn(n, block=10.0)), PAIRS) for n in range(150)]
    assert stats.kstest([c.p for c in checks], "uniform").pvalue > 0.01
    assert stats.kstest([c.pairs["b", "a"] for c in checks], "uniform").pvalue > 0.01


def test_an_arm_that_varies_more_than_the_others_is_not_pooled():
    check = check_variances(by_arm(drawn(3, seeds=12, scale=(1, 1, 1, 1, 6))), PAIRS)
    assert check.p < 0.01
    assert not check.pooled
    assert check.said.endswith("so paired t-test")


def test_pooled_equivalence_and_two_levels():
    rng = np.random.default_rng(4)
    users = rng.normal(size=(6, 40))
    a, b = users.mean(1), np.zeros(6)
    shared = Pooled(float(a.var(ddof=1)), 5)  # the pair's own: then nothing may change
    own = compare(a, b, margin=0.3, of_users=True, users=users)
    same = compare(a, b, margin=0.3, of_users=True, users=users, test="pooled", pooled=shared)
    for name in ("interval", "interval_users", "p_users", "p_equivalence"):
        assert getattr(same, name) == pytest.approx(getattr(own, name))
    assert same.p_pooled == pytest.approx(own.p)
    wide = two_level_interval(users, pooled=Pooled(shared.variance, 30))
    assert wide.interval[0] > own.interval_users[0]  # more degrees of freedom


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v, ""),
        (lambda v: {arm: v[arm] for arm in "ab"}, "three arms"),
        (lambda v: v | {"b": {0: 1.0, 1: 2.0}}, "the same seeds"),
        (lambda v: {arm: {seed: found[seed] for seed in range(4)} for arm, found in v.items()}, "5 seeds"),
    ],
)
def test_where_no_pooled_test_can_be_made_the_reason_is_said(change, reason):
    check = check_variances(change(by_arm(drawn())), PAIRS)
    assert reason in check.reason
    assert bool(check.reason) == bool(reason)
    assert bool(check.pooled) == (not reason)


def test_an_arm_that_never_varies_has_no_part_in_it():
    y = by_arm(drawn())
    flat = check_variances(y | {"f": dict.fromkeys(range(6), 0.5)}, [*PAIRS, ("f", "a")])
    assert flat == check_variances(y, PAIRS)


def test_without_a_shared_variance_the_pooled_test_is_the_paired_one():
    a, b = drawn().T[:2]
    paired, found = compare(a, b), compare(a, b, test="pooled")
    assert found == paired
    assert VarianceCheck(reason="x").said == "paired t-test, because pooling needs x"


def test_a_study_that_asks_for_it_gets_it_and_its_table_says_so(tmp_path):
    variants = {arm: {"model": "fair"} for arm in ARMS}
    options = {"users": 100, "attention": False, "variants": variants, "strength": dict.fromkeys(ARMS, 1.0)}
    run = load_run(write_run(tmp_path / "pooled", **options, test="pooled"))
    paired = comparisons(load_run(write_run(tmp_path / "paired", **options)))
    check = check_variances_of(run, "ml-100k")
    found = comparisons(run)
    assert [c.test for c in found.values()] == ["pooled" if key[1:] in check.pooled else "t" for key in found]
    assert {c.test for c in found.values()} == {"pooled", "t"}
    for key, c in found.items():
        assert c.p == paired[key].p
        assert (c.interval == paired[key].interval) == (c.test == "t")
    table = Differences("differences").make(run)
    (note,) = [note for note in table.notes if "One variance" in note]
    assert f"p > {LIMIT:g}" in note
    assert check.said in note
