"""Workers and main are killed before each of their file and database steps; the same command then ends the run.

Main and its workers are forks of one process, so that a run takes a fraction of a second. The steps are those that
Python announces (files that are written, renamed, locked, removed) and the statements and commits that SQLAlchemy
sends.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import select
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import optuna
import pytest
import sqlalchemy
import torch
from optuna.trial import TrialState

from harness.analysis.artefacts import Failures, make_tables
from harness.analysis.render import write_tables
from harness.analysis.rows import load_run
from harness.cli import app, guarded
from harness.files import is_unfinished
from harness.study import crew, queue, runner, worker
from harness.study.design import Study
from harness.study.executors import Executor, Order, Worker
from harness.study.folder import RunFolder
from harness.study.progress import Display
from harness.study.runner import Settings, prepare, run_study
from harness.study.worker import work
from tests.forks import Fork

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="forks and their orphans, as Linux has them"
)

SMALL = {"dim": 4, "layers": 1, "heads": 1, "inner": 4}
HANG_SECONDS = 60
FEW, MANY = 6, 20
"""How many steps of a process are tried, evenly spread, in the quick test and in the slow ones. With
``HARNESS_KILLS=all`` the slow ones try every step, which takes most of an hour."""
MISSING, CRASHED = 1, 70


def study(seeds: int) -> Study:
    return Study(
        study="tiny",
        datasets={"synthetic-sessions:users=20,items=10": {}},
        seeds=seeds,
        control="often",
        variants={"often": {"model": "popularity"}, "small": {"model": "sasrec", "set": SMALL}},
        budget={"epochs": 1},
        metrics=["ndcg@10"],
        primary="ndcg@10",
    )


class Steps:
    """Counts the steps of this process, and kills it before one of them."""

    def __init__(self) -> None:
        self.begin(Path("/nowhere"), None)
        sys.addaudithook(self._file)
        for event in ("before_cursor_execute", "commit"):
            sqlalchemy.event.listen(sqlalchemy.engine.Engine, event, self._database)

    def begin(self, folder: Path, last: int | None) -> None:
        self.folder, self.last, self.taken = str(folder), last, 0

    def _file(self, event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if event == "fcntl.flock":
            details = (os.readlink(f"/proc/self/fd/{details[0]}"),)
        elif event not in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}:
            return
        if str(details[0]).startswith(self.folder):
            self._step()

    def _database(self, *details: Any) -> None:
        self._step()

    def _step(self) -> None:
        self.taken += 1
        if self.taken == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class Forked(Executor):
    """Workers that are forks of main; each of the first is killed before the step ``last``."""

    here = True

    def __init__(self, steps: Steps, place: Path, last: int | None, size: int) -> None:
        self.steps, self.place, self.last, self.left = steps, place, last, size

    def start(self, order: Order) -> Worker:
        last = self.last if self.left > 0 else None
        self.left -= 1
        parent = os.getpid()
        gc.collect()  # what is left over must not close the files of the child, which get the numbers of its own
        if pid := os.fork():
            return Child(pid)
        os.closerange(3, 4096)  # else it would hold main's lock
        self.steps.begin(self.place, last)
        with open(order.log, "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(order.environment)
        words = [*order.command[order.command.index("worker") :], "--parent", str(parent)]
        end(lambda: guarded(lambda: app(words, standalone_mode=False)), self.steps, f"{self.place}-worker")


class Child(Worker):
    def __init__(self, pid: int) -> None:
        self.fork = Fork(pid)

    def exit_code(self) -> int | None:
        return self.fork.poll()

    def stop(self) -> None:
        self.fork.terminate()

    def end(self) -> None:
        self.fork.wait()


def end(work: Any, steps: Steps, count: str) -> NoReturn:
    """Ends a fork as a process ends, without the rest of its parent's code."""
    code = CRASHED
    try:
        code = work()
        with open(count, "a") as file:
            file.write(f"{steps.taken}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def write(place: Path) -> None:
    made = make_tables(load_run(place), failures := Failures())
    write_tables([table for maker, table in made if maker.name != "cost"], place / "tables")
    assert not list(failures)


class Runs:
    """Runs of one study by forks of this process."""

    def __init__(self, place: Path, storage: str | None, workers: int) -> None:
        self.steps = Steps()
        self.root, self.storage, self.workers = place, storage, workers
        self.study = study(1 if workers == 1 else 2)
        self.calm = self.root / "calm"

    def command(self, place: Path, main: int | None = None, worker: int | None = None) -> int:
        """One `harness run`, as it ends; killed before those steps of main and of its first workers."""
        if not (pid := os.fork()):
            self.steps.begin(place, main)
            end(lambda: self._main(place, worker), self.steps, f"{place}-main")
        watched = os.pidfd_open(pid)
        ended = select.select([watched], [], [], HANG_SECONDS)[0]
        os.close(watched)
        assert ended, "it hangs"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _main(self, place: Path, last: int | None) -> int:
        with open(f"{place}.log", "ab") as log:
            os.dup2(log.fileno(), 2)
        executor = Forked(self.steps, place, last, self.workers)
        runner.open_executor = lambda *names: executor
        settings = Settings(out=place.parent, name=place.name, storage=self.storage, workers=self.workers)
        outcome = run_study(self.study, settings)
        if last is None:  # else the same command is given again
            write(place)
        return 0 if outcome.finished == outcome.total else MISSING

    def check(self, place: Path) -> None:
        """That the run is whole, and the same as an undisturbed one."""
        folder = RunFolder(place)
        declared, extra = folder.read_design()
        ids = sorted(entry["id"] for entry in extra["cells"])
        assert sorted(path.name for path in (place / "cells").iterdir()) == ids
        assert not list(place.glob("failed/*"))
        assert not list(place.glob("running/*"))
        assert not [path for path in place.rglob(".*.*") if is_unfinished(path)]
        storage = self.storage or f"sqlite:///{place}/study.db"
        found = optuna.load_study(study_name=folder.queue_name(declared, extra), storage=storage)
        states = Counter((trial.state, trial.user_attrs.get("cell")) for trial in found.get_trials(deepcopy=False))
        assert [states[TrialState.COMPLETE, cell] for cell in ids] == [1] * len(ids)
        assert not any(state == TrialState.RUNNING for state, _ in states)
        for pattern in ("cells/*/rows.parquet", "tables/**/*.*"):
            paths = sorted(place.glob(pattern))
            assert [p.relative_to(place) for p in paths] == [
                p.relative_to(self.calm) for p in sorted(self.calm.glob(pattern))
            ]
            for path in paths:
                assert path.read_bytes() == (self.calm / path.relative_to(place)).read_bytes(), path

    def warm_up(self) -> None:
        """Imports in this process what every fork needs. Trains nothing: PyTorch's autograd does not survive a fork."""
        place = self.root / "warm"
        settings = Settings(out=place.parent, name=place.name)
        queued, _ = prepare(self.study, settings, Display())
        assert queued
        often = self.study.model_copy(update={"variants": {"often": self.study.variants["often"]}})
        prepare(often, dataclasses.replace(settings, accept_change=True), Display())
        work(
            settings.folder, storage=settings.storage_url, data_root=None, cache=settings.cache, device="cpu", threads=1
        )
        write(place)

    def undisturbed(self) -> dict[str, int]:
        """How many steps main and a worker take."""
        assert self.command(self.calm) == 0
        self.check(self.calm)
        return {
            role: max(int(count) for count in Path(f"{self.calm}-{role}").read_text().split())
            for role in ("main", "worker")
        }

    def killed(self, role: str, step: int) -> bool:
        """Kills at one step, and gives the same command again; false where there was no such step."""
        place = self.root / f"{role}-{step}"
        code = self.command(place, **{role: step})
        if role == "main":
            assert code in {0, -signal.SIGKILL}
        again = self.command(place)
        assert again == 0, (code, again)
        reap()
        self.check(place)
        return code == -signal.SIGKILL or "a worker died (SIGKILL" in Path(f"{place}.log").read_text()


def reap() -> None:
    """Waits for the workers that a killed main has left, which become children of this process."""
    signal.alarm(HANG_SECONDS)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        signal.alarm(0)


def once(run_cell: Any) -> Any:
    def run(study: Study, cell: Any, inputs: Any, folder: RunFolder, **options: Any) -> float:
        assert not folder.is_finished(cell.id), "a finished cell is trained again"
        return run_cell(study, cell, inputs, folder, **options)

    return run


def try_all(place: Path, storage: str | None, workers: int, tries: int | None, roles: Iterable[str]) -> None:
    """In a process of its own, which has no threads. ``tries``: at how many steps; None = at all of them."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    crew.POLL_SECONDS = worker.IDLE_SECONDS = queue.PAUSE_SECONDS = 0.01
    queue.TAKING_SECONDS = 0.3
    worker.run_cell = once(worker.run_cell)
    runs = Runs(place, storage, workers)
    runs.warm_up()
    totals = runs.undisturbed()
    for role in roles:
        total = totals[role]
        stride = max(total // tries, 1) if tries else 1
        steps = range(1 + stride // 2, total + 1, stride)
        struck = 0
        for step in steps:
            try:
                struck += runs.killed(role, step)
            except BaseException as error:
                log = Path(f"{place / f'{role}-{step}'}.log")
                said = log.read_text() if log.exists() else ""
                raise AssertionError(f"{role} killed at step {step} of {total}: {error!r}\n{said}") from error
        print(f"{role}: {struck} of {len(steps)} kills, {total} steps")
        assert struck >= 0.8 * len(steps), f"{struck} kills at {len(steps)} of {total} steps"


def run_apart(*words: Any) -> None:
    process = get_context("spawn").Process(target=try_all, args=words)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_kills_at_some_steps(tmp_path):
    run_apart(tmp_path, None, 1, FEW, ["main", "worker"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("role", ["main", "worker"])
def test_kills_at_many_steps(role, workers, tmp_path):
    run_apart(tmp_path, None, workers, None if os.environ.get("HARNESS_KILLS") == "all" else MANY, [role])
