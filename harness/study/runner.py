"""Run a study: write its design down, start the workers, watch them, and stop or resume at any moment."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.analysis.run_files import read_outside
from harness.errors import InputError
from harness.fidelity import card
from harness.files import writing
from harness.provenance import git_state, versions
from harness.study.cells import Cell, Inputs, make_cells
from harness.study.continuing import continue_cells
from harness.study.crew import Crew
from harness.study.design import Study
from harness.study.executors import open_executor
from harness.study.folder import RunFolder
from harness.study.progress import Display
from harness.study.queue import Queue
from harness.study.run_cell import made_with
from harness.study.worker import record_failure

__all__ = ["Outcome", "Settings", "prepare", "queue_study", "run_study"]

WIDENED = ("datasets", "seeds", "codes", "variants")
WORDS = ("title", "question", "metrics", "tables", "search", "confirm", "trackers", "keep_last_state")
"""Keys that decide no cell's result and no verdict, and may change between runs."""


@dataclass(frozen=True)
class Settings:
    """How a study is run, as opposed to what it is."""

    out: Path
    name: str
    storage: str | None = None
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    executor: str = "local"
    """Registered name of the executor that starts the workers."""
    executor_set: tuple[str, ...] = ()
    """Its options, each as ``key=value``."""
    data_root: Path | None = None
    retry_failed: bool = False
    accept_change: bool = False
    continue_training: bool = False
    """Whether cells go on from earlier ones that had a smaller budget."""
    preset: str = "default"
    command: str = ""
    """The command line that started the run, for the report."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.out / self.name)

    @property
    def cache(self) -> Path:
        return self.out / "cache"

    @property
    def storage_url(self) -> str:
        return self.storage or f"sqlite:///{(self.folder.path / 'study.db').resolve()}"


@dataclass(frozen=True)
class Outcome:
    finished: int
    failed: list[dict[str, Any]]
    total: int


def prepare(study: Study, settings: Settings, display: Display) -> tuple[list[Cell], Queue]:
    """Checks everything that can be checked before training, and writes the design down.

    Raises:
        InputError: anything in the study, its data, the folder or the storage that can't be used.
    """
    folder = settings.folder
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    if folder.design.exists() and not settings.accept_change:
        _check_unchanged(folder, study, ("budget",) if settings.continue_training else ())
    read_outside(folder.path, study.variants)  # refuses a name that predictions from outside have in this folder
    inputs = Inputs(settings.data_root, settings.cache, display.say)
    cells = make_cells(study, inputs)
    if settings.continue_training:
        going_on, anew = continue_cells(cells, folder, _made_with(settings))
        display.say(f"cells that go on from their last state: {going_on}; that start from scratch: {anew}")
    fidelity = {v: card(next(c for c in cells if c.arm.variant == v).arm.model) for v in study.variants}
    name = _queue_name(study, settings)
    queue = Queue(settings.storage_url, name, study, cells, folder, create=True, say=display.say)
    folder.write_design(  # after the queue was made, for a worker that waits for this file
        study,
        {
            "run": settings.name,
            "queue": name,
            "started_in": os.path.relpath(Path.cwd(), folder.path.resolve()),
            "cells": [{"id": c.id, **c.entry} for c in cells],
            "fidelity": fidelity,
        },
    )
    queue.synchronise(retry_failed=settings.retry_failed)
    return cells, queue


def queue_study(study: Study, settings: Settings) -> int:
    """Checks everything and queues the cells that are not finished; returns how many. Workers of the command
    `harness worker` train them. Raises InputError as :func:`prepare`."""
    with Display() as display, _only_run(settings.folder):
        return prepare(study, settings, display)[1].left()


def run_study(study: Study, settings: Settings) -> Outcome:
    """Runs the cells that are not finished yet, with workers that the executor starts.

    Raises:
        Interrupted: the user stopped it; the same command goes on.
        InputError: see :func:`prepare`; or a worker met an unusable folder, data set or storage.
    """
    folder = settings.folder
    started = time.time()
    executor = open_executor(settings.executor, settings.executor_set)
    with Display() as display, _only_run(folder):
        cells, queue = prepare(study, settings, display)
        display.begin(cells, folder, settings.workers)
        try:
            Crew(
                executor,
                folder,
                settings.cache,
                settings.data_root,
                settings.device,
                settings.threads,
                settings.workers,
                settings.storage_url,
                display.say,
                display.update,
            ).work_off(queue, cells, lambda cell, reason: record_failure(folder, cell, reason))
        finally:
            _summarise(study, cells, settings)
            display.update()
            folder.tidy(started)
        failed = [failure for cell in cells if (failure := folder.failure(cell.id))]
        done = sum(folder.is_finished(cell.id) for cell in cells)
        return Outcome(done, failed, len(cells))


def _made_with(settings: Settings) -> str:
    processes = open_executor(settings.executor, settings.executor_set).processes_per_cell
    return made_with(settings.device, settings.threads, processes)


def _queue_name(study: Study, settings: Settings) -> str:
    """A new name, or that of the folder's last run. Optuna holds the choices of a categorical parameter fixed within
    one study, so a design that was widened gets a new one; finished cells are entered there as completed."""
    if settings.folder.design.exists():
        with suppress(InputError):  # damaged, and to be written anew
            old, extra = settings.folder.read_design()
            if (list(old.datasets), list(old.variants)) == (list(study.datasets), list(study.variants)):
                return settings.folder.queue_name(old, extra)
    return f"{settings.name}-{secrets.token_hex(4)}"


@contextmanager
def _only_run(folder: RunFolder) -> Iterator[None]:
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    with folder.run_lock() as mine:
        if not mine:
            raise InputError(
                f"another `harness run` is working in {folder.path}; wait for it, add a worker to it with "
                f"`harness worker {folder.path}`, or choose another folder with --name"
            )
        yield


def _check_unchanged(folder: RunFolder, study: Study, allowed: tuple[str, ...]) -> None:
    """Raises InputError if the design differs from that of the last run in more than added cells and ``allowed``."""
    old = folder.read_design()[0].model_dump(mode="json")
    new = study.model_dump(mode="json")
    changes = []
    for key, value in new.items():
        if key in (*WORDS, *allowed) or old[key] == value:
            continue
        if key in WIDENED and _contains(value, old[key]):
            continue
        changes += _differences(key, old[key], value)
    if changes:
        shown = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
        raise InputError(
            f"the design differs from the one that {folder.path} was run with: {shown}. Choose another folder with "
            "--name, or go on here with --accept-change: finished cells that the change does not touch are kept"
        )


def _contains(new: Any, old: Any) -> bool:
    if isinstance(old, dict):
        return all(key in new and {**new[key], "label": None} == {**old[key], "label": None} for key in old)
    return old <= new if isinstance(old, int) else set(old) <= set(new)


def _differences(path: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [
            line
            for k in keys
            if old.get(k) != new.get(k)
            for line in _differences(f"{path}.{k}", old.get(k), new.get(k))
        ]
    return [f"{path} was {json.dumps(old)} and is {json.dumps(new)}"]


def _summarise(study: Study, cells: list[Cell], settings: Settings) -> None:
    folder = settings.folder
    listed = []
    for cell in cells:
        failure = folder.failure(cell.id)
        status = "finished" if folder.is_finished(cell.id) else "failed" if failure else "unfinished"
        entry = {"id": cell.id, **cell.entry}
        listed.append({**entry, "status": status} | ({"reason": failure["reason"]} if failure else {}))
    folder.write_summary(
        {
            "study": study.study,
            "run": settings.name,
            "preset": settings.preset,
            "command": settings.command,
            "title": study.title,
            "cells": listed,
            "versions": versions(),
            "git": git_state(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
