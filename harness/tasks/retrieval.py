"""Retrieval: rank the whole catalogue for the next item, one row per user.

No candidate is sampled. Two protocols are read off the same scores: in ``all`` the whole catalogue is ranked,
so an item of the history may be recommended again; in ``unseen`` the user's whole history is removed first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.data.batches import Windows
from harness.errors import CellFailed
from harness.interface import Ranking, Recommender, Task
from harness.tasks.base import TaskData
from harness.tasks.ranking_metrics import per_user, tie_places

__all__ = ["LIST_LENGTH", "PROTOCOLS", "SCORE_BYTES", "Outcome", "Retrieval", "rank_by_list", "rank_by_scores"]

PROTOCOLS = ("all", "unseen")
SCORE_BYTES = 256 * 2**20
"""Bound on the memory of one chunk of scores. A chunk of B users holds B x n_items float32 scores and two
boolean masks of that shape (6 bytes an item); a model's own work on top of it is the model's."""
MAX_USERS = 1024
LIST_LENGTH = 100
"""How many items a model that searches is asked for; a beam returns at most its width."""
NOT_FINITE = "the model's scores are not finite; lower the learning rate or clip the gradient"


class Retrieval(TaskData):
    """A data set as retrieval: the next item of each user is ranked among the whole catalogue, under both protocols.

    ``candidates`` ("all" or "unseen") is the protocol whose metrics choose the epoch and stand in the history.
    """

    task = Task.RETRIEVAL

    def __init__(self, *args: Any, candidates: str = "unseen", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.candidates = candidates

    def histories(self, phase: str) -> Windows:
        users, targets = self.split.targets(phase)
        start = np.maximum(self.log.offsets[users], targets - self.max_length)
        return Windows(users, start, targets, targets - 1)

    @property
    def chunk(self) -> int:
        """How many users are ranked at once."""
        return int(np.clip(SCORE_BYTES // (6 * (len(self.log.items) - 1)), 1, MAX_USERS))

    @torch.inference_mode()
    def evaluate(self, model: Recommender, phase: str) -> pa.Table:
        windows = self.histories(phase)
        n_items = len(self.log.items) - 1
        rank = {name: np.full(len(windows), np.nan) for name in PROTOCOLS}
        length = {name: np.zeros(len(windows), dtype=np.int32) for name in PROTOCOLS}
        score = np.full(len(windows), np.nan, dtype=np.float32)
        training = model.training
        model.eval()
        groups = self.sequences.groups(windows, self.chunk)
        for batch, rows in self.sequences.batches(windows, groups, self.task, supervise=False):
            target = torch.from_numpy(self.log.item[windows.end[rows]]).to(self.device)
            owner, seen = self.history(windows.take(rows))
            if model.exact:
                outcome = rank_by_scores(model.score_items(batch), target, owner, seen)
            else:
                outcome = rank_by_list(model.rank_items(batch, LIST_LENGTH), target, owner, seen, n_items)
            ranks, lengths, scores = outcome
            for name in PROTOCOLS:
                rank[name][rows] = ranks[name].cpu().numpy()
                length[name][rows] = lengths[name].cpu().numpy()
            score[rows] = scores.float().cpu().numpy()
        model.train(training)
        return pa.table(
            {
                "phase": pa.array([phase] * len(windows), pa.string()),
                "user": pa.array(self.log.users[windows.user].tolist(), pa.string()),
                "target": pa.array(self.log.items[self.log.item[windows.end]].tolist(), pa.string()),
                **{f"rank_{n}": pa.array(rank[n], pa.float64(), from_pandas=True).cast("int32") for n in PROTOCOLS},
                **{f"length_{n}": pa.array(length[n], pa.int32()) for n in PROTOCOLS},
                "history": pa.array(windows.end - self.log.offsets[windows.user], pa.int32()),
                "score": pa.array(score, pa.float32(), from_pandas=True),
            }
        )

    def summarise(self, rows: pa.Table) -> dict[str, dict[str, float | None]]:
        summary: dict[str, dict[str, float | None]] = {}
        for name in PROTOCOLS:
            ranks = rows[f"rank_{name}"].to_numpy(zero_copy_only=False).astype(float)
            summary[name] = {m: float(per_user(m, ranks).mean()) if len(ranks) else None for m in self.metrics}
        return summary

    def value(self, summary: dict[str, dict[str, Any]], primary: str) -> float:
        found = summary[self.candidates][primary]
        if found is None:
            raise CellFailed(f"no user of '{self.log.name}' has a validation target, so '{primary}' is undefined")
        return found

    def tracked(self, summary: dict[str, dict[str, Any]]) -> dict[str, float | None]:
        return summary[self.candidates]

    @staticmethod
    def higher_is_better(metric: str) -> bool:
        return True

    def history(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Row and item of each distinct (row, item) among all events before the targets, not only the window's."""
        begin = self.log.offsets[windows.user]
        count = windows.end - begin
        row = np.repeat(np.arange(len(windows)), count)
        event = np.repeat(begin, count) + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        pair = np.unique(row * len(self.log.items) + self.log.item[event])
        owner, seen = np.divmod(pair, len(self.log.items))
        return torch.from_numpy(owner).to(self.device), torch.from_numpy(seen).to(self.device)


Outcome = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]
"""By protocol the ranks (B,), NaN where there is none, and how many items were ranked; the targets' scores (B,)."""


def rank_by_scores(scores: Tensor, target: Tensor, owner: Tensor, seen: Tensor) -> Outcome:
    """Exact ranks from scores (B, I); equal scores rank in the order of ``tie_places``."""
    n_users, n_items = scores.shape
    place = torch.tensor(tie_places(n_items), device=scores.device)
    own = scores.gather(1, target[:, None] - 1)  # (B, 1)
    if not torch.isfinite(own).all() or torch.isnan(scores).any():
        raise CellFailed(NOT_FINITE)
    own_place = place[target - 1]  # (B,)
    before = (scores > own).sum(1) + ((scores == own) & (place < own_place[:, None])).sum(1)
    rank = before.double() + 1
    seen_score = scores[owner, seen - 1]
    bar = own[owner, 0]
    seen_before = (seen_score > bar) | ((seen_score == bar) & (place[seen - 1] < own_place[owner]))
    removed_before = torch.zeros(n_users, device=scores.device).double().index_add_(0, owner, seen_before.double())
    removed = torch.zeros(n_users, device=scores.device).double().index_add_(0, owner, torch.ones_like(bar).double())
    repeated = torch.zeros(n_users, dtype=torch.bool, device=scores.device)
    repeated[owner[seen == target[owner]]] = True
    unseen = torch.where(repeated, torch.nan, rank - removed_before)  # a removed target is never ranked
    lengths = {"all": torch.full_like(rank, n_items), "unseen": n_items - removed}
    return {"all": rank, "unseen": unseen}, lengths, own[:, 0]


def rank_by_list(ranking: Ranking, target: Tensor, owner: Tensor, seen: Tensor, n_items: int) -> Outcome:
    """Ranks within the list that a search returned; a target outside it has no rank."""
    items = ranking.items  # (B, k)
    listed = items > 0
    if not torch.isfinite(ranking.scores[listed]).all():
        raise CellFailed(NOT_FINITE)
    hit = listed & (items == target[:, None])
    known = torch.sort(owner * (n_items + 1) + seen).values
    pair = torch.arange(len(items), device=items.device)[:, None] * (n_items + 1) + items
    place = torch.searchsorted(known, pair).clamp(max=max(len(known) - 1, 0))
    fresh = listed & (known[place] != pair)
    found = hit.any(1)
    fresh_hit = (hit & fresh).any(1)
    nan = torch.tensor(torch.nan, dtype=torch.float64, device=items.device)

    def rank(kept: Tensor, present: Tensor) -> Tensor:
        return torch.where(present, ((kept.cumsum(1) * hit).sum(1)).double(), nan)

    ranks = {"all": rank(listed, found), "unseen": rank(fresh, fresh_hit)}
    lengths = {"all": listed.sum(1), "unseen": fresh.sum(1)}
    score = torch.where(found, (ranking.scores.masked_fill(~hit, 0)).sum(1).double(), nan)
    return ranks, lengths, score
