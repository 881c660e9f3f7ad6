"""Where workers are started: as processes, as jobs through submitit, and by somebody else's package."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.errors import InputError
from harness.study import crew
from harness.study.executors import Order, open_executor
from harness.study.executors.local import Local

TINY = """
study: tiny
datasets: ["synthetic-sessions:users=40,items=20"]
seeds: 2
variants:
  often: {model: popularity}
  next: {model: transitions}
metrics: [ndcg@10]
primary: ndcg@10
budget: {epochs: 1}
"""

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "executor.md"


Started = Callable[..., Path]


@pytest.fixture
def start(tmp_path, monkeypatch) -> Started:
    """Runs the study through an executor, in this process; returns the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.05)
    Path("tiny.yaml").write_text(TINY)

    def run(executor: str = "local", *settings: str, **options) -> Path:
        options |= {"executor": executor, "executor_set": settings, "out": tmp_path / "out", "device": "cpu"}
        return harness.run("tiny.yaml", report=False, **options).path

    return run


def rows(run: Path) -> dict[str, bytes]:
    found = {cell.name: (cell / "rows.parquet").read_bytes() for cell in sorted((run / "cells").iterdir())}
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> dict[str, bytes]:
    """The rows of the study, run by one local process."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "tiny.yaml").write_text(TINY)
    return rows(harness.run(folder / "tiny.yaml", report=False, out=folder, device="cpu", workers=1).path)


class TestLocal:
    def start(self, tmp_path: Path, code: str):
        order = Order([sys.executable, "-c", code], {"PASSWORD": "s3cret"}, tmp_path / "log")
        return Local(Local.Options()).start(order)

    def test_a_worker_is_alive_until_it_exits(self, tmp_path):
        worker = self.start(tmp_path, "import os, sys; print(os.environ['PASSWORD'], sys.argv[1:]); sys.exit(3)")
        worker.end()
        assert worker.exit_code() == 3
        assert (tmp_path / "log").read_text().strip() == f"s3cret ['--parent', '{os.getpid()}']"

    def test_a_worker_that_is_stopped(self, tmp_path):
        worker = self.start(tmp_path, "import signal; signal.pause()")
        assert worker.exit_code() is None
        worker.stop()
        worker.end()
        assert worker.exit_code() == -signal.SIGTERM


class TestSlurm:
    pytest.importorskip("submitit", reason="submitit is not installed; pip install 'harness[slurm]'")

    @pytest.mark.parametrize("mode", ["debug", "local"])
    def test_a_study_through_submitit(self, mode, start, calm, tmp_path):
        other = tmp_path / "harness"  # it must not be taken for the package
        other.mkdir()
        (other / "__init__.py").write_text("raise ImportError('the wrong harness')")
        run = start("slurm", f"mode={mode}", workers=2, storage=f"sqlite:///{tmp_path / 's3cret.db'}")
        assert rows(run) == calm
        jobs = list((run / "logs" / "slurm").iterdir())
        assert len(jobs) > 2
        assert not any(b"s3cret" in path.read_bytes() for path in jobs), "a storage URL may hold a password"

    def test_a_job_that_ends_without_a_result_is_a_dead_worker(self, tmp_path):
        executor = open_executor("slurm", ["mode=local"])
        worker = executor.start(Order(["no such program"], {}, tmp_path / "log"))
        worker.job.wait()
        assert worker.exit_code() == -signal.SIGKILL
        assert "no such program" in (tmp_path / "log").read_text()

    def test_a_job_whose_time_is_over_stops_its_worker_in_good_order(self, tmp_path):
        code = (
            "import signal, sys\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
            f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
            "signal.pause()"
        )
        os.mkfifo(tmp_path / "ready")
        executor = open_executor("slurm", ["mode=local", "timeout_min=1"])
        worker = executor.start(Order([sys.executable, "-c", code], {}, tmp_path / "log"))
        (tmp_path / "ready").read_bytes()  # waits for the worker
        (task,) = _children(worker.job._process.pid)
        os.kill(task, signal.SIGUSR2)
        worker.job.wait()
        assert worker.exit_code() == 130

    def test_without_a_cluster(self, start):
        with pytest.raises(InputError, match=r'no worker could be submitted .Could not detect "srun"'):
            start("slurm")

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("mod=debug", "unknown key 'mod'; did you mean 'mode'"),
            ("mode=lokal", "'mode': Input should be 'slurm', 'local' or 'debug'"),
            ("mode", "--executor-set mode: write it as key=value"),
        ],
    )
    def test_unknown_options(self, setting, message):
        with pytest.raises(InputError, match=message):
            open_executor("slurm", [setting])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class TestOutside:
    """The executor that the guide shows."""

    @pytest.fixture
    def site(self, tmp_path, monkeypatch) -> None:
        """Its package, installed as pip installs it anywhere."""
        source, target = tmp_path / "source", tmp_path / "site"
        source.mkdir()
        text = GUIDE.read_text(encoding="utf-8")
        for name, language in (("elsewhere.py", "python"), ("pyproject.toml", "toml")):
            (code,) = re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)
            (source / name).write_text(code, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        monkeypatch.syspath_prepend(target)

    def test_a_study_and_a_search(self, site, start, calm, call):
        assert rows(start("nice", "nice=1", workers=2)) == calm
        search = (
            "search={small: {training.learning_rate: {low: 0.0001, high: 0.1, log: true}}}",
            "variants={small: {model: sasrec, set: {dim: 8, layers: 1, heads: 1, inner: 8}}}",
        )
        words = [word for setting in search for word in ("--set", setting)]
        ended = call("tune", "--study", "tiny.yaml", *words, "--trials", 2, "--executor", "nice")
        assert ended.code == 0, ended.err
        (entry,) = json.loads(Path("out", "tiny", "tuning.json").read_text())
        assert [trial["state"] for trial in entry["trials"]] == ["complete", "complete"]

    def test_something_else_under_the_name(self, monkeypatch):
        monkeypatch.setattr("harness.registry.Registry.load", lambda self, name: dict)
        with pytest.raises(InputError, match="is not a subclass of"):
            open_executor("nice")


def test_workers_that_were_started_before_the_run(start, start_harness, calm, tmp_path):
    """They wait for it; the run only queues."""
    run = tmp_path / "out" / "tiny"
    workers = [start_harness("worker", run, "--wait", "120", "--device", "cpu") for _ in range(2)]
    assert start(queue_only=True) == run
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    assert rows(run) == calm
