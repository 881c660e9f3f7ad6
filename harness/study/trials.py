"""The trials of a search, and the searches of a study shared out among workers.

A trial resumes from its checkpoint, so a search that was killed ends as one that was not. A trial sees no test part:
there is none in the split that it is given. Its value is the best validation value of its epochs. Once a search has
spent its budget, its best trials are trained again with new seeds (the study's ``confirm``): the mean over all runs
decides, for the best of many single runs is lucky.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from harness.data.config import DataConfig
from harness.data.log import EventLog
from harness.data.splits import Split
from harness.errors import CellFailed, InputError, Interrupted
from harness.files import digest, read_json, write_json, writing
from harness.provenance import git_state, versions
from harness.reading import shapes
from harness.reading.tensors import read_metadata
from harness.study.cells import Cell, Inputs, check_needs, make_arm
from harness.study.design import Study
from harness.study.folder import Design, RunFolder
from harness.study.run_cell import build_model, task_data
from harness.study.search import SEED, Search, ask, drawn_by, searches, with_settings
from harness.training import CHECKPOINT, fit

__all__ = [
    "Budget", "Job", "Searches", "ValidationOnly", "confirm_search", "confirmed_of", "finalists", "is_tuning",
    "run_search", "trials_of", "write_job",
]  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """What each search may spend, beside the study's own budget of epochs for a trial: trials, seconds, or both.

    The runs that confirm its best trials come on top, as many for every search.
    """

    trials: int | None
    """None: seconds alone end a search, so that quick models have more trials than slow ones."""
    seconds: float | None = None
    """Of training and validation, over all trials of a search; a trial at which it ends counts as pruned."""

    def is_spent(self, trials: list[dict[str, Any]]) -> bool:
        return (self.trials is not None and len(trials) >= self.trials) or (
            self.seconds is not None and _seconds(trials) >= self.seconds
        )


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


def write_job(folder: RunFolder, job: Job, found: list[Search]) -> None:
    """Leaves for the workers what is to be searched."""
    folder.write_design(
        job.study,
        {
            "tuning": dataclasses.asdict(job.budget),
            "started_in": os.path.relpath(Path.cwd(), folder.path.resolve()),
            "cells": [{"id": search.id, "dataset": search.dataset, "variant": search.variant} for search in found],
        },
    )


def is_tuning(design: Design) -> bool:
    """Whether the workers of a folder search, rather than train the cells of a study."""
    return "tuning" in design[1]


class Searches:
    """The searches of a tuning, shared out among workers by the locks of their folders alone."""

    def __init__(
        self, job: Job, found: list[Search], folder: RunFolder, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.job, self.found, self.folder, self.stop = job, found, folder, stop

    @classmethod
    def of_worker(
        cls,
        design: Design,
        folder: RunFolder,
        data_root: Path | None,
        cache: Path,
        device: str,
        threads: int,
        stop: Callable[[], bool],
    ) -> Searches:
        """Those that :func:`write_job` left. Raises InputError where the data or this version make others of them."""
        study, extra = design
        found = searches(study, Inputs(data_root, cache))
        if [search.id for search in found] != [entry["id"] for entry in extra["cells"]]:
            raise InputError(f"{folder.design} was made with other data or another version; run `harness tune` again")
        job = Job(study, folder.path, Budget(**extra["tuning"]), data_root, cache, device, threads)
        return cls(job, found, folder, stop)

    def is_over(self, search_id: str) -> bool:
        folder, trials = self.job.place / search_id, trials_of(self.job.place / search_id)
        return self.job.budget.is_spent(trials) and not to_confirm(self.job, trials, confirmed_of(folder))

    def left(self) -> int:
        return sum(not self.is_over(search.id) for search in self.found)

    def synchronise(self) -> int:
        """There is no queue that could differ from the folder."""
        return self.left()

    def work_on_next(self) -> bool:
        """Runs a search that no other worker holds; false where there is none."""
        for search in self.found:
            if not self.is_over(search.id):
                with self.folder.lock(search.id) as mine:
                    if mine and not self.is_over(search.id):
                        run_search(self.job, search, self.stop)
                        confirm_search(self.job, search, self.stop)
                        return True
        return False


def run_search(job: Job, search: Search, should_stop: Callable[[], bool]) -> None:
    """Runs the trials of a search that are still to be run. Its folder holds those that were, in ``trials.json``."""
    _prepare(job)
    inputs = ValidationOnly(job.data_root, job.cache)
    folder = job.place / search.id
    trials = trials_of(folder)
    while not job.budget.is_spent(trials):
        left = None if job.budget.seconds is None else job.budget.seconds - _seconds(trials)
        trials.append(_Trial(job, search, trials, left, inputs).run(folder, should_stop))
        write_json(folder / "trials.json", trials)


def confirm_search(job: Job, search: Search, should_stop: Callable[[], bool]) -> None:
    """Trains the best trials of a search again, with new seeds and to the end. Its folder holds the runs that were, in
    ``confirmed.json``."""
    _prepare(job)
    inputs = ValidationOnly(job.data_root, job.cache)
    folder = job.place / search.id
    trials, runs = trials_of(folder), confirmed_of(folder)
    for number, seed in to_confirm(job, trials, runs):
        run = _Run(job, search, trials[number]["params"], seed, f"confirm-{number}-{seed}", inputs)
        runs.append({"trial": number, "seed": seed, **run.ended(folder, should_stop)})
        write_json(folder / "confirmed.json", runs)


def to_confirm(job: Job, trials: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Trial and seed of the runs that are missing before a setting can be chosen."""
    known = {(run["trial"], run["seed"]) for run in runs}
    wanted = [(number, SEED + 1 + i) for number in finalists(job.study, job.budget, trials) for i in range(_seeds(job))]
    return [pair for pair in wanted if pair not in known]


def _seeds(job: Job) -> int:
    return job.study.confirm.seeds if job.study.confirm else 0


def finalists(study: Study, budget: Budget, trials: list[dict[str, Any]]) -> list[int]:
    """The numbers of the trials among which one is chosen, best first in the search; of equal ones the earlier."""
    done = [trial for trial in trials[: budget.trials] if trial["state"] == "complete"]
    done.sort(key=lambda trial: trial["value"], reverse=study.higher_is_better)
    return [trial["number"] for trial in done[: study.confirm.top if study.confirm else 1]]


def _prepare(job: Job) -> None:
    torch.set_num_threads(job.threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def trials_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "trials.json"
    return read_json(path, shapes.Trials, "delete its folder, and the search starts again") if path.exists() else []


def confirmed_of(folder: Path) -> list[dict[str, Any]]:
    """The runs of :func:`confirm_search`."""
    path = folder / "confirmed.json"
    return read_json(path, list[dict[str, Any]]) if path.exists() else []


def _seconds(trials: list[dict[str, Any]]) -> float:
    return sum(trial["seconds"] for trial in trials)


class _Run:
    """One training with the settings ``params``, seen on validation alone."""

    def __init__(self, job: Job, search: Search, params: dict[str, Any], seed: int, name: str, inputs: Inputs) -> None:
        self.job, self.search, self.params, self.seed, self.name, self.inputs = job, search, params, seed, name, inputs
        self.rows: list[dict[str, Any]] = []

    def ended(self, folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Trains and validates, from the last checkpoint if there is one; returns what the ledger says of it."""
        training = folder / self.name
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
            "state": state,
            "value": value,
            "epochs": len(self.rows),
            "seconds": self._seconds(),
            "curve": self._curve(),
            **({"reason": " ".join(reason.split())} if reason else {}),
        }

    def _train(self, folder: Path, should_stop: Callable[[], bool]) -> float:
        """The best validation value. Raises CellFailed where the settings exclude each other or don't train."""
        study, search = self.job.study, self.search
        try:
            tried = with_settings(study, search.dataset, search.variant, self.params)
            arm = make_arm(tried, search.dataset, search.variant)
            check_needs(arm, self.inputs.log(search.dataset, arm.data))
            cell = Cell(f"{search.id}-{self.name}", search.dataset, arm, self.seed, {})
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
            seed=self.seed,
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
        self.rows.append(row)

    def _seconds(self) -> float:
        return sum(row[f"{part}_seconds"] for row in self.rows for part in ("data", "train", "evaluation"))

    def _curve(self) -> list[list[Any]]:
        """Epoch and validation value of each validation."""
        return [[row["epoch"], row[self._tracked]] for row in self.rows if row.get(self._tracked) is not None]


class _Trial(_Run):
    """The trial that comes after ``past``."""

    def __init__(
        self, job: Job, search: Search, past: list[dict[str, Any]], left: float | None, inputs: Inputs
    ) -> None:
        self.left, self.number = left, len(past)
        self.optuna = ask(job.study, search, past, job.budget.trials)
        super().__init__(job, search, self.optuna.params, SEED, f"trial-{self.number}", inputs)

    def run(self, folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """The trial's line of the ledger."""
        drawn = drawn_by(self.number, self.job.budget.trials)
        return {"number": self.number, "drawn": drawn, "params": self.params, **self.ended(folder, should_stop)}

    def _on_epoch(self, row: dict[str, Any]) -> None:
        """Raises TrialPruned where the median of earlier trials is better, or the search has spent its budget."""
        super()._on_epoch(row)
        if row.get(self._tracked) is not None:
            self.optuna.report(row[self._tracked], row["epoch"])
            # After its last epoch nothing is left to be spared.
            if row["epoch"] < self.job.study.budget.epochs and self.optuna.should_prune():
                raise optuna.TrialPruned
        if self.left is not None and self._seconds() >= self.left:
            raise optuna.TrialPruned("the search had spent its seconds")


def _rows_before(checkpoint: Path, made_with: str) -> list[dict[str, Any]]:
    """The history of a trial that was interrupted; empty where its training does not go on from the checkpoint."""
    if not checkpoint.exists():
        return []
    try:
        state = read_metadata(checkpoint, "state", "delete it", shapes.CheckpointState)
        return state["history"] if state["made_with"] == made_with else []
    except InputError:
        shutil.rmtree(checkpoint.parent)  # damaged: the trial starts again
        return []
