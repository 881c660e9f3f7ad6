"""The queue under many workers at once."""

from __future__ import annotations

import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

from optuna.trial import TrialState

from harness.study.cells import Inputs, make_cells
from harness.study.design import Study
from harness.study.folder import RunFolder
from harness.study.queue import Queue

SEEDS = 12
WORKERS = 4


def open_queue(path: Path) -> Queue:
    study = Study(
        study="queue",
        datasets={"synthetic-sessions:users=20,items=10": {}},
        seeds=SEEDS,
        metrics=["ndcg@10"],
        primary="ndcg@10",
        variants={"a": {"model": "sasrec"}, "b": {"model": "sasrec", "set": {"dim": 32}}},
    )
    cells = make_cells(study, Inputs(None, path / "cache"))
    return Queue(f"sqlite:///{path / 'study.db'}", "queue", study, cells, RunFolder(path))


def take_all(path: Path, number: int) -> None:
    """Takes cells until none is left; leaves one line for each."""
    queue = open_queue(path)
    with open(path / f"taken-{number}", "w") as taken:

        def work(cell, trial):
            taken.write(f"{cell.id}\n")
            taken.flush()
            time.sleep(0.002)
            return 0.5

        while sum(queue.left()):
            queue.work_on_next(work)


def test_each_cell_is_taken_by_one_worker_only(tmp_path):
    queue = open_queue(tmp_path)
    queue.synchronise()
    context = get_context("spawn")  # as the runner's workers: nothing shared but the file
    workers = [context.Process(target=take_all, args=(tmp_path, number)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    taken = Counter(line for path in tmp_path.glob("taken-*") for line in path.read_text().split())
    assert taken == Counter(list(queue.cells))


def test_a_worker_whose_trial_was_closed_by_another_process_goes_on(tmp_path):
    queue = open_queue(tmp_path)
    queue.synchronise()

    def work(cell, trial):
        queue.study.tell(trial.number, state=TrialState.FAIL)
        return 0.5

    queue.work_on_next(work)
    assert sum(queue.left()) == 2 * SEEDS - 1
