"""What a data set looks like, as numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from harness.data.datasets import Counts, known
from harness.data.log import EventLog
from harness.data.splits import Split

__all__ = ["describe"]


def describe(log: EventLog, split: Split) -> dict[str, Any]:
    """Counts, lengths, ties, actions, parts and fingerprints, ready for JSON. What is not known is None."""
    lengths, spec = log.lengths, known().get(log.name)
    counts = Counts(log.n_users, log.n_items, log.n_events)
    published = _published(log)
    return {
        "name": log.name,
        "title": spec.title if spec else log.name,
        "users": counts.users,
        "items": counts.items,
        "events": counts.events,
        "sparsity": 1 - _distinct_pairs(log) / (log.n_users * log.n_items),
        "length": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "mean": float(lengths.mean()),
            "max": int(lengths.max()),
        },
        "time": None if log.time is None else {"first": _date(log.time.min()), "last": _date(log.time.max())},
        "ties": {"events": log.tie_share, "test_targets": _target_ties(log, split)},
        "actions": {} if log.actions is None else dict(zip(log.action_names, _rates(log.actions), strict=True)),
        "text_fields": list(log.text_fields),
        "items_without_text": _without_text(log),
        "split": {"name": split.name, **_parts(log, split)},
        "published": None
        if published is None
        else {"users": published.users, "items": published.items, "events": published.events},
        "differences": {} if published is None else published.differences(counts),
        "fingerprints": {"files": log.files, "log": log.fingerprint, "split": split.fingerprint},
        "licence": spec.licence if spec else None,
        "citation": spec.citation if spec else None,
        "notes": [*log.notes, *split.notes],
    }


def _published(log: EventLog) -> Counts | None:
    return known()[log.name].forms[0].published if log.name in known() else None


def _distinct_pairs(log: EventLog) -> int:
    user = np.repeat(np.arange(log.n_users), log.lengths)
    return len(np.unique(user * (log.n_items + 1) + log.item))


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()


def _target_ties(log: EventLog, split: Split) -> float | None:
    """Share of users whose test target has the time of the event before it, so that another order of the file
    would have made another event the target."""
    if log.tied is None:
        return None
    _, positions = split.targets("test")
    return float(log.tied[positions].mean()) if len(positions) else None


def _rates(actions: np.ndarray) -> list[float]:
    return [float(rate) for rate in actions.mean(axis=0)]


def _without_text(log: EventLog) -> int | None:
    if log.item_table is None or not log.text_fields:
        return None
    return int((log.item_table[list(log.text_fields)] == "").all(axis=1).sum())


def _parts(log: EventLog, split: Split) -> dict[str, Any]:
    """Events and targets of each part, and how many test targets never occur in training."""
    parts: dict[str, Any] = {}
    for phase in ("train", "valid", "test"):
        users, _ = split.events(phase)
        parts[phase] = {"events": len(users), "users": len(np.unique(users))}
    seen = np.zeros(log.n_items + 1, dtype=bool)
    seen[log.item[split.events("train")[1]]] = True
    _, targets = split.targets("test")
    parts["test"]["targets"] = len(targets)
    parts["test"]["targets_unseen_in_training"] = int((~seen[log.item[targets]]).sum())
    return parts
