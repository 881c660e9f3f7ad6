"""What a person sees while a study runs: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from harness.errors import InputError
from harness.files import read_json
from harness.reading import shapes
from harness.study.cells import Cell
from harness.study.folder import RunFolder

__all__ = ["Display", "duration"]

PARTS = ("data", "train", "evaluation")
PLAIN_SECONDS = 30
"""Between two lines of progress where there is no terminal."""


class Display:
    """Follows a run folder. It reads what the workers write and asks them nothing."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.fancy = self.console.is_terminal
        self.live: Live | None = None
        self.cells: list[Cell] = []
        self.reported: set[str] = set()
        self.last_line = 0.0
        self.spent: dict[str, float | None] = {}

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *problem: Any) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, line: str) -> None:
        """One line that stays."""
        self.console.print(Text(line), soft_wrap=True)

    def begin(self, cells: list[Cell], folder: RunFolder, workers: int) -> None:
        self.cells, self.folder, self.workers = cells, folder, workers
        self.reported = {cell.id for cell in cells if folder.is_finished(cell.id)}
        self.before = len(self.reported)
        for cell in cells:
            if (failure := folder.failure(cell.id)) is not None:
                self.reported.add(cell.id)
                self.say(f"  failed before, not tried again  {cell.name}: {failure['reason']}")
        kept = f", {self.before} of them finished before" if self.before else ""
        of_cells, of_workers = (
            f"{n} {thing}{'s' * (n != 1)}" for n, thing in ((len(cells), "cell"), (workers, "worker"))
        )
        self.say(f"{folder.path}: {of_cells}{kept}; {of_workers}")
        if len(self.reported) == len(cells):
            self.say("  nothing to train; for a run of your own choose another --out or --name")
        elif self.fancy:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()

    def update(self) -> None:
        """Looks at the folder again and shows what has changed."""
        if not self.cells:
            return
        for cell in self.cells:
            if cell.id in self.reported:
                continue
            if self.folder.is_finished(cell.id):
                self.reported.add(cell.id)
                self.say(f"  finished  {cell.name}")
            elif (failure := self.folder.failure(cell.id)) is not None:
                self.reported.add(cell.id)
                self.say(f"  FAILED    {cell.name}: {failure['reason']}")
        under_way = self._under_way()
        left = self._time_left(under_way)
        if self.live is not None:
            self.live.update(self._bars(under_way, left))
        elif time.time() - self.last_line >= PLAIN_SECONDS and len(self.reported) < len(self.cells):
            self.last_line = time.time()
            now = ", ".join(f"{c.arm.variant} {c.run} {_where(p)}" for c, p in under_way)
            self.say(f"  {len(self.reported)}/{len(self.cells)} cells, {left}; now: {now or 'starting'}")

    def _under_way(self) -> list[tuple[Cell, dict[str, Any]]]:
        """The cells that were begun, by this run or an earlier one, and are not at their end."""
        begun = [(cell, _progress(self.folder.running(cell.id))) for cell in self.cells if cell.id not in self.reported]
        return [(cell, progress) for cell, progress in begun if progress is not None]

    def _time_left(self, under_way: list[tuple[Cell, dict[str, Any]]]) -> str:
        """From what the epochs under way take, and what finished cells took.

        A data set and a variant of which nothing is known yet are taken for the mean of those that train.
        """
        seconds = {cell.id: _epoch_seconds(progress) * progress["epochs"] for cell, progress in under_way}
        kinds: dict[tuple[str, str], list[float]] = {}
        for cell in self.cells:
            if cell.id not in seconds and self.folder.is_finished(cell.id):
                seconds[cell.id] = self._spent(cell.id)
            if seconds.get(cell.id) is not None:
                kinds.setdefault((cell.dataset, cell.arm.variant), []).append(seconds[cell.id])
        means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
        trained = [mean for mean in means.values() if mean > 0]
        if not trained:
            return "time left not known yet"
        usual = sum(trained) / len(trained)
        parts = {cell.id: _share(progress) for cell, progress in under_way}
        left = [
            seconds[cell.id] * (1 - parts[cell.id])
            if cell.id in parts
            else means.get((cell.dataset, cell.arm.variant), usual)
            for cell in self.cells
            if cell.id not in self.reported
        ]
        return f"about {duration(max(sum(left) / max(self.workers, 1), max(left, default=0)))} left"

    def _spent(self, cell_id: str) -> float | None:
        """Seconds that a finished cell trained and validated; 0 of a model without parameters."""
        if cell_id not in self.spent:
            try:
                cost = read_json(self.folder.cell(cell_id) / "cost.json", shapes.Cost)
                self.spent[cell_id] = sum(float(cost.get(f"{part}_seconds", 0)) for part in PARTS)
            except (InputError, TypeError, ValueError, AttributeError):
                self.spent[cell_id] = None
        return self.spent[cell_id]

    def _bars(self, under_way: list[tuple[Cell, dict[str, Any]]], left: str) -> Group:
        overall, epochs = (
            Progress(
                TextColumn("{task.description}", markup=False),  # names may hold brackets
                BarColumn(30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            for _ in range(2)
        )
        overall.add_task("cells".ljust(44), total=len(self.cells), completed=len(self.reported), note=left)
        for cell, progress in under_way:
            value = "" if progress["value"] is None else f"validation {progress['value']:.4f}"
            name = cell.name if len(cell.name) <= 42 else cell.name[:41] + "…"
            epochs.add_task(
                f"  {name}".ljust(44),
                total=progress["epochs"],
                completed=progress["epoch"] + progress.get("part", 0),
                note=value,
            )
        return Group(overall, epochs)


def _progress(running: Path) -> dict[str, Any] | None:
    path = running / "progress.json"
    try:
        return read_json(path, shapes.Progress) if path.exists() else None
    except InputError:
        return None


def _epoch_seconds(progress: dict[str, Any]) -> float:
    return float(progress.get("epoch_seconds") or 0.0)


def _share(progress: dict[str, Any]) -> float:
    """Of a cell's epochs."""
    return (progress["epoch"] + progress.get("part", 0)) / progress["epochs"]


def _where(progress: dict[str, Any]) -> str:
    """``epoch 3/40``; while a next one is under way, ``epoch 3/40 + 25 %``."""
    part = progress.get("part", 0)
    return f"epoch {progress['epoch']}/{progress['epochs']}{f' + {100 * part:.0f} %' if part else ''}"


def duration(seconds: float) -> str:
    """A span of time in words that fit its size."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
