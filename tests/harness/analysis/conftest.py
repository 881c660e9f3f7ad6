from __future__ import annotations

import pytest

from benchmarks.synthetic_run import write_run
from harness.analysis.rows import load_run
from harness.analysis.style import FULL


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A retrieval run: 4 variants x 5 seeds x 1 data set. Shared, so tests that write use ``own_run``."""
    return write_run(tmp_path_factory.mktemp("runs") / "ablations", users=200)


@pytest.fixture(scope="session")
def wide_dir(tmp_path_factory):
    """The same on two data sets."""
    return write_run(
        tmp_path_factory.mktemp("runs") / "wide", users=120, seeds=3, datasets=("ml-100k", "amazon_beauty")
    )


@pytest.fixture(scope="session")
def action_dir(tmp_path_factory):
    variants = {"interleaved": {"model": "interleaved"}, "attn-lfa": {"model": "attn-lfa", "label": "AttnLFA"}}
    folder = tmp_path_factory.mktemp("runs") / "actions"
    return write_run(folder, users=150, task="action", variants=variants, strength={"attn-lfa": 1.1})


@pytest.fixture(scope="session")
def draw():
    """Makes a figure of the report; None where it does not apply."""

    def make(kind, run, *dataset, width=FULL):
        figure = kind("figure")
        return figure.make(run, *dataset, width) if figure.applies(run, *dataset) else None

    return make


@pytest.fixture
def run(run_dir):
    return load_run(run_dir)


@pytest.fixture
def own_run(tmp_path):
    """A small run of the test's own, to be damaged."""
    return write_run(tmp_path / "ablations", users=60, seeds=3)
