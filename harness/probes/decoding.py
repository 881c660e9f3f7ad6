"""What decoding adds to or takes from a model that emits codes: invalid codes, collisions, the beam's misses.

A model takes part by answering :class:`CodeDecoder`. The audit looks items up in the schema's codes by itself,
so a fault in a model's own tables shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from harness.data.splits import Evaluated
from harness.errors import InputError
from harness.interface import Batch, Recommender, Schema
from harness.tasks.retrieval import Retrieval

__all__ = ["CodeDecoder", "audit", "audit_model"]

USERS = 1000
"""How many test histories a cell's audit takes."""
TOGETHER = 64
"""Of them, how many at a time."""


@runtime_checkable
class CodeDecoder(Protocol):
    """What a model that emits codes offers to the audit, beside its ``schema`` with codes."""

    schema: Schema
    training: bool

    def eval(self) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...

    def generate(self, batch: Batch, beams: int, constrained: bool) -> tuple[Tensor, ...]:
        """Codes (B, W, m) of the best sequences that the model's search finds, best first, with their scores
        (B, W); what follows in the tuple is ignored. W is ``beams``, or fewer where there are not so many.
        ``constrained``: only codes of items are followed; otherwise any combination may come out. No sequence
        occurs twice in a row, and one that several items share is one sequence."""
        ...

    def score_items(self, batch: Batch) -> Tensor:
        """(B, n_items): the exact score of every item, by the same measure as ``generate``'s scores."""
        ...


def audit(
    model: CodeDecoder,
    users: Iterable[tuple[Batch, Tensor]],
    *,
    beams: int = 20,
    cutoffs: tuple[int, ...] = (5, 10),
    exact_users: int = 64,
) -> dict[str, Any]:
    """How the lists of ``model`` come about, as a tree of numbers that JSON can hold.

    Args:
        users: histories, and the item (B,) that followed each.
        beams: hypotheses per user, at least the largest cutoff K.
        exact_users: how many users, from the first on, are compared with the scores of the whole catalogue.

    Returns:
        ``catalogue``: items, levels, different codes, items that share their codes, the most that share one.
        ``free`` (no trie): ``invalid`` share of hypotheses that name no item, of all and of the first K;
        ``any_invalid`` share of users with one; ``short`` share of users with fewer than K items in the list;
        ``recall`` of the items in the list.
        ``constrained``: ``short`` and ``recall`` as above; ``code_recall``: a hit if the target's codes are
        among the first K hypotheses, whoever shares them; ``prefix_recall@K/d``: the same if only the first d
        codes must agree (what a metric counts that leaves the collision level out).
        ``exact``: ``users``; ``overlap`` share of the exact list's first K items that the beam's first K hold;
        ``same`` share of users with the same first K in the same order; ``recall_beam`` and ``recall_exact`` of
        these users; ``score_difference``, the largest between both scores of one item (null without users).

        An item's place counts the items before it: of items that share codes, the lowest id comes first.

    Raises:
        InputError: no users, or fewer beams than the largest cutoff.
    """
    if beams < max(cutoffs):
        raise InputError(f"an audit of the first {max(cutoffs)} items needs as many beams, not {beams}; raise 'beams'")
    assert model.schema.codes is not None, "a model that emits codes was built for some"
    catalogue = _Catalogue(model.schema.codes)
    measures: list[dict[str, float]] = []
    training = model.training
    model.eval()
    with torch.inference_mode():
        for batch, target in users:
            compared = min(len(target), exact_users - len(measures))
            measures += _measures(model, catalogue, batch, target, beams, cutoffs, compared)
    model.train(training)
    if not measures:
        raise InputError("there is no user to audit the decoding on; choose a phase with targets")
    result: dict[str, Any] = {"users": len(measures), "beams": beams, "catalogue": catalogue.summary()}
    result["exact"] = {"users": min(len(measures), exact_users), "score_difference": None}
    for name in dict.fromkeys(name for row in measures for name in row):
        part, _, measure = name.partition("/")
        values = [row[name] for row in measures if name in row]
        value = max(values) if measure == "score_difference" else sum(values) / len(values)
        result.setdefault(part, {})[measure] = value
    return result


def _measures(
    model: CodeDecoder,
    catalogue: _Catalogue,
    batch: Batch,
    target: Tensor,
    beams: int,
    cutoffs: tuple[int, ...],
    compared: int,
) -> list[dict[str, float]]:
    """What the audit finds of each user of a batch; of the first ``compared`` against the whole catalogue too."""
    free, free_scores = model.generate(batch, beams, False)[:2]
    kept, scores = model.generate(batch, beams, True)[:2]
    rows: list[dict[str, float]] = []
    for row, wanted in enumerate(target.tolist()):
        found = catalogue.look_up(kept[row], scores[row])
        measured = _free(catalogue.look_up(free[row], free_scores[row]), wanted, cutoffs)
        rows.append(measured | _constrained(found, wanted, catalogue.codes[wanted], cutoffs))
    if compared > 0:
        exact = model.score_items(_first(batch, compared)).cpu()
        for row, wanted in enumerate(target[:compared].tolist()):
            rows[row] |= _exact(catalogue.look_up(kept[row], scores[row]), exact[row], wanted, cutoffs)
    return rows


def audit_model(model: Recommender, data: Retrieval, phase: Evaluated = "test") -> dict[str, Any]:
    """The audit of a trained model on USERS histories that were drawn once for the data, or on all if there are fewer.

    The beam is as wide as the model's own (its option ``beams``), else 20.
    """
    windows = data.histories(phase)
    drawn = windows.take(np.random.default_rng(0).permutation(len(windows))[:USERS])

    def users() -> Iterator[tuple[Batch, Tensor]]:
        for first in range(0, len(drawn), TOGETHER):
            part = drawn.take(np.arange(first, min(first + TOGETHER, len(drawn))))
            target = torch.from_numpy(data.log.item[part.end]).to(data.device)
            yield data.sequences.batch(part, data.task, supervise=False), target

    assert isinstance(model, CodeDecoder), "see the probe: others are not audited"
    beams = getattr(model.config, "beams", 20)
    return audit(model, users(), beams=beams, cutoffs=tuple(k for k in (5, 10) if k <= beams) or (beams,))


class _Catalogue:
    """Which items have which codes."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = [tuple(row) for row in codes.tolist()]  # row 0 is padding
        self.items: dict[tuple[int, ...], list[int]] = {}
        for item, row in enumerate(self.codes[1:], 1):
            self.items.setdefault(row, []).append(item)

    def look_up(self, codes: Tensor, scores: Tensor) -> list[tuple[tuple[int, ...], float, list[int]]]:
        """Codes, score and items, in ascending order, of each hypothesis of one user."""
        rows = zip((tuple(row) for row in codes.tolist()), scores.tolist(), strict=True)
        return [(row, score, self.items.get(row, [])) for row, score in rows if score > -torch.inf]

    def summary(self) -> dict[str, int]:
        shared = Counter(len(items) for items in self.items.values())
        return {
            "items": len(self.codes) - 1,
            "levels": len(self.codes[0]),
            "different_codes": len(self.items),
            "colliding_items": sum(size * count for size, count in shared.items() if size > 1),
            "largest_collision": max(shared),
        }


_Found = list[tuple[tuple[int, ...], float, list[int]]]


def _list(found: _Found) -> list[int]:
    return [item for _, _, items in found for item in items]


def _free(found: _Found, wanted: int, cutoffs: tuple[int, ...]) -> dict[str, float]:
    invalid = [not items for _, _, items in found]
    listed = _list(found)
    measures = {"free/invalid": sum(invalid) / len(invalid), "free/any_invalid": float(any(invalid))}
    for k in cutoffs:
        measures[f"free/invalid@{k}"] = sum(invalid[:k]) / len(invalid[:k])
        measures[f"free/short@{k}"] = float(len(listed) < k)
        measures[f"free/recall@{k}"] = float(wanted in listed[:k])
    return measures


def _constrained(found: _Found, wanted: int, codes: tuple[int, ...], cutoffs: tuple[int, ...]) -> dict[str, float]:
    listed = _list(found)
    measures = {}
    for k in cutoffs:
        measures[f"constrained/short@{k}"] = float(len(listed) < k)
        measures[f"constrained/recall@{k}"] = float(wanted in listed[:k])
        agreement = max((_agreement(row, codes) for row, _, _ in found[:k]), default=0)
        measures[f"constrained/code_recall@{k}"] = float(agreement == len(codes))
        for depth in range(1, len(codes)):
            measures[f"constrained/prefix_recall@{k}/{depth}"] = float(agreement >= depth)
    return measures


def _agreement(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many codes both begin with."""
    differing = (level for level, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return next(differing, len(one))


def _exact(found: _Found, scores: Tensor, wanted: int, cutoffs: tuple[int, ...]) -> dict[str, float]:
    listed = _list(found)
    order = (scores.sort(descending=True, stable=True).indices[: max(cutoffs)] + 1).tolist()
    both = [abs(float(scores[item - 1]) - score) for _, score, items in found for item in items]
    measures = {"exact/score_difference": max(both, default=0.0)}
    for k in cutoffs:
        measures[f"exact/overlap@{k}"] = len(set(listed[:k]) & set(order[:k])) / len(order[:k])
        measures[f"exact/same@{k}"] = float(listed[:k] == order[:k])
        measures[f"exact/recall_beam@{k}"] = float(wanted in listed[:k])
        measures[f"exact/recall_exact@{k}"] = float(wanted in order[:k])
    return measures


def _first(batch: Batch, rows: int) -> Batch:
    return Batch(items=batch.items[:rows], lengths=batch.lengths[:rows], users=batch.users[:rows])
