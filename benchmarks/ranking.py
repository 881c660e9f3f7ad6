"""Exact ranks in a large catalogue: counting in tiles with NumPy against whole-matrix comparisons with PyTorch.

    python -m benchmarks.ranking [--items 100000] [--users 1024] [--threads 1] [--repeats 5]

Scores are drawn once, so that no model's work is measured: what is left is the rank of each user's target under both
protocols, with ties in the shuffled order of the catalogue, and on our side the 50 best items of each list as well in
the second line. Both sides must give the same ranks. CPU seconds of this thread.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from benchmarks.measuring import alternate, machine, options, table
from harness.metrics.ranking import tie_places
from harness.tasks.retrieval import best_by_scores, rank_by_scores

HISTORY = 10


def whole_matrix(scores: Tensor, target: Tensor) -> Tensor:
    """(B,) ranks among all items, the plain way: a mask of the size of the scores for each comparison."""
    place = torch.tensor(tie_places(scores.shape[1]))
    own, own_place = scores.gather(1, target[:, None] - 1), place[target - 1]
    if not torch.isfinite(own).all() or torch.isnan(scores).any():
        raise RuntimeError("scores are not finite")
    before = (scores > own).sum(1) + ((scores == own) & (place < own_place[:, None])).sum(1)
    return before + 1


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=1024)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(chosen.users, chosen.items, generator=generator)
    target = torch.randint(1, chosen.items + 1, (chosen.users,), generator=generator)
    owner = torch.arange(chosen.users).repeat_interleave(HISTORY)
    seen = torch.randint(1, chosen.items + 1, (len(owner),), generator=generator)

    def speed(scores: Tensor, lists: bool) -> float:
        started = time.process_time()
        rank_by_scores(scores, target, owner, seen)
        if lists:
            best_by_scores(scores, owner, seen)
        return chosen.users / (time.process_time() - started)

    def plain(scores: Tensor) -> float:
        started = time.process_time()
        whole_matrix(scores, target)
        return chosen.users / (time.process_time() - started)

    lines = []
    for what, scores, lists in (
        ("ranks, all scores different", drawn, False),
        ("ranks and lists, all scores different", drawn, True),
        ("ranks, many equal scores", (drawn * 50).floor(), False),
    ):
        ranks = rank_by_scores(scores, target, owner, seen)[0]["all"]
        if not torch.equal(ranks.long(), whole_matrix(scores, target)):
            raise RuntimeError("both sides must give the same ranks")
        ours, peer = partial(speed, scores, lists), partial(plain, scores)
        lines.append(alternate(what, "users/s", ours, peer, chosen.repeats))
    print(machine())
    print(table(lines, "tiles (NumPy)", "whole matrix (PyTorch)"))


if __name__ == "__main__":
    main()
