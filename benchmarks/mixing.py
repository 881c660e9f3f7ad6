"""Ways to give attention over mixed values its own diagonal, against one call of the fused kernel without it.

    python -m benchmarks.mixing [--threads 2] [--repeats 10] [--dim 64] [--heads 2] [--events 8192] [--length 512]

Forward and backward, on ``--events`` events whatever the length, in turns. ``merged`` runs the fused kernel on the
strict part and merges the own key in; ``masked`` is one call with a mask over all keys. A ratio of 1.3 says that the
exact form takes 30% longer than the plain call, which answers something else: it mixes the own action in too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measuring import Comparison, alternate, machine, options, table
from harness.models.blocks.causal_union import Part, attend, attend_masked


def forms(dim: int, heads: int, length: int, events: int) -> dict[str, Callable[[], float]]:
    """Name -> a call that goes forward and backward once and answers its seconds."""
    torch.manual_seed(0)
    shape = (4, max(1, events // length), heads, length, dim // heads)
    drawn = torch.randn(shape, requires_grad=True)
    query, key, items, actions = drawn.unbind(0)  # (B, H, L, D) each

    def timed(form: Callable[[], Tensor]) -> Callable[[], float]:
        def call() -> float:
            started = time.perf_counter()
            torch.autograd.grad(form().sum(), drawn)
            return time.perf_counter() - started

        return call

    return {
        "plain": timed(lambda: attend(query, [Part(key, items + actions, False)])),
        "merged": timed(lambda: attend(query, [Part(key, items + actions, True)], (key, items))),
        "masked": timed(lambda: attend_masked(query, [Part(key, items + actions, True)], (key, items))),
    }


def compare(dim: int, heads: int, length: int, events: int, repeats: int) -> list[Comparison]:
    """Each exact form against the plain call."""
    timed = forms(dim, heads, length, events)
    return [alternate(name, "s", timed[name], timed["plain"], repeats) for name in ("merged", "masked")]


def main() -> int:
    parser = options(__doc__, repeats=10)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--events", type=int, default=8192)
    parser.add_argument("--length", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(machine())
    compared = compare(given.dim, given.heads, given.length, given.events, given.repeats)
    print(table(compared, "exact form", "plain call"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
