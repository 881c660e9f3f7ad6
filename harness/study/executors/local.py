"""Workers as processes of this machine, which end when the process that started them does."""

from __future__ import annotations

import os
import subprocess

from pydantic import Field

from harness.settings import Settings
from harness.study.executors import Executor, Order, Worker

__all__ = ["Local", "LocalOptions", "start_process"]

END_SECONDS = 60


class LocalOptions(Settings):
    processes_per_cell: int = Field(1, ge=1, le=1024)
    """Processes that train one cell together, each a part of every batch: on CUDA each on a device of its own."""


class Local(Executor):
    Options = LocalOptions
    here = True

    def __init__(self, options: LocalOptions) -> None:
        super().__init__(options)
        self.processes_per_cell = options.processes_per_cell

    def start(self, order: Order) -> Worker:
        if self.processes_per_cell > 1:
            together = [*order.command, "--processes", str(self.processes_per_cell)]
            order = Order(together, order.environment, order.log)
        return _Process(order)


class _Process(Worker):
    def __init__(self, order: Order) -> None:
        self.process = start_process(order.command, order.log, {**os.environ, **order.environment})

    def exit_code(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        self.process.terminate()

    def end(self) -> None:
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_process(command: list[str], log: os.PathLike[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a worker that stops when this process is gone."""
    with open(log, "ab") as file:
        return subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,  # a Ctrl-C reaches the parent alone, which then stops its workers in good order
        )
