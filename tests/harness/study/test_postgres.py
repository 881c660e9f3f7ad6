"""Runs whose queue is on a PostgreSQL server, also one that goes away for a while."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

import harness

pytestmark = pytest.mark.slow


def rows(run: Path) -> dict[str, bytes]:
    return {cell.name: (cell / "rows.parquet").read_bytes() for cell in sorted((run / "cells").iterdir())}


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "out" / "tiny"


@pytest.fixture
def words(study_file, postgres) -> tuple[str, ...]:
    return ("run", "--study", str(study_file), "--workers", "2", "--storage", postgres.url)


def no_password(run: Path, password: str, said: str) -> None:
    assert password not in said
    found = [path for path in run.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert found == []


def test_a_run_with_two_workers(words, call, postgres, run, finished_run):
    ended = call(*words)
    assert ended.code == 0, ended.err
    assert rows(run) == rows(finished_run)
    assert not (run / "study.db").exists()
    no_password(run, postgres.password, ended.out + ended.err)


def test_a_wrong_password_is_one_line_without_it(study_file, refuses, postgres):
    wrong = postgres.url.replace(postgres.password, "wr0ng-word")
    line = refuses("run", "--study", study_file, "--storage", wrong)
    assert "authentication failed" in line
    assert "wr0ng-word" not in line


def stopped_in_mid_run(start_harness, words, postgres, run):
    """A run whose server was stopped while a cell was worked on; a worker has noticed."""
    process = start_harness(*words)
    wait_for(lambda: list(run.glob("running/*/worker.json")) or process.poll() is not None)
    postgres.stop()
    wait_for(lambda: any("the storage can't be reached" in log.read_text() for log in run.glob("logs/*.log")))
    return process


@pytest.mark.parametrize("seconds", [0, 10])
def test_a_server_that_is_away_for_a_while(seconds, words, start_harness, postgres, run, finished_run):
    process = stopped_in_mid_run(start_harness, words, postgres, run)
    time.sleep(seconds)
    assert process.poll() is None
    postgres.start()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert rows(run) == rows(finished_run)
    no_password(run, postgres.password, said)


def test_a_run_that_is_stopped_while_the_server_is_away(words, start_harness, call, postgres, run, finished_run):
    process = stopped_in_mid_run(start_harness, words, postgres, run)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    refused = call(*words)
    assert refused.code == 2
    assert "can't be opened" in refused.err
    postgres.start()
    done = harness.run(words[2], workers=2, storage=postgres.url, report=False, out=run.parent)
    assert done.finished == done.total
    assert rows(run) == rows(finished_run)
    no_password(run, postgres.password, said + refused.err)
