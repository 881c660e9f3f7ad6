"""SASRec's training step with the sampled softmax against the full one, over catalogues of many items.

    python -m benchmarks.sampled_softmax [--items 100000 1000000] [--negatives 1024] [--batch 8] [--threads 2]

Each side is a process of its own: its memory at the highest point, with the table, its gradient and Adam's two moments,
which both sides have. ``update`` is Adam's part of the step, dense over the whole table on both sides. ``rows`` is what
the update would take with sparse gradients and torch.optim.SparseAdam, which leaves the moments of all other rows as
they are: what is to be gained by them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.measuring import machine, options
from harness.baselines.sasrec import SASRec, SASRecConfig
from harness.interface import Batch, Schema
from harness.memory import PeakMemory

LENGTH, DIM = 50, 64
SIDES = ("full", "sampled")


def invented(items: int, rows: int) -> tuple[Schema, Batch]:
    """A catalogue, and a batch of ``rows`` full histories with a target at every position."""
    drawn = torch.randint(1, items + 1, (rows, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    schema = Schema(n_items=items, n_users=rows, max_length=LENGTH)
    every = torch.arange(rows * LENGTH)
    lengths = torch.full((rows,), LENGTH)
    return schema, Batch(drawn[:, :-1], lengths, torch.arange(rows), targets=drawn[:, 1:], valid=every)


def measure(side: str, items: int, negatives: int, rows: int, repeats: int) -> dict[str, float]:
    """Medians of the seconds of a step's parts, after one that does not count, and the bytes of memory."""
    memory = PeakMemory(torch.device("cpu"))
    schema, batch = invented(items, rows)
    loss = {"loss": "sampled-softmax", "negatives": negatives} if side == "sampled" else {}
    torch.manual_seed(0)
    model = SASRec(SASRecConfig(dim=DIM, **loss), schema).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    gradients, updates = [], []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model.losses(batch).values())).sum().backward()
        between = time.perf_counter()
        optimizer.step()
        gradients.append(between - started)
        updates.append(time.perf_counter() - between)
    peak = memory.bytes()
    touched = torch.cat([batch.items.flatten(), batch.next_items(), torch.randint(1, items, (negatives,))])
    return {
        "gradient": median(gradients[1:]),
        "update": median(updates[1:]),
        "rows": median(sparse_update(items, touched) for _ in range(repeats)) if side == "sampled" else 0.0,
        "bytes": peak,
    }


def sparse_update(items: int, touched: Tensor) -> float:
    """Seconds of SparseAdam's step for the gradient of a table's ``touched`` rows."""
    table = nn.Embedding(items + 1, DIM, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())
    for _ in range(2):  # the first one makes the moments
        optimizer.zero_grad(set_to_none=True)
        table(touched).sum().backward()
        started = time.perf_counter()
        optimizer.step()
    return time.perf_counter() - started


def row(items: int, side: str, found: dict[str, float]) -> str:
    sparse = f"{1e3 * found['rows']:,.0f} ms" if found["rows"] else ""
    step = found["gradient"] + found["update"]
    times = " | ".join(f"{1e3 * seconds:,.0f} ms" for seconds in (step, found["gradient"], found["update"]))
    return f"| {items:,} | {side} | {times} | {sparse} | {found['bytes'] / 2**30:.2f} GiB |"


def main() -> int:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--negatives", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=8, help="histories of 50 events in a batch")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.side:
        print(json.dumps(measure(given.side, given.items[0], given.negatives, given.batch, given.repeats)))
        return 0
    print(machine())
    print("| items | softmax | step | gradient | update | rows | memory |\n|---:|---|---:|---:|---:|---:|---:|")
    for items in given.items:
        steps = []
        for side in SIDES:
            words = ["--side", side, "--items", items, "--negatives", given.negatives, "--batch", given.batch]
            words += ["--threads", given.threads, "--repeats", given.repeats]
            command = [sys.executable, "-m", "benchmarks.sampled_softmax", *map(str, words)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            steps.append(found["gradient"] + found["update"])
            print(row(items, side, found), flush=True)
        print(f"{items:,} items: the full softmax's step takes {steps[0] / steps[1]:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
