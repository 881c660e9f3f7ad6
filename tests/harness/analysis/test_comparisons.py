from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from benchmarks.synthetic_run import write_run
from harness.analysis.artefacts import tables_of
from harness.analysis.claims import Claim, claims_for
from harness.analysis.comparisons import comparisons
from harness.analysis.rows import load_run
from harness.analysis.statistics import compare, family
from harness.analysis.two_levels import two_level_interval
from harness.errors import InputError

P_OF = {
    "t": lambda d: stats.ttest_1samp(d, 0).pvalue,
    "exact": lambda d: stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue,
    "wilcoxon": lambda d: stats.wilcoxon(d, method="exact").pvalue,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same rows, judged by each test."""
    folder = tmp_path_factory.mktemp("comparisons")
    return {test: load_run(write_run(folder / test, users=300, attention=False, test=test)) for test in P_OF}


def test_the_studys_test_gives_p_and_verdict(runs):
    for test, run in runs.items():
        found = comparisons(run)
        control = run.by_seed("ml-100k", "fair", "ndcg@10")
        differences = {
            (d, arm): np.array([value - control[s] for s, value in run.by_seed(d, arm, "ndcg@10").items()])
            for d, arm, _ in found
        }
        p = [P_OF[test](d) for d in differences.values()]
        adjusted = multipletests(p, method="holm")[1]
        assert [c.p_adjusted for c in found.values()] == pytest.approx(list(adjusted))
        assert [c.verdict != "undecided" for c in found.values()] == [value <= 0.05 for value in adjusted]


def test_five_seeds_decide_by_t_and_not_by_the_exact_test(runs):
    verdicts = {test: {c.verdict for c in comparisons(run).values()} for test, run in runs.items()}
    assert "worse" in verdicts["t"]
    assert verdicts["exact"] == verdicts["wilcoxon"] == {"undecided"}


def test_captions_name_the_test(runs):
    words_of = {"t": "paired t-test over seeds", "exact": "exact sign-flip test over seeds"}
    for test, words in (words_of | {"wilcoxon": "exact Wilcoxon test over seeds"}).items():
        tables = {table.name: table for table in tables_of(runs[test])}
        assert ("with 5 seeds p is never below 0.0625" in " ".join(tables["differences"].notes)) == (test == "wilcoxon")
        assert words in tables["main"].caption
        assert ("of the exact sign-flip test" in tables["differences"].caption) == (test == "exact")


def test_exploration_is_corrected_for_false_discoveries_and_says_so(tmp_path):
    run = load_run(write_run(tmp_path / "run", users=300, attention=False, correction="benjamini-hochberg"))
    found = comparisons(run)
    expected = multipletests([c.p for c in found.values()], method="fdr_bh")[1]
    assert [c.p_adjusted for c in found.values()] == pytest.approx(list(expected))
    tables = {table.name: table for table in tables_of(run)}
    assert "Benjamini-Hochberg's correction for 3 comparisons" in tables["main"].caption
    assert "BH p" in [column.title for column in tables["differences"].columns]
    assert "is for exploration" in " ".join(tables["differences"].notes)
    words = [t.caption + " ".join([*t.notes, *(column.title for column in t.columns)]) for t in tables.values()]
    assert not [word for word in words if "Holm" in word]


def test_an_unknown_test():
    with pytest.raises(InputError, match="did you mean 'exact'"):
        compare(np.arange(3.0), np.ones(3), test="exakt")


def test_equivalence_stays_with_tost():
    rng = np.random.default_rng(0)
    a = rng.normal(size=8)
    pair = compare(a, a + rng.normal(scale=1e-3, size=8), margin=0.1, test="exact")
    assert family({"x": pair})["x"].verdict == "equivalent"


def test_a_relative_margin_is_of_what_is_compared_with_and_of_the_primary_metric_alone(tmp_path):
    run = load_run(write_run(tmp_path / "run", users=300, attention=False, equivalence_margin="5 %"))
    base = np.mean(list(run.by_seed("ml-100k", "fair", "ndcg@10").values()))
    for contrast, found in comparisons(run).items():
        assert found.margin == pytest.approx(0.05 * base)
        a, b = (np.array(list(run.by_seed("ml-100k", v, "ndcg@10").values())) for v in contrast[1:])
        wide = two_level_interval(run.differences(*contrast, "ndcg@10").T)
        tost = max(ttost_paired(a, b, -0.05 * base, 0.05 * base)[0], wide.p_equivalence(0.05 * base))
        assert found.p_equivalence == pytest.approx(tost)
    assert {c.margin for c in comparisons(run, "recall@10").values()} == {None}
    (table,) = [table for table in tables_of(run) if table.name == "differences"]
    assert "equivalent: within ±5 % of the mean of what is compared with" in table.caption


def test_equivalent_is_reached_and_a_claim_ends_there(tmp_path):
    variants = {v: {"model": "fair"} for v in ("a", "b")}
    options = {"variants": variants, "strength": dict.fromkeys(variants, 1.0), "users": 2000, "attention": False}
    run = load_run(write_run(tmp_path / "run", **options, equivalence_margin="15 %", seeds=8))
    assert [c.verdict for c in comparisons(run).values()] == ["equivalent"]
    claim = Claim(
        id="c", paper="p", claim="x", study="ablations", quantity="ndcg@10", arm="b", than="a", expect="higher"
    )
    assert [finding.verdict for finding in claims_for(run, [claim])] == ["equivalent"]
