"""Retrieval: rank the whole catalogue for the next item, one row per target.

No candidate is sampled. Two protocols are read off the same scores: in ``all`` the whole catalogue is ranked,
so an item of the history may be recommended again; in ``unseen`` the user's whole history is removed first.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.data.batches import Windows
from harness.data.splits import Evaluated
from harness.data.targets import known_of
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
"""Bound on the memory of one chunk of scores. A chunk of B users holds B x n_items float32 scores; lists
and ranks take less than half of that again (6 bytes an item); a model's own work on top of it is the model's."""
MAX_USERS = 1024
TILE_BYTES = 2**18
"""Of the comparisons that are counted at once."""
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
        self._counted: dict[Evaluated, dict[str, np.ndarray]] = {}

    def histories(self, phase: Evaluated) -> Windows:
        users, targets = self.split.targets(phase)
        start = np.maximum(self.log.offsets[users], targets - self.max_length)
        return Windows(users, start, targets, targets - 1)

    def _known(self, phase: Evaluated, target: np.ndarray) -> dict[str, np.ndarray]:
        """What does not change from epoch to epoch is counted once."""
        if phase not in self._counted:
            self._counted[phase] = known_of(self.log, self.split, target)
        return self._counted[phase]

    @property
    def chunk(self) -> int:
        """How many users are ranked at once."""
        return int(np.clip(SCORE_BYTES // (6 * (len(self.log.items) - 1)), 1, MAX_USERS))

    @torch.inference_mode()
    def predict(self, model: Recommender, phase: Evaluated, *, lists: bool = False) -> Predictions:
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
                **{name: pa.array(counts, pa.int32()) for name, counts in self._known(phase, windows.end).items()},
                "score": pa.array(score, pa.float32(), from_pandas=True),
            }
        )
        return Predictions(table, _together(users, best) if lists else None)

    def summarise(self, rows: pa.Table) -> dict[str, dict[str, float | None]]:
        summary: dict[str, dict[str, float | None]] = {}
        chosen = [metric for metric in map(find, self.metrics) if metric.in_validation]
        for name in PROTOCOLS:
            ranks = rows[f"rank_{name}"].to_numpy(zero_copy_only=False).astype(float)
            evidence = Evidence({"rank": functools.partial(np.asarray, ranks)})
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
    while parts:  # what is copied may go
        rows, best = parts.pop()
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
    if not torch.isfinite(own).all():
        raise CellFailed(NOT_FINITE)
    own_place = place[target - 1]  # (B,)
    before = _before(scores, own, place, own_place)
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
    n_items = scores.shape[1]
    longest = int(torch.bincount(owner, minlength=1).max())
    column, value = _top(scores, min(k + longest, n_items))  # among them are k that the history does not hold
    items = (column + 1).masked_fill(value == -torch.inf, 0)
    return best_by_list(Ranking(items, value, complete=True), owner, seen, n_items, k)


def best_by_list(ranking: Ranking, owner: Tensor, seen: Tensor, n_items: int, k: int = KEPT) -> Best:
    """As :func:`best_by_scores`, from the list that a search returned."""
    items = ranking.items
    known = _held(items, owner, seen, n_items)
    there = items > 0
    kept = there & ((there.cumsum(1) <= k) | (~known & ((there & ~known).cumsum(1) <= k)))
    width = int(kept.sum(1).max()) if len(kept) else 0
    best, marks, scores = _close_up(items.masked_fill(~kept, 0), known & kept, ranking.scores)
    return best[:, :width].copy(), marks[:, :width].copy(), scores[:, :width].copy()  # views would keep the whole


def _close_up(items: Tensor, mark: Tensor, values: Tensor) -> Best:
    """Moves the items of each row to its front, in their order."""
    order = (items == 0).to(torch.uint8).sort(dim=1, stable=True).indices
    items, mark, values = (part.gather(1, order).cpu() for part in (items, mark, values.float()))
    return items.int().numpy(), mark.numpy(), values.numpy()


BLOCK = 32
"""Scores whose maximum is looked at first: the highest k lie in the k blocks with the highest maxima."""


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, min(k, I)) columns of the highest scores (B, I) and the scores; equal ones in the order of ``tie_places``."""
    n_items = scores.shape[1]
    place = torch.tensor(tie_places(n_items), device=scores.device)
    column, value = _highest(scores, min(k + 1, n_items))
    if value.shape[1] > k:
        # Where the last score stands outside the list too, those of its items that come first are taken.
        tied = (value[:, k] == value[:, k - 1]).nonzero()[:, 0]
        column, last = column[:, :k].clone(), value[tied, k - 1, None]
        for rows, bar in zip(tied.split(64), last.split(64), strict=True):
            own = scores[rows]
            order = torch.where(own > bar, place - n_items, torch.where(own == bar, place, n_items))
            column[rows] = order.topk(k, dim=1, largest=False).indices
        value = scores.gather(1, column)
    by_place = place[column].argsort(dim=1)
    column, value = column.gather(1, by_place), value.gather(1, by_place)
    value, order = value.sort(dim=1, descending=True, stable=True)
    return column.gather(1, order), value


def _highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, k) columns of the highest scores (B, I) and the scores, in no particular order among equal ones."""
    n_users, n_items = scores.shape
    blocks = n_items // BLOCK
    if blocks < 4 * k:
        value, column = scores.topk(k, dim=1)
        return column, value
    whole = scores[:, : blocks * BLOCK].view(n_users, blocks, BLOCK).amax(2)  # (B, blocks)
    chosen = whole.topk(k, dim=1).indices
    columns = (chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, n_items, device=scores.device).expand(n_users, -1)
    columns = torch.cat([columns, rest], 1)
    value, place = scores.gather(1, columns).topk(k, dim=1)
    return columns.gather(1, place), value


def _held(items: Tensor, owner: Tensor, seen: Tensor, n_items: int) -> Tensor:
    """(B, k) bool: whether the history of each row holds the item; (owner, seen) are the pairs of row and item."""
    known = torch.sort(owner * (n_items + 1) + seen).values
    pair = torch.arange(len(items), device=items.device)[:, None] * (n_items + 1) + items
    if not len(known):
        return torch.zeros_like(items, dtype=torch.bool)
    return known[torch.searchsorted(known, pair).clamp(max=len(known) - 1)] == pair


def _before(scores: Tensor, own: Tensor, place: Tensor, own_place: Tensor) -> Tensor:
    """(B,) how many of a row's scores (B, I) come before its own (B, 1): higher, or equal at an earlier place.

    Raises:
        CellFailed: a score is not a number.
    """
    if scores.device.type != "cpu":
        if torch.isnan(scores.amax(1)).any():  # a maximum is NaN where one of its parts is
            raise CellFailed(NOT_FINITE)
        return (scores > own).sum(1) + ((scores == own) & (place < own_place[:, None])).sum(1)
    # On a CPU, NumPy compares several times as fast as PyTorch, and counts many times as fast. The tiles stay in cache.
    theirs, bar, places, bar_place = scores.numpy(), own.numpy(), place.int().numpy(), own_place.int().numpy()[:, None]
    counts = np.empty(len(theirs), np.int64)
    tile = max(1, TILE_BYTES // max(theirs.shape[1], 1))
    masks = np.empty((2, min(tile, len(theirs)), theirs.shape[1]), dtype=bool)
    for begin in range(0, len(theirs), tile):
        rows = slice(begin, begin + tile)
        mask, earlier = masks[:, : len(theirs[rows])]
        # A sum is NaN where one of its parts is, or where infinities of both signs are: then it takes a closer look.
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.add.reduce(theirs[rows], axis=None)
        if np.isnan(total) and np.isnan(theirs[rows]).any():
            raise CellFailed(NOT_FINITE)
        counts[rows] = _count(np.greater(theirs[rows], bar[rows], out=mask))
        if (_count(np.equal(theirs[rows], bar[rows], out=mask)) > 1).any():
            np.less(places, bar_place[rows], out=earlier)
            counts[rows] += _count(np.logical_and(mask, earlier, out=mask))
    return torch.from_numpy(counts)


def _count(mask: np.ndarray) -> np.ndarray:
    """(B,) how many of each row (B, I) are true."""
    return np.add.reduce(mask.view(np.uint8), axis=1, dtype=np.uint32)


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
