"""Targets per second in training: our SASRec and trainer against RecBole's SASRec and trainer, on ml-100k.

    python -m benchmarks.training [--threads 2] [--repeats 3] [--steps 3]

Both have the same width, layers, heads, dropout and length, and the same targets in an epoch: every event of the
training part but each user's first. Ours is one whole epoch of ``harness.training.fit``, validation apart. RecBole's
is some steps of its epoch: its own model, loss and batch container, its layout (a row of 50 items for each target),
its batch of 2048, Adam, and the loop of its trainer, which reads every loss off the device.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Comparison, alternate, machine, options, table
from harness.baselines.recbole import import_recbole
from harness.data.batches import training_windows
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.interface import Task
from harness.registry import load_model
from harness.tasks.retrieval import Retrieval
from harness.training import fit
from harness.training_config import Budget, TrainingConfig


def ml_100k(max_length: int = 50) -> Retrieval:
    config = DataConfig(max_length=max_length)
    log = load("ml-100k", config)
    return Retrieval(log, make_split(log, config), max_length=max_length, metrics=["recall@10", "ndcg@10"])


def prefix_rows(data: Retrieval):
    """RecBole's training part: its batch container with a right-padded prefix for each target."""
    windows = training_windows(
        data.log,
        data.split,
        Task.RETRIEVAL,
        rows="prefixes",
        max_length=data.max_length,
        rng=np.random.default_rng(0),
    )
    batch = data.sequences.batch(windows, Task.RETRIEVAL, supervise=True, width=data.max_length)
    columns = {
        "user_id": batch.users + 1,
        "item_id_list": batch.items,
        "item_length": batch.lengths,
        "item_id": batch.targets.flatten()[batch.valid],
    }
    return import_recbole("recbole.data.interaction").Interaction(columns)


def our_epoch(data: Retrieval) -> tuple[int, float]:
    """Targets of one epoch, and the seconds that data and training took."""
    kind = load_model("sasrec")
    torch.manual_seed(0)
    model = kind(kind.Config(), data.schema())
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            model,
            data,
            training=TrainingConfig(**kind.training_defaults),
            budget=Budget(epochs=1),
            primary="ndcg@10",
            seed=0,
            folder=Path(folder),
        )
    cost = fitted.cost
    return round(cost["events_per_second"] * cost["train_seconds"]), cost["train_seconds"] + cost["data_seconds"]


def recbole_steps(data: Retrieval, rows, steps: int, batch_size: int = 2048) -> tuple[int, float]:
    """Targets of ``steps`` steps of RecBole's epoch, and their seconds."""
    kind = load_model("recbole:SASRec")
    torch.manual_seed(0)
    model = kind(kind.Config(), data.schema()).model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    started = time.perf_counter()
    order = torch.randperm(len(rows)).numpy()
    total, targets = 0.0, 0
    for step in range(steps):
        interaction = rows[order[step * batch_size : (step + 1) * batch_size]]
        optimizer.zero_grad()
        loss = model.calculate_loss(interaction)
        total += loss.item()
        loss.backward()
        optimizer.step()
        targets += len(interaction)
    return targets, time.perf_counter() - started


def compare(data: Retrieval, repeats: int, steps: int) -> Comparison:
    rows = prefix_rows(data)

    def ours() -> float:
        targets, seconds = our_epoch(data)
        if targets != len(rows):
            raise RuntimeError(f"an epoch has {targets} targets here and {len(rows)} in RecBole")
        return targets / seconds

    def recboles() -> float:
        targets, seconds = recbole_steps(data, rows, steps)
        return targets / seconds

    return alternate(f"SASRec, {len(rows):,} targets an epoch", "targets/s", ours, recboles, repeats, warm_up=False)


def main() -> None:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--steps", type=int, default=3, help="steps of 2048 targets that RecBole is measured over")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(machine())
    print(table([compare(ml_100k(), chosen.repeats, chosen.steps)], "harness", "RecBole 1.2.1"))


if __name__ == "__main__":
    main()
