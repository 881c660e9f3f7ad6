"""Workers as processes of this machine, which end when the process that started them does."""

from __future__ import annotations

import os
import subprocess

from harness.study.executors import Executor, Order, Worker

__all__ = ["Local", "start_process"]

END_SECONDS = 60


class Local(Executor):
    here = True

    def start(self, order: Order) -> Worker:
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
