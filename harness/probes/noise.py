"""The noise experiment: random items put into the test histories, and what attention, ranking and lists make of it.

A history of n visible events gets k = round(n s / (1 - s)) injected ones, so that they are a share s of what the model
reads. The window does not grow: where n + k exceeds ``max_length``, k = round(s max_length) and the oldest real events
drop out. That costs accuracy without being noise, so every history is measured twice: with its injected events, and
as the same real events alone. The last event stays real and last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import WIDTH_STEP, Windows
from harness.data.log import EventLog
from harness.data.splits import Evaluated
from harness.errors import InputError
from harness.interface import AttentionMaps, Batch, Recommender
from harness.metrics import find
from harness.metrics.ranking import RankMetric, tie_places
from harness.probes.attention import SMALLEST, last_row, per_event, shows_attention, users_at_once
from harness.tasks.retrieval import LIST_LENGTH, PROTOCOLS, Retrieval, rank_by_list, rank_by_scores

__all__ = ["TOP", "Noise", "NoisyHistories", "noise_statistics"]

TOP = 10
"""Length of the lists that are compared."""


@torch.inference_mode()
def noise_statistics(model: Recommender, data: Retrieval, shares: Iterable[float], seed: int) -> pa.Table:
    """The statistics of docs/architecture.md ("noise.parquet") on the test histories.

    Raises:
        InputError: a user has every item of the catalogue, so there is none to inject.
    """
    noise = Noise.draw(data, seed)
    training = model.training
    model.eval()
    lines = []
    for share in shares:
        histories = noise.histories(data, share)
        lines += [(share, *line) for line in _ranking_lines(model, histories)]
        lines += [(share, *line) for line in _attention_lines(model, histories)] if shows_attention(model) else []
    model.train(training)
    kinds = {"share": "float64", "history": "string", "statistic": "string", "layer": "int16", "head": "int16"}
    kinds |= {"value": "float64", "users": "int64"}
    columns = zip(*lines, strict=True)
    return pa.table({name: pa.array(c, kind) for (name, kind), c in zip(kinds.items(), columns, strict=True)})


@dataclass(frozen=True)
class Noise:
    """Random items and places for R histories, drawn for all at once: the same for every model and every batch."""

    windows: Windows
    items: np.ndarray
    """(R, max_length) items without an event of the user, uniform and independent. A history with more injected
    events has the same ones and more."""
    order: np.ndarray
    """(R, max_length) float32: the injected events stand at the places with the smallest numbers."""

    @classmethod
    def draw(cls, data: Retrieval, seed: int, phase: Evaluated = "test") -> Noise:
        windows = data.histories(phase)
        generator = np.random.default_rng(seed)
        shape = (len(windows), data.max_length)
        items = _foreign_items(data.log, windows.user, data.max_length, generator)
        return cls(windows, items, generator.random(shape, dtype=np.float32))

    def histories(self, data: Retrieval, share: float) -> NoisyHistories:
        """The histories with a ``share`` of injected events, from 0 to below 1."""
        real, longest = self.windows.length, data.max_length
        added = np.floor(real * share / (1 - share) + 0.5).astype(np.int64)
        added = np.where(real + added > longest, min(int(share * longest + 0.5), longest - 1), added)
        return NoisyHistories(data, self, kept=np.minimum(real, longest - added), added=added)


@dataclass(frozen=True)
class NoisyHistories:
    """R histories of ``kept`` real and ``added`` injected events, (R,) each."""

    data: Retrieval
    noise: Noise
    kept: np.ndarray
    added: np.ndarray

    @property
    def real(self) -> Windows:
        """The real events that are left."""
        whole = self.noise.windows
        return Windows(whole.user, whole.end - self.kept, whole.end, whole.supervised)

    def batches(self, size: int) -> Iterator[tuple[Batch, Batch, np.ndarray]]:
        """Of at most ``size`` histories of similar length: with injected events, the real events alone, the rows."""
        sequences, real, total = self.data.sequences, self.real, self.kept + self.added
        groups = sequences.groups(Windows(real.user, real.end - total, real.end, real.supervised), size)
        for alone, rows in sequences.batches(real, groups, self.data.task, supervise=False):
            width = min(-(-int(total[rows].max()) // WIDTH_STEP) * WIDTH_STEP, int(total.max()))
            yield self._injected(rows, width), alone, rows

    def _injected(self, rows: np.ndarray, width: int) -> Batch:
        """An injected event is a copy of the real event before it (behind it where none is) with another item."""
        kept, added, slot = self.kept[rows, None], self.added[rows, None], np.arange(width)
        order = np.where(slot < kept + added - 1, self.noise.order[rows, :width], np.inf)
        replaced = order.argsort(1, kind="stable").argsort(1) < added  # (B, L)
        event = self.real.start[rows, None] + ((~replaced).cumsum(1) - 1).clip(0, kept - 1)  # (B, L)
        drawn = np.take_along_axis(self.noise.items[rows], (replaced.cumsum(1) - 1).clip(0), axis=1)
        sequences, device = self.data.sequences, self.data.device
        index, inside, mask, items = (
            torch.from_numpy(part).to(device) for part in (event, slot < kept + added, replaced, drawn)
        )
        return Batch(
            items=torch.where(inside, torch.where(mask, items, sequences.items[index]), 0),
            lengths=torch.from_numpy((kept + added)[:, 0]).to(device),
            users=torch.from_numpy(self.noise.windows.user[rows]).to(device),
            times=None if sequences.times is None else torch.where(inside, sequences.times[index], 0),
            actions=None
            if sequences.actions is None
            else torch.where(inside[:, :, None], sequences.actions[index], 0).float(),
            replaced=mask,
        )


def _foreign_items(log: EventLog, users: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(R, count) items that the users (R,) have no event with, neither before nor after the target."""
    catalogue = len(log.items)
    own = np.unique(np.repeat(np.arange(log.n_users), log.lengths) * catalogue + log.item)
    full = np.flatnonzero(np.bincount(own // catalogue, minlength=log.n_users)[users] == log.n_items)
    if len(full):
        raise InputError(
            f"noise: user '{log.users[users[full[0]]]}' of '{log.name}' has every item of the catalogue, so there is "
            "none to inject; take a larger catalogue, or leave 'noise' out of the study"
        )
    drawn = np.empty(len(users) * count, dtype=np.int64)
    left = np.arange(len(drawn))
    while len(left):
        drawn[left] = generator.integers(1, catalogue, len(left))
        left = left[np.isin(users[left // count] * catalogue + drawn[left], own)]
    return drawn.reshape(len(users), count)


Line = tuple[str, str, int, int, float, int]
"""History, statistic, layer, head, mean over users, users."""


def _ranking_lines(model: Recommender, histories: NoisyHistories) -> Iterator[Line]:
    """Metrics of both histories, how much their lists share, and what was injected and dropped."""
    data, users = histories.data, len(histories.kept)
    ranks = {(h, p): np.full(users, np.nan) for h in ("injected", "real") for p in PROTOCOLS}
    shared = {(name, p): np.zeros(users) for name in ("overlap", "jaccard") for p in PROTOCOLS}
    for noisy, alone, rows in histories.batches(data.chunk):
        windows = histories.noise.windows.take(rows)
        found = {name: _rank(model, data, batch, windows) for name, batch in (("injected", noisy), ("real", alone))}
        for protocol in PROTOCOLS:
            for name, (placed, _) in found.items():
                ranks[name, protocol][rows] = placed[protocol].cpu().numpy()
            both = _shared(*(lists[protocol] for _, lists in found.values()))
            for name, value in zip(("overlap", "jaccard"), both, strict=True):
                shared[name, protocol][rows] = value.cpu().numpy()
    for (name, protocol), ranked in ranks.items():
        for metric in map(find, data.metrics):
            if isinstance(metric, RankMetric):
                yield name, f"{protocol}/{metric.name}", -1, -1, float(metric.of(ranked).mean()), users
    for (name, protocol), values in shared.items():
        yield "injected", f"{protocol}/{name}@{TOP}", -1, -1, float(values.mean()), users
    visible = histories.kept + histories.added
    yield "injected", "events", -1, -1, float((histories.added / visible).mean()), users
    yield "injected", "dropped", -1, -1, float((1 - histories.kept / histories.noise.windows.length).mean()), users


def _rank(
    model: Recommender, data: Retrieval, batch: Batch, windows: Windows
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By protocol: the targets' ranks (B,) and the first items of the lists (B, TOP), 0 where a list is shorter.

    The history that ``unseen`` removes is the user's own, whatever was injected or dropped.
    """
    target = torch.from_numpy(data.log.item[windows.end]).to(data.device)
    owner, seen = data.history(windows)
    if model.exact:
        scores = model.score_items(batch)
        ranks, _, _ = rank_by_scores(scores, target, owner, seen)
        unseen = scores.clone()
        unseen[owner, seen - 1] = -torch.inf
        return ranks, {"all": _first(scores), "unseen": _first(unseen)}
    n_items = len(data.log.items) - 1
    ranking = model.rank_items(batch, LIST_LENGTH)
    ranks, _, _ = rank_by_list(ranking, target, owner, seen, n_items)
    row = torch.arange(len(target), device=data.device)[:, None] * (n_items + 1)
    old = torch.isin(row + ranking.items, owner * (n_items + 1) + seen)  # (B, k)
    fresh = ranking.items.masked_fill(old, 0)
    fresh = fresh.gather(1, (fresh == 0).int().argsort(dim=1, stable=True))  # what is left moves up
    return ranks, {"all": ranking.items[:, :TOP], "unseen": fresh[:, :TOP]}


def _first(scores: Tensor) -> Tensor:
    """(B, TOP) items with the highest scores (B, I); ties as in the ranks."""
    among_equals = torch.tensor(tie_places(scores.shape[1]), device=scores.device).argsort()  # (I,)
    best, order = scores[:, among_equals].sort(dim=1, descending=True, stable=True)
    return torch.where(best > -torch.inf, among_equals[order] + 1, 0)[:, :TOP]


def _shared(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """What two lists (B, k) have in common, (B,) each: share of the longer one, and Jaccard. Two empty lists agree."""
    common = ((one[:, :, None] == other[:, None, :]) & (one > 0)[:, :, None]).sum((1, 2)).double()
    size, others = (one > 0).sum(1), (other > 0).sum(1)
    longer, union = torch.maximum(size, others), size + others - common
    overlap, jaccard = (torch.where(longer > 0, common / whole.clamp_min(1), 1.0) for whole in (longer, union))
    return overlap, jaccard


def _attention_lines(model: Recommender, histories: NoisyHistories) -> Iterator[Line]:
    """Weight on injected events, and how far injection moved the weights on the real ones."""
    users = len(histories.kept)
    sums: dict[tuple[str, int], Tensor] = defaultdict(lambda: torch.zeros(()))
    tokens = 0.0
    for noisy, alone, _ in histories.batches(users_at_once(model, histories.data)):
        maps, calm = (model.attention(batch, histories.data.task) for batch in (noisy, alone))
        seen = (maps.key_event >= 0) & (maps.key_event < noisy.lengths[:, None])
        tokens += float((_on_injected(maps, noisy, seen).sum(1).double() / seen.sum(1)).sum())
        for layer, (weights, calm_weights) in enumerate(zip(maps.maps, calm.maps, strict=True)):
            for name, value in _layer(maps, weights, noisy, calm, calm_weights, alone).items():
                sums[name, layer] = sums[name, layer] + value.sum(0)  # (H,)
    yield "injected", "tokens", -1, -1, tokens / users, users
    for (name, layer), total in sums.items():
        for head, value in enumerate(total.tolist()):
            yield "injected", name, layer, head, value / users, users


def _on_injected(maps: AttentionMaps, batch: Batch, seen: Tensor) -> Tensor:
    """(B, K) keys that belong to injected events."""
    assert batch.replaced is not None, "the experiment says what it injected"
    return seen & batch.replaced.gather(1, torch.where(seen, maps.key_event, 0))


def _layer(
    maps: AttentionMaps, weights: Tensor, noisy: Batch, calm: AttentionMaps, calm_weights: Tensor, alone: Batch
) -> dict[str, Tensor]:
    """(B, H) values of one layer."""
    row, seen = last_row(maps, weights, noisy.lengths)  # (B, H, K)
    calm_row, calm_seen = last_row(calm, calm_weights, alone.lengths)
    injected = _on_injected(maps, noisy, seen)[:, None]
    size = row.abs()
    total = size.sum(-1).clamp_min(SMALLEST)
    assert noisy.replaced is not None, "the experiment says what it injected"
    # The real events of the noisy history, in their order, beside those of the other.
    real = noisy.replaced.int().argsort(dim=1, stable=True)[:, : alone.items.shape[1]]  # (B, L)
    there = (torch.arange(real.shape[1], device=real.device) < alone.lengths[:, None])[:, None]

    def on_real(row: Tensor) -> Tensor:
        events = per_event(row, maps, seen, noisy.items.shape[1])
        return events.gather(2, real[:, None].expand(-1, events.shape[1], -1)) * there

    def on_all(row: Tensor) -> Tensor:
        return per_event(row, calm, calm_seen, alone.items.shape[1])

    shares = [F.normalize(part, p=1, dim=-1) for part in (on_real(size), on_all(calm_row.abs()))]
    return {
        "injected": (row * injected).sum(-1),
        "injected_abs": (size * injected).sum(-1) / total,
        "sum": row.sum(-1),
        "cosine": F.cosine_similarity(on_real(row), on_all(calm_row), dim=-1),
        "similarity": torch.minimum(*shares).sum(-1),
    }
