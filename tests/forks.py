"""The command line in forks of a process that has imported it: a test waits for what a command does, not for imports.

The workers that a command starts are forks as well. Tests of the start itself use processes of their own.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

IMPORTED = [
    "torch", "pandas", "pyarrow.parquet", "scipy.stats", "optuna", "sqlalchemy", "safetensors.torch", "jinja2",
    "matplotlib.pyplot", "seaborn", "sklearn.utils.extmath", "statsmodels.stats.multitest", "rich.live",
    "harness.cli", "harness.study.runner", "harness.study.worker", "harness.analysis.report", "tests.forks",
]  # fmt: skip
"""What nearly every command imports. A name that there is not is passed over: it costs time, and nothing else."""

_context = get_context("forkserver")
_context.set_forkserver_preload(IMPORTED)


def run_forked(folder: Path, words: list[str], env: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """What ``harness WORDS`` in ``folder`` prints and ends with.

    Raises:
        subprocess.TimeoutExpired: it takes longer than ``seconds``.
    """
    said = [folder / f".said-{stream}" for stream in ("out", "err")]
    process = _context.Process(target=_command, args=(folder, words, env, *said))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(words, seconds)
    out, err = (path.read_text(encoding="utf-8") for path in said)
    for path in said:
        path.unlink()
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def quick_fonts() -> None:
    """To cut out TrueType fonts takes as long as all else about a figure."""
    from harness.analysis import style

    style._RC["pdf.fonttype"] = 3


def _command(folder: Path, words: list[str], env: dict[str, str], out: Path, err: Path) -> None:
    from harness.study.executors import local

    quick_fonts()
    local.start_process = start_worker
    os.environ.clear()
    os.chdir(folder)
    _become(words, env, out, err)


def _become(words: list[str], env: dict[str, str], out: Path, err: Path) -> NoReturn:
    """Goes on as the command would that has just been started."""
    from harness import cli

    os.environ.update(env)
    time.tzset()
    sys.path[:0] = [os.getcwd(), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [str(importlib.util.find_spec("harness.cli").origin), *words]
    for stream, path in ((1, out), (2, err)):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), stream)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    end(lambda: cli.guarded(lambda: cli.app(words, standalone_mode=False)))


def end(work: Callable[[], int]) -> NoReturn:
    """Ends a fork as a process ends, without the rest of its parent's code."""
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


class Fork:
    """A child of this process with the part of :class:`subprocess.Popen` that an executor uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        ends = time.monotonic() + (timeout or float("inf"))
        while self.poll() is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(["worker"], timeout or 0)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def start_worker(command: list[str], log: os.PathLike[str], environment: dict[str, str]) -> Fork:
    """In place of :func:`harness.study.executors.local.start_process`."""
    parent = os.getpid()
    gc.collect()  # what is left over must not close the files of the child, which get the numbers of its own
    if pid := os.fork():
        return Fork(pid)
    os.closerange(3, 4096)  # else it would hold its parent's locks
    os.setsid()
    words = [*command[command.index("worker") :], "--parent", str(parent)]
    _become(words, environment, Path(log), Path(log))
