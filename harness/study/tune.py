"""Tuning with equal budgets: one search per data set and variant, the same trials and the same cap for each.

A trial's settings are a function of the trials before it alone (Optuna's TPE, seeded by the trial's number), and its
training resumes from its checkpoint, so a search that was killed ends as one that was not. A trial sees no test part:
there is none in the split that it is given. Its value is the best validation value of its epochs.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from safetensors import SafetensorError, safe_open

from harness.data.config import DataConfig
from harness.data.log import EventLog
from harness.data.splits import Split
from harness.errors import CellFailed, InputError, Interrupted
from harness.files import digest, read_json, write_json, write_text, writing
from harness.provenance import git_state, versions
from harness.study.cells import Cell, Inputs, make_arm, make_cells, resolved
from harness.study.design import Space, Study
from harness.study.folder import RunFolder
from harness.study.run_cell import build_model, task_data
from harness.training import CHECKPOINT, fit

__all__ = ["LEDGER", "SEED", "TUNED", "Budget", "Job", "Search", "ValidationOnly", "run_search", "searches", "tune"]

SEED = 1_000_000
"""Trials train with a seed that no study has: nothing is chosen for the luck of a seed that is reported later."""
LEDGER, TUNED = "tuning.json", "tuned.yaml"
POLL_SECONDS = 1.0
MOST_CORNERS = 1000
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Budget:
    """What each search may spend, beside the study's own budget of epochs for a trial."""

    trials: int
    seconds: float | None = None
    """Of training and validation, over all trials of a search; a trial at which it ends counts as pruned."""

    def is_spent(self, trials: list[dict[str, Any]]) -> bool:
        return len(trials) >= self.trials or (self.seconds is not None and _seconds(trials) >= self.seconds)


@dataclass(frozen=True)
class Search:
    """The search for the settings of one variant on one data set."""

    id: str
    dataset: str
    variant: str
    space: dict[str, Space]

    @property
    def name(self) -> str:
        return f"{self.dataset} / {self.variant}"


def tune(
    study: Study,
    folder: RunFolder,
    budget: Budget,
    *,
    data_root: Path | None,
    cache: Path,
    device: str = "cpu",
    threads: int = 1,
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Searches, or goes on with searches that were interrupted; writes ``tuning.json`` and ``tuned.yaml``.

    Returns the entries of ``tuning.json`` (see :mod:`harness.analysis.tuning`).

    Raises:
        InputError: no search space, a setting that the model does not know, data that can't be used, or a search
            none of whose trials could be finished.
        Interrupted: the user stopped it; the same command goes on.
    """
    place = folder.path / "tuning"
    with _only_tuning(place):
        inputs = Inputs(data_root, cache, say)
        found = searches(study, inputs)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the workers when they start
        job = Job(study, place, budget, data_root, cache, device, threads)
        _work(job, found, workers, say)
        entries = [_entry(search, study, budget, _trials(place / search.id)[: budget.trials]) for search in found]
    write_json(folder.path / LEDGER, entries)
    _write_tuned(folder.path / TUNED, study, entries)
    return entries


def searches(study: Study, inputs: Inputs) -> list[Search]:
    """The searches that a study declares.

    Raises:
        InputError: it declares none, a setting is unknown or does not take a value of its space, or the data can't be
            used.
    """
    if not any(study.search.values()):
        raise InputError(
            f"study '{study.study}' declares no search; add one, as in "
            "search: {VARIANT: {training.learning_rate: {low: 0.0001, high: 0.01, log: true}}}"
        )
    study = study.model_copy(update={"tuned": {}})
    make_cells(study, inputs)  # refuses here what would fail in every trial
    found = []
    for dataset in study.datasets:
        for variant, space in study.search.items():
            if not space:
                continue
            _check_space(study, dataset, variant, space)
            _, split = inputs.split(dataset, make_arm(study, dataset, variant).data)
            settings = resolved(study, dataset, make_arm(study, dataset, variant))
            spaces = {key: values.described() for key, values in space.items()}
            identity = digest([settings, split.fingerprint, spaces, SEED])[:16]
            found.append(Search(identity, dataset, variant, space))
    return found


def _check_space(study: Study, dataset: str, variant: str, space: dict[str, Space]) -> None:
    """Raises InputError where a setting must not be searched, or no corner of the space is possible."""
    where = f"study '{study.study}', search of '{variant}'"
    for key in space:
        part, _, rest = key.partition(".")
        if part == "data" and rest != "max_length" and rest in DataConfig.model_fields:
            raise InputError(f"{where}: '{key}' decides what is measured, so it can't be searched; take it out")
    refusal = None
    for corner in islice(product(*(values.ends() for values in space.values())), MOST_CORNERS):
        try:
            make_arm(_with(study, dataset, variant, dict(zip(space, corner, strict=True))), dataset, variant)
            return
        except InputError as error:
            refusal = refusal or error
    raise InputError(f"{where}: {refusal}") from refusal


def _with(study: Study, dataset: str, variant: str, settings: dict[str, Any]) -> Study:
    return study.model_copy(update={"tuned": {dataset: {variant: settings}}})


# -- one search -------------------------------------------------------------------------------------------------


class ValidationOnly(Inputs):
    """Inputs whose splits end before the test part."""

    def split(self, dataset: str, data: DataConfig) -> tuple[EventLog, Split]:
        log, split = super().split(dataset, data)
        return log, dataclasses.replace(split, test_end=split.valid_end)


@dataclass(frozen=True)
class Job:
    """What a worker process must know."""

    study: Study
    place: Path
    budget: Budget
    data_root: Path | None
    cache: Path
    device: str
    threads: int


def run_search(job: Job, search: Search, should_stop: Callable[[], bool]) -> None:
    """Runs the trials of a search that are still to be run. Its folder holds those that were, in ``trials.json``."""
    torch.set_num_threads(job.threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    inputs = ValidationOnly(job.data_root, job.cache)
    folder = job.place / search.id
    trials = _trials(folder)
    while not job.budget.is_spent(trials):
        left = None if job.budget.seconds is None else job.budget.seconds - _seconds(trials)
        trials.append(_Trial(job, search, trials, left, inputs).run(folder, should_stop))
        write_json(folder / "trials.json", trials)


def _trials(folder: Path) -> list[dict[str, Any]]:
    path = folder / "trials.json"
    return read_json(path) if path.exists() else []


def _seconds(trials: list[dict[str, Any]]) -> float:
    return sum(trial["seconds"] for trial in trials)


class _Trial:
    """The trial that comes after ``past``."""

    def __init__(
        self, job: Job, search: Search, past: list[dict[str, Any]], left: float | None, inputs: Inputs
    ) -> None:
        self.job, self.search, self.inputs, self.left = job, search, inputs, left
        self.number = len(past)
        self.optuna = _ask(job.study, search, past)
        self.rows: list[dict[str, Any]] = []

    def run(self, folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Trains and validates, from the last checkpoint if there is one; returns the trial's line of the ledger."""
        training = folder / f"trial-{self.number}"
        value, reason = None, ""
        try:
            value = self._train(training, should_stop)
            state = "complete"
        except optuna.TrialPruned as pruned:
            state, reason = "pruned", str(pruned)
        except (InputError, Interrupted):
            raise
        except Exception as error:
            state = "failed"
            reason = str(error) if isinstance(error, CellFailed) else f"{type(error).__name__}: {error}"
        with writing(training):
            shutil.rmtree(training, ignore_errors=True)
        return {
            "number": self.number,
            "state": state,
            "value": value,
            "epochs": len(self.rows),
            "seconds": self._seconds(),
            "params": self.optuna.params,
            "curve": self._curve(),
            **({"reason": " ".join(reason.split())} if reason else {}),
        }

    def _train(self, folder: Path, should_stop: Callable[[], bool]) -> float:
        """The best validation value. Raises CellFailed where the settings exclude each other or don't train."""
        study, search = self.job.study, self.search
        try:
            tried = _with(study, search.dataset, search.variant, self.optuna.params)
            arm = make_arm(tried, search.dataset, search.variant)
            cell = Cell(f"{search.id}-{self.number}", search.dataset, arm, SEED, {})
            data = task_data(study, cell, self.inputs, self.job.device)
            model = build_model(cell, data, self.inputs)
        except InputError as error:
            raise CellFailed(str(error)) from error
        made_with = digest([versions(), git_state(), self.job.threads, self.job.device])
        for row in _rows_before(folder / CHECKPOINT, made_with):
            self._on_epoch(row)
        fit(
            model,
            data,
            training=arm.training,
            budget=study.budget,
            primary=study.primary,
            seed=SEED,
            folder=folder,
            made_with=made_with,
            on_epoch=self._on_epoch,
            should_stop=should_stop,
        )
        return (max if study.higher_is_better else min)(value for _, value in self._curve())

    @property
    def _tracked(self) -> str:
        return f"valid/{self.job.study.primary}"

    def _on_epoch(self, row: dict[str, Any]) -> None:
        """Raises TrialPruned where the median of earlier trials is better, or the search has spent its budget."""
        self.rows.append(row)
        if row.get(self._tracked) is not None:
            self.optuna.report(row[self._tracked], row["epoch"])
            if self.optuna.should_prune():
                raise optuna.TrialPruned
        if self.left is not None and self._seconds() >= self.left:
            raise optuna.TrialPruned("the search had spent its seconds")

    def _seconds(self) -> float:
        return sum(row[f"{part}_seconds"] for row in self.rows for part in ("data", "train", "evaluation"))

    def _curve(self) -> list[list[Any]]:
        """Epoch and validation value of each validation."""
        return [[row["epoch"], row[self._tracked]] for row in self.rows if row.get(self._tracked) is not None]


def _rows_before(checkpoint: Path, made_with: str) -> list[dict[str, Any]]:
    """The history of a trial that was interrupted; empty where its training does not go on from the checkpoint."""
    if not checkpoint.exists():
        return []
    try:
        with safe_open(checkpoint, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            return state["history"] if state["made_with"] == made_with else []
    except (SafetensorError, KeyError, TypeError, ValueError):
        shutil.rmtree(checkpoint.parent)  # damaged: the trial starts again
        return []


def _ask(study: Study, search: Search, past: list[dict[str, Any]]) -> optuna.Trial:
    """Optuna's next trial after ``past``, which is all that it knows."""
    distributions = {key: _distribution(space) for key, space in search.space.items()}
    made = optuna.create_study(
        direction="maximize" if study.higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=SEED + len(past)),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=study.budget.epochs // 5),
    )
    for trial in past:
        made.add_trial(
            optuna.trial.create_trial(
                state=STATES[trial["state"]],
                value=trial["value"],
                params=trial["params"],
                distributions=distributions,
                intermediate_values=dict(map(tuple, trial["curve"])),
            )
        )
    return made.ask(distributions)


def _distribution(space: Space) -> BaseDistribution:
    if space.choices is not None:
        return CategoricalDistribution(space.choices)
    whole = isinstance(space.low, int) and isinstance(space.high, int)
    return (IntDistribution if whole else FloatDistribution)(space.low, space.high, log=space.log)


# -- all searches -----------------------------------------------------------------------------------------------


_stopped: Any = None
"""In a worker process: the event that the parent sets when it was asked to stop."""


def _start_worker(stopped: Any) -> None:
    global _stopped  # noqa: PLW0603 (a pool's initialiser has no other way to leave something behind)
    _stopped = stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's business

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(130)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_in_worker(job: Job, search: Search) -> None:
    run_search(job, search, _stopped.is_set)


def _work(job: Job, found: list[Search], workers: int, say: Callable[[str], None]) -> None:
    told = {search.id: len(_trials(job.place / search.id)) for search in found}
    before = sum(min(done, job.budget.trials) for done in told.values())
    kept = f", {before} of them finished before" if before else ""
    found = [search for search in found if not job.budget.is_spent(_trials(job.place / search.id))]
    workers = min(workers, len(found))
    several = "s" * (workers > 1)
    say(f"{job.place}: {len(told)} searches of {job.budget.trials} trials{kept}; {workers} worker{several}")
    if not found:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    context = multiprocessing.get_context("spawn")
    stopped = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(stopped,))
    try:
        running: set[Future[None]] = {pool.submit(_run_in_worker, job, search) for search in found}
        while running:
            done, running = wait(running, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
            for search in found:
                told[search.id] = _tell(job, search, told[search.id], say)
            for future in done:
                future.result()
    except KeyboardInterrupt:
        raise Interrupted from None
    except BrokenProcessPool:
        raise InputError(
            "a worker died, perhaps for want of memory; run the same command again, with fewer --workers"
        ) from None
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _tell(job: Job, search: Search, told: int, say: Callable[[str], None]) -> int:
    """Says which trials have ended since ``told``; returns how many have."""
    trials = _trials(job.place / search.id)
    for trial in trials[told:]:
        value = "" if trial["value"] is None else f" {trial['value']:.4f}"
        reason = f" ({trial['reason']})" if "reason" in trial else ""
        say(f"  {search.name}: trial {trial['number'] + 1}/{job.budget.trials} {trial['state']}{value}{reason}")
    return len(trials)


def _entry(search: Search, study: Study, budget: Budget, trials: list[dict[str, Any]]) -> dict[str, Any]:
    done = [trial for trial in trials if trial["state"] == "complete"]
    if not done:
        why = f"the last one: {trials[-1].get('reason') or trials[-1]['state']}" if trials else "none was started"
        raise InputError(
            f"no trial of {search.name} was finished ({why}); mend its search space, or give it more trials or time"
        )
    best = (max if study.higher_is_better else min)(done, key=lambda trial: trial["value"])
    return {
        "dataset": search.dataset,
        "variant": search.variant,
        "space": {key: space.described() for key, space in search.space.items()},
        "cap": {"trials": budget.trials, "epochs": study.budget.epochs, "seconds": budget.seconds},
        "best": best["params"],
        "trials": trials,
    }


def _write_tuned(path: Path, study: Study, entries: list[dict[str, Any]]) -> None:
    tuned: dict[str, dict[str, Any]] = {}
    for entry in entries:
        tuned.setdefault(entry["dataset"], {})[entry["variant"]] = entry["best"]
    found = study.model_copy(update={"tuned": tuned}).model_dump(mode="json")
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=110)
    write_text(path, f"# The study with the settings that its tuning found; {LEDGER} tells how.\n{text}")


@contextmanager
def _only_tuning(place: Path) -> Iterator[None]:
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    with RunFolder(place).run_lock() as mine:
        if not mine:
            raise InputError(f"another `harness tune` is working in {place}; wait for it, or choose another --name")
        yield
