"""FAIR with focused attention against its twin with plain softmax attention: the price of the second map.

    python -m benchmarks.attention [--threads 2] [--repeats 10] [--dim 64] [--batch 128] [--length 50]

Seconds of one training step (loss, gradient and Adam) and of scoring the catalogue, on invented histories of full
length over items with 8 codes of 256 values. A ratio of 1.3 says that focused attention takes 30% longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.measuring import Comparison, alternate, machine, options, table
from harness.interface import Batch, Recommender, Schema
from harness.registry import load_model

N_ITEMS, LEVELS, CODES = 1682, 8, 256
ATTENTION_ALONE = {"noise_weight": 0.0, "mi_weight": 0.0}


def invented(length: int, batch_size: int) -> tuple[Schema, Batch]:
    """A catalogue with random codes, and random histories with a target at every position."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(CODES, (N_ITEMS + 1, LEVELS), generator=generator)
    codes[0] = 0
    sizes = (CODES,) * LEVELS
    schema = Schema(n_items=N_ITEMS, n_users=batch_size, max_length=length, codes=codes, code_sizes=sizes)
    items = torch.randint(1, N_ITEMS + 1, (batch_size, length), generator=generator)
    batch = Batch(
        items=items,
        lengths=torch.full((batch_size,), length),
        users=torch.arange(batch_size),
        targets=torch.randint(1, N_ITEMS + 1, (batch_size, length), generator=generator),
        valid=torch.arange(items.numel()),
    )
    return schema, batch


def build(schema: Schema, **settings) -> Recommender:
    kind = load_model("fair")
    torch.manual_seed(0)
    return kind(kind.Config(**settings), schema)


def training_step(model: Recommender, batch: Batch) -> Callable[[], float]:
    """A call that makes one step and answers its seconds."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> float:
        model.train()
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model.losses(batch).values())).sum().backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def scoring(model: Recommender, batch: Batch) -> Callable[[], float]:
    """A call that scores the catalogue once and answers its seconds."""

    def score() -> float:
        model.eval()
        started = time.perf_counter()
        with torch.inference_mode():
            model.score_items(batch)
        return time.perf_counter() - started

    return score


def compare(schema: Schema, batch: Batch, dim: int, repeats: int) -> list[Comparison]:
    alone = {"dim": dim, **ATTENTION_ALONE}
    pairs = (
        ("training step, prediction loss alone", training_step, alone, {}),
        ("the same, narrower heads (matched)", training_step, alone, {"matched": True}),
        ("training step, all losses", training_step, {"dim": dim}, {}),
        ("scoring the catalogue", scoring, alone, {}),
    )
    return [
        alternate(
            what,
            "s",
            measure(build(schema, attention="focused", **common, **focused), batch),
            measure(build(schema, attention="softmax", **common), batch),
            repeats,
        )
        for what, measure, common, focused in pairs
    ]


def main() -> None:
    parser = options(__doc__, repeats=10)
    parser.add_argument("--dim", type=int, default=64, help="the model's width")
    parser.add_argument("--batch", type=int, default=128, help="histories in a batch")
    parser.add_argument("--length", type=int, default=50, help="events in a history")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    schema, batch = invented(chosen.length, chosen.batch)
    print(machine())
    print(table(compare(schema, batch, chosen.dim, chosen.repeats), "focused", "softmax"))


if __name__ == "__main__":
    main()
