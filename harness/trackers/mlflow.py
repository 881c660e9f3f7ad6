"""MLflow: a run per cell in an experiment."""

from __future__ import annotations

from collections.abc import Mapping

from harness.settings import Settings
from harness.trackers import TrackedCell, Tracker

__all__ = ["MLflow"]

CELL = "harness.cell"
LONGEST = 500
"""Characters of a parameter's value; MLflow refuses more than 6,000, earlier servers more than 500."""


class Options(Settings):
    experiment: str = "harness"
    uri: str | None = None
    """Of the tracking server or folder; None: as the environment (MLFLOW_TRACKING_URI) says."""


class MLflow(Tracker):
    """A run per cell, with the cell's settings as parameters."""

    Options = Options
    meaning = "a run per cell in an experiment of MLflow"

    def begin(self, cell: TrackedCell) -> None:
        from mlflow import MlflowClient

        self.client = client = MlflowClient(tracking_uri=self.options.uri)
        experiment = client.get_experiment_by_name(self.options.experiment)
        place = experiment.experiment_id if experiment else client.create_experiment(self.options.experiment)
        mine = f"{cell.run.name}-{cell.id}"
        known = client.search_runs([place], filter_string=f"tags.`{CELL}` = '{mine}'", max_results=1)
        if known:  # the cell goes on after an interruption
            self.run = known[0].info.run_id
            client.update_run(self.run, status="RUNNING")
            return
        tags = {CELL: mine, "harness.run": cell.run.name}
        self.run = client.create_run(place, run_name=cell.name, tags=tags).info.run_id
        for key, value in cell.settings.items():
            client.log_param(self.run, key, str(value)[:LONGEST])

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self._log(values, epoch)

    def end(self, metrics: Mapping[str, float] | None) -> None:
        self._log({f"test/{name}": value for name, value in (metrics or {}).items()}, 0)
        self.client.set_terminated(self.run, "FINISHED" if metrics is not None else "KILLED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name.replace("@", "_at_"), value, step=step)  # it allows no "@"
