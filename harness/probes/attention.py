"""What a model's attention does, as statistics per layer and head: never raw maps of every user."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from harness.data.splits import Evaluated
from harness.interface import AttentionMaps, Recommender, Task
from harness.probes.relevance import Relevance, decile_shares
from harness.tasks.base import TaskData

__all__ = ["attention_statistics", "last_row", "per_event", "shows_attention", "users_at_once"]

MAP_BYTES = 128 * 2**20
"""Bound on the memory of one layer's maps in a chunk (float32)."""
BINNED = {"recency", "recency_abs", "relevance", "relevance_abs"}
SMALLEST = 1e-12
"""Stands for a sum of weights that is zero."""


def shows_attention(model: Recommender) -> bool:
    """Whether the model answers ``attention``."""
    return type(model).attention is not Recommender.attention


def users_at_once(model: Recommender, data: TaskData) -> int:
    """How many histories' maps are held at once, taking 8 heads for usual."""
    tokens = data.max_length * getattr(model, "tokens_per_event", 1)
    return max(1, min(256, MAP_BYTES // (4 * 8 * tokens**2)))


@torch.inference_mode()
def attention_statistics(model: Recommender, data: TaskData, phase: Evaluated = "test") -> pa.Table:
    """The statistics of docs/architecture.md ("attention.parquet"), one history per user, at its last event.

    Where several tokens of that event predict, the last of them is looked at; weights on the tokens of one
    event are added up. Weights may be negative: ``recency`` is signed, ``recency_abs`` is the share of the
    absolute weight.
    """
    windows = data.histories(phase)
    relevance = Relevance(data.log, data.split) if data.task is Task.RETRIEVAL else None
    model.eval()
    sums: dict[tuple[int, str], Tensor] = {}
    users = torch.zeros(data.max_length, dtype=torch.float64, device=data.device)
    groups = data.sequences.groups(windows, users_at_once(model, data))
    for batch, rows in data.sequences.batches(windows, groups, data.task, supervise=False):
        maps = model.attention(batch, data.task)
        users[: int(batch.lengths.max())] += _visible(batch.lengths)
        deciles = None
        if relevance is not None:
            shares = decile_shares(relevance(windows.take(rows), batch.items.shape[1]))
            deciles = torch.from_numpy(shares).to(data.device)  # (B, L, BINS)
        for layer, weights in enumerate(maps.maps):
            for name, value in _statistics(maps, weights, batch.lengths, data.max_length, deciles).items():
                sums[layer, name] = sums.get((layer, name), 0) + value
    lines: list[tuple[Any, ...]] = []
    for (layer, name), value in sums.items():
        for head, per_bin in enumerate(value.reshape(len(value), -1)):  # (H, bins)
            for place, total in enumerate(per_bin.tolist()):
                count = int(users[place] if name.startswith("recency") else users[0])
                if count:
                    lines.append((layer, head, name, place if name in BINNED else -1, total / count, count))
    columns = list(zip(*lines, strict=True)) or [()] * 6
    kinds = {"layer": "int16", "head": "int16", "statistic": "string", "bin": "int32"}
    kinds |= {"value": "float64", "users": "int64"}
    return pa.table({name: pa.array(c, kind) for (name, kind), c in zip(kinds.items(), columns, strict=True)})


def last_row(maps: AttentionMaps, weights: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What the last predicting token of each history's last event attends to in one layer.

    Returns:
        (B, H, K) float64 weights, 0 at keys that belong to no event of the history; (B, K) the other keys.
    """
    own = maps.query_event == (lengths - 1)[:, None]  # (B, Q)
    last = own.shape[1] - 1 - own.flip(1).int().argmax(1)  # its last token that predicts
    row = weights[torch.arange(len(weights), device=weights.device), :, last].double()  # (B, H, K)
    seen = (maps.key_event >= 0) & (maps.key_event < lengths[:, None])
    return row * seen[:, None], seen


def per_event(row: Tensor, maps: AttentionMaps, seen: Tensor, length: int) -> Tensor:
    """Weights on keys (B, H, K) -> on events (B, H, length), those on the tokens of one event added up."""
    event = torch.where(seen, maps.key_event, 0)[:, None].expand_as(row)
    return torch.zeros(*row.shape[:2], length, dtype=row.dtype, device=row.device).scatter_add(2, event, row)


def _visible(lengths: Tensor) -> Tensor:
    """How many histories are longer than r events, for each r."""
    return (lengths[:, None] > torch.arange(int(lengths.max()), device=lengths.device)).double().sum(0)


def _statistics(
    maps: AttentionMaps, weights: Tensor, lengths: Tensor, bins: int, deciles: Tensor | None
) -> dict[str, Tensor]:
    """Sums over users: (H, bins) for the profiles, (H,) for the scalars. ``deciles`` (B, L, BINS): see relevance."""
    row, seen = last_row(maps, weights, lengths)  # (B, H, K)
    size = row.abs()
    share = size / size.sum(-1, keepdim=True).clamp_min(SMALLEST)
    back = torch.where(seen, lengths[:, None] - 1 - maps.key_event, 0)  # (B, K) events before the last
    index = back[:, None].expand_as(row)
    empty = torch.zeros(*row.shape[:2], bins, dtype=torch.float64, device=row.device)
    entropy = -(share * share.clamp_min(SMALLEST).log()).sum(-1)
    visible = (row != 0).any(1).sum(-1).double()[:, None]  # what a mask hides has no weight in any head
    found = {
        "recency": empty.scatter_add(2, index, row).sum(0),
        "recency_abs": empty.scatter_add(2, index, share).sum(0),
        "entropy": entropy.sum(0),
        "entropy_relative": (entropy / visible.log().clamp_min(SMALLEST)).where(visible > 1, 0).sum(0),
        "negative": (share * (row < 0)).sum(-1).sum(0),
        "sum": row.sum(-1).sum(0),
    }
    if deciles is not None:
        for name, value in (("relevance", row), ("relevance_abs", share)):
            by_event = per_event(value, maps, seen, deciles.shape[1])  # (B, H, L)
            found[name] = (by_event @ deciles).sum(0)
    return found
