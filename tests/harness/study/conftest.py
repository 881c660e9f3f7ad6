"""The command line inside this process, as quick as a function call; a PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import harness
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


class Postgres:
    """A PostgreSQL server of the tests' own. It refuses to run as root, so it runs as the user that Debian's package
    makes for it then."""

    password = "s3cret-word"

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.programs, self.folder, self.user = programs, folder, user
        if user is not None:
            shutil.chown(folder, user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://harness:{self.password}@127.0.0.1:{self.port}/postgres"
        (folder / "password").write_text(self.password)
        self._call("initdb", "-D", "data", "-U", "harness", "--pwfile=password", "--auth=scram-sha-256", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._call("pg_ctl", "start", "-D", "data", "-l", "log", "-w", "-o", options)
        self.is_up = True

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "-D", "data", "-w", "-m", "immediate")
        self.is_up = False

    def _call(self, program: str, *words: str) -> None:
        command = [self.programs / program, *words]
        with open(os.devnull, "w") as nowhere:  # the server keeps what it is given open
            done = subprocess.run(
                command, user=self.user, cwd=self.folder, stdout=nowhere, stderr=nowhere, timeout=120, check=False
            )
        assert done.returncode == 0, f"{program} failed; see {self.folder}"


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="psycopg is not installed; pip install 'harness[postgres]'")
    found = [*map(Path, filter(None, [shutil.which("initdb")])), *Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        pytest.skip("there is no PostgreSQL server; install Debian's package postgresql")
    user = None
    if os.geteuid() == 0:
        user = "postgres"
        try:
            pwd.getpwnam(user)
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="harness-postgres-"))  # pytest's own folders are closed to other users
    server = Postgres(found[0].resolve().parent, folder, user)
    server.start()
    yield server
    if server.is_up:
        server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def postgres(_postgres) -> Postgres:
    """A PostgreSQL server; skips the test where there is none, or no driver."""
    if not _postgres.is_up:  # an earlier test has failed while it was stopped
        _postgres.start()
    return _postgres


@pytest.fixture
def run_here(tmp_path, monkeypatch, working_here):
    """Runs the text of a study, its cells in this process: (text, name, changes, ...) -> the run."""
    monkeypatch.chdir(tmp_path)

    def run(text, name, changes=None, **options):
        Path("study.yaml").write_text(text, encoding="utf-8")
        options = {"out": "out", "device": "cpu", "report": False} | options
        with working_here():
            return harness.run("study.yaml", name=name, set=changes or {}, **options)

    return run
