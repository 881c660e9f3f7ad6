from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def real_data(real) -> Path:
    """The data root with the real benchmark data sets."""
    return real()


@pytest.fixture
def movielens() -> Path:
    """The folder of ml-100k inside the installed recbole package."""
    spec = importlib.util.find_spec("recbole")
    if spec is None:
        pytest.skip("recbole, which ships ml-100k, is not installed")
    return Path(spec.origin).parent / "dataset_example" / "ml-100k"


@pytest.fixture
def atomic(tmp_path):
    """Writes an atomic file from rows that are given as texts; returns its path."""

    def write(*lines: str, name: str = "toy.inter", end: str = "\n") -> Path:
        path = tmp_path / "toy" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(("\n".join(lines) + end).encode())
        return path

    return write
