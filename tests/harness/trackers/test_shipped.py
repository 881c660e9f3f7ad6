"""What W&B, trackio and MLflow are told, by stand-ins that have their functions; a run is found again after a stop."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from harness.trackers import TrackedCell, find_tracker

CELL = TrackedCell("abc", Path("out/mine"), "ml-100k", "ce", 1, {"model": "sasrec", "config.dim": 8})


class Runs(ModuleType):
    """wandb's and trackio's functions: `init` opens the run of that id, or of that name."""

    def __init__(self):
        super().__init__("runs")
        self.runs = {}

    def init(self, *, project, group, config, name, id=None, resume, **more):
        assert (project, group, resume) == ("mine", "mine", "allow")
        run = self.runs.setdefault(id or name, SimpleNamespace(logged=[], summary={}, ends=[]))
        run.config, run.name = config, name
        run.log = lambda values, step=None: run.logged.append((step, values))
        run.finish = lambda exit_code=None: run.ends.append(exit_code)
        return run


class Client:
    """MLflow's client, on a server in memory."""

    runs: dict = {}  # noqa: RUF012

    def __init__(self, tracking_uri):
        self.server = self.runs.setdefault(tracking_uri, {})

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if name in self.server else None

    def create_experiment(self, name):
        self.server[name] = {}
        return name

    def search_runs(self, places, filter_string, max_results):
        found = self.server[places[0]].values()
        return [r for r in found if filter_string == f"tags.`harness.cell` = '{r.tags['harness.cell']}'"][:max_results]

    def create_run(self, place, run_name, tags):
        info = SimpleNamespace(run_id=f"r{len(self.server[place])}")
        run = SimpleNamespace(info=info, name=run_name, tags=tags, params={}, metrics=[], status="RUNNING")
        self.server[place][info.run_id] = run
        return run

    def update_run(self, run, status):
        self.run(run).status = status

    set_terminated = update_run

    def log_param(self, run, key, value):
        self.run(run).params[key] = value

    def log_metric(self, run, key, value, step):
        assert "@" not in key
        self.run(run).metrics.append((key, value, step))

    def run(self, run):
        return self.server["mine"][run]


def stopped_and_finished(name, **options):
    """A cell that was interrupted behind its first epoch, and ended behind its second."""
    kind = find_tracker(name)
    for epoch, metrics in ((1, None), (2, {"unseen/ndcg@10": 0.3})):
        tracker = kind(kind.Options(**options))
        tracker.begin(CELL)
        tracker.epoch(epoch, {"loss": 1 / epoch})
        tracker.end(metrics)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio(monkeypatch, name):
    api = Runs()
    monkeypatch.setitem(sys.modules, name, api)
    stopped_and_finished(name, project="mine")
    (run,) = api.runs.values()
    assert run.config == CELL.settings
    assert run.name.endswith("ml-100k / ce / seed 1")
    assert run.logged[:2] == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]
    last = run.summary if name == "wandb" else run.logged[2][1]
    assert last == {"test/unseen/ndcg@10": 0.3}
    assert run.ends == ([1, 0] if name == "wandb" else [None, None])


def test_mlflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    stopped_and_finished("mlflow", experiment="mine", uri="there")
    (run,) = Client.runs["there"]["mine"].values()
    assert (run.name, run.status) == (CELL.name, "FINISHED")
    assert run.params == {"model": "sasrec", "config.dim": "8"}
    assert run.metrics == [("loss", 1.0, 1), ("loss", 0.5, 2), ("test/unseen/ndcg_at_10", 0.3, 0)]
