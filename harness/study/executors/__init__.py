"""Where the workers of a run are started: the interface that every executor has.

An executor starts workers and says whether they are alive. It decides nothing: the run's folder says which cells are
finished, and the queue shares the others out. `docs/guides/executor.md` shows how to write one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import InputError
from harness.registry import REGISTRIES
from harness.settings import Settings, from_pairs

__all__ = ["Executor", "Order", "Worker", "open_executor"]


@dataclass(frozen=True)
class Order:
    """The worker that is to be started."""

    command: list[str]
    """Its command line. It holds in any folder and on any machine that sees the same files under the same paths."""
    environment: dict[str, str]
    """What it needs in its environment besides what is there. It may hold a password, so it must not become part of
    a command line or a file."""
    log: Path
    """The file that its standard output and standard error are appended to. The folder is there."""


class Worker(ABC):
    """A worker that was started."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """None while it waits to be started or works; then its exit code, or minus the number of the signal that
        killed it."""

    @abstractmethod
    def stop(self) -> None:
        """Asks it to stop: it gives its cell back and exits. Does not wait."""

    @abstractmethod
    def end(self) -> None:
        """Sees to it that nothing is left of it. Called once, when it was asked to stop or there is no more work."""


class Executor(ABC):
    """Starts workers somewhere.

    ``options`` are the executor's :attr:`Options`, as given with ``--executor-set``.
    """

    Options: ClassVar[type[Settings]] = Settings
    here: ClassVar[bool] = False
    """Whether its workers run on this machine: then the device is checked before they start, and there is one worker
    per core unless `--workers` says otherwise. Elsewhere each worker finds its own device."""

    processes_per_cell: int = 1
    """How many processes of one machine train a cell together: a worker and those that it starts for the cell."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def start(self, order: Order) -> Worker:
        """Starts a worker, or queues it to be started. Raises InputError where that can't be done."""


def open_executor(name: str, settings: Iterable[str] = ()) -> Executor:
    """The executor of that name with ``key=value`` settings. Raises InputError where either is unknown."""
    kind = REGISTRIES["executors"].load(name)
    if not (isinstance(kind, type) and issubclass(kind, Executor)):
        raise InputError(f"executor '{name}' is not a subclass of harness.study.executors.Executor")
    return kind(from_pairs(kind.Options, settings, f"executor '{name}'", option="--executor-set"))
