"""The one place where an error becomes a line: a foreseen one, and one that nobody foresaw."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from harness.cli import call, guarded
from harness.errors import LONGEST, InputError


def _raise(error):
    raise error


def test_what_nobody_foresaw_is_a_line_a_traceback_in_a_file_and_a_code(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["harness", "run", "--storage", "postgresql://me:secret@host/db"])
    code = guarded(lambda: _raise(ZeroDivisionError("cannot divide\nby postgresql://me:secret@host/db " + "x" * 5000)))
    said = capsys.readouterr().err
    assert code == 1
    assert said.count("\n") == 1
    assert said.startswith("error: unexpected ZeroDivisionError: cannot divide by postgresql://me:***@host/db")
    assert len(said) <= 500 + len(str(tmp_path))
    saved = Path(re.search(r"traceback in (\S+)", said)[1]).read_text()
    assert "Traceback (most recent call last)" in saved
    assert "in _raise" in saved
    assert "secret" not in saved + said


def test_a_traceback_that_can_not_be_saved_names_the_line(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: _raise(OSError(28, "No space left on device")))
    assert guarded(lambda: _raise(RuntimeError("x"))) == 1
    assert re.search(r"could not be saved \(raised in .*test_errors.py, line \d+\)", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["x" * 20_000, "a\nb\r\nc", "\ud800", "\x1b[31mred", "\u202eevil", ""])
def test_a_foreseen_error_is_one_short_line_without_what_moves_a_terminal(capsys, text):
    assert guarded(lambda: _raise(InputError(text))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) <= LONGEST + 20
    assert said.strip().isprintable()


def test_arguments_that_no_file_could_hold(capsys):
    assert call(["plan", "--study", "a\udcffb"]) == 2
    assert "the argument 'a\\udcffb' holds the character U+DCFF" in capsys.readouterr().err
