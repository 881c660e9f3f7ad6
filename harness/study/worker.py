"""One worker process: takes cells from the queue until none is left. Many of them share a run folder and a storage."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from harness.errors import LONGEST, CellFailed, InputError, Interrupted, shortened
from harness.files import refuse_links, write_json
from harness.study.cells import Cell, Inputs, make_cells
from harness.study.design import Study
from harness.study.folder import HOST, Design, RunFolder
from harness.study.queue import Queue, Report
from harness.study.ranks import ALONE, Ranks, Seat, device_of, die_with, join
from harness.study.run_cell import build_model, run_cell, task_data, train, write_history
from harness.study.stopping import noted_signals
from harness.study.trials import Searches, is_tuning
from harness.training import CHECKPOINT, SECONDS

__all__ = ["follow", "go_where_it_was_started", "wait_for_run", "work"]

IDLE_SECONDS = 1.0
NOTE_SECONDS = 5.0
"""Between two notes of how far an epoch is."""


class Work(Protocol):
    """What workers of a folder share out among them: the cells of a run, or the searches of a tuning."""

    def left(self) -> int: ...
    def synchronise(self) -> int: ...
    def work_on_next(self) -> bool:
        """Takes what is next and works on it; false where nothing waits."""
        ...


def work(
    folder: RunFolder,
    *,
    storage: str,
    data_root: Path | None,
    cache: Path,
    device: str,
    threads: int,
    parent: int | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Works until nothing is left. ``parent``: stop when the process of this id is gone. ``ranks``: train each cell.

    Raises:
        Interrupted: a signal asked to stop, or the parent is gone; the last checkpoint stands.
        InputError: the folder, its data or the storage can't be used.
    """
    with noted_signals() as asked:

        def stop() -> bool:
            return bool(asked) or (parent is not None and os.getppid() != parent)

        torch.set_num_threads(threads)
        refuse_links(folder.path)
        design = folder.read_design()
        shared: Work
        if is_tuning(design):
            if ranks.size > 1:
                raise InputError("a trial of a tuning is trained by one process; leave processes_per_cell out")
            shared = Searches.of_worker(design, folder, data_root, cache, device, threads, stop)
        else:
            shared = _Cells(design, folder, storage, Inputs(data_root, cache), device, stop, ranks)
        while shared.left():
            if stop():
                raise Interrupted
            if not shared.work_on_next() and shared.synchronise():
                time.sleep(IDLE_SECONDS)


class _Cells:
    """The cells of a run, trained by this worker."""

    def __init__(
        self,
        design: Design,
        folder: RunFolder,
        storage: str,
        inputs: Inputs,
        device: str,
        stop: Callable[[], bool],
        ranks: Ranks,
    ) -> None:
        self.folder, self.inputs, self.device, self.stop, self.ranks = folder, inputs, device, stop, ranks
        self.study, extra = design
        cells = make_cells(self.study, inputs)
        if [cell.id for cell in cells] != [entry["id"] for entry in extra["cells"]]:
            raise InputError(f"{folder.design} was made with other data or another version; run `harness run` again")
        self.queue = Queue(
            storage,
            folder.queue_name(self.study, extra),
            self.study,
            cells,
            folder,
            patient=bool(folder.worker),  # started by `harness run`, which has just reached the storage
            say=lambda line: print(line, file=sys.stderr, flush=True),
            stop=stop,
        )

    def left(self) -> int:
        return self.queue.left()

    def synchronise(self) -> int:
        return self.queue.synchronise()

    def work_on_next(self) -> bool:
        return self.queue.work_on_next(
            lambda cell, report: _train(
                cell, report, self.study, self.inputs, self.folder, self.device, self.stop, self.ranks
            )
        )


def follow(
    folder: RunFolder, seat: Seat, *, data_root: Path | None, cache: Path, device: str, threads: int, parent: int
) -> None:
    """Trains a cell with the worker of id ``parent`` on ``device``, which does all else about it."""
    die_with(parent)
    torch.set_num_threads(threads)
    study, _ = folder.read_design()
    inputs = Inputs(data_root, cache)
    cell_id, rank, size, _ = seat
    cell = next(cell for cell in make_cells(study, inputs) if cell.id == cell_id)
    data = task_data(study, cell, inputs, device_of(device, rank))
    model = build_model(cell, data, inputs)
    join(seat, device)
    with suppress(CellFailed):  # a loss that is not finite is so in all processes, and the worker records it
        train(study, cell, folder, model, data, str(torch.device(device)), size)


def wait_for_run(folder: RunFolder, seconds: float) -> None:
    """Waits until `harness run` has written the folder's design. Raises InputError where it does not."""
    end = time.monotonic() + seconds
    while not folder.design.is_file():
        if time.monotonic() >= end:
            more = f" after {seconds:g} s" if seconds else ""
            raise InputError(
                f"{folder.path} holds no run{more}; start it with `harness run`, or wait for it with --wait SECONDS"
            )
        time.sleep(IDLE_SECONDS)


def go_where_it_was_started(folder: RunFolder) -> None:
    """Changes to the folder that `harness run` was started in, which relative paths in the study are seen from."""
    place = folder.read_design()[1].get("started_in")
    if place is not None and (folder.path / place).is_dir():  # else on a machine that lays its folders out differently
        os.chdir(folder.path / place)


def _train(
    cell: Cell, report: Report, study: Study, inputs: Inputs, folder: RunFolder, device: str, stop: Any, ranks: Ranks
) -> float:
    """The cell's validation value. Raises CellFailed after the reason was written down."""
    history: list[dict[str, Any]] = []
    tracked = f"valid/{study.primary}"
    started, said = time.time(), -math.inf

    def note(part: float) -> None:
        """What the display reads: epochs done, the part of the next that is done, the seconds of an epoch."""
        spent = [sum(row[seconds] for seconds in SECONDS) for row in history]
        whole = sum(spent) / len(spent) if spent else (time.time() - started) / part if part else None
        progress = {
            "epoch": history[-1]["epoch"] if history else 0,
            "part": part,
            "epochs": study.budget.epochs,
            "value": next((row[tracked] for row in reversed(history) if row.get(tracked) is not None), None),
            "epoch_seconds": whole,
        }
        write_json(folder.running(cell.id) / "progress.json", {**progress, "host": HOST, "started": started})

    def on_epoch(row: dict[str, Any]) -> None:
        history.append(row)
        if row.get(tracked) is not None:
            report(row[tracked], row["epoch"])
        note(0.0)

    def on_step(part: float) -> None:
        nonlocal said
        if time.monotonic() - said >= NOTE_SECONDS and (history or not resumed):
            said = time.monotonic()
            note(part)

    resumed = (folder.running(cell.id) / CHECKPOINT).exists()
    try:
        return run_cell(
            study,
            cell,
            inputs,
            folder,
            device=device,
            ranks=ranks,
            on_epoch=on_epoch,
            on_step=on_step,
            should_stop=stop,
        )
    except (InputError, Interrupted):
        raise
    except Exception as error:
        expected = isinstance(error, CellFailed)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        if _is_out_of_memory(error):
            reason = f"out of memory ({error}); lower training.batch_size or the model's size"
        reason = shortened(reason, LONGEST)
        record_failure(folder, cell, reason, None if expected else traceback.format_exc())
        write_history(folder.failed(cell.id) / "history.csv", history)
        raise CellFailed(reason) from error


def _is_out_of_memory(error: Exception) -> bool:
    # A CPU allocation that fails is a plain RuntimeError of PyTorch; CPython may turn one into a SystemError.
    known = isinstance(error, MemoryError | torch.OutOfMemoryError | SystemError)
    return known or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def record_failure(folder: RunFolder, cell: Cell, reason: str, trace: str | None = None) -> None:
    """Leaves why a cell failed beside the finished ones."""
    failure = {
        "id": cell.id,
        **cell.entry,
        "reason": reason,
        "traceback": trace,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder.failed(cell.id) / "failure.json", failure)
