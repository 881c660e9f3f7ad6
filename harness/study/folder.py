"""The folder of a run: where its design, its cells and their evidence lie."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import yaml

from harness.errors import InputError
from harness.files import digest, is_unfinished, refuse_links, write_json, write_text, writing
from harness.reading import shapes
from harness.reading.bounds import DESIGN_NODES
from harness.reading.json_text import check_shape, read_json
from harness.reading.yaml_text import read_yaml
from harness.settings import parse
from harness.study.design import Study

__all__ = ["HOST", "Design", "RunFolder"]

Design = tuple[Study, dict[str, Any]]
"""A run's design as :meth:`RunFolder.read_design` returns it."""

HOST = socket.gethostname()
BEAT_SECONDS = 20
"""How often the worker of a cell leaves a sign of life."""

CELL_REMEDY = "restore it from a copy, or delete the cell's folder to train it again"
CELL_FILES = ("cell.json", "history.csv", "rows.parquet", "metrics.json", "cost.json")
"""What a finished cell must have; the weights may have been left out of a copy."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: where its files lie, its locks, and the reading and writing of its design."""

    path: Path
    worker: str = ""
    """Name of the worker that takes cells through this object, given to it by what started it."""

    def cell(self, cell_id: str) -> Path:
        return self.path / "cells" / cell_id

    def running(self, cell_id: str) -> Path:
        return self.path / "running" / cell_id

    def failed(self, cell_id: str) -> Path:
        return self.path / "failed" / cell_id

    @property
    def design(self) -> Path:
        return self.path / "study.yaml"

    def is_finished(self, cell_id: str) -> bool:
        return self.cell(cell_id).is_dir()

    def trained_alike(self, identity: dict[str, Any], measured: tuple[str, ...]) -> Path | None:
        """A finished cell with weights whose identity is the same but for the format and the keys in ``measured``."""

        def training(values: dict[str, Any]) -> dict[str, Any]:
            return {key: values.get(key) for key in identity if key not in (*measured, "format")}

        wanted = training(json.loads(json.dumps(identity)))
        for weights in sorted(self.path.glob("cells/*/model.safetensors")):
            if training(read_json(weights.parent / "cell.json", shapes.Card, CELL_REMEDY)) == wanted:
                return weights.parent
        return None

    def is_over(self, cell_id: str) -> bool:
        """Whether the cell is finished or has failed."""
        return self.is_finished(cell_id) or (self.failed(cell_id) / "failure.json").exists()

    def forget_failure(self, cell_id: str) -> None:
        """Lets a failed cell be tried again."""
        path = self.failed(cell_id) / "failure.json"
        with writing(path):
            path.unlink(missing_ok=True)

    def failure(self, cell_id: str) -> dict[str, Any] | None:
        path = self.failed(cell_id) / "failure.json"
        return read_json(path, shapes.Failure, "delete it, and the cell is tried again") if path.exists() else None

    def card(self, cell_id: str) -> dict[str, Any]:
        """``cell.json`` of a finished cell. Raises InputError where it is missing or damaged."""
        return read_json(self.cell(cell_id) / "cell.json", shapes.Card, CELL_REMEDY)

    def check(self, cell_id: str) -> None:
        """Raises InputError if a finished cell lacks one of its files."""
        missing = [name for name in CELL_FILES if not (self.cell(cell_id) / name).is_file()]
        if missing:
            raise InputError(
                f"cell {self.cell(cell_id)} lacks {', '.join(missing)}, though it was written whole; "
                "restore it from a copy, or delete the folder to train it again"
            )

    def publish(self, cell_id: str, staged: Path) -> None:
        """Makes the staged folder the finished cell, by one rename."""
        target = self.cell(cell_id)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync(staged)
            os.replace(staged, target)
        shutil.rmtree(self.running(cell_id), ignore_errors=True)
        shutil.rmtree(self.failed(cell_id), ignore_errors=True)

    @contextmanager
    def lock(self, cell_id: str) -> Iterator[bool]:
        """Yields whether this process got the cell; the lock ends with the process, however it ends."""
        with _lock(self.running(cell_id) / "lock") as mine:
            if not mine:
                yield False
                return
            sign = self.running(cell_id) / "worker.json"
            write_json(sign, {"host": HOST, "process": os.getpid(), "worker": self.worker})
            with _beating(sign):
                yield True

    def is_held(self, cell_id: str) -> bool:
        """Whether a process holds the cell's lock, as far as this machine can see."""
        path = self.running(cell_id) / "lock"
        if not path.exists():
            return False
        with _lock(path) as free:
            return not free

    def holder(self, cell_id: str) -> str | None:
        """Name of the worker that took the cell last, dead or alive."""
        try:
            return read_json(self.running(cell_id) / "worker.json", shapes.WorkerSign)["worker"]
        except InputError:
            return None

    def last_beat(self, cell_id: str) -> float | None:
        """When the cell's worker left its last sign of life, by the clock of the file system."""
        with suppress(OSError):
            return (self.running(cell_id) / "worker.json").stat().st_mtime
        return None

    @contextmanager
    def run_lock(self) -> Iterator[bool]:
        """Yields whether no other process runs this folder as a whole. Raises InputError as :func:`refuse_links`."""
        refuse_links(self.path)
        with _lock(self.path / ".lock") as mine:
            yield mine

    def tidy(self, before: float) -> None:
        """Removes what killed processes left behind: the working folders of finished cells, and files that were being
        written, untouched since the time ``before``."""
        for working in self.path.glob("running/*"):
            if self.is_finished(working.name) and not self.is_held(working.name):
                shutil.rmtree(working, ignore_errors=True)
        for place in (".", "catalogues", "failed/*", "figures/**", "tables/**"):
            for path in self.path.glob(f"{place}/.*.*"):
                with suppress(OSError):
                    if is_unfinished(path) and path.stat().st_mtime < before:
                        path.unlink()

    def write_design(self, study: Study, extra: dict[str, Any]) -> None:
        text = yaml.safe_dump(
            {**study.model_dump(mode="json"), **extra}, sort_keys=False, allow_unicode=True, width=110
        )
        write_text(self.design, text)

    def read_design(self) -> Design:
        """The design as it was run, and what stands beside it (the cells, the fidelity cards)."""
        if not self.design.exists():
            raise InputError(f"{self.path} holds no study: {self.design.name} is missing")
        remedy = "restore it, or delete it and run the study again"
        raw = read_yaml(self.design, remedy, DESIGN_NODES)
        check_shape(raw, shapes.Beside, self.design, remedy)
        own = {key: value for key, value in raw.items() if key in Study.model_fields}
        study = parse(Study, own, str(self.design))
        return study, {key: value for key, value in raw.items() if key not in own}

    def queue_name(self, study: Study, extra: dict[str, Any]) -> str:
        """The Optuna study that holds the run's queue; both arguments as :meth:`read_design` returns them."""
        if "queue" in extra:
            return extra["queue"]
        # Runs from before the name was written down: it was derived from the design and the folder's path.
        choices = [list(study.datasets), list(study.variants), str(self.path.resolve())]
        return f"{self.path.name}-{digest(choices)[:6]}"

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Yields whether this process got the lock. It is the kernel's, so that it ends with the process."""
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            mine = False
        else:
            mine = True
    try:
        yield mine
    finally:
        if mine:
            lock.release()


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    """Touches a file again and again. It needs no storage, so that a worker counts as alive while that is away."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # the cell is finished and its file gone, or the file system is away
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _sync(folder: Path) -> None:
    """Flushes a folder's files to the disk, so that the rename can't outrun their content."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
