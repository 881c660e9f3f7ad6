"""Draws of the item codes, crossed with seeds: the pairs, the interval, and what a run says with them."""

from __future__ import annotations

import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from benchmarks.synthetic_run import write_run
from harness.analysis.between import between_runs
from harness.analysis.comparisons import comparisons, over_users_and_seeds
from harness.analysis.crossed import crossed_interval, paired
from harness.analysis.rows import load_run
from harness.analysis.statistics import compare
from harness.analysis.tables.differences import Differences
from harness.analysis.tables.variance import Variance
from harness.analysis.two_levels import two_level_interval
from harness.analysis.verdicts import verdicts
from harness.api import load_run as load_run_of_the_api
from harness.errors import InputError

VARIANTS = {
    "fair": {"model": "fair", "label": "FAIR"},
    "no-mi-loss": {"model": "fair", "label": "w/o MI loss", "set": {"mi_weight": 0}},
    "sasrec": {"model": "sasrec", "label": "SASRec"},
}


@pytest.fixture(scope="module")
def drawn_dir(tmp_path_factory):
    """Three variants x 3 seeds; those with codes x 2 draws."""
    return write_run(
        tmp_path_factory.mktemp("runs") / "drawn", users=80, seeds=3, variants=VARIANTS, codes=2, attention=False
    )


@pytest.fixture
def drawn(drawn_dir):
    return load_run(drawn_dir)


def test_every_draw_is_paired_and_a_variant_without_codes_stands_against_all():
    grid = list(product(range(3), range(2)))
    pairs, draws = paired(grid, grid[:5], [0, 1], [0, 1])  # the last seed of the other lacks a draw
    assert (pairs, draws) == ([(at, at) for at in grid[:4]], 2)
    alone = [(seed, 0) for seed in range(3)]
    pairs, draws = paired(grid, alone, [0, 1], [0])
    assert (pairs, draws) == ([((s, c), (s, 0)) for s, c in grid], 2)
    assert paired(alone, grid, [0], [0, 1])[0] == [((s, 0), (s, c)) for s, c in grid]
    assert paired(alone, alone, [0], [0]) == ([(at, at) for at in alone], 1)
    # A model whose further draws are not trained yet is not one without codes.
    assert paired(alone, grid, [0, 1], [0, 1])[0] == []


def test_the_parts_are_those_of_an_analysis_of_variance():
    """Mean squares of statsmodels' three-way ANOVA, put together as the docstring says."""
    seeds, draws, users = 4, 3, 6
    rng = np.random.default_rng(1)
    d = rng.normal(size=(seeds, draws, users)) + 2 * rng.normal(size=(seeds, 1, 1)) + 3 * rng.normal(size=(1, draws, 1))
    d += rng.normal(size=users)
    s, c, u = (axis.ravel() for axis in np.indices(d.shape))
    table = anova_lm(smf.ols("d ~ C(s) + C(c) + C(u) + C(s):C(c) + C(s):C(u) + C(c):C(u)",
                             pd.DataFrame({"d": d.ravel(), "s": s, "c": c, "u": u})).fit())  # fmt: skip
    squares = table["mean_sq"]
    expected = (
        squares["C(s)"],
        max(squares["C(c)"] - squares["C(s):C(c)"], 0),
        max(squares["C(u)"] - squares["C(s):C(u)"] - squares["C(c):C(u)"] + squares["Residual"], 0),
    )
    found = crossed_interval(d.reshape(-1, users), draws)
    assert found.variances == pytest.approx(np.array(expected) / d.size)
    assert found.standard_error**2 == pytest.approx(sum(expected) / d.size)
    t = [stats.t.ppf(0.975, size - 1) for size in (seeds, draws, users)]
    half = np.dot(expected, t) / sum(expected) * found.standard_error
    assert found.interval[1] - found.difference == pytest.approx(max(half, t[1] * np.sqrt(squares["C(c)"] / d.size)))


def test_draws_that_are_all_the_same_leave_the_two_level_interval():
    d = np.random.default_rng(0).normal(0.01, 0.1, size=(5, 60))
    both, crossed = two_level_interval(d), crossed_interval(np.repeat(d, 3, axis=0), 3)
    assert crossed.interval == pytest.approx(both.interval)
    assert crossed.shares == pytest.approx(both.shares)
    assert crossed.p() == pytest.approx(both.p())


def test_the_interval_is_never_narrower_than_what_seeds_draws_or_users_alone_give():
    rng = np.random.default_rng(3)
    for _ in range(30):
        d = rng.normal(size=(4, 3, 20)) * rng.choice([0.1, 1]) + rng.normal(size=(4, 1, 1)) + rng.normal(size=(3, 1))
        found = crossed_interval(d.reshape(12, 20), 3)
        half = found.interval[1] - found.difference
        for means in (d.mean((1, 2)), d.mean((0, 2))):
            alone = stats.ttest_1samp(means, 0).confidence_interval()
            assert half >= (alone.high - alone.low) / 2 - 1e-12
        assert half >= crossed_interval(d.mean(2).reshape(12, 1), 3).half_width(0.05) - 1e-12
        assert found.p() <= 0.05 or abs(found.difference) <= half


def test_the_pigeonhole_resamples_all_three():
    rng = np.random.default_rng(2)
    d = (rng.normal(size=(6, 1, 1)) + rng.normal(size=(1, 4, 1)) + rng.normal(size=(1, 1, 30))) * np.ones((6, 4, 30))
    found = crossed_interval(d.reshape(24, 30), 4, method="pigeonhole", resamples=4000)
    expected = sum(d.mean(axes).var() / d.shape[i] for i, axes in enumerate([(1, 2), (0, 2), (0, 1)]))
    assert found.standard_error**2 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("rows", "draws"), [(5, 2), (2, 2), (4, 1)])
def test_a_grid_with_holes_is_refused(rows, draws):
    with pytest.raises(InputError, match="every seed every draw"):
        crossed_interval(np.ones((rows, 3)), draws)


def test_compare_takes_the_draws_as_a_sample():
    """A difference that the draws alone make: over seeds it seems certain, over draws it is not."""
    rng = np.random.default_rng(5)
    a = np.array([0.0, 0.1, 0.2]) + 0.01 * rng.normal(size=(5, 1)) + 0.001 * rng.normal(size=(5, 3))
    b = 0.01 * rng.normal(size=(5, 1)) + np.zeros((5, 3))
    blind, honest = compare(a.mean(1), b.mean(1)), compare(a.ravel(), b.ravel(), draws=3)
    assert blind.verdict == "better"
    assert (honest.verdict, honest.seeds, honest.draws, honest.p_exact) == ("undecided", 5, 3, None)
    assert honest.interval[0] < 0 < honest.interval[1]
    assert honest.difference == pytest.approx(blind.difference)
    assert compare(a.ravel(), b.ravel() + 1, draws=3, margin=2).verdict == "equivalent"
    one, same = compare(a[0], b[0], draws=3), compare(a.ravel(), a.ravel(), draws=3)
    assert (one.p, one.interval, same.p, same.interval) == (None, None, 1.0, (0.0, 0.0))


def test_a_run_compares_all_of_its_draws(drawn):
    assert drawn.draws("ml-100k", "fair") == [0, 1]
    assert drawn.draws("ml-100k", "sasrec") == [0]
    tested = comparisons(drawn)
    ours, theirs = (drawn.by_replicate("ml-100k", v, "ndcg@10") for v in ("sasrec", "fair"))
    a = np.array([ours[s, 0] for s, _ in theirs])
    c = tested["ml-100k", "sasrec", "fair"]
    assert (c.seeds, c.draws) == (3, 2)
    expected = crossed_interval((a - np.array([*theirs.values()]))[:, None], 2)
    assert (c.interval, c.p) == (pytest.approx(expected.interval), pytest.approx(expected.p()))
    users = drawn.differences("ml-100k", "sasrec", "fair", "ndcg@10")
    assert users.shape[1] == 6
    assert c.interval_users == pytest.approx(crossed_interval(users.T, 2).interval)
    assert c.interval_users == pytest.approx(over_users_and_seeds(drawn, "ml-100k", "sasrec", "fair").interval)
    assert drawn.by_seed("ml-100k", "fair", "ndcg@10")[1] == pytest.approx((theirs[1, 0] + theirs[1, 1]) / 2)
    assert any("3 paired seeds with 2 draws of the codes each" in said for said in verdicts(drawn))


def test_the_tables_say_what_the_draws_do(drawn):
    variance, differences = Variance("variance").make(drawn), Differences("differences").make(drawn)
    for line in variance.lines:
        error, *shares = (entry.value for entry in line.entries)
        assert sum(shares) == pytest.approx(100)
        wide = over_users_and_seeds(drawn, "ml-100k", line.key, "fair")
        assert (error, shares) == (pytest.approx(wide.standard_error), pytest.approx([100 * x for x in wide.shares]))
    seeds = next(note for note in variance.notes if "Seeds" in note)
    assert "each with 2 draws of the item codes (one for SASRec, having none to draw)" in seeds
    assert "Incomplete" not in seeds
    assert any("crossed with the seeds" in note for note in differences.notes)
    assert drawn.metric_table().index.names == ["dataset", "variant", "seed", "draw"]
    frame = load_run_of_the_api(drawn.path).rows("fair", seed=1)
    assert frame.groupby("draw").size().to_dict() == {0: 80, 1: 80}


def test_a_run_of_one_draw_has_no_table_of_variance(run):
    assert not Variance("variance").applies(run)
    assert run.metric_table().index.names == ["dataset", "variant", "seed"]


def test_a_seed_that_lacks_a_draw_does_not_count(drawn_dir, tmp_path):
    copy = tmp_path / "drawn"
    shutil.copytree(drawn_dir, copy)
    run = load_run(copy)
    gone = run.cells[(run.cells["variant"] == "fair") & (run.cells["seed"] == 1) & (run.cells["draw"] == 1)]["id"].iloc[
        0
    ]
    shutil.rmtree(copy / "cells" / gone)
    run = load_run(copy)
    c = comparisons(run)["ml-100k", "no-mi-loss", "fair"]
    assert (c.seeds, c.draws) == (2, 2)
    notes = Differences("differences").make(run).notes
    assert any("FAIR on ml-100k 5 of 6 cells" in note for note in notes)


def test_two_runs_side_by_side_pair_their_draws(drawn):
    line = between_runs(drawn, drawn, pairs=[("sasrec", "fair")]).iloc[0]
    expected = over_users_and_seeds(drawn, "ml-100k", "fair", "sasrec").interval
    assert (line["low"], line["high"]) == pytest.approx(expected)


# -- error rates ------------------------------------------------------------------------------------------------


def simulated(rng, studies, seeds, draws, of_seed, of_draw, of_residual):
    """(studies, S, C) differences without a true one."""
    shape = studies, seeds, draws
    d = of_seed * rng.normal(size=(studies, seeds, 1)) + of_draw * rng.normal(size=(studies, 1, draws))
    return d + of_residual * rng.normal(size=shape)


def rates(rng, studies, seeds, draws, *components):
    """How often a verdict is wrong, and how often the test over the seeds' means is."""
    wrong = blind = 0
    for d in simulated(rng, studies, seeds, draws, *components):
        wrong += crossed_interval(d.reshape(-1, 1), draws).p() <= 0.05
        blind += stats.ttest_1samp(d.mean(1), 0).pvalue <= 0.05
    return wrong / studies, blind / studies


def test_false_positives_for_new_codes():
    wrong, blind = rates(np.random.default_rng(0), 300, 5, 3, 0.5, 1.0, 0.5)
    assert wrong <= 0.06
    assert blind >= 0.25  # what the seeds alone would have called a difference


COMPONENTS = [(0, 0, 1), (1, 0, 0.3), (0, 1, 0.3), (1, 1, 0.3), (0.5, 1, 0.5), (1, 0.5, 0.5), (0.3, 0.3, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("components", COMPONENTS)
@pytest.mark.parametrize(("seeds", "draws"), [(3, 2), (3, 3), (5, 3), (8, 3), (5, 5), (20, 5)])
def test_false_positives_and_coverage_over_seeds_and_draws(seeds, draws, components):
    rng = np.random.default_rng(seeds * draws)
    d = simulated(rng, 3000, seeds, draws, *components)
    found = [crossed_interval(x.reshape(-1, 1), draws) for x in d]
    missed = np.mean([not x.interval[0] <= 0 <= x.interval[1] for x in found])
    assert missed <= 0.06  # coverage of 94 % or more


@pytest.mark.slow
@pytest.mark.parametrize("sds", [(0.006, 0.006, 0.0, 0.116), (0.006, 0.01, 0.08, 0.084), (0.0, 0.01, 0.03, 0.05)])
@pytest.mark.parametrize(("seeds", "draws"), [(3, 3), (5, 3), (8, 5)])
def test_false_positives_for_new_seeds_codes_and_users(seeds, draws, sds):
    of_seed, of_draw, of_user, of_residual = sds
    rng = np.random.default_rng(seeds)
    wrong = covered = 0
    for grid in simulated(rng, 1000, seeds, draws, of_seed, of_draw, 0.003):
        d = grid.reshape(-1, 1) + of_user * rng.normal(size=200) + of_residual * rng.normal(size=(seeds * draws, 200))
        c = compare(d.mean(1), np.zeros(len(d)), draws=draws, of_users=True, users=d)
        wrong += c.verdict in ("better", "worse")
        covered += c.interval_users[0] <= 0 <= c.interval_users[1]
    assert wrong / 1000 <= 0.06
    assert covered / 1000 >= 0.94
