from __future__ import annotations

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchmarks.synthetic_run import write_run
from harness.analysis.claims import Claim, claims_for, evaluate, ledger_table, load_claims, runs_below
from harness.analysis.render import render
from harness.analysis.rows import load_run
from harness.errors import InputError


def _claim(**settings):
    base = {"id": "c", "paper": "p", "claim": "It helps.", "study": "ablations", "quantity": "ndcg@10"}
    return Claim(**(base | settings))


def _one(run, **settings):
    (finding,) = claims_for(run, [_claim(**settings)])
    return finding


def test_the_ledger_that_ships_is_sound_and_names_what_the_papers_claim():
    papers, claims = load_claims()
    assert {claim.paper for claim in claims} == set(papers)
    sizes = {claim.id: claim.by for claim in claims if claim.by}
    assert (sizes["lfa-time"], sizes["mvp-time"], sizes["lfa-loss"], sizes["mvp-loss"]) == (23, 12, 0.29, 0.8)


def test_direction_is_supported_contradicted_or_undecided(run):
    arms = {"arm": "fair", "than": "no-focused-attention"}
    up = _one(run, **arms, expect="higher")  # the study has it the other way round, and so the ledger
    down = _one(run, **arms, expect="lower")
    assert (up.verdict, down.verdict) == ("supported", "contradicted")
    a, b = (list(run.by_seed("ml-100k", v, "ndcg@10").values()) for v in ("no-focused-attention", "fair"))
    assert up.interval == pytest.approx(tuple(stats.ttest_rel(a, b).confidence_interval()))
    assert _one(run, arm="fair", than="no-noise-loss", expect="higher").verdict == "undecided"
    assert up.compared == "w/o focused attention − FAIR"
    assert _one(run, arm="fair", than="sasrec", expect="higher").verdict == "not tested"
    assert _one(run, arm="no-mi-loss", than="no-noise-loss", expect="higher").verdict == "not tested"  # not declared
    shown = [
        dict(zip((c.key for c in table.columns), line.entries, strict=True))["claimed"].text
        for table in [ledger_table({"p": {}}, [up, down])]
        for line in table.lines
    ]
    assert shown == ["−", "+"]


def test_one_claim_is_corrected_for_the_whole_family_of_the_run(run):
    others = ("no-focused-attention", "no-mi-loss", "no-noise-loss")
    control = list(run.by_seed("ml-100k", "fair", "ndcg@10").values())
    p = [stats.ttest_rel(list(run.by_seed("ml-100k", v, "ndcg@10").values()), control).pvalue for v in others]
    adjusted = multipletests(p, method="holm")[1]
    for variant, expected in zip(others, adjusted, strict=True):
        assert _one(run, arm="fair", than=variant, expect="higher").p == pytest.approx(expected)


@pytest.mark.parametrize(
    ("factor", "by", "verdict"),
    [
        (0.5, 23, "supported"),
        (0.95, 23, "contradicted"),
        (1.2, 23, "contradicted"),
        (0.5, 80, "contradicted"),
        (0.7, 30.02, "undecided"),  # the interval holds the claimed size
    ],
)
def test_a_claimed_size_is_held_against_the_interval(tmp_path, factor, by, verdict):
    import json

    folder = write_run(tmp_path / "run", users=20, seeds=3, attention=False)
    run = load_run(folder)
    for seed in range(3):
        for variant, speed in (("fair", 1.0), ("no-mi-loss", factor)):
            cell = run.ids("ml-100k", variant)[seed]
            path = folder / "cells" / cell / "cost.json"
            cost = json.loads(path.read_text()) | {"train_seconds": speed * (10.0 + 0.01 * seed), "epochs": 10}
            path.write_text(json.dumps(cost))
    found = _one(
        load_run(folder), quantity="cost/seconds_per_epoch", arm="no-mi-loss", than="fair", expect="lower", by=by
    )
    assert (found.verdict, found.unit) == (verdict, "%")
    assert found.estimate == pytest.approx(100 * (factor - 1), abs=0.2)


def test_attention_is_a_quantity_and_a_missing_one_is_not_tested(run):
    arms = {"arm": "fair", "than": "no-focused-attention", "expect": "lower"}
    # Attention is kept as a mean over users, so that nothing tells of new ones.
    assert _one(run, quantity="attention/entropy_relative", **arms).verdict == "on these users only"
    assert _one(run, quantity="attention/injected_abs", **arms).verdict == "not tested"
    assert _one(run, quantity="cost/tokens_per_event", **arms).verdict == "not tested"


def test_a_reference_is_no_level_of_a_sweep(tmp_path):
    variants = {name: {"model": "fair"} for name in "abcd"}
    strength = {"a": 0.5, "b": 0.9, "c": 1.0, "d": 0.3}
    options = {"variants": variants, "strength": strength, "users": 300, "attention": False, "contrasts": "all-pairs"}
    assert _one(load_run(write_run(tmp_path / "levels", **options)), sweep=True).verdict == "supported"
    without = load_run(write_run(tmp_path / "reference", **options, references=["d"]))
    assert _one(without, sweep=True).verdict != "supported"  # c is the last level then


@pytest.mark.parametrize(
    ("strength", "verdict"),
    [
        ({"a": 0.5, "b": 1.0, "c": 0.9, "d": 0.5}, "supported"),
        ({"a": 1.2, "b": 0.8, "c": 0.6, "d": 0.4}, "contradicted"),
        ({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}, "undecided"),
    ],
)
def test_a_sweep_has_its_best_level_inside(tmp_path, strength, verdict):
    variants = {name: {"model": "fair"} for name in "abcd"}
    options = {"variants": variants, "strength": strength, "users": 300, "attention": False}
    folder = write_run(tmp_path / "sweep", **options, contrasts="all-pairs")
    found = _one(load_run(folder), sweep=True)
    assert found.verdict == verdict
    assert " − " in found.compared
    undeclared = _one(load_run(write_run(tmp_path / "undeclared", **options, control=None)), sweep=True)
    assert "contrasts: all-pairs" in undeclared.detail


def test_a_claim_that_no_run_tests_stands_there_once(run_dir, run):
    papers, claims = load_claims()
    findings = evaluate(claims, [run])
    by_claim = [finding.claim.id for finding in findings]
    assert sorted(by_claim) == sorted(claim.id for claim in claims)
    assert sum(finding.verdict == "not tested" for finding in findings) == len(claims) - 3
    text = render(ledger_table(papers, findings), "csv")
    assert text.count("not tested") == len(claims) - 3


def test_smoke_runs_prove_nothing(tmp_path):
    write_run(tmp_path / "ablations", users=20, seeds=2, attention=False)
    write_run(tmp_path / "ablations-smoke", users=20, seeds=2, attention=False)
    assert [run.path.name for run in runs_below(tmp_path, [], pytest.fail)] == ["ablations"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: []", "needs the two keys"),
        ("papers: {p: {}}\nclaims: [{id: a}]", "claim 1: the key 'paper' is missing"),
        ("papers: {}\nclaims: [{id: a, paper: p, claim: x, study: s, quantity: q, sweep: true}]", "not among 'papers'"),
        ("papers: {p: {}}\nclaims: [{id: a, paper: p, claim: x, study: s, quantity: q}]", "needs either arm"),
        ("papers: [", "not valid YAML"),
        ("papers: {}\nclaims: null", "'claims' is a list"),
        ("papers: {}\nclaims: {a: b}", "'claims' is a list"),
        ("papers: {p: null}\nclaims: []", "'papers' maps keys"),
        ("papers: [p]\nclaims: []", "'papers' maps keys"),
        ("papers: null\nclaims: []", "'papers' maps keys"),
    ],
)
def test_a_ledger_that_is_off_is_one_line(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)
