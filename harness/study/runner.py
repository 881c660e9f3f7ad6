"""Run a study: write its design down, start the workers, watch them, and stop or resume at any moment."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.analysis.rows import read_outside
from harness.errors import InputError, Interrupted
from harness.fidelity import card
from harness.files import writing
from harness.provenance import git_state, versions
from harness.study.cells import Cell, Inputs, make_cells
from harness.study.design import Study
from harness.study.folder import HOST, RunFolder
from harness.study.progress import Display
from harness.study.queue import Queue
from harness.study.worker import record_failure

__all__ = ["Outcome", "Settings", "prepare", "queue_study", "run_study"]

POLL_SECONDS = 0.5
BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes of a worker, as of any command."""
MAX_DEATHS = 3
"""A cell whose worker dies this often without a cause of its own is given up."""
WIDENED = ("datasets", "seeds", "variants")
WORDS = ("title", "question", "metrics", "tables", "search")
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
    data_root: Path | None = None
    retry_failed: bool = False
    accept_change: bool = False
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
        _check_unchanged(folder, study)
    read_outside(folder.path, study.variants)  # refuses a name that predictions from outside have in this folder
    inputs = Inputs(settings.data_root, settings.cache, display.say)
    cells = make_cells(study, inputs)
    fidelity = {v: card(next(c for c in cells if c.arm.variant == v).arm.model) for v in study.variants}
    name = _queue_name(study, settings)
    queue = Queue(settings.storage_url, name, study, cells, folder, create=True, say=display.say)
    folder.write_design(  # after the queue was made, for a worker that waits for this file
        study,
        {
            "run": settings.name,
            "queue": name,
            "started_in": os.path.relpath(Path.cwd(), folder.path.resolve()),
            "cells": [{"id": c.id, "dataset": c.dataset, "variant": c.arm.variant, "seed": c.seed} for c in cells],
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
    """Runs the cells that are not finished yet, in worker processes.

    Raises:
        Interrupted: the user stopped it; the same command goes on.
        InputError: see :func:`prepare`; or a worker met an unusable folder, data set or storage.
    """
    folder = settings.folder
    started = time.time()
    with Display() as display, _only_run(folder):
        cells, queue = prepare(study, settings, display)
        display.begin(cells, folder, settings.workers)
        try:
            _watch(queue, cells, settings, display)
        finally:
            _summarise(study, cells, settings)
            display.update()
            folder.tidy(started)
        failed = [failure for cell in cells if (failure := folder.failure(cell.id))]
        done = sum(folder.is_finished(cell.id) for cell in cells)
        return Outcome(done, failed, len(cells))


def _queue_name(study: Study, settings: Settings) -> str:
    """A new name, or that of the folder's last run. Optuna holds the choices of a categorical parameter fixed within
    one study, so a design that was widened gets a new one; finished cells are entered there as completed."""
    if settings.folder.design.exists():
        with suppress(InputError):  # damaged, and to be written anew
            old, extra = settings.folder.read_design()
            if (list(old.datasets), list(old.variants)) == (list(study.datasets), list(study.variants)):
                return settings.folder.queue_name(old, extra)
    return f"{settings.name}-{secrets.token_hex(4)}"


def _watch(queue: Queue, cells: list[Cell], settings: Settings, display: Display) -> None:
    """Keeps the workers alive until no cell is left."""
    workers: list[_Worker] = []
    deaths: Counter[str] = Counter()
    with _noted_signals() as stop:
        try:
            while left := queue.left() if workers else queue.synchronise():
                if not workers:
                    workers += [_Worker(settings, number) for number in range(max(1, min(settings.workers, left)))]
                time.sleep(POLL_SECONDS)
                display.update()
                if stop:
                    raise Interrupted
                for worker in [w for w in workers if w.process.poll() is not None]:
                    workers.remove(worker)
                    if worker.process.returncode == 0:
                        continue
                    _bury(worker, cells, deaths, settings.folder, display)
                    if queue.synchronise():
                        workers.append(_Worker(settings, worker.number))
            queue.synchronise()
        except BaseException:
            for worker in workers:
                worker.process.send_signal(signal.SIGTERM)
            raise
        finally:
            for worker in workers:
                worker.end()


def _bury(worker: _Worker, cells: list[Cell], deaths: Counter[str], folder: RunFolder, display: Display) -> None:
    """Says what a dead worker died of; gives its cell up if that killed several.

    Raises:
        InputError: it ended by itself, because of its input or before it took a cell; or several died without one.
    """
    code = worker.process.returncode
    if code == BAD_INPUT:
        raise InputError(worker.last_words())
    if code == INTERRUPTED:
        display.say("a worker was stopped; another takes its place")
        return
    holder = (HOST, worker.process.pid)
    lost = [cell for cell in cells if folder.holder(cell.id) == holder and not folder.is_over(cell.id)]
    if not lost:
        deaths[""] += 1
        if code > 0 or deaths[""] >= MAX_DEATHS:
            raise InputError(f"a worker ended with {_cause(code)}; see {worker.log}")
        display.say(f"a worker died ({_cause(code)}) without a cell; another takes its place")
    for cell in lost:
        deaths[cell.id] += 1
        display.say(f"a worker died ({_cause(code)}) at {cell.name}; another goes on from its checkpoint")
        if deaths[cell.id] >= MAX_DEATHS:
            record_failure(folder, cell, f"its worker died {MAX_DEATHS} times ({_cause(code)}); see {worker.log}")


class _Worker:
    def __init__(self, settings: Settings, number: int) -> None:
        self.number = number
        self.log = settings.folder.path / "logs" / f"worker-{number}.log"
        with writing(self.log):
            self.log.parent.mkdir(exist_ok=True)
            file = open(self.log, "a", encoding="utf-8")  # noqa: SIM115 (the child inherits it)
        # -P: the current folder may hold one of the name harness, such as that above a clone.
        command = [sys.executable, "-P", "-m", "harness.cli", "worker", str(settings.folder.path)]
        command += ["--device", settings.device]
        command += ["--threads", str(settings.threads), "--cache", str(settings.cache)]
        command += ["--parent", str(os.getpid())]
        if settings.data_root is not None:
            command += ["--data-root", str(settings.data_root)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads), "COLUMNS": "2000"}
        environment["HARNESS_STORAGE"] = settings.storage_url  # not in the command line, which anyone can read
        with file:
            # Its own session: a Ctrl-C reaches the parent alone, which then stops its workers in good order.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )

    def end(self) -> None:
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(encoding="utf-8").splitlines() if line.strip()]
        return lines[-1].removeprefix("error: ") if lines else f"nothing in {self.log}"


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """A list that becomes true once somebody asked to stop; a second Ctrl-C ends at once."""
    asked: list[int] = []

    def remember(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {name: signal.signal(name, remember) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


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


def _check_unchanged(folder: RunFolder, study: Study) -> None:
    """Raises InputError if the design differs from that of the last run in more than added cells."""
    old = folder.read_design()[0].model_dump(mode="json")
    new = study.model_dump(mode="json")
    changes = []
    for key, value in new.items():
        if key in WORDS or old[key] == value:
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
    return set(old) <= set(new)


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
        entry = {"id": cell.id, "dataset": cell.dataset, "variant": cell.arm.variant, "seed": cell.seed}
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
