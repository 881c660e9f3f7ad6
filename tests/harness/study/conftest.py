"""The command line inside this process: as quick as a function call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli import app, guarded


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(tmp_path: Path, monkeypatch, capsys) -> Callable[..., Ended]:
    """Runs the command line here, in ``tmp_path``, its results below ``out``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_OUT", "out")

    def run(*words: object) -> Ended:
        capsys.readouterr()
        code = guarded(lambda: app([str(word) for word in words], standalone_mode=False))
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def refuses(call) -> Callable[..., str]:
    """Checks that a command ends with exit code 2 and one line, and returns the line."""

    def run(*words: object) -> str:
        ended = call(*words)
        assert ended.code == 2, ended
        errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert ended.err.splitlines()[-1:] == errors, ended.err
        return errors[0]

    return run
