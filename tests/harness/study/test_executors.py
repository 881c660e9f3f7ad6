"""Where workers are started: as processes, as jobs through submitit, and by somebody else's package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import InputError
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
search: {next: {two_steps: {low: 0.1, high: 1.0}}}
"""

ELSEWHERE = '''
import os
import subprocess

from harness.settings import Settings
from harness.study.executors import Executor, Worker


class Options(Settings):
    nice: int = 0


class Nice(Executor):
    """Processes that leave the others in front."""

    Options = Options

    def start(self, order):
        return Process(["nice", "-n", str(self.options.nice), *order.command], order)


class Process(Worker):
    def __init__(self, command, order):
        with open(order.log, "ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **order.environment}, stdout=log, stderr=log)

    def exit_code(self):
        return self.process.poll()

    def stop(self):
        self.process.terminate()

    def end(self):
        self.process.wait()
'''

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "elsewhere"
version = "1"
[project.entry-points."harness.executors"]
nice = "elsewhere:Nice"
[tool.setuptools]
py-modules = ["elsewhere"]
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def rows(run: Path) -> dict[str, bytes]:
    found = {cell.name: (cell / "rows.parquet").read_bytes() for cell in sorted((run / "cells").iterdir())}
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> dict[str, bytes]:
    """The rows of the study, run by local processes."""
    from tests.conftest import run_harness

    folder = tmp_path_factory.mktemp("calm")
    (folder / "tiny.yaml").write_text(TINY)
    done = run_harness(folder, "run", "--study", "tiny.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return rows(folder / "out" / "tiny")


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
    def test_a_study_through_submitit(self, mode, tiny, harness, calm, tmp_path):
        other = tmp_path / "harness"  # it must not be taken for the package
        other.mkdir()
        (other / "__init__.py").write_text("raise ImportError('the wrong harness')")
        words = ("--executor", "slurm", "--executor-set", f"mode={mode}", "--workers", "2")
        environment = {"HARNESS_STORAGE": f"sqlite:///{tmp_path / 's3cret.db'}", "PYTHONSAFEPATH": "1"}
        done = harness("run", "--study", tiny, *words, env=environment)
        assert done.returncode == 0, done.stderr
        run = tmp_path / "out" / "tiny"
        assert rows(run) == calm
        jobs = list((run / "logs" / "slurm").iterdir())
        assert jobs or mode == "debug"
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

    def test_without_a_cluster(self, tiny, refuses):
        line = refuses("run", "--study", tiny, "--executor", "slurm")
        assert 'no worker could be submitted (Could not detect "srun"' in line

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
    @pytest.fixture(scope="class")
    def site(self, tmp_path_factory) -> Path:
        """A folder with the package installed into it, as pip would install it anywhere."""
        source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
        (source / "pyproject.toml").write_text(PROJECT)
        (source / "elsewhere.py").write_text(ELSEWHERE)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target

    def test_a_study_through_an_executor_of_an_installed_package(self, site, tiny, harness, calm, tmp_path):
        words = ("--executor", "nice", "--executor-set", "nice=1", "--workers", "2")
        done = harness("run", "--study", tiny, *words, env={"PYTHONPATH": str(site)})
        assert done.returncode == 0, done.stderr
        assert "; 2 workers" in done.stderr
        assert rows(tmp_path / "out" / "tiny") == calm

    def test_a_search_through_it(self, site, tiny, harness, tmp_path):
        words = ("--trials", "2", "--executor", "nice")
        done = harness("tune", "--study", tiny, *words, env={"PYTHONPATH": str(site)})
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads((tmp_path / "out" / "tiny" / "tuning.json").read_text())
        assert [trial["state"] for trial in entry["trials"]] == ["complete", "complete"]

    def test_the_guide_shows_this_executor(self):
        guide = Path(__file__).parents[3] / "docs" / "guides" / "executor.md"
        text = guide.read_text(encoding="utf-8")
        assert ELSEWHERE.strip() in text
        assert PROJECT.strip() in text

    def test_something_else_under_the_name(self, monkeypatch):
        monkeypatch.setattr("harness.registry.Registry.load", lambda self, name: dict)
        with pytest.raises(InputError, match="is not a subclass of"):
            open_executor("nice")


def test_workers_that_were_started_before_the_run(tiny, start_harness, harness, calm, tmp_path):
    """They wait for it; the run only queues."""
    run = tmp_path / "out" / "tiny"
    workers = [start_harness("worker", run, "--wait", "120", "--device", "cpu") for _ in range(2)]
    done = harness("run", "--study", tiny, "--queue-only")
    assert done.returncode == 0, done.stderr
    assert "4 cells wait for" in done.stderr
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    assert rows(run) == calm
    done = harness("run", "--study", tiny)
    assert "nothing to train" in done.stderr
    assert (run / "report.html").is_file()
