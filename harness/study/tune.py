"""Tuning with equal budgets: one search per data set and variant, the same trials and the same cap for each.

The first trial of a search is the study's own setting, so that what is found is never worse on validation than what
was there. Random draws follow, spread evenly over the space (a Latin hypercube), until half of the trials (ten at most)
have been: :func:`first_trials`. Optuna's TPE chooses the others from all before it. Once five trials are complete, one
that has trained the study's ``prune_after`` of its epochs is pruned if its best value so far is worse than the median
of theirs at that epoch.

A trial's settings are a function of its number, of how many there are to be and of the trials before it, and its
training resumes from its checkpoint, so a search that was killed ends as one that was not. A trial sees no test part:
there is none in the split that it is given. Its value is the best validation value of its epochs.
"""

from __future__ import annotations

import dataclasses
import json
import math
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
from typing import Any, Literal

import numpy as np
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
from harness.study.cells import Arm, Cell, Inputs, check_needs, make_arm, make_cells, resolved
from harness.study.design import Space, Study
from harness.study.folder import RunFolder
from harness.study.loading import load_study
from harness.study.run_cell import build_model, task_data
from harness.training import CHECKPOINT, fit

__all__ = [
    "LEDGER",
    "SEED",
    "TUNED",
    "Budget",
    "Job",
    "Search",
    "ValidationOnly",
    "first_trials",
    "run_search",
    "searches",
    "tune",
]

SEED = 1_000_000
"""Trials train with a seed that no study has: nothing is chosen for the luck of a seed that is reported later."""
RULES = 2
"""How trials are chosen and pruned; raised when that changes, so that no search goes on from trials of other rules."""
LEDGER, TUNED = "tuning.json", "tuned.yaml"
POLL_SECONDS = 1.0
MOST_CORNERS = 1000
MOST_FIRST_TRIALS = 10
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Budget:
    """What each search may spend, beside the study's own budget of epochs for a trial."""

    trials: int
    seconds: float | None = None
    """Of training and validation, over all trials of a search; a trial at which it ends counts as pruned."""

    def is_spent(self, trials: list[dict[str, Any]]) -> bool:
        return len(trials) >= self.trials or (self.seconds is not None and _seconds(trials) >= self.seconds)


def first_trials(trials: int) -> int:
    """How many of a search's trials TPE does not choose: the study's own setting, and random draws after it."""
    return max(1, min(MOST_FIRST_TRIALS, trials // 2))


@dataclass(frozen=True)
class Search:
    """The search for the settings of one variant on one data set."""

    id: str
    dataset: str
    variant: str
    space: dict[str, Space]
    own: dict[str, Any]
    """What the study sets where nothing is tuned: the first trial."""

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

    Both keep what an earlier call found for variants and data sets of the same design that are not searched now, so
    that data sets can be tuned one by one.

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
        study, entries = _with_earlier(folder.path, study, entries, say)
        write_json(folder.path / LEDGER, entries)
        _write_tuned(folder.path / TUNED, study, entries)
    return entries


def searches(study: Study, inputs: Inputs) -> list[Search]:
    """The searches that a study declares.

    Raises:
        InputError: it declares none, a setting is unknown or does not take a value of its space, the study's own
            setting lies outside, or the data can't be used.
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
            arm = make_arm(study, dataset, variant)
            own = _own_setting(study, dataset, arm, space)
            _, split = inputs.split(dataset, arm.data)
            spaces = {key: values.described() for key, values in space.items()}
            rules = [RULES, study.prune_after]
            identity = digest([resolved(study, dataset, arm), split.fingerprint, spaces, SEED, rules])[:16]
            found.append(Search(identity, dataset, variant, space, own))
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


def _own_setting(study: Study, dataset: str, arm: Arm, space: dict[str, Space]) -> dict[str, Any]:
    """What an untuned arm has for the searched settings. Raises InputError where that lies outside their spaces."""
    own = {}
    for key, values in space.items():
        part, _, rest = key.partition(".")
        other = {"training": arm.training, "data": arm.data, "items": arm.items}.get(part) if rest else None
        found = (other or arm.config).model_dump()
        for name in (rest if other else key).split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if not values.holds(found):
            given = {name: value for name, value in values.described().items() if value is not False}
            raise InputError(
                f"study '{study.study}', search of '{arm.variant}' on '{dataset}': the study's own {key}, "
                f"{json.dumps(found)}, is not in {json.dumps(given)}, and the first trial takes it; widen the space, "
                "or set another value for the variant"
            )
        own[key] = found
    return own


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
        self.drawn = _drawn(self.number, job.budget.trials)
        self.optuna = _ask(job.study, search, past, job.budget.trials)
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
            "drawn": self.drawn,
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
            check_needs(arm, self.inputs.log(search.dataset, arm.data))
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
            # After its last epoch nothing is left to be spared.
            if row["epoch"] < self.job.study.budget.epochs and self.optuna.should_prune():
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


def _drawn(number: int, trials: int) -> Literal["own", "random", "tpe"]:
    """Who chooses the settings of a trial of a search of ``trials``."""
    if number == 0:
        return "own"
    return "random" if number < first_trials(trials) else "tpe"


def _first_pruning(study: Study) -> int:
    """The first epoch after which a trial may be pruned."""
    return math.ceil(round(study.prune_after * study.budget.epochs, 6))


def _spread(space: dict[str, Space], count: int) -> list[dict[str, Any]]:
    """Random settings, each setting's values spread evenly over its space: a Latin hypercube."""
    random = np.random.default_rng(SEED)
    shares = {key: (random.permutation(count) + random.random(count)) / count for key in space}
    return [{key: values.at(float(shares[key][i])) for key, values in space.items()} for i in range(count)]


def _ask(study: Study, search: Search, past: list[dict[str, Any]], trials: int) -> optuna.Trial:
    """Optuna's next trial of ``trials`` after ``past``, which is all that it knows."""
    distributions = {key: _distribution(space) for key, space in search.space.items()}
    made = optuna.create_study(
        direction="maximize" if study.higher_is_better else "minimize",
        # None of TPE's own random start: it leaves out trials that failed, so it could go on to the last one.
        sampler=optuna.samplers.TPESampler(seed=SEED + len(past), n_startup_trials=0),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=_first_pruning(study)),
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
    drawn = _drawn(len(past), trials)
    if drawn != "tpe":
        draws = _spread(search.space, first_trials(trials) - 1)
        made.enqueue_trial(search.own if drawn == "own" else draws[len(past) - 1])
    return made.ask(distributions)


def _distribution(space: Space) -> BaseDistribution:
    if space.choices is not None:
        return CategoricalDistribution(space.choices)
    return (IntDistribution if space.whole else FloatDistribution)(space.low, space.high, log=space.log)


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
    # Only noted: a second Ctrl-C must not disturb the end of the pool, which would then wait for ever.
    asked: list[int] = []
    stopping = (signal.SIGTERM, signal.SIGINT)
    usual = [signal.signal(name, lambda number, frame: asked.append(number)) for name in stopping]
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
            if asked and running:
                raise Interrupted
    except BrokenProcessPool:
        raise InputError(
            "a worker died, perhaps for lack of memory; run the same command again, with fewer --workers"
        ) from None
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        for name, handler in zip(stopping, usual, strict=True):
            signal.signal(name, handler)


def _tell(job: Job, search: Search, told: int, say: Callable[[str], None]) -> int:
    """Says which trials have ended since ``told``; returns how many have."""
    trials = _trials(job.place / search.id)
    for trial in trials[told:]:
        value = "" if trial["value"] is None else f" {trial['value']:.4f}"
        reason = f" ({trial['reason']})" if "reason" in trial else ""
        own = ", the study's own setting:" if trial["drawn"] == "own" else ""
        say(f"  {search.name}: trial {trial['number'] + 1}/{job.budget.trials}{own} {trial['state']}{value}{reason}")
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
        "space": {
            key: space.described() | {"closed": _closed_ends(study, search, key, space)}
            for key, space in search.space.items()
        },
        "cap": {
            "trials": budget.trials,
            "epochs": study.budget.epochs,
            "seconds": budget.seconds,
            "first_pruning": _first_pruning(study),
        },
        "best": best["params"],
        "trials": trials,
    }


def _closed_ends(study: Study, search: Search, key: str, space: Space) -> list[str]:
    """Which ends of a range, or of choices that are numbers, no space can reach beyond: the model refuses what lies
    there (a dropout below 0, say)."""
    values = space.ends()
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return []
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        # Also half and twice the end: a width that is split among heads takes no odd number.
        beyond = {"low": (low - 1, low // 2), "high": (high + 1, high * 2)}
    else:
        beyond = {"low": (low - 1e-6 * abs(low or high),), "high": (high + 1e-6 * abs(high or low),)}

    def is_taken(value: float) -> bool:
        settings = search.own | {key: value}
        try:
            make_arm(_with(study, search.dataset, search.variant, settings), search.dataset, search.variant)
        except InputError:
            return False
        return True

    return [end for end, values in beyond.items() if not any(map(is_taken, values))]


def _with_earlier(
    folder: Path, study: Study, entries: list[dict[str, Any]], say: Callable[[str], None]
) -> tuple[Study, list[dict[str, Any]]]:
    """The study with the data sets, and the entries with those, of earlier searches that still hold."""
    if not ((folder / LEDGER).exists() and (folder / TUNED).exists()):
        return study, entries
    try:
        earlier, known = load_study(str(folder / TUNED)), read_json(folder / LEDGER)
    except InputError as error:
        say(f"nothing is kept of earlier searches: {error}")
        return study, entries
    wider = study.model_copy(update={"datasets": {**earlier.datasets, **study.datasets}})
    searched = {(entry["dataset"], entry["variant"]) for entry in entries}
    kept = []
    for entry in known:
        dataset, variant = entry["dataset"], entry["variant"]
        if (dataset, variant) in searched:
            continue
        if _is_same_design(earlier, wider, dataset, variant):
            kept.append(entry)
        else:
            say(f"the earlier search of {dataset} / {variant} is left out: it was of another design")
    if not kept:
        return study, entries
    there = {*study.datasets, *(entry["dataset"] for entry in kept)}
    if there != set(study.datasets):
        study = study.model_copy(update={"datasets": {d: own for d, own in wider.datasets.items() if d in there}})
    order = {pair: i for i, pair in enumerate(product(study.datasets, dict.fromkeys([*study.search, *study.variants])))}
    return study, sorted([*kept, *entries], key=lambda entry: order[entry["dataset"], entry["variant"]])


def _is_same_design(one: Study, other: Study, dataset: str, variant: str) -> bool:
    """Whether two studies declare a variant on a data set, and mean the same untuned training by it."""
    found = []
    for study in (one, other):
        if dataset not in study.datasets or variant not in study.variants:
            return False
        untuned = study.model_copy(update={"tuned": {}})
        try:
            found.append(resolved(untuned, dataset, make_arm(untuned, dataset, variant)))
        except InputError:
            return False
    return found[0] == found[1]


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
