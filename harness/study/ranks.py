"""The processes of this machine that train one cell together: the worker, which leads, and those that it starts for it.

The others hold no lock and write no file of the run, so that they may be killed at any moment. If one of them dies, the
worker ends too, and says so in one line; the cell goes on from its checkpoint when the run is started again.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

import torch
import torch.distributed as dist

from harness.errors import CellFailed, InputError, Interrupted
from harness.files import writing
from harness.study.executors import local

__all__ = ["ALONE", "Ranks", "Seat", "device_of", "die_with", "join"]

GRACE_SECONDS = 5.0
"""Within which the others notice by themselves that a process is gone. NCCL may not."""
BAD_INPUT = 2
PATIENCE = timedelta(days=7)
"""The others wait while the first process evaluates. That a process is dead is seen without a time-out."""

Seat = tuple[str, int, int, Path]
"""Cell, rank, number of processes, and the file through which they find each other."""


@dataclass(frozen=True)
class Ranks:
    """How many processes train a cell, and the command that starts another, but for its seat and where its log is."""

    size: int = 1
    command: tuple[str, ...] = ()
    logs: Path = Path()
    device: str = "cpu"

    @contextmanager
    def together(self, cell_id: str) -> Iterator[None]:
        """The other processes of a cell, in a group with this one.

        Raises:
            InputError: one of them died, or there are too few devices for all.
        """
        if self.size == 1:
            yield
            return
        check_devices(self.device, self.size)
        with writing(self.logs):
            self.logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            store = Path(place, "store")
            logs = {rank: self.logs / f"{cell_id}-rank-{rank}.log" for rank in range(1, self.size)}
            others = {rank: self._start((cell_id, rank, self.size, store), log) for rank, log in logs.items()}
            over = threading.Event()
            watch = threading.Thread(target=_end_with, args=(others, logs, over), daemon=True)
            watch.start()
            try:
                join((cell_id, 0, self.size, store), self.device)
                yield
            except (InputError, Interrupted, CellFailed):
                raise
            except Exception as error:
                if line := _loss(others, logs, GRACE_SECONDS):
                    raise InputError(line) from error
                raise
            finally:
                over.set()
                watch.join()
                for process in others.values():
                    process.kill()
                    process.wait()
                if dist.is_initialized():
                    dist.destroy_process_group()

    def _start(self, seat: Seat, log: Path) -> Popen[bytes]:
        return local.start_process([*self.command, "--join", *map(str, seat)], log, dict(os.environ))


ALONE = Ranks()


def join(seat: Seat, device: str) -> None:
    """Makes this process one of the group. Returns when all are there."""
    _, rank, size, store = seat
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.set_device(device_of(device, rank))
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        store=dist.FileStore(str(store), size),
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )


def device_of(device: str, rank: int) -> str:
    """The device of a process, where ``device`` is that of the first: the next ones, of a kind that has numbers."""
    first = torch.device(device)
    return device if first.type == "cpu" or rank == 0 else f"{first.type}:{(first.index or 0) + rank}"


def check_devices(device: str, size: int) -> None:
    first = torch.device(device)
    if first.type == "cuda" and (first.index or 0) + size > torch.cuda.device_count():
        raise InputError(
            f"{size} processes per cell need as many CUDA devices from {device} on, and this machine has "
            f"{torch.cuda.device_count()}; lower processes_per_cell"
        )


def die_with(parent: int) -> None:
    """Ends this process when the one that started it is gone, even while it waits for that one in a collective call."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end_with(others: dict[int, Any], logs: dict[int, Path], over: threading.Event) -> None:
    """Ends this process some time after another one died, unless the training ends before."""
    while not over.wait(0.5):
        if (line := _loss(others, logs)) and not over.wait(2 * GRACE_SECONDS):
            print(f"error: {line}", file=sys.stderr, flush=True)
            os._exit(BAD_INPUT)


def _loss(others: dict[int, Any], logs: dict[int, Path], seconds: float = 0.0) -> str | None:
    """What is to be said of a process that died or dies within ``seconds``."""
    ends = time.monotonic() + seconds
    while True:
        # Those that lost their partner end by themselves; the one that was killed says more.
        for rank, code in sorted(((r, p.poll()) for r, p in others.items()), key=lambda pair: pair[1] or 0):
            if code:
                cause = signal.Signals(-code).name if code < 0 else f"exit code {code}, see {logs[rank]}"
                return (
                    f"process {rank + 1} of the {len(others) + 1} that train a cell together died ({cause}); "
                    "the same command goes on from the cell's checkpoint"
                )
        if time.monotonic() >= ends:
            return None
        time.sleep(0.05)
