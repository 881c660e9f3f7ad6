"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.forks import quick_fonts, run_forked
from tests.tiny import STUDY

Harness = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def real() -> Callable[..., Path]:
    """A path below ``HARNESS_DATA``; skips the test where that names no folder that has it."""

    def path(*parts: str) -> Path:
        root = os.environ.get("HARNESS_DATA")
        if not root or not Path(root, *parts).exists():
            pytest.skip(f"set HARNESS_DATA to a folder that holds {'/'.join(parts) or 'the benchmark data sets'}")
        return Path(root, *parts)

    return path


@pytest.fixture(scope="session", autouse=True)
def _cache_of_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs are cached as for a user, but in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _quick_fonts() -> None:
    quick_fonts()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run_harness(folder: Path, *words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return run_forked(folder, [*map(str, words)], harness_environment(folder) | (env or {}), seconds=300)


def harness_environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HARNESS_OUT": str(folder / "out"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study that trains in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that study's run, which nothing disturbed. Not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(STUDY, encoding="utf-8")
    done = run_harness(folder, "run", "--study", "tiny.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return folder / "out" / "tiny"


@pytest.fixture(scope="session")
def working_here() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which the cells of a run are trained by this process, without workers."""

    @contextlib.contextmanager
    def here() -> Iterator[None]:
        from harness.study import crew, runner
        from harness.study.folder import RunFolder
        from harness.study.worker import work

        class Here(crew.Crew):
            def work_off(self, shared, tasks, give_up):
                settings = {"storage": self.storage, "data_root": None, "cache": self.cache, "device": self.device}
                work(RunFolder(self.folder.path), **settings, threads=1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "Crew", Here)
            yield

    return here


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    """Runs the command line in a fork, its results below ``tmp_path / "out"``."""
    return functools.partial(run_harness, tmp_path)


@pytest.fixture
def start_harness(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Starts the command line and does not wait for it."""

    def start(*words: str | Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *map(str, words)],
            cwd=tmp_path,
            env=harness_environment(tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def refused(harness: Harness) -> Callable[..., str]:
    """Runs the command line, checks that it ended with one clear line and exit code 2, and returns the line."""

    def call(*words: str | Path, **options) -> str:
        done = harness(*words, **options)
        assert done.returncode == 2, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert done.stderr.splitlines()[-1] == errors[0]
        return errors[0]

    return call
