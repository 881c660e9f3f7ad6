"""The workers of one command: starting them, replacing those that die, and stopping them."""

from __future__ import annotations

import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from harness.errors import InputError, Interrupted
from harness.files import writing
from harness.study.executors import Executor, Order, Worker
from harness.study.folder import RunFolder
from harness.study.stopping import noted_signals

__all__ = ["Crew", "Shared", "Task"]

POLL_SECONDS = 0.5
BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes of a worker, as of any command."""
MAX_DEATHS = 3
"""A task whose worker dies this often without a cause of its own is given up."""


class Task(Protocol):
    """What one worker works on at a time: a cell of a study, or a search."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


AnyTask = TypeVar("AnyTask", bound=Task)


class Shared(Protocol):
    """Tasks that are shared out among workers."""

    def left(self) -> int:
        """How many are not over."""

    def synchronise(self) -> int:
        """Queues again what got lost; returns how many are not over."""

    def is_over(self, task_id: str) -> bool: ...


@dataclass(frozen=True)
class Crew:
    """The workers of a folder.

    Args:
        folder: of the run: its design is there for them to read, their logs go to ``logs``.
        cache: of item vectors and codes.
        size: how many work at once.
        storage: URL of the queue's storage, where they need it.
        say: takes a line for the user.
        update: called several times a second.
    """

    executor: Executor
    folder: RunFolder
    cache: Path
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 1
    size: int = 1
    storage: str | None = None
    say: Callable[[str], None] = lambda line: None
    update: Callable[[], None] = lambda: None
    deaths: Counter[str] = field(default_factory=Counter)
    """By task; of workers that held none under the empty name."""

    def work_off(self, shared: Shared, tasks: Sequence[AnyTask], give_up: Callable[[AnyTask, str], None]) -> None:
        """Keeps the workers alive until no task is left.

        Args:
            give_up: called with a task that killed several workers, and the reason.

        Raises:
            Interrupted: somebody asked to stop.
            InputError: a worker met an unusable folder, data set or storage, or none can be started.
        """
        workers: list[_Started] = []
        with noted_signals(second_ends=True) as asked:
            try:
                while left := shared.left() if workers else shared.synchronise():
                    if not workers:
                        workers += [self._start(number) for number in range(max(1, min(self.size, left)))]
                    time.sleep(POLL_SECONDS)
                    self.update()
                    if asked:
                        raise Interrupted
                    for started in list(workers):
                        code = started.worker.exit_code()
                        if code is None:
                            continue
                        workers.remove(started)
                        if code == 0:
                            continue
                        self._bury(started, code, shared, tasks, give_up)
                        if shared.synchronise():
                            workers.append(self._start(started.number))
                shared.synchronise()
            except BaseException:
                for started in workers:
                    started.worker.stop()
                raise
            finally:
                for started in workers:
                    started.worker.end()

    def _start(self, number: int) -> _Started:
        name = f"{number}-{secrets.token_hex(4)}"
        log = self.folder.path.absolute() / "logs" / f"worker-{number}.log"
        with writing(log):
            log.parent.mkdir(exist_ok=True)
            log.touch()
        # -P: the current folder may hold one of the name harness, such as that above a clone.
        command = [sys.executable, "-P", "-m", "harness.cli", "worker", str(self.folder.path.absolute())]
        command += ["--device", self.device, "--threads", str(self.threads), "--cache", str(self.cache.absolute())]
        command += ["--name", name]
        if self.data_root is not None:
            command += ["--data-root", str(self.data_root.absolute())]
        environment = {"OMP_NUM_THREADS": str(self.threads), "COLUMNS": "2000"}
        if self.storage is not None:
            environment["HARNESS_STORAGE"] = self.storage  # not in the command line, which anyone can read
        return _Started(number, name, log, self.executor.start(Order(command, environment, log)))

    def _bury(
        self,
        dead: _Started,
        code: int,
        shared: Shared,
        tasks: Sequence[AnyTask],
        give_up: Callable[[AnyTask, str], None],
    ) -> None:
        """Says what a dead worker died of; gives its task up if that killed several.

        Raises:
            InputError: it ended by itself, because of its input or before it took a task; or several died without one.
        """
        if code == BAD_INPUT:
            raise InputError(dead.last_words())
        if code == INTERRUPTED:
            self.say("a worker was stopped; another takes its place")
            return
        lost = [task for task in tasks if self.folder.holder(task.id) == dead.name and not shared.is_over(task.id)]
        if not lost:
            self.deaths[""] += 1
            if code > 0 or self.deaths[""] >= MAX_DEATHS:
                raise InputError(f"a worker ended with {_cause(code)}; see {dead.log}")
            self.say(f"a worker died ({_cause(code)}) without a task; another takes its place")
        for task in lost:
            self.deaths[task.id] += 1
            self.say(f"a worker died ({_cause(code)}) at {task.name}; another goes on from its checkpoint")
            if self.deaths[task.id] >= MAX_DEATHS:
                give_up(task, f"its worker died {MAX_DEATHS} times ({_cause(code)}); see {dead.log}")


@dataclass(frozen=True)
class _Started:
    number: int
    name: str
    log: Path
    worker: Worker

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return lines[-1].removeprefix("error: ") if lines else f"nothing in {self.log}"


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
