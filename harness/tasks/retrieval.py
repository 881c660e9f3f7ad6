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
from harness.metrics import find
from harness.metrics.base import Evidence
from harness.metrics.lists import KEPT
from harness.metrics.ranking import tie_places
from harness.tasks.base import Predictions, TaskData
from harness.tasks.lists import pack

__all__ = ["LIST_LENGTH", "PROTOCOLS", "SCORE_BYTES", "Outcome", "Retrieval", "rank_by_list", "rank_by_scores"]

PROTOCOLS = ("all", "unseen")
SCORE_BYTES = 256 * 2**20
"""Bound on the memory of one chunk of scores. A chunk of B users holds B x n_items float32 scores, a copy
and two boolean masks of that shape (10 bytes an item); a model's own work on top of it is the model's."""
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
        return int(np.clip(SCORE_BYTES // (10 * (len(self.log.items) - 1)), 1, MAX_USERS))

    @torch.inference_mode()
    def predict(self, model: Recommender, phase: str, *, lists: bool = False) -> Predictions:
        windows = self.histories(phase)
        n_items = len(self.log.items) - 1
        rank = {name: np.full(len(windows), np.nan) for name in PROTOCOLS}
        length = {name: np.zeros(len(windows), dtype=np.int32) for name in PROTOCOLS}
        score = np.full(len(windows), np.nan, dtype=np.float32)
        best: list[tuple[np.ndarray, Best]] = []
        training = model.training
        model.eval()
        groups = self.sequences.groups(windows, self.chunk)
        for batch, rows in self.sequences.batches(windows, groups, self.task, supervise=False):
            target = torch.from_numpy(self.log.item[windows.end[rows]]).to(self.device)
            owner, seen = self.history(windows.take(rows))
            if model.exact:
                scored = model.score_items(batch)
                ranks, lengths, scores = rank_by_scores(scored, target, owner, seen)
                if lists:
                    best.append((rows, best_by_scores(scored, owner, seen)))
            else:
                ranking = model.rank_items(batch, LIST_LENGTH)
                ranks, lengths, scores = rank_by_list(ranking, target, owner, seen, n_items)
                if lists:
                    best.append((rows, best_by_list(ranking, owner, seen, n_items)))
            for name in PROTOCOLS:
                rank[name][rows] = ranks[name].cpu().numpy()
                length[name][rows] = lengths[name].cpu().numpy()
            score[rows] = scores.float().cpu().numpy()
        model.train(training)
        users = self.log.users[windows.user].tolist()
        table = pa.table(
            {
                "phase": pa.array([phase] * len(windows), pa.string()),
                "user": pa.array(users, pa.string()),
                "target": pa.array(self.log.items[self.log.item[windows.end]].tolist(), pa.string()),
                **{f"rank_{n}": pa.array(rank[n], pa.float64(), from_pandas=True).cast("int32") for n in PROTOCOLS},
                **{f"length_{n}": pa.array(length[n], pa.int32()) for n in PROTOCOLS},
                "history": pa.array(windows.end - self.log.offsets[windows.user], pa.int32()),
                "score": pa.array(score, pa.float32(), from_pandas=True),
            }
        )
        return Predictions(table, _together(users, best) if lists else None)

    def summarise(self, rows: pa.Table) -> dict[str, dict[str, float | None]]:
        summary: dict[str, dict[str, float | None]] = {}
        chosen = [metric for metric in map(find, self.metrics) if metric.in_validation]
        for name in PROTOCOLS:
            ranks = rows[f"rank_{name}"].to_numpy(zero_copy_only=False).astype(float)
            evidence = Evidence({"rank": lambda ranks=ranks: ranks})
            summary[name] = {metric.name: metric.value(evidence) if len(ranks) else None for metric in chosen}
        return summary

    def value(self, summary: dict[str, dict[str, Any]], primary: str) -> float:
        found = summary[self.candidates][primary]
        if found is None:
            raise CellFailed(f"no user of '{self.log.name}' has a validation target, so '{primary}' is undefined")
        return found

    def tracked(self, summary: dict[str, dict[str, Any]]) -> dict[str, float | None]:
        return summary[self.candidates]

    def history(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Row and item of each distinct (row, item) among all events before the targets, not only the window's."""
        begin = self.log.offsets[windows.user]
        count = windows.end - begin
        row = np.repeat(np.arange(len(windows)), count)
        event = np.repeat(begin, count) + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        pair = np.unique(row * len(self.log.items) + self.log.item[event])
        owner, seen = np.divmod(pair, len(self.log.items))
        return torch.from_numpy(owner).to(self.device), torch.from_numpy(seen).to(self.device)


Best = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(B, W) items, best first and 0 behind the last; whether the history holds each; scores."""


def _together(users: list[str], parts: list[tuple[np.ndarray, Best]]) -> pa.Table:
    """The lists of all users in their order, from (rows, lists) of each batch."""
    width = max((items.shape[1] for _, (items, _, _) in parts), default=0)
    found = [np.zeros((len(users), width), kind) for kind in (np.int32, bool, np.float32)]
    for rows, best in parts:
        for whole, part in zip(found, best, strict=True):
            whole[rows, : part.shape[1]] = part
    return pack(users, *found)


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


def best_by_scores(scores: Tensor, owner: Tensor, seen: Tensor, k: int = KEPT) -> Best:
    """The best ``k`` items of all and the best ``k`` of the unseen, from scores (B, I).

    Equal scores rank in the order of ``tie_places``. An item scored -inf is not recommended.
    """
    first, value = _top(scores, k)
    unseen = scores.index_put((owner, seen - 1), torch.tensor(-torch.inf, dtype=scores.dtype, device=scores.device))
    known = unseen.gather(1, first) == -torch.inf
    fresh, fresh_value = _top(unseen, k)
    # The unseen items among the first k of all are the first of the unseen; the others follow behind the k.
    behind = torch.arange(k, device=scores.device)[None, :] >= (~known).sum(1, keepdim=True)
    behind = behind[:, : fresh.shape[1]]
    items = torch.cat([first + 1, torch.where(behind, fresh + 1, 0)], 1)
    values = torch.cat([value, torch.where(behind, fresh_value, -torch.inf)], 1)
    mark = torch.cat([known, torch.zeros_like(behind)], 1)
    return _close_up(items.masked_fill(values == -torch.inf, 0), mark, values)


def best_by_list(ranking: Ranking, owner: Tensor, seen: Tensor, n_items: int, k: int = KEPT) -> Best:
    """As :func:`best_by_scores`, from the list that a search returned."""
    items = ranking.items
    known = _held(items, owner, seen, n_items)
    there = items > 0
    kept = there & ((there.cumsum(1) <= k) | (~known & ((there & ~known).cumsum(1) <= k)))
    return _close_up(items.masked_fill(~kept, 0), known & kept, ranking.scores)


def _close_up(items: Tensor, mark: Tensor, values: Tensor) -> Best:
    """Moves the items of each row to its front, in their order."""
    order = (items == 0).to(torch.uint8).sort(dim=1, stable=True).indices
    items, mark, values = (part.gather(1, order).cpu() for part in (items, mark, values.float()))
    return items.int().numpy(), mark.numpy(), values.numpy()


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, min(k, I)) columns of the highest scores (B, I) and the scores; equal ones in the order of ``tie_places``."""
    k = min(k, scores.shape[1])
    place = torch.tensor(tie_places(scores.shape[1]), device=scores.device)
    value, column = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if value.shape[1] > k:
        # Where the last score stands outside the list too, those of its items that come first are taken.
        for row in (value[:, k] == value[:, k - 1]).nonzero()[:, 0].tolist():
            last = value[row, k - 1]
            above = (scores[row] > last).nonzero()[:, 0]
            equal = (scores[row] == last).nonzero()[:, 0]
            equal = equal[place[equal].argsort()[: k - len(above)]]
            column[row, :k] = torch.cat([above, equal])
        column = column[:, :k]
        value = scores.gather(1, column)
    by_place = place[column].argsort(dim=1)
    column, value = column.gather(1, by_place), value.gather(1, by_place)
    value, order = value.sort(dim=1, descending=True, stable=True)
    return column.gather(1, order), value


def _held(items: Tensor, owner: Tensor, seen: Tensor, n_items: int) -> Tensor:
    """(B, k) bool: whether the history of each row holds the item; (owner, seen) are the pairs of row and item."""
    known = torch.sort(owner * (n_items + 1) + seen).values
    pair = torch.arange(len(items), device=items.device)[:, None] * (n_items + 1) + items
    if not len(known):
        return torch.zeros_like(items, dtype=torch.bool)
    return known[torch.searchsorted(known, pair).clamp(max=len(known) - 1)] == pair


def rank_by_list(ranking: Ranking, target: Tensor, owner: Tensor, seen: Tensor, n_items: int) -> Outcome:
    """Ranks within the list that a search returned; a target outside it has no rank."""
    items = ranking.items  # (B, k)
    listed = items > 0
    if not torch.isfinite(ranking.scores[listed]).all():
        raise CellFailed(NOT_FINITE)
    hit = listed & (items == target[:, None])
    fresh = listed & ~_held(items, owner, seen, n_items)
    found = hit.any(1)
    fresh_hit = (hit & fresh).any(1)
    nan = torch.tensor(torch.nan, dtype=torch.float64, device=items.device)

    def rank(kept: Tensor, present: Tensor) -> Tensor:
        return torch.where(present, ((kept.cumsum(1) * hit).sum(1)).double(), nan)

    ranks = {"all": rank(listed, found), "unseen": rank(fresh, fresh_hit)}
    lengths = {"all": listed.sum(1), "unseen": fresh.sum(1)}
    score = torch.where(found, (ranking.scores.masked_fill(~hit, 0)).sum(1).double(), nan)
    return ranks, lengths, score
