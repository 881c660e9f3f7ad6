"""A long night in short: a run that is disturbed again and again must end with the tables of one that was not.

    python -m benchmarks.soak --minutes 20 --cells 300

Tiny cells are trained by three workers, while at random times a worker or the run itself is killed, the storage is
locked, files can't grow (a full disk, by RLIMIT_FSIZE), or a worker's sign of life jumps by a day, as it does where a
clock is set. Then the run is left alone until it is done, and compared with a calm one.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from harness.files import file_digest, is_unfinished

STUDY = """
study: soak
datasets: ["synthetic-sessions:users=60,items=30"]
seeds: {seeds}
control: ce
references: [popularity]
common: {{dim: 8, layers: 1, heads: 1, inner: 8}}
variants:
  ce: {{model: sasrec}}
  bce: {{model: sasrec, set: {{loss: bce}}}}
  popularity: {{model: popularity}}
budget: {{epochs: 3}}
metrics: [ndcg@10, recall@5]
primary: ndcg@10
"""
VARIANTS = 3
WORKERS = 3
FULL_AT = 40_000
"""Bytes at which no file can grow any more: more than a lock, less than a checkpoint or a database."""
TIMED = ("cost",)
"""Tables that hold times, which no two runs have in common."""


class Soak:
    """One disturbed run below ``place``."""

    def __init__(self, place: Path, seeds: int, seed: int) -> None:
        self.place, self.random, self.did = place, random.Random(seed), Counter[str]()
        place.mkdir(parents=True, exist_ok=True)
        (place / "soak.yaml").write_text(STUDY.format(seeds=seeds), encoding="utf-8")
        self.said: list[str] = []

    def command(self, out: str) -> list[str]:
        words = ["run", "--study", "soak.yaml", "--out", out, "--workers", str(WORKERS), "--device", "cpu"]
        return [sys.executable, "-P", "-m", "harness.cli", *words, "--retry-failed"]

    def start(self, out: str, limit: int | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(
            self.command(out),
            cwd=self.place,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if limit is not None:
            resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (limit, limit))
        return run

    def end_of(self, run: subprocess.Popen[str], seconds: float = 600) -> int:
        """Its exit code; what it printed is kept."""
        printed, _ = run.communicate(timeout=seconds)
        self.said.append(printed)
        return run.returncode

    def disturb(self, minutes: float) -> None:
        """Starts the run again and again until the time is over, each time with something that goes wrong."""
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            full = self.random.random() < 0.15
            run = self.start("wild", FULL_AT if full else None)
            self.did["full disk"] += full
            until = min(end, time.monotonic() + self.random.uniform(15, 60))
            while run.poll() is None and time.monotonic() < until:
                time.sleep(self.random.uniform(1, 5))
                self.random.choice(self.troubles())(run)
            if run.poll() is None:
                run.kill()
                self.did["run killed"] += 1
            self.end_of(run)

    def troubles(self) -> list[Callable[[subprocess.Popen[str]], None]]:
        return [self.kill_worker, self.kill_worker, self.lock_storage, self.jump_clock, self.interrupt]

    def kill_worker(self, run: subprocess.Popen[str]) -> None:
        try:
            workers = psutil.Process(run.pid).children()
        except psutil.NoSuchProcess:
            return
        if workers:
            self.random.choice(workers).kill()
            self.did["worker killed"] += 1

    def lock_storage(self, run: subprocess.Popen[str]) -> None:
        path = self.place / "wild" / "soak" / "study.db"
        if not path.exists():
            return
        try:
            with sqlite3.connect(path, timeout=1, isolation_level=None) as held:
                held.execute("BEGIN EXCLUSIVE")
                time.sleep(self.random.uniform(0.5, 4))
                held.execute("ROLLBACK")
            held.close()
            self.did["storage locked"] += 1
        except sqlite3.OperationalError:  # busy, or not yet a database
            return

    def jump_clock(self, run: subprocess.Popen[str]) -> None:
        for sign in (self.place / "wild" / "soak").glob("running/*/worker.json"):
            jump = self.random.choice([-86_400, 86_400])
            try:
                os.utime(sign, (time.time() + jump,) * 2)
            except FileNotFoundError:
                continue
            self.did["clock jumped"] += 1

    def interrupt(self, run: subprocess.Popen[str]) -> None:
        if self.random.random() < 0.3:
            run.terminate()
            self.did["interrupted"] += 1

    def finish(self, out: str) -> None:
        """Leaves the run alone until it is done."""
        for _ in range(5):
            if self.end_of(self.start(out), 1800) == 0:
                return
        raise SystemExit(f"the run does not end:\n{self.said[-1][-2000:]}")

    def problems(self) -> list[str]:
        """Where the disturbed run differs from the calm one, and what it left behind."""
        wild, calm = self.place / "wild" / "soak", self.place / "calm" / "soak"
        found = [f"a traceback was printed:\n{text[-1500:]}" for text in self.said if "Traceback" in text]
        for path in sorted([*calm.glob("cells/*/rows.parquet"), *calm.glob("tables/**/*.*")]):
            if path.stem in TIMED or path.suffix == ".tex":
                continue
            other = wild / path.relative_to(calm)
            if not other.exists() or file_digest(other) != file_digest(path):
                found.append(f"{path.relative_to(calm)} is not the same")
        found += [f"{path.relative_to(wild)} was left behind" for path in wild.rglob(".*") if is_unfinished(path)]
        found += [f"{path.relative_to(wild)} was left behind" for path in wild.glob("running/*")]
        found += [f"{path.relative_to(wild)} was left behind" for path in wild.glob("failed/*")]
        left = [p for p in psutil.process_iter(["cmdline"]) if str(wild) in " ".join(p.info["cmdline"] or ())]
        return found + [f"process {process.pid} is still there" for process in left]


def soak(place: Path, minutes: float, cells: int, seed: int = 0) -> list[str]:
    """What went wrong; empty where all is well. Prints what was done."""
    trial = Soak(place, max(1, round(cells / VARIANTS)), seed)
    trial.disturb(minutes)
    trial.finish("wild")
    trial.finish("calm")
    done = len(list((place / "wild" / "soak" / "cells").iterdir()))
    print(f"{done} cells; {', '.join(f'{what} {n} times' for what, n in sorted(trial.did.items()))}")
    return trial.problems()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="of disturbance")
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="harness-soak-"))
    problems = soak(place, asked.minutes, asked.cells, asked.seed)
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(f"{len(problems)} problems; see {place}")
    shutil.rmtree(place)
    print("nothing was lost")


if __name__ == "__main__":
    main()
