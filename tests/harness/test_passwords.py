"""A storage's password leaves the command line before anybody has time to read it there."""

from __future__ import annotations

import os

import pytest

from harness.passwords import hide_storage_password, without_passwords

URL = "postgresql+psycopg://me:s3cret@host:5432/db"


class _Replaced(Exception):
    pass


@pytest.fixture
def replaced(monkeypatch):
    """What this process would be replaced by."""
    found = []

    def execve(program, words, environment):
        found.append((words, environment))
        raise _Replaced

    monkeypatch.setattr(os, "execve", execve)
    return found


@pytest.mark.parametrize("given", [["--storage", URL], [f"--storage={URL}"]])
def test_the_url_goes_into_the_environment(monkeypatch, replaced, given):
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "harness.cli", "run", *given, "--study", "x"])
    with pytest.raises(_Replaced):
        hide_storage_password()
    ((words, environment),) = replaced
    assert words[1:] == ["-m", "harness.cli", "run", "--study", "x"]
    assert environment["HARNESS_STORAGE"] == URL


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+psycopg://me@host/db", "postgresql:///db?host=/run"])
def test_a_url_without_a_password_stays(monkeypatch, replaced, url):
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "harness.cli", "run", "--storage", url])
    hide_storage_password()
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "harness.cli", "run", "--storage"])
    hide_storage_password()
    assert not replaced


def test_passwords_are_masked():
    assert without_passwords(f"x --storage {URL}?a=b") == "x --storage postgresql+psycopg://me:***@host:5432/db?a=b"
    assert without_passwords("postgresql://h/db?user=a&password=b&x=c") == "postgresql://h/db?user=a&password=***&x=c"
