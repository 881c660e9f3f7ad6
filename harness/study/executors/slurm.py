"""Workers as jobs of a Slurm cluster, through submitit; its local and debug executors do without a cluster.

A job goes on when the process that started it is gone, and another worker takes over the cell of a job that the cluster
ends. Nodes and the machine that runs the study must see the run's folder, and the environment, under the same paths.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Literal

from pydantic import Field

from harness.errors import InputError
from harness.settings import Settings
from harness.study.executors import Executor, Order, Worker
from harness.study.executors.local import start_process

try:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
except ImportError as error:
    raise ImportError("submitit is missing; install it with: pip install 'harness[slurm]'") from error

__all__ = ["Slurm", "SlurmOptions"]

JOBS = "slurm"


class SlurmOptions(Settings):
    """What a worker's job asks the cluster for. The names are submitit's."""

    mode: Literal["slurm", "local", "debug"] = "slurm"
    """``local``: processes of this machine; ``debug``: one after another, while the study's own process waits."""
    timeout_min: int = Field(1440, ge=1)
    """Minutes after which the cluster ends a job; another takes its place and goes on from the checkpoint."""
    cpus_per_task: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    mem_gb: float | None = Field(None, gt=0)
    partition: str | None = None
    additional: dict[str, str | int] = Field(default_factory=dict)
    """Other options of sbatch: ``additional.account=mine``."""


class Slurm(Executor):
    """Each worker is a job of its own."""

    Options = SlurmOptions

    def start(self, order: Order) -> Worker:
        try:
            with _environment(order.environment):
                job = self._executor(order.log.parent / JOBS).submit(run_worker, order.command, str(order.log))
        except (RuntimeError, ValueError, OSError, CalledProcessError, FailedSubmissionError) as error:
            raise InputError(f"executor 'slurm': no worker could be submitted ({error})") from error
        return _Job(job, order.log)

    def _executor(self, folder: Path) -> submitit.AutoExecutor:
        asked = self.options
        executor = submitit.AutoExecutor(folder, cluster=asked.mode)
        executor.update_parameters(
            name="harness",
            timeout_min=asked.timeout_min,
            cpus_per_task=asked.cpus_per_task,
            gpus_per_node=asked.gpus_per_node,
            mem_gb=asked.mem_gb,
            slurm_partition=asked.partition,
            slurm_additional_parameters=asked.additional or None,
        )
        return executor


class _Job(Worker):
    def __init__(self, job: submitit.Job[int], log: Path) -> None:
        self.job, self.log = job, log
        self.ended: int | None = None

    def exit_code(self) -> int | None:
        if self.ended is None:
            try:
                if self.job.done():
                    self.ended = self.job.result()
            except (FailedJobError, UncompletedJobError) as error:  # ended by the cluster, or never started well
                with open(self.log, "a", encoding="utf-8") as file:
                    file.write(f"{error}\n")
                self.ended = -signal.SIGKILL
        return self.ended

    def stop(self) -> None:
        self.job.cancel(check=False)

    def end(self) -> None:
        # One that works on finishes what it is at; one that still waits for a node has nothing left to do.
        self.job.cancel(check=False)


def run_worker(command: list[str], log: str) -> int:
    """In the job: the worker's exit code. The worker stops in good order where the job's time is nearly over."""
    with start_process(command, Path(log), dict(os.environ)) as worker:
        try:
            with suppress(UncompletedJobError):  # submitit's word for that
                worker.wait()
        finally:
            worker.terminate()
    return worker.returncode


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """What a job inherits. It must not stand in submitit's files, which anyone may read."""
    # Of python -P, for the processes that submitit starts: the current folder may hold one named harness.
    added: dict[str, Any] = {**values, "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
