from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.synthetic_run import write_run
from harness.analysis.claims import Claim, claims_for, evaluate, ledger_table, load_claims, runs_below
from harness.analysis.comparisons import against_control
from harness.analysis.rows import load_run
from harness.analysis.tables import render
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
    up = _one(run, **arms, expect="higher")
    down = _one(run, **arms, expect="lower")
    assert (up.verdict, down.verdict) == ("supported", "contradicted")
    a, b = (list(run.by_seed("ml-100k", v, "ndcg@10").values()) for v in ("fair", "no-focused-attention"))
    assert up.interval == pytest.approx(tuple(stats.ttest_rel(a, b).confidence_interval()))
    assert _one(run, arm="fair", than="no-noise-loss", expect="higher").verdict == "undecided"
    assert _one(run, arm="fair", than="sasrec", expect="higher").verdict == "not tested"


def test_holm_runs_over_the_claims_that_no_table_of_the_study_has(run):
    claims = [
        _claim(id=v, arm="fair", than=v, expect="higher", quantity="recall@10")
        for v in ("no-focused-attention", "no-mi-loss", "no-noise-loss")
    ]
    together = [finding.p for finding in claims_for(run, claims)]
    alone = [claims_for(run, [claim])[0].p for claim in claims]
    assert together[int(np.argmin(alone))] == pytest.approx(3 * min(alone))


@pytest.mark.parametrize("seeds", range(8))
@pytest.mark.parametrize("swapped", [False, True])
def test_a_claim_and_the_table_of_its_study_never_disagree(tmp_path, seeds, swapped):
    strength = dict.fromkeys(("no-focused-attention", "no-mi-loss", "no-noise-loss"), 0.8 + 0.05 * seeds)
    run = load_run(write_run(tmp_path / "ablations", users=80, seeds=5, strength=strength))
    supported = {"better": "contradicted", "worse": "supported", "undecided": "undecided"}
    for variant in strength:
        pair = {"arm": variant, "than": "fair"} if swapped else {"arm": "fair", "than": variant}
        [finding] = claims_for(run, [_claim(id=variant, expect="lower" if swapped else "higher", **pair)])
        table = against_control(run)["ml-100k", variant]
        assert finding.verdict == supported[table.verdict]
        assert finding.p == table.p_adjusted
        assert finding.estimate == pytest.approx(table.difference if swapped else -table.difference)


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
    assert _one(run, quantity="attention/entropy_relative", **arms).verdict == "supported"
    assert _one(run, quantity="attention/injected_abs", **arms).verdict == "not tested"
    assert _one(run, quantity="cost/tokens_per_event", **arms).verdict == "not tested"


def test_a_reference_is_no_level_of_a_sweep(tmp_path):
    variants = {name: {"model": "fair"} for name in "abcd"}
    strength = {"a": 0.5, "b": 0.9, "c": 1.0, "d": 0.3}
    options = {"variants": variants, "strength": strength, "users": 300, "attention": False}
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
    folder = write_run(tmp_path / "sweep", variants=variants, strength=strength, users=300, attention=False)
    assert _one(load_run(folder), sweep=True).verdict == verdict


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
        ("papers: [", "no valid YAML"),
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
