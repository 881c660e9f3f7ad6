"""A few users whose attention is kept as it is, to be looked at beside the titles of their items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.data.log import EventLog
from harness.data.splits import Evaluated
from harness.files import digest
from harness.interface import Recommender
from harness.probes.attention import last_row, per_event
from harness.tasks.retrieval import Retrieval

__all__ = ["attention_examples"]

USERS = 3
EVENTS = 15


@torch.inference_mode()
def attention_examples(model: Recommender, data: Retrieval, phase: Evaluated = "test") -> list[dict[str, Any]]:
    """What each head attends to from the last event of a few histories, as JSON can hold it.

    The users are those with the smallest hashes of their ids among the ones with EVENTS events (or the most that
    anyone has), so they depend on nothing but the data. Of each: ``user``, ``target`` and ``events`` (the last EVENTS,
    oldest first) as {item, title}; ``earlier``, how many visible events came before those; ``layers``, per layer and
    head the weights on ``events``; ``rest``, per layer and head the weight on earlier events.
    """
    windows = data.histories(phase)
    length = np.minimum(windows.length, EVENTS)
    long = np.flatnonzero(length == length.max(initial=0))
    rows = np.array(sorted(long, key=lambda r: digest(str(data.log.users[windows.user[r]])))[:USERS])
    if not len(rows):
        return []
    model.eval()
    chosen = windows.take(rows)
    batch = data.sequences.batch(chosen, data.task, supervise=False)
    maps = model.attention(batch, data.task)
    layers = []
    for weights in maps.maps:
        row, seen = last_row(maps, weights, batch.lengths)
        layers.append(per_event(row, maps, seen, batch.items.shape[1]).cpu().numpy())  # (B, H, L)
    found = []
    for place, row in enumerate(rows):
        end, visible = int(chosen.end[place]), int(chosen.length[place])
        shown = slice(max(0, visible - EVENTS), visible)
        found.append(
            {
                "user": str(data.log.users[windows.user[row]]),
                "target": _item(data.log, end),
                "events": [_item(data.log, event) for event in range(end - visible + shown.start, end)],
                "earlier": shown.start,
                "layers": [_rounded(layer[place, :, shown]) for layer in layers],
                "rest": [_rounded(layer[place, :, : shown.start].sum(-1)) for layer in layers],
            }
        )
    return found


def _item(log: EventLog, event: int) -> dict[str, str]:
    """The item of an event; its title is the data set's most telling text, or "" where there is none."""
    item = int(log.item[event])
    title = "" if log.item_table is None or not log.text_fields else str(log.item_table.at[item, log.text_fields[0]])
    return {"item": str(log.items[item]), "title": title}


def _rounded(values: np.ndarray) -> Any:
    return np.round(values, 6).tolist()
