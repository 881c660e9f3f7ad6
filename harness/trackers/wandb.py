"""Weights & Biases, and trackio, which has the same functions and keeps what it is told on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.files import as_file_name
from harness.settings import Settings
from harness.trackers import TrackedCell, Tracker

__all__ = ["Trackio", "WandB"]


class Options(Settings):
    project: str = "harness"


class WandBOptions(Options):
    entity: str | None = None
    """User or team; None: the account's own."""
    mode: str | None = None
    """online, offline or disabled; None: as the environment (WANDB_MODE) says."""


class WandB(Tracker):
    """A run per cell, grouped by the harness's run. The account is taken from `wandb login` or WANDB_API_KEY."""

    Options: ClassVar[type[Settings]] = WandBOptions
    meaning = "a run per cell in Weights & Biases"
    package: ClassVar[str] = "wandb"

    def begin(self, cell: TrackedCell) -> None:
        self.api = importlib.import_module(self.package)
        self.run = self.api.init(
            project=self.options.project, group=cell.run.name, config=dict(cell.settings), **self.more(cell)
        )

    def more(self, cell: TrackedCell) -> dict[str, Any]:
        """What else a run is opened with: a cell that goes on after an interruption goes on in the same run."""
        return {
            "name": cell.name,
            "id": as_file_name(f"{cell.run.name}-{cell.id}"),
            "resume": "allow",
            "entity": self.options.entity,
            "mode": self.options.mode,
            "dir": str(cell.run),
        }

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=epoch)

    def end(self, metrics: Mapping[str, float] | None) -> None:
        if metrics is not None:
            self.run.summary.update({f"test/{name}": value for name, value in metrics.items()})
        self.run.finish(exit_code=0 if metrics is not None else 1)


class Trackio(WandB):
    """A run per cell in a local dashboard (`trackio show`), grouped by the harness's run."""

    Options = Options
    meaning = "a run per cell in trackio, on this machine"
    package = "trackio"

    def more(self, cell: TrackedCell) -> dict[str, Any]:
        return {"name": f"{cell.run.name} / {cell.name}", "resume": "allow"}  # a run is known by its name

    def end(self, metrics: Mapping[str, float] | None) -> None:
        if metrics is not None:
            self.run.log({f"test/{name}": value for name, value in metrics.items()})
        self.run.finish()
