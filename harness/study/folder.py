"""The folder of a run: where its design, its cells and their evidence lie."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import InputError
from harness.files import read_json, write_json, write_text, writing
from harness.settings import parse
from harness.study.design import Study

__all__ = ["RunFolder"]

CELL_FILES = ("cell.json", "history.csv", "rows.parquet", "metrics.json", "cost.json")
"""What a finished cell must have; the weights may have been left out of a copy."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: where its files lie, its locks, and the reading and writing of its design."""

    path: Path

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
        """A finished cell with weights whose identity is the same but for the keys in ``measured``."""

        def training(values: dict[str, Any]) -> dict[str, Any]:
            return {key: values.get(key) for key in identity if key not in measured}

        wanted = training(json.loads(json.dumps(identity)))
        for weights in sorted(self.path.glob("cells/*/model.safetensors")):
            if training(read_json(weights.parent / "cell.json")) == wanted:
                return weights.parent
        return None

    def failure(self, cell_id: str) -> dict[str, Any] | None:
        path = self.failed(cell_id) / "failure.json"
        return read_json(path) if path.exists() else None

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
            yield mine

    def holder(self, cell_id: str) -> int | None:
        """The process that took the cell last, dead or alive."""
        path = self.running(cell_id) / "lock"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return int(text) if text.isdigit() else None

    @contextmanager
    def run_lock(self) -> Iterator[bool]:
        """Yields whether no other process runs this folder as a whole."""
        with _lock(self.path / ".lock") as mine:
            yield mine

    def write_design(self, study: Study, extra: dict[str, Any]) -> None:
        text = yaml.safe_dump(
            {**study.model_dump(mode="json"), **extra}, sort_keys=False, allow_unicode=True, width=110
        )
        write_text(self.design, text)

    def read_design(self) -> tuple[Study, dict[str, Any]]:
        """The design as it was run, and what stands beside it (the cells, the fidelity cards)."""
        try:
            raw = yaml.safe_load(self.design.read_text(encoding="utf-8"))
            own = {key: value for key, value in raw.items() if key in Study.model_fields}
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no study: {self.design.name} is missing") from None
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
            raise InputError(f"{self.design} is damaged; restore it, or delete it and run the study again") from None
        study = parse(Study, own, str(self.design))
        return study, {key: value for key, value in raw.items() if key not in own}

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held until the end of the block)
    with file:
        mine = _try_lock(file)
        if mine:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield mine


def _try_lock(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(folder: Path) -> None:
    """Flushes a folder's files to the disk, so that the rename can't outrun their content."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
