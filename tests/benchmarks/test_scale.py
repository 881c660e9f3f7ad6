"""What the benchmark of large logs measures, on a small one. Its times are asserted nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scale
from harness.data import cache

ROOT = Path(__file__).parents[2]


def test_every_step_sees_the_whole_log_and_opens_it_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST", 0)
    path = tmp_path / "log.csv"
    scale.invent(path, 2000, 30)
    steps = scale.steps(path, "sasrec")
    found = {"read": scale.measured(steps["read"])}
    monkeypatch.setattr("harness.data.datasets.read_own", None)  # from here on nothing may be parsed
    found |= {step: scale.measured(steps[step]) for step in ("open", "train")}
    assert found["read"]["events"] == found["open"]["events"] == 2000
    assert found["open"]["users"] == found["train"]["evaluation"]["users"] == 40
    cells = scale.row(2000, found).strip("| ").split(" | ")
    assert len(cells) == scale.HEAD.splitlines()[0].strip("| ").count("|") + 1
    assert cells[0] == "2,000"


CODE = """
import time
import numpy as np
from benchmarks import scale

def step():
    block = np.ones(8_000_000)
    time.sleep(0.2)
    del block
    return {}

print(scale.measured(step)["memory"])
"""


def test_memory_is_what_the_step_had_at_its_highest_point():
    # In a process of its own: one that has trained before has freed memory at hand.
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(64e6, rel=0.1)
