"""Full-ranking evaluation of all test users of ml-100k: this harness against RecBole's evaluator.

    python -m benchmarks.evaluation [--threads 2] [--repeats 10]

RecBole's side is the path of its trainer's ``evaluate``: full_sort_predict on batches of 4096 users padded to the
full length, its top-K collector and its metrics. Ours ranks every user exactly under two protocols and makes the
rows of evidence that the metrics are then read off. Once each side has its own SASRec, once both have the same one
(RecBole's), which leaves the evaluation; then the metrics of both must agree.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from benchmarks.measuring import Comparison, alternate, machine, options, table
from benchmarks.training import ml_100k
from harness.baselines.recbole import import_recbole, numpy_float
from harness.interface import Recommender, Task
from harness.registry import load_model
from harness.tasks.retrieval import Retrieval

CUTOFFS = [5, 10]


def build(name: str, data: Retrieval) -> Recommender:
    kind = load_model(name)
    torch.manual_seed(0)
    return kind(kind.Config(), data.schema()).eval()


def our_evaluation(model: Recommender, data: Retrieval) -> tuple[dict[str, float], float]:
    """Metrics with the whole catalogue as candidates, and the seconds that they took."""
    started = time.perf_counter()
    summary = data.summarise(data.evaluate(model, "test"))
    return summary["all"], time.perf_counter() - started


def held_out_rows(data: Retrieval):
    """RecBole's test part: each user's history, right-padded to the full length, and the target."""
    windows = data.histories("test")
    batch = data.sequences.batch(windows, Task.RETRIEVAL, supervise=False, width=data.max_length)
    columns = {
        "user_id": batch.users + 1,
        "item_id_list": batch.items,
        "item_length": batch.lengths,
        "item_id": torch.from_numpy(data.log.item[windows.end]),
    }
    return import_recbole("recbole.data.interaction").Interaction(columns)


@torch.no_grad()
def recbole_evaluation(model: torch.nn.Module, rows, batch_size: int = 4096) -> tuple[dict[str, float], float]:
    """RecBole's metrics of its model ``model``, and the seconds that they took."""
    config = {
        "topk": CUTOFFS,
        "metrics": ["Recall", "NDCG"],
        "metric_decimal_place": 12,
        "eval_args": {"mode": "full"},
        "device": "cpu",
    }
    evaluator = import_recbole("recbole.evaluator")
    collector, judge = evaluator.Collector(config), evaluator.Evaluator(config)
    started = time.perf_counter()
    for begin in range(0, len(rows), batch_size):
        interaction = rows[np.arange(begin, min(begin + batch_size, len(rows)))]
        scores = model.full_sort_predict(interaction)
        scores[:, 0] = -np.inf
        collector.eval_batch_collect(scores, interaction, torch.arange(len(interaction)), interaction["item_id"])
    with numpy_float():
        found = judge.evaluate(collector.get_data_struct())
    return {name: float(value) for name, value in found.items()}, time.perf_counter() - started


def compare(data: Retrieval, repeats: int) -> list[Comparison]:
    """Users per second of both sides."""
    rows = held_out_rows(data)
    ours, theirs = build("sasrec", data), build("recbole:SASRec", data)
    first, second = our_evaluation(theirs, data)[0], recbole_evaluation(theirs.model, rows)[0]
    for name, value in second.items():
        if not math.isclose(first[name], value, abs_tol=1e-6):
            raise RuntimeError(f"{name} of the same model is {first[name]} here and {value} in RecBole")

    def speed(evaluate, *sides) -> float:
        return len(rows) / evaluate(*sides)[1]

    return [
        alternate(
            what,
            "users/s",
            lambda model=model: speed(our_evaluation, model, data),
            lambda: speed(recbole_evaluation, theirs.model, rows),
            repeats,
        )
        for what, model in (("each side's own SASRec", ours), ("RecBole's SASRec on both sides", theirs))
    ]


def main() -> None:
    chosen = options(__doc__, repeats=10).parse_args()
    torch.set_num_threads(chosen.threads)
    data = ml_100k()
    data.metrics = [f"{name}@{k}" for name in ("recall", "ndcg") for k in CUTOFFS]
    print(machine())
    print(table(compare(data, chosen.repeats), "harness", "RecBole 1.2.1"))


if __name__ == "__main__":
    main()
