"""Time and memory over the size of a log: reading it, opening it again, a training epoch, an evaluation.

    python -m benchmarks.scale [--events 1000000 10000000] [--items 2000] [--model sasrec] [--threads 1] [--folder DIR]

Each log is invented: 50 events a user on average in a shuffled order, as text of user, item and time. Each step is a
process of its own. ``read`` parses the file and fills the cache of logs; ``open`` is what every later process does,
up to the split; ``train`` opens it, too, then trains one epoch of a small model (its validation included), and ranks
the whole catalogue for every user of the test part. Memory is what the process has for itself, at its highest point:
the pages of mapped files are shared by all processes, and are not counted. CPU seconds depend less on what else the
machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv

from benchmarks.measuring import machine
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.registry import load_model
from harness.tasks.retrieval import Retrieval
from harness.training import fit
from harness.training_config import Budget, TrainingConfig

PER_USER, LENGTH = 50, 50
PIECE = 1_000_000
SMALL = {"sasrec": {"dim": 16, "layers": 1, "heads": 1, "inner": 16, "loss": "bce"}}


def invent(path: Path, events: int, items: int) -> None:
    """Writes ``events`` lines of random users and items, a second after the other."""
    rng = np.random.default_rng(0)
    kinds = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    sizes = {"u": events // PER_USER, "i": items}
    names = [pa.array([f"{letter}{n}" for n in range(count)]) for letter, count in sizes.items()]
    with csv.CSVWriter(path, kinds, write_options=csv.WriteOptions(quoting_style="none")) as file:
        for start in range(0, events, PIECE):
            size = min(PIECE, events - start)
            columns = [known.take(pa.array(rng.integers(0, len(known), size))) for known in names]
            file.write_table(pa.table([*columns, pa.array(1_500_000_000 + start + np.arange(size))], schema=kinds))


def read(path: Path) -> dict[str, float]:
    return {"events": load(str(path), DataConfig()).n_events}


def open_again(path: Path) -> dict[str, float]:
    config = DataConfig()
    log = load(str(path), config)
    return {"events": log.n_events, "users": len(make_split(log, config).targets("test")[0])}


def train(path: Path, model: str) -> dict[str, Any]:
    """What an epoch with its validation takes, and a pass over the test part."""
    config = DataConfig(max_length=LENGTH)
    log = load(str(path), config)
    data = Retrieval(log, make_split(log, config), max_length=LENGTH, metrics=["ndcg@10"])
    kind = load_model(model)
    torch.manual_seed(0)
    built = kind(kind.Config(**SMALL.get(model, {})), data.schema())
    training = TrainingConfig(**{**kind.training_defaults, "batch_size": 256})

    def epoch() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            budget = Budget(epochs=1)
            fit(built, data, training=training, budget=budget, primary="ndcg@10", seed=0, folder=Path(folder))
        return {}

    def evaluation() -> dict[str, float]:
        return {"users": len(data.predict(built, "test", lists=True).rows)}

    return {"epoch": measured(epoch), "evaluation": measured(evaluation)}


def measured(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``step`` says, its seconds, and the highest memory of this process beyond what it had before, in bytes."""
    found, done = [before := _private()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            found.append(_private())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, cpu = time.perf_counter(), time.process_time()
    try:
        said = step()
    finally:
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        done.set()
        watcher.join()
    return said | {"seconds": seconds, "cpu": cpu, "memory": max(found) - before}


def _private() -> int:
    """Bytes of this process that no file backs (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def steps(path: Path, model: str) -> dict[str, Callable[[], dict[str, Any]]]:
    return {"read": lambda: read(path), "open": lambda: open_again(path), "train": lambda: train(path, model)}


def in_a_process(step: str, path: Path, model: str, threads: int, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, "--file", str(path), "--model", model]
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def row(events: int, found: dict[str, dict[str, Any]]) -> str:
    """A line of the table."""
    parts = [found["read"], found["open"], found["train"]["epoch"], found["train"]["evaluation"]]
    cells = [f"{p['seconds']:.3g} s ({p['cpu']:.3g}), {p['memory'] / 2**20:,.0f} MiB" for p in parts]
    return f"| {events:,} | {' | '.join(cells)} |"


HEAD = """| events | read | open | epoch | evaluation |
|---:|---:|---:|---:|---:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--model", default="sasrec")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the logs and their cache lie for a while")
    parser.add_argument("--step", choices=["read", "open", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.step:
        print(json.dumps(measured(steps(chosen.file, chosen.model)[chosen.step])))
        return
    print(machine())
    print(f"{chosen.model}, {chosen.items:,} items; seconds (of the CPU), memory\n\n{HEAD}", flush=True)
    for events in chosen.events:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            path = Path(folder, "log.csv")
            invent(path, events, chosen.items)
            cache = Path(folder, "cache")
            run = partial(in_a_process, path=path, model=chosen.model, threads=chosen.threads, cache=cache)
            found = {step: run(step) for step in steps(path, chosen.model)}
        print(row(events, found), flush=True)


if __name__ == "__main__":
    main()
