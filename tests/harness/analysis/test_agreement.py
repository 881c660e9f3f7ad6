"""`harness claims` and the tables of a run never disagree, whatever the run and its design."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.synthetic_run import write_run
from harness.analysis.claims import Claim, claims_for, ledger_table
from harness.analysis.comparisons import comparisons, named
from harness.analysis.rows import load_run
from harness.analysis.tables.across import Datasets
from harness.analysis.tables.differences import Differences
from harness.analysis.tables.results import Results
from harness.analysis.verdicts import WORDS, verdicts

ARMS = "abcd"
PAIRS = [[arm, than] for place, than in enumerate(ARMS) for arm in ARMS[place + 1 :]]

designs = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["retrieval", "action"]),
        "seeds": st.integers(1, 6),
        "users": st.integers(20, 40),
        "datasets": st.sampled_from([("d1",), ("d1", "d2"), ("d1", "d2", "d3")]),
        "strength": st.fixed_dictionaries({arm: st.floats(0.4, 1.1) for arm in ARMS}),
        "control": st.sampled_from(["a", "c"]),
        "contrasts": st.just("all-pairs") | st.lists(st.sampled_from(PAIRS), unique_by=tuple, max_size=3),
        "references": st.sampled_from([[], ["d"]]),
        "test": st.sampled_from(["t", "exact", "wilcoxon", "pooled"]),
        "correction": st.sampled_from(["holm", "benjamini-hochberg"]),
        "looks": st.integers(1, 3),
        "equivalence_margin": st.sampled_from([None, 0.02, "10 %", "60 %"]),
    }
)


@contextmanager
def written(design):
    """A run of the design, whose cells are gone afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        variants = {arm: {"model": "fair", "label": arm.upper()} for arm in ARMS}
        yield load_run(write_run(folder / "run", variants=variants, attention=False, study="ablations", **design))
    finally:
        shutil.rmtree(folder)


def claimed(run):
    """(data set, arm, than, expect) -> what the ledger says, of each declared pair in both directions."""
    asked = [(*pair, expect) for p in run.pairs for pair in (p, p[::-1]) for expect in ("higher", "lower")]
    common = {"paper": "p", "claim": "x", "study": "ablations", "quantity": run.primary}
    claims = [
        Claim(id=str(n), arm=arm, than=than, expect=expect, **common) for n, (arm, than, expect) in enumerate(asked)
    ]
    return {(finding.dataset, *asked[int(finding.claim.id)]): finding for finding in claims_for(run, claims)}


def expected_of(verdict, arm, than, pair, expect, higher_is_better):
    """What a claim about ``arm`` and ``than`` must end as, where the table says ``verdict`` of ``pair``."""
    if verdict not in ("better", "worse"):
        return verdict
    upward = (verdict == "better") == higher_is_better
    return "supported" if upward == ((expect == "higher") == (pair == (arm, than))) else "contradicted"


def check_agreement(design):
    with written(design) as run:
        table, tested = Differences("differences").make(run), comparisons(run)
        assert len(table.lines) == len(run.pairs) * len(run.datasets)
        keys = [column.key for column in table.columns]
        lines = iter(table.lines)
        several = len(run.datasets) > 1
        signs = {line.key: line for line in Datasets("datasets").make(run).lines} if several else {}
        (results,) = Results("results").make(run)
        main = {line.key: line for line in results.lines}
        heads = [column.key for column in results.columns]
        sentences, found = verdicts(run), claimed(run)
        for place, dataset in enumerate(run.datasets):
            for pair in run.pairs:
                shown = dict(zip(keys, next(lines).entries, strict=True))
                c, verdict = tested[dataset, *pair], shown["verdict"].text
                assert c.verdict == verdict
                for arm, than in (pair, pair[::-1]):
                    for expect in ("higher", "lower"):
                        finding = found[dataset, arm, than, expect]
                        up = c.higher_is_better
                        assert finding.verdict == expected_of(verdict, arm, than, pair, expect, up)
                        assert finding.estimate == shown["difference"].value
                        assert finding.interval == c.interval
                        (row,) = ledger_table({"p": {}}, [finding]).lines
                        assert row.entries[0].text == finding.verdict
                if several:
                    assert signs[named(run, *pair)[0]].entries[place].value == verdict
                if run.bases.get(pair[0]) == pair[1] and f"{dataset}/{run.primary}" in heads:
                    mark = main[pair[0]].entries[heads.index(f"{dataset}/{run.primary}")].mark
                    assert mark == {"better": "*", "worse": "*", "on these users only": "(*)"}.get(verdict, "")
                if len(tested) <= 8:
                    said = f"On {dataset}, {run.label(pair[0])} {WORDS[verdict].format(run.label(pair[1]))}:"
                    assert sum(sentence.startswith(said) for sentence in sentences) == 1


@given(designs)
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_claims_tables_and_sentences_never_disagree(design):
    check_agreement(design)


@pytest.mark.slow
@given(designs)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_claims_tables_and_sentences_never_disagree_in_many_designs(design):
    check_agreement(design)
