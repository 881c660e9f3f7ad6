"""What a model's attention does, as statistics per layer and head: never raw maps of every user."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

from harness.interface import AttentionMaps, Recommender
from harness.tasks.retrieval import Retrieval

__all__ = ["attention_statistics"]

MAP_BYTES = 128 * 2**20
"""Bound on the memory of one layer's maps in a chunk (float32)."""


@torch.inference_mode()
def attention_statistics(model: Recommender, data: Retrieval, phase: str = "test") -> pa.Table:
    """The statistics of docs/architecture.md ("attention.parquet"), measured at each history's last event.

    Where several tokens belong to that event, the last of them is looked at; weights on the tokens of one
    event are added up. Weights may be negative: ``recency`` is signed, ``recency_abs`` is the share of the
    absolute weight.
    """
    windows = data.windows(phase)
    model.eval()
    sums: dict[tuple[int, str], Tensor] = {}
    users = torch.zeros(data.max_length, dtype=torch.float64, device=data.device)
    chunk = max(1, min(256, MAP_BYTES // (4 * 8 * data.max_length**2)))
    for batch, _ in data.sequences.batches(windows, data.sequences.groups(windows, chunk), data.task, supervise=False):
        maps = model.attention(batch)
        users[: int(batch.lengths.max())] += _visible(batch.lengths)
        for layer, weights in enumerate(maps.maps):
            for name, value in _statistics(maps, weights, batch.lengths, data.max_length).items():
                sums[layer, name] = sums.get((layer, name), 0) + value
    rows = []
    for (layer, name), value in sums.items():
        for head, per_bin in enumerate(value.reshape(len(value), -1)):  # (H, bins)
            binned = name.startswith("recency")
            for place, total in enumerate(per_bin.tolist()):
                count = int(users[place] if binned else users[0])
                if count:
                    mean = total / count
                    rows.append((layer, head, name, place if binned else -1, mean, count))
    columns = list(zip(*rows, strict=True)) or [[]] * 6
    kinds = {"layer": "int16", "head": "int16", "statistic": "string", "bin": "int32"}
    kinds |= {"value": "float64", "users": "int64"}
    return pa.table({name: pa.array(c, kind) for (name, kind), c in zip(kinds.items(), columns, strict=True)})


def _visible(lengths: Tensor) -> Tensor:
    """How many histories are longer than r events, for each r."""
    return (lengths[:, None] > torch.arange(int(lengths.max()), device=lengths.device)).double().sum(0)


def _statistics(maps: AttentionMaps, weights: Tensor, lengths: Tensor, bins: int) -> dict[str, Tensor]:
    """Sums over users: (H, bins) for the recency profiles, (H,) for the scalars."""
    n_users, heads = weights.shape[:2]
    own = maps.query_event == (lengths - 1)[:, None]  # (B, Q)
    last = own.shape[1] - 1 - own.flip(1).int().argmax(1)  # the last token of the last event
    row = weights[torch.arange(n_users, device=weights.device), :, last].double()  # (B, H, K)
    seen = (maps.key_event >= 0) & (maps.key_event < lengths[:, None])
    row = row * seen[:, None]
    size = row.abs()
    total = size.sum(-1).clamp_min(1e-12)  # (B, H)
    share = size / total[..., None]
    back = torch.where(seen, lengths[:, None] - 1 - maps.key_event, 0)  # (B, K) events before the last
    index = back[:, None].expand_as(row)
    empty = torch.zeros(n_users, heads, bins, dtype=torch.float64, device=row.device)
    entropy = -(share * share.clamp_min(1e-12).log()).sum(-1)
    visible = seen.sum(-1).double()[:, None]
    return {
        "recency": empty.scatter_add(2, index, row).sum(0),
        "recency_abs": empty.scatter_add(2, index, share).sum(0),
        "entropy": entropy.sum(0),
        "entropy_relative": (entropy / visible.log().clamp_min(1e-12)).where(visible > 1, 0).sum(0),
        "negative": (share * (row < 0)).sum(-1).sum(0),
        "sum": row.sum(-1).sum(0),
    }
