from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from scipy import stats

from harness.analysis.rows import load_run
from harness.analysis.tuning import border_distance, load_tuning
from harness.data.config import DataConfig
from harness.errors import InputError, Interrupted
from harness.settings import parse
from harness.study.cells import Inputs
from harness.study.design import Confirm, Study
from harness.study.ledger import closed_ends, entry_of
from harness.study.loading import load_study
from harness.study.search import SEED, ask, first_trials, searches
from harness.study.trials import (
    Budget,
    Job,
    Searches,
    ValidationOnly,
    _Run,
    confirm_search,
    confirmed_of,
    finalists,
    run_search,
)  # fmt: skip
from harness.tasks.retrieval import Retrieval

RESULTS = Path(__file__).parents[3] / "results"
DATASET = "synthetic-sessions:users=60,items=30"
RATE = {"low": 1e-4, "high": 1e-1, "log": True}
SEARCH = {v: {"training.learning_rate": RATE, "dim": {"choices": [8, 16]}} for v in ("ce", "bce")}
OWN = {"training.learning_rate": 0.001, "dim": 8}
"""The model's default and the study's ``common``."""


@pytest.fixture
def tunable(study_file):
    """The tiny study with a search for each variant."""
    raw = yaml.safe_load(study_file.read_text()) | {"search": SEARCH}
    study_file.write_text(yaml.safe_dump(raw, sort_keys=False))
    return study_file


@pytest.fixture
def job(tunable, tmp_path):
    def make(trials=7, seconds=None, **changes):
        study = load_study(str(tunable)).model_copy(update=changes)
        return Job(study, tmp_path / "tuning", Budget(trials, seconds), None, tmp_path / "cache", "cpu", 1)

    return make


def _searches(job):
    return searches(job.study, Inputs(None, job.cache))


def _trials(job, search):
    return json.loads((job.place / search.id / "trials.json").read_text())


def _timeless(trials):
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials]


def never():
    return False


def test_every_search_has_the_same_trials_and_stays_in_its_space(job):
    job = job()
    for search in _searches(job):
        run_search(job, search, never)
        trials = _trials(job, search)
        assert [trial["number"] for trial in trials] == list(range(7))
        assert [trial["drawn"] for trial in trials] == ["own", "random", "random", "tpe", "tpe", "tpe", "tpe"]
        assert trials[0]["params"] == OWN
        assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
        for trial in trials:
            assert RATE["low"] <= trial["params"]["training.learning_rate"] <= RATE["high"]
            assert trial["params"]["dim"] in (8, 16)
            assert trial["epochs"] == len(trial["curve"])
            if trial["state"] == "complete":
                assert trial["value"] == max(value for _, value in trial["curve"])
        assert len({trial["params"]["training.learning_rate"] for trial in trials}) == 7
        assert not list(job.place.glob("*/trial-*"))


def test_the_first_trial_has_what_the_study_sets_or_else_the_defaults(job):
    spaces = {
        "dim": [8, 16],
        "layers": [1, 2],
        "loss": ["ce", "bce"],
        "dropout": [0.5, 0.9],
        "training.batch_size": [128, 256],
        "training.beta1": [0.8, 0.9],
        "training.clip_norm": [None, 7.0],
        "data.max_length": [3, 50],
    }
    raw = job().study.model_dump()
    raw["search"] = {"bce": {key: {"choices": choices} for key, choices in spaces.items()}}
    raw["datasets"] = {DATASET: {"layers": 2, "training.clip_norm": 7.0}}
    raw["variants"]["bce"]["set"] |= {"data.max_length": 3}
    raw["tuned"] = {DATASET: {"bce": {"dim": 16, "dropout": 0.9}}}
    (search,) = searches(type(job().study).model_validate(raw), Inputs(None, job().cache))
    assert search.own == {
        "dim": 8,  # of common, not of what an earlier tuning found
        "layers": 2,  # of the data set
        "loss": "bce",  # of the variant
        "dropout": 0.5,  # of the model
        "training.batch_size": 128,  # of the model's training
        "training.beta1": 0.9,  # of all training
        "training.clip_norm": 7.0,
        "data.max_length": 3,
    }


def test_what_is_found_is_no_worse_than_the_studys_own_setting(job):
    """Where every other setting fails, the search ends with the study's own."""
    job = job(trials=6, search=_spaces(job().study, **{"training.learning_rate": [0.001, 1e30]}))
    search = _searches(job)[0]
    run_search(job, search, never)
    trials = _trials(job, search)
    assert trials[0]["state"] == "complete"
    assert {t["state"] == "failed" for t in trials if t["params"]["training.learning_rate"] == 1e30} == {True}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"dim": {"choices": [16, 32]}}, 'dim, 8, is not in {"choices": [16, 32]}'),
        ({"training.learning_rate": {"low": 0.01, "high": 0.1}}, '0.001, is not in {"low": 0.01, "high": 0.1}'),
        ({"training.weight_decay": RATE}, "training.weight_decay, 0.0, is not in"),
        ({"training.clip_norm": {"low": 1, "high": 2}}, "training.clip_norm, null, is not in"),
        ({"dropout": {"low": 0, "high": 1}}, "dropout, 0.5, is not in"),
    ],
)
def test_a_space_without_the_studys_own_setting_is_refused(job, space, said):
    raw = job().study.model_dump() | {"search": {"ce": space}}
    with pytest.raises(InputError) as refusal:
        searches(type(job().study).model_validate(raw), Inputs(None, job().cache))
    assert f"search of 'ce' on '{DATASET}': the study's own " in str(refusal.value)
    assert said in str(refusal.value)
    assert "widen the space" in str(refusal.value)


def test_fewer_trials_are_random_than_there_are():
    assert [first_trials(n) for n in (1, 2, 3, 4, 8, 19, 20, 100)] == [1, 1, 1, 2, 4, 9, 10, 10]
    assert all(first_trials(n) < n for n in range(2, 50))


def _past(search, study, trials, values):
    """As many trials as there are values, None for one that failed."""
    past = []
    for number, value in enumerate(values):
        state = "failed" if value is None else "complete"
        params = ask(study, search, past, trials).params
        past.append({"number": number, "state": state, "value": value, "params": params, "curve": []})
    return past


@pytest.mark.parametrize("number", range(8))
def test_tpe_learns_from_the_values_and_random_draws_do_not(job, number):
    study, search = job().study, _searches(job())[0]
    rising, falling = ([sign * 0.1 * n for n in range(number)] for sign in (1, -1))
    one, other = (ask(study, search, _past(search, study, 8, v), 8).params for v in (rising, falling))
    assert (one != other) == (number >= 4)
    assert (one == OWN) == (number == 0)


def test_trials_that_failed_do_not_prolong_the_random_start(job):
    study, search = job().study, _searches(job())[0]
    past = _past(search, study, 8, [None] * 7)
    drawn = [ask(study, search, past[:n], 8).params["training.learning_rate"] for n in range(8)]
    assert len(set(drawn)) == 8
    past[0] |= {"state": "complete", "value": 0.1}
    informed = [ask(study, search, past[:n], 8).params["training.learning_rate"] for n in range(8)]
    assert informed[:4] == drawn[:4]
    assert all(a != b for a, b in zip(informed[4:], drawn[4:], strict=True))


@pytest.mark.parametrize("trials", [8, 20, 50])
def test_random_draws_are_spread_evenly(job, trials):
    study = job(search=_spaces(job().study, dim=[8, 16, 24])).study
    raw = study.model_dump()
    raw["search"]["ce"] |= {"training.learning_rate": RATE, "layers": {"low": 1, "high": 3}}
    study = type(study).model_validate(raw)
    (search,) = searches(study, Inputs(None, job().cache))
    draws = [trial["params"] for trial in _past(search, study, trials, [0.1] * first_trials(trials))[1:]]
    assert len(draws) == first_trials(trials) - 1 == (3 if trials == 8 else 9)
    for key, values in (("dim", (8, 16, 24)), ("layers", (1, 2, 3))):
        assert [sum(draw[key] == value for draw in draws) for value in values] == [len(draws) // 3] * 3
    thirds = [int(math.log10(draw["training.learning_rate"]) + 4) for draw in draws]
    assert sorted(thirds) == sorted([0, 1, 2] * (len(draws) // 3))


@pytest.mark.slow
@pytest.mark.parametrize(("share", "first"), [(0.0, 1), (0.5, 4), (0.7, 6), (1.0, 8)])
def test_nothing_is_pruned_before_its_share_of_the_epochs(job, share, first):
    """Of eight epochs, in a search most of whose trials are hopeless: a rate of 1e-7 learns nothing."""
    rates = {"low": 1e-7, "high": 1e-2, "log": True}
    raw = job().study.model_dump() | {"search": {"ce": {"training.learning_rate": rates}}, "prune_after": share}
    raw["budget"]["epochs"] = 8
    base = job(trials=14)
    job = Job(**{**base.__dict__, "study": type(base.study).model_validate(raw)})
    search = _searches(job)[0]
    run_search(job, search, never)
    pruned = [trial["epochs"] for trial in _trials(job, search) if trial["state"] == "pruned"]
    assert all(first <= epochs < 8 for epochs in pruned)
    assert (min(pruned, default=8)) == first


def test_ends_that_the_model_closes_are_known(job):
    spaces = {
        "dropout": {"low": 0.0, "high": 0.6},
        "calibration": {"low": 0.0, "high": 1.0},
        "training.learning_rate": RATE,
        "training.weight_decay": {"choices": [0.01, 0.0, 0.001]},
        "heads": {"choices": [1, 2, 4]},
        "layers": {"low": 1, "high": 3},
        "dim": {"low": 8, "high": 16},
        "loss": {"choices": ["ce", "bce"]},
    }
    study = type(job().study).model_validate(job().study.model_dump() | {"search": {"ce": spaces}})
    (search,) = searches(study, Inputs(None, job().cache))
    assert {key: closed_ends(study, search, key, space) for key, space in search.space.items()} == {
        "dropout": ["low"],
        "calibration": ["low", "high"],
        "training.learning_rate": [],
        "training.weight_decay": ["low"],
        "heads": ["low"],
        "layers": ["low"],
        "dim": [],
        "loss": [],
    }


def test_the_test_part_is_out_of_reach(job, monkeypatch):
    job = job(trials=2)
    asked = []
    predict = Retrieval.predict

    def spy(self, model, phase, **options):
        assert (self.split.test_end == self.split.valid_end).all()
        asked.append(phase)
        return predict(self, model, phase, **options)

    monkeypatch.setattr(Retrieval, "predict", spy)
    run_search(job, _searches(job)[0], never)
    assert set(asked) == {"valid"}
    _, split = ValidationOnly(None, job.cache).split(DATASET, DataConfig())
    assert len(split.targets("test")[0]) == len(split.events("test")[0]) == 0
    assert len(split.targets("valid")[0]) == 60


@pytest.mark.parametrize("after", [2, 9, 22])
def test_an_interrupted_search_ends_as_one_that_was_not(job, tmp_path, after):
    """An epoch is one batch and a trial four, and trials are pruned from the sixth on; after two the first is cut."""
    calm = job()
    search = _searches(calm)[0]
    run_search(calm, search, never)
    rough = Job(**{**calm.__dict__, "place": tmp_path / "rough"})
    batches = iter(range(10**6))
    with pytest.raises(Interrupted):
        run_search(rough, search, lambda: next(batches) >= after)
    run_search(rough, search, never)
    assert _timeless(_trials(rough, search)) == _timeless(_trials(calm, search))
    assert [trial["params"] for trial in _trials(rough, search)].count(OWN) == 1


def test_more_trials_go_on_from_those_there_are(job):
    few, many = job(trials=2), job(trials=4)
    search = _searches(few)[0]
    run_search(few, search, never)
    before = _trials(few, search)
    run_search(many, search, never)
    assert _trials(many, search)[:2] == before
    assert len(_trials(many, search)) == 4
    assert [trial["drawn"] for trial in _trials(many, search)].count("own") == 1


def test_the_cap_on_seconds_ends_a_search(job):
    job = job(trials=1000, seconds=0.15)
    search = _searches(job)[0]
    run_search(job, search, never)
    trials = _trials(job, search)
    assert 0 < len(trials) < 1000
    spent = sum(trial["seconds"] for trial in trials)
    assert spent >= 0.15
    assert spent - trials[-1]["seconds"] < 0.15
    run_search(job, search, never)
    assert len(_trials(job, search)) == len(trials)


def test_seconds_alone_end_a_search(job):
    job = job(trials=None, seconds=0.3)
    search = _searches(job)[0]
    run_search(job, search, never)
    trials = _trials(job, search)
    assert job.budget.is_spent(trials)
    assert not job.budget.is_spent(trials[:-1])
    assert [trial["drawn"] for trial in trials[:11]] == (["own"] + ["random"] * 9 + ["tpe"])[: len(trials)]


def test_the_best_trials_are_trained_again_with_new_seeds(job, tmp_path):
    job = job(trials=4)
    search = _searches(job)[0]
    shared = Searches(job, [search], None)
    run_search(job, search, never)
    trials = _trials(job, search)
    assert not shared.is_over(search.id)  # what is left is to confirm
    confirm_search(job, search, never)
    assert shared.is_over(search.id)
    runs = confirmed_of(job.place / search.id)
    done = sorted((t for t in trials if t["state"] == "complete"), key=lambda t: -t["value"])
    assert [(r["trial"], r["seed"]) for r in runs] == [(t["number"], SEED + i) for t in done[:3] for i in (1, 2, 3)]
    assert all(len(run["curve"]) == 4 for run in runs)  # none is pruned
    assert not list((job.place / search.id).glob("confirm-*"))  # no checkpoint is left
    entry = entry_of(search, job.study, job.budget, trials, runs)
    means = {
        t["number"]: np.mean([t["value"], *(r["value"] for r in runs if r["trial"] == t["number"])]) for t in done[:3]
    }
    assert entry["chosen"] == max(means, key=means.get)
    assert entry["best"] == trials[entry["chosen"]]["params"]
    # The same training as a trial's but for the seed: of the trials' own seed, the same value.
    again = _Run(job, search, done[0]["params"], SEED, "again", ValidationOnly(None, job.cache)).ended(tmp_path, never)
    assert again["value"] == done[0]["value"]


def test_confirming_goes_on_after_a_kill(job, tmp_path):
    calm = job(trials=2, confirm=Confirm(top=1, seeds=2))
    search = _searches(calm)[0]
    run_search(calm, search, never)
    rough = Job(**{**calm.__dict__, "place": tmp_path / "rough"})
    shutil.copytree(calm.place, rough.place)
    confirm_search(calm, search, never)
    batches = iter(range(10**6))
    with pytest.raises(Interrupted):
        confirm_search(rough, search, lambda: next(batches) >= 6)  # in the second run
    assert len(confirmed_of(rough.place / search.id)) == 1
    confirm_search(rough, search, never)
    calm_runs, rough_runs = (confirmed_of(place / search.id) for place in (calm.place, rough.place))
    assert _timeless(rough_runs) == _timeless(calm_runs)
    confirm_search(rough, search, never)
    assert confirmed_of(rough.place / search.id) == rough_runs


def _line(number, value, state="complete"):
    return {"number": number, "state": state, "value": value, "params": {"dim": number}, "seconds": 1.0, "epochs": 1}


def test_how_one_is_chosen(job):
    job = job(trials=4)
    search = _searches(job)[0]
    trials = [_line(0, 0.3), _line(1, 0.9), _line(2, None, "pruned"), _line(3, 0.5)]

    def chosen(runs, **changes):
        study = job.study.model_copy(update=changes)
        found = [{"trial": n, "seed": i, "state": "complete", "value": v} for n, v, i in runs]
        return entry_of(search, study, job.budget, trials, found)["chosen"]

    assert finalists(job.study, job.budget, trials) == [1, 3, 0]
    assert chosen([(1, 0.2, 1), (1, 0.3, 2), (3, 0.4, 1), (3, 0.4, 2), (0, 0.4, 1), (0, 0.9, 2)]) == 0  # .47, .43, .53
    assert chosen([(1, 0.2, 1), (3, 0.4, 1), (3, None, 2), (0, 0.1, 1)]) == 1  # one that fails with a seed is out
    assert chosen([], confirm=None) == 1
    with pytest.raises(InputError, match="none of the best trials"):
        chosen([(1, None, 1)])


@functools.cache
def _components():
    """Of the committed searches: standard deviations over settings and over seeds, the latter on validation and test
    together, as five seeds know neither well."""
    run, found = load_run(RESULTS / "tuning"), []
    for entry in load_tuning(run):
        of_seed = [
            np.std([*run.by_seed(entry["dataset"], entry["variant"], run.primary, phase=phase).values()], ddof=1)
            for phase in ("valid", "test")
        ]
        values = [trial["value"] for trial in entry["trials"] if trial["value"] is not None]
        of_setting = np.sqrt(max(np.var(values, ddof=1) - of_seed[0] ** 2, 0))
        found.append((of_setting, np.sqrt(np.mean(np.square(of_seed)))))
    return found


def _false_positives(rng, studies, of_setting, of_seed, top, seeds):
    """How often two arms that are the same method differ over 5 seeds, each tuned with 8 trials of the same settings
    and with luck of its own."""
    quality = rng.normal(0, of_setting, size=(studies, 8))
    arms = []
    for _ in range(2):
        single = quality + rng.normal(0, of_seed, size=quality.shape)
        best = np.argsort(-single, axis=1)[:, :top]  # (studies, top)
        again = np.take_along_axis(quality, best, 1)[..., None] + rng.normal(0, of_seed, size=(studies, top, seeds))
        means = np.concatenate([np.take_along_axis(single, best, 1)[..., None], again], axis=2).mean(2)
        chosen = np.take_along_axis(best, means.argmax(1)[:, None], 1)
        arms.append(np.take_along_axis(quality, chosen, 1) + rng.normal(0, of_seed, size=(studies, 5)))
    return np.mean(stats.ttest_rel(*arms, axis=1).pvalue <= 0.05)


def test_two_searches_for_one_method_seldom_differ():
    """With the spread of the committed searches. What it can't show: of searches with other settings each, the arms do
    differ, however each is chosen."""
    how = Confirm()
    single, confirmed = (
        [_false_positives(np.random.default_rng(1), 200_000, *sds, *plan) for sds in _components()]
        for plan in ((1, 0), (how.top, how.seeds))
    )
    assert max(confirmed) <= 0.07
    assert min(single) >= 0.09


def test_settings_that_exclude_each_other_are_a_failed_trial(job):
    job = job(trials=8, search=_spaces(job().study, heads=[1, 3], dim=[8, 9]))
    search = _searches(job)[0]
    run_search(job, search, never)
    trials = _trials(job, search)
    for trial in trials:
        possible = trial["params"]["dim"] % trial["params"]["heads"] == 0
        assert (trial["state"] == "failed") == (not possible)
        assert possible or "must be a multiple of heads" in trial["reason"]
    assert len({trial["state"] == "failed" for trial in trials}) == 2


def test_settings_that_the_data_refuse_are_a_failed_trial(job):
    """As `harness run` would refuse them."""
    lengths = {"training.stride": [None, 5], "data.max_length": [50, 3]}
    job = job(trials=8, search=_spaces(job().study, **lengths))
    search = _searches(job)[0]
    run_search(job, search, never)
    trials = _trials(job, search)
    for trial in trials:
        possible = trial["params"] != {"training.stride": 5, "data.max_length": 3}
        assert (trial["state"] == "failed") == (not possible)
        assert possible or "stride 5 is longer than data.max_length 3" in trial["reason"]
    assert len({trial["state"] == "failed" for trial in trials}) == 2


def test_settings_that_need_times_which_the_data_lack_are_a_failed_trial(job, monkeypatch):
    load = Inputs.log
    monkeypatch.setattr(Inputs, "log", lambda self, *words: dataclasses.replace(load(self, *words), time=None))
    study = parse(
        Study,
        {
            "study": "timeless",
            "task": "action",
            "datasets": ["synthetic-clusters:users=30,items=20,clusters=2,length=12"],
            "seeds": 1,
            "data": {"split": "within-user", "max_length": 12},
            "variants": {"lfa": {"model": "attn-lfa", "set": {"dim": 8, "backbone": "hstu"}}},
            "search": {"lfa": {"time_bias": {"choices": [False, True]}}},
            "budget": {"epochs": 1},
            "metrics": ["bce"],
            "primary": "bce",
        },
        "study",
    )
    job = Job(**{**job(trials=4).__dict__, "study": study})
    (search,) = _searches(job)
    run_search(job, search, never)
    trials = _trials(job, search)
    assert {(t["params"]["time_bias"], t["state"]) for t in trials} == {(False, "complete"), (True, "failed")}
    assert all("needs event times as it is set" in t["reason"] for t in trials if t["state"] == "failed")


def _spaces(study, **choices):
    search = {"ce": {key: {"choices": values} for key, values in choices.items()}}
    return type(study).model_validate(study.model_dump() | {"search": search}).search


def test_another_design_is_another_search(job):
    ids = {search.id for search in _searches(job())}
    wider = job(budget=job().study.budget.model_copy(update={"epochs": 5}))
    assert len(ids) == 2
    assert ids.isdisjoint(search.id for search in _searches(wider))
    assert ids.isdisjoint(search.id for search in _searches(job(prune_after=0.25)))
    assert SEED not in job().study.seeds


class TestCommand:
    def test_tune_then_run_with_the_best(self, harness, call, tunable, tmp_path):
        done = harness("tune", "--study", tunable, "--trials", "3", "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert "trial 3/3" in done.stderr
        run = tmp_path / "out" / "tiny"
        entries = json.loads((run / "tuning.json").read_text())
        assert [(e["variant"], len(e["trials"])) for e in entries] == [("ce", 3), ("bce", 3)]
        done = harness("run", "--study", tunable, "--tuned", "--workers", "1")
        assert done.returncode == 0, done.stderr
        loaded = load_run(run)
        assert load_tuning(loaded) == entries
        for entry in entries:
            assert entry["best"] == entry["trials"][entry["chosen"]]["params"]
            assert {run["seed"] for run in entry["confirmed"]} == {SEED + 1, SEED + 2, SEED + 3}
            assert entry["trials"][0]["params"] == OWN
            assert entry["cap"] == {"trials": 3, "epochs": 4, "seconds": None, "first_pruning": 2}
            assert set(border_distance(entry, lower=False)) == {"training.learning_rate"}
            for cell in loaded.ids(DATASET, entry["variant"]):
                card = loaded.cards[cell]
                assert card["training"]["learning_rate"] == entry["best"]["training.learning_rate"]
                assert card["config"]["dim"] == entry["best"]["dim"]
        ledger = (run / "tables" / "tuning.md").read_text()
        assert "| 3 |" in ledger
        assert "Trial 1 is the study's own setting" in ledger
        assert "(0), then TPE's choices (2); none was pruned for its values before epoch 2 of 4" in ledger
        assert "†" not in (run / "tables" / "main.md").read_text()
        assert not call("plan", "--study", run / "tuned.yaml", "--out", "elsewhere").err
        assert json.loads(call("plan", "--study", run / "tuned.yaml", "--json").out)["left"] == 0

    def test_a_search_of_some_keeps_what_was_found_for_the_others(self, call, tunable, tmp_path, monkeypatch):
        def work(job, found, crew):
            for search in found:
                run_search(job, search, never)
                confirm_search(job, search, never)

        monkeypatch.setattr("harness.study.tune._work", work)  # in this process: four commands in seconds
        other = "synthetic-sessions:users=50,items=30"
        raw = yaml.safe_load(tunable.read_text()) | {"datasets": [DATASET, other]}
        tunable.write_text(yaml.safe_dump(raw, sort_keys=False))
        run = tmp_path / "out" / "tiny"

        def tune(*words):
            done = call("tune", "--study", tunable, "--workers", "1", *words)
            assert done.code == 0, done.err
            entries = json.loads((run / "tuning.json").read_text())
            study = load_study(str(run / "tuned.yaml"))
            assert study.datasets.keys() == study.tuned.keys()
            for entry in entries:
                assert study.tuned[entry["dataset"]][entry["variant"]] == entry["best"]
            return {(e["dataset"], e["variant"]): len(e["trials"]) for e in entries}, done.err

        first = [(d, v) for d in (DATASET, other) for v in ("ce", "bce")]
        found, _ = tune("--trials", "1", "--dataset", other)
        assert list(found) == first[2:]
        found, said = tune("--trials", "2", "--dataset", DATASET)
        assert found == {first[0]: 2, first[1]: 2, first[2]: 1, first[3]: 1}
        assert "left out" not in said
        # Of the variants, ce alone is searched now.
        found, _ = tune("--trials", "1", "--dataset", DATASET, "--set", "search={ce: {dim: {choices: [8, 16]}}}")
        assert found == {first[0]: 1, first[1]: 2, first[2]: 1, first[3]: 1}
        longer = ("--set", "budget.epochs=2")
        found, said = tune("--trials", "1", "--dataset", other, *longer)
        assert list(found) == first[2:]
        assert f"the earlier search of {DATASET} / ce is left out: it was of another design" in said
        (run / "tuned.yaml").write_text("study: [")
        found, said = tune("--trials", "1", "--dataset", DATASET, *longer)
        assert list(found) == first[:2]
        assert "nothing is kept of earlier searches" in said

    @pytest.mark.slow
    @pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGKILL, 1)])
    def test_stopped_and_resumed(self, number, times, harness, start_harness, tunable, tmp_path):
        words = ("tune", "--study", tunable, "--trials", "20", "--workers", "2", "--set", "budget.epochs=10")
        run = tmp_path / "out" / "rough"
        process = start_harness(*words, "--name", "rough")
        end = time.time() + 60
        while not list(run.glob("tuning/*/trials.json")):
            assert time.time() < end
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        for _ in range(times):
            os.kill(process.pid, number)
            time.sleep(0.1)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), errors
        assert "Traceback" not in errors
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
        assert not (run / "tuned.yaml").exists()
        for name in ("rough", "calm"):
            done = harness(*words, "--name", name)
            assert done.returncode == 0, done.stderr
        rough, calm = (json.loads((run.parent / n / "tuning.json").read_text()) for n in ("rough", "calm"))
        for key in ("trials", "confirmed"):
            assert [_timeless(e[key]) for e in rough] == [_timeless(e[key]) for e in calm]
        for entry in rough:
            assert [trial["drawn"] for trial in entry["trials"]] == ["own"] + ["random"] * 9 + ["tpe"] * 10
            assert entry["trials"][0]["params"] == OWN
        assert (run / "tuned.yaml").read_bytes() == (run.parent / "calm" / "tuned.yaml").read_bytes()

    def test_bad_input(self, refuses, study_file, tunable):
        def line(*words):
            return refuses("tune", "--study", tunable, "--trials", "2", *words)

        assert "declares no search" in refuses("tune", "--study", "ablations", "--trials", "2")
        assert "--trials, equal --minutes, or both" in refuses("tune", "--study", tunable)
        assert "confirm.top" in line("--set", "confirm.top=0")
        assert "--trials" in refuses("tune", "--study", tunable, "--trials", "0")
        assert "unknown variant 'cee'; did you mean 'ce'" in line("--set", "search.cee.dim.choices=[1,2]")
        assert "did you mean 'layers'" in line("--set", "search.ce={layer: {choices: [1, 2]}}")
        assert "did you mean 'learning_rate'" in line("--set", "search.ce={training.learning_rat: {low: 1, high: 2}}")
        assert "decides what is measured" in line("--set", "search.ce={data.split: {choices: [temporal]}}")
        assert "low must be below high" in line("--set", "search.ce={dim: {low: 3, high: 2}}")
        assert "either {low, high} or {choices}" in line("--set", "search.ce={dim: {low: 3}}")
        assert "the study's own dim, 8, is not in" in line("--set", "search.ce={dim: {choices: [16, 32]}}")
        assert "prune_after" in line("--set", "prune_after=1.5")
        assert "unknown data set" in line("--dataset", "ml-100")
        assert "has no preset" in line("--preset", "papr")
        assert "holds no tuned.yaml" in refuses("run", "--study", tunable, "--tuned")

    def test_a_search_that_finds_nothing(self, call, refuses, job, tmp_path):
        rates = {"training.learning_rate": [1e30, 1e31]}
        common = job().study.common | {"training.learning_rate": 1e30}
        job = job(trials=2, search=_spaces(job().study, **rates), common=common)
        job = Job(**{**job.__dict__, "place": tmp_path / "out" / "tiny" / "tuning"})
        run_search(job, _searches(job)[0], never)
        words = ("--set", "search={ce: {training.learning_rate: {choices: [1.0e+30, 1.0e+31]}}}", "--trials", "2")
        line = refuses("tune", "--study", tmp_path / "tiny.yaml", "--set", "training.learning_rate=1.0e+30", *words)
        assert f"no trial of {DATASET} / ce was finished" in line
        assert "lower the learning rate" in line


@pytest.mark.parametrize("choices", [{"layerz": [1, 2]}, {"heads": [3, 5]}, {"dim": [-8, -4]}])
def test_a_space_without_any_possible_corner_is_refused(job, choices):
    job = job(search=_spaces(job().study, **choices))
    with pytest.raises(InputError, match=f"search of 'ce'.*{next(iter(choices))}"):
        _searches(job)
