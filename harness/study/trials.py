"""The trials of a search, and the searches of a study shared out among workers.

A trial resumes from its checkpoint, so a search that was killed ends as one that was not. A trial sees no test part:
there is none in the split that it is given. Its value is the best validation value of its epochs.
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

__all__ = ["Budget", "Job", "Searches", "ValidationOnly", "is_tuning", "run_search", "trials_of", "write_job"]


@dataclass(frozen=True)
class Budget:
    """What each search may spend, beside the study's own budget of epochs for a trial."""

    trials: int
    seconds: float | None = None
    """Of training and validation, over all trials of a search; a trial at which it ends counts as pruned."""

    def is_spent(self, trials: list[dict[str, Any]]) -> bool:
        return len(trials) >= self.trials or (self.seconds is not None and _seconds(trials) >= self.seconds)


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
        return self.job.budget.is_spent(trials_of(self.job.place / search_id))

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
                        return True
        return False


def run_search(job: Job, search: Search, should_stop: Callable[[], bool]) -> None:
    """Runs the trials of a search that are still to be run. Its folder holds those that were, in ``trials.json``."""
    torch.set_num_threads(job.threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    inputs = ValidationOnly(job.data_root, job.cache)
    folder = job.place / search.id
    trials = trials_of(folder)
    while not job.budget.is_spent(trials):
        left = None if job.budget.seconds is None else job.budget.seconds - _seconds(trials)
        trials.append(_Trial(job, search, trials, left, inputs).run(folder, should_stop))
        write_json(folder / "trials.json", trials)


def trials_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "trials.json"
    return read_json(path, shapes.Trials, "delete its folder, and the search starts again") if path.exists() else []


def _seconds(trials: list[dict[str, Any]]) -> float:
    return sum(trial["seconds"] for trial in trials)


class _Trial:
    """The trial that comes after ``past``."""

    def __init__(
        self, job: Job, search: Search, past: list[dict[str, Any]], left: float | None, inputs: Inputs
    ) -> None:
        self.job, self.search, self.inputs, self.left = job, search, inputs, left
        self.number = len(past)
        self.drawn = drawn_by(self.number, job.budget.trials)
        self.optuna = ask(job.study, search, past, job.budget.trials)
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
            tried = with_settings(study, search.dataset, search.variant, self.optuna.params)
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
        state = read_metadata(checkpoint, "state", "delete it", shapes.CheckpointState)
        return state["history"] if state["made_with"] == made_with else []
    except InputError:
        shutil.rmtree(checkpoint.parent)  # damaged: the trial starts again
        return []
