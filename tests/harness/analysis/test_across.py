from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from benchmarks.synthetic_run import write_run
from harness.analysis.across import aggregate, friedman_line, pairs_across, places_of
from harness.analysis.comparisons import comparisons, over_users_and_seeds
from harness.analysis.render import render
from harness.analysis.rows import load_run
from harness.analysis.tables.across import Datasets, datasets_table
from harness.cli import app, guarded
from harness.errors import InputError

VARIANTS = {v: {"model": "fair"} for v in "abc"}
STRENGTH = {"a": 1.0, "b": 0.7, "c": 1.0}
DATASETS = tuple(f"d{n}" for n in range(6))


def made(folder, datasets, **changes):
    options = {"variants": VARIANTS, "strength": STRENGTH, "users": 150, "seeds": 4, "attention": False} | changes
    return load_run(write_run(folder, datasets=datasets, **options))


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "six", DATASETS)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs of one design, a data set each."""
    folder = tmp_path_factory.mktemp("two")
    return [made(folder / name, (name,)) for name in ("d0", "d1")]


def test_each_sign_is_the_verdict_of_the_table_of_differences(six):
    table, tested = Datasets("datasets").make(six), comparisons(six)
    assert [line.key for line in table.lines] == ["b", "c"]
    for line in table.lines:
        shown = dict(zip((column.key for column in table.columns), line.entries, strict=True))
        verdicts = [tested[dataset, line.key, "a"].verdict for dataset in DATASETS]
        assert [shown[dataset].value for dataset in DATASETS] == verdicts
        for dataset, verdict in zip(DATASETS, verdicts, strict=True):
            difference = tested[dataset, line.key, "a"].difference
            signs = {"better": "+", "worse": "−", "undecided": "?", "on these users only": "(+)(−)"}
            assert shown[dataset].text.split()[0] in signs[verdict]
            assert shown[dataset].text.split()[1].startswith("+" if difference > 0 else "−")
        better, worse, rest = map(int, shown["counts"].text.split(" / "))
        assert (better, worse) == (verdicts.count("better"), verdicts.count("worse"))
        assert better + worse + rest == 6
    assert "worse" in {tested[dataset, "b", "a"].verdict for dataset in DATASETS}


def test_the_aggregate_is_statsmodels_random_effects(six):
    tested = comparisons(six)
    for pair in pairs_across(places_of([six])):
        found = [tested[d, pair.arm, pair.than] for d in DATASETS]
        errors = [100 * over_users_and_seeds(six, d, pair.arm, pair.than).standard_error for d in DATASETS]
        variances = [(e / c.mean_b) ** 2 for e, c in zip(errors, found, strict=True)]
        expected = combine_effects(np.array([c.percent for c in found]), np.array(variances), method_re="iterated")
        assert pair.aggregate.mean == pytest.approx(expected.mean_effect_re)
        half = stats.t.isf(0.025, 5) * max(expected.sd_eff_w_re, expected.sd_eff_w_re_hksj)
        assert pair.aggregate.interval[1] - pair.aggregate.mean == pytest.approx(half)


def test_the_interval_covers_the_mean_over_data_sets():
    """Data sets with other true effects, known to within errors of their own."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        errors = rng.uniform(0.5, 2.0, size=6)
        found = aggregate(3 + rng.normal(size=6) * 1.5 + rng.normal(size=6) * errors, errors)
        covered += found.interval[0] <= 3 <= found.interval[1]
    assert 0.92 <= covered / 300 <= 0.99


def test_friedman_over_six_data_sets_is_scipys(six):
    means = six.metric_table("ndcg@10")["ndcg@10"].groupby(level=["dataset", "variant"]).mean().unstack()
    expected = stats.friedmanchisquare(*means.T.to_numpy())
    line = friedman_line(places_of([six]))
    assert f"chi-squared {expected.statistic:.2f}" in line
    ranks = means.rank(axis=1, ascending=False).mean()
    assert all(f"{variant} {rank:.2f}" in line for variant, rank in ranks.items())
    assert "3 variants over 6 data sets" in line


def test_what_can_not_be_made_is_one_line(two):
    table = datasets_table(places_of(two))
    assert table.notes[0] == "No mean over data sets: it takes 3, and there are 2."
    assert table.notes[1].startswith(
        "No test of all variants at once: Friedman's test needs at least 6 data sets, not 2"
    )
    assert {entry.text for entry in table.column(3)} == {"–"}
    assert not Datasets("datasets").applies(two[0])


def test_runs_of_one_design_are_the_data_sets_of_one(two):
    table = datasets_table(places_of(two))
    for place, run in enumerate(two):
        tested = comparisons(run)
        assert [e.value for e in table.column(place)] == [tested[run.datasets[0], v, "a"].verdict for v in "bc"]
    for form in ("tex", "md", "csv"):
        assert "d1" in render(table, form)


def test_runs_of_other_designs_and_a_data_set_twice_are_refused(two, tmp_path):
    with pytest.raises(InputError, match="'d0' stands in"):
        places_of([two[0], two[0]])
    other = made(tmp_path / "other", ("d2",), control="b")
    with pytest.raises(InputError, match="differ in declared comparisons"):
        places_of([two[0], other])


def test_the_command_prints_the_table(two, capsys):
    words = ["across", *(str(run.path) for run in two)]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    printed = capsys.readouterr().out
    assert "Mean Δ %" in printed
    assert "No mean over data sets" in printed
    assert guarded(lambda: app([*words, "--json"], standalone_mode=False)) == 0
    assert [line["comparison"] for line in json.loads(capsys.readouterr().out)["lines"]] == ["b", "c"]
