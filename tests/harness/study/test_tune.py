from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest
import yaml

from harness.analysis.rows import load_run
from harness.analysis.tuning import border_distance, load_tuning
from harness.data.config import DataConfig
from harness.errors import InputError, Interrupted
from harness.study.cells import Inputs
from harness.study.design import load_study
from harness.study.tune import SEED, Budget, Job, ValidationOnly, run_search, searches
from harness.tasks.retrieval import Retrieval

DATASET = "synthetic-sessions:users=60,items=30"
RATE = {"low": 1e-4, "high": 1e-1, "log": True}
SEARCH = {v: {"training.learning_rate": RATE, "dim": {"choices": [8, 16]}} for v in ("ce", "bce")}


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
        assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
        for trial in trials:
            assert RATE["low"] <= trial["params"]["training.learning_rate"] <= RATE["high"]
            assert trial["params"]["dim"] in (8, 16)
            assert trial["epochs"] == len(trial["curve"])
            if trial["state"] == "complete":
                assert trial["value"] == max(value for _, value in trial["curve"])
        assert len({trial["params"]["training.learning_rate"] for trial in trials}) == 7
        assert not list(job.place.glob("*/trial-*"))


def test_the_test_part_is_out_of_reach(job, monkeypatch):
    job = job(trials=2)
    asked = []
    evaluate = Retrieval.evaluate

    def spy(self, model, phase):
        assert (self.split.test_end == self.split.valid_end).all()
        asked.append(phase)
        return evaluate(self, model, phase)

    monkeypatch.setattr(Retrieval, "evaluate", spy)
    run_search(job, _searches(job)[0], never)
    assert set(asked) == {"valid"}
    _, split = ValidationOnly(None, job.cache).split(DATASET, DataConfig())
    assert len(split.targets("test")[0]) == len(split.events("test")[0]) == 0
    assert len(split.targets("valid")[0]) == 60


@pytest.mark.parametrize("after", [2, 9, 22])
def test_an_interrupted_search_ends_as_one_that_was_not(job, tmp_path, after):
    """An epoch is one batch and a trial four, and trials are pruned from the sixth on."""
    calm = job()
    search = _searches(calm)[0]
    run_search(calm, search, never)
    rough = Job(**{**calm.__dict__, "place": tmp_path / "rough"})
    batches = iter(range(10**6))
    with pytest.raises(Interrupted):
        run_search(rough, search, lambda: next(batches) >= after)
    run_search(rough, search, never)
    assert _timeless(_trials(rough, search)) == _timeless(_trials(calm, search))


def test_more_trials_go_on_from_those_there_are(job):
    few, many = job(trials=2), job(trials=4)
    search = _searches(few)[0]
    run_search(few, search, never)
    before = _trials(few, search)
    run_search(many, search, never)
    assert _trials(many, search)[:2] == before
    assert len(_trials(many, search)) == 4


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


def _spaces(study, **choices):
    search = {"ce": {key: {"choices": values} for key, values in choices.items()}}
    return type(study).model_validate(study.model_dump() | {"search": search}).search


def test_another_design_is_another_search(job):
    ids = {search.id for search in _searches(job())}
    wider = job(budget=job().study.budget.model_copy(update={"epochs": 5}))
    assert len(ids) == 2
    assert ids.isdisjoint(search.id for search in _searches(wider))
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
            best = max((t for t in entry["trials"] if t["state"] == "complete"), key=lambda t: t["value"])
            assert entry["best"] == best["params"]
            assert set(border_distance(entry, lower=False)) == {"training.learning_rate"}
            for cell in loaded.ids(DATASET, entry["variant"]):
                card = loaded.cards[cell]
                assert card["training"]["learning_rate"] == entry["best"]["training.learning_rate"]
                assert card["config"]["dim"] == entry["best"]["dim"]
        assert "| 3 |" in (run / "tables" / "tuning.md").read_text()
        assert "†" not in (run / "tables" / "main.md").read_text()
        assert not call("plan", "--study", run / "tuned.yaml", "--out", "elsewhere").err
        assert json.loads(call("plan", "--study", run / "tuned.yaml", "--json").out)["left"] == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_stopped_and_resumed(self, number, harness, start_harness, tunable, tmp_path):
        words = ("tune", "--study", tunable, "--trials", "20", "--workers", "2", "--set", "budget.epochs=10")
        run = tmp_path / "out" / "rough"
        process = start_harness(*words, "--name", "rough")
        end = time.time() + 60
        while not list(run.glob("tuning/*/trials.json")):
            assert time.time() < end
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), errors
        assert "Traceback" not in errors
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
        assert not (run / "tuned.yaml").exists()
        for name in ("rough", "calm"):
            done = harness(*words, "--name", name)
            assert done.returncode == 0, done.stderr
        rough, calm = (json.loads((run.parent / n / "tuning.json").read_text()) for n in ("rough", "calm"))
        assert [_timeless(e["trials"]) for e in rough] == [_timeless(e["trials"]) for e in calm]
        assert (run / "tuned.yaml").read_bytes() == (run.parent / "calm" / "tuned.yaml").read_bytes()

    def test_bad_input(self, refuses, study_file, tunable):
        def line(*words):
            return refuses("tune", "--study", tunable, "--trials", "2", *words)

        assert "declares no search" in refuses("tune", "--study", "ablations", "--trials", "2")
        assert "--trials" in refuses("tune", "--study", tunable)
        assert "--trials" in refuses("tune", "--study", tunable, "--trials", "0")
        assert "unknown variant 'cee'; did you mean 'ce'" in line("--set", "search.cee.dim.choices=[1,2]")
        assert "did you mean 'layers'" in line("--set", "search.ce={layer: {choices: [1, 2]}}")
        assert "did you mean 'learning_rate'" in line("--set", "search.ce={training.learning_rat: {low: 1, high: 2}}")
        assert "decides what is measured" in line("--set", "search.ce={data.split: {choices: [temporal]}}")
        assert "low must be below high" in line("--set", "search.ce={dim: {low: 3, high: 2}}")
        assert "either {low, high} or {choices}" in line("--set", "search.ce={dim: {low: 3}}")
        assert "unknown data set" in line("--dataset", "ml-100")
        assert "has no preset" in line("--preset", "papr")
        assert "holds no tuned.yaml" in refuses("run", "--study", tunable, "--tuned")

    def test_a_search_that_finds_nothing(self, call, refuses, job, tmp_path):
        rates = {"training.learning_rate": [1e30, 1e31]}
        job = job(trials=2, search=_spaces(job().study, **rates))
        job = Job(**{**job.__dict__, "place": tmp_path / "out" / "tiny" / "tuning"})
        run_search(job, _searches(job)[0], never)
        words = ("--set", "search={ce: {training.learning_rate: {choices: [1e30, 1e31]}}}", "--trials", "2")
        line = refuses("tune", "--study", tmp_path / "tiny.yaml", *words)
        assert f"no trial of {DATASET} / ce was finished" in line
        assert "lower the learning rate" in line


@pytest.mark.parametrize("choices", [{"layerz": [1, 2]}, {"heads": [3, 5]}, {"dim": [-8, -4]}])
def test_a_space_without_any_possible_corner_is_refused(job, choices):
    job = job(search=_spaces(job().study, **choices))
    with pytest.raises(InputError, match=f"search of 'ce'.*{next(iter(choices))}"):
        _searches(job)
