"""TensorBoard: event files that `tensorboard --logdir` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from harness.settings import Settings
from harness.trackers import TrackedCell, Tracker

__all__ = ["TensorBoard"]


class Options(Settings):
    folder: Path | None = None
    """Where the cells' folders of event files lie; None: ``tensorboard`` in the run's folder."""


class TensorBoard(Tracker):
    """A folder of event files per cell, DATASET/VARIANT/seed-SEED."""

    Options = Options
    meaning = "TensorBoard's event files, in the run's folder or elsewhere"

    def begin(self, cell: TrackedCell) -> None:
        from torch.utils.tensorboard import SummaryWriter

        root = self.options.folder or cell.run / "tensorboard"
        self.writer = SummaryWriter(str(root / cell.dataset.replace("/", "-") / cell.variant / f"seed-{cell.seed}"))
        settings = json.dumps(dict(cell.settings), indent=2, ensure_ascii=False)
        self.writer.add_text("settings", f"```json\n{settings}\n```")  # as Markdown shows it

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def end(self, metrics: Mapping[str, float] | None) -> None:
        for name, value in (metrics or {}).items():
            self.writer.add_scalar(f"test/{name}", value, 0)
        self.writer.close()
