"""Run folders with invented rows, in the format of docs/architecture.md: for tests and for timing the report.

Every number is drawn from a generator seeded by the cell's own design, so the same call writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

VARIANTS: dict[str, dict[str, Any]] = {
    "fair": {"model": "fair", "label": "FAIR"},
    "no-focused-attention": {"model": "fair", "label": "w/o focused attention", "set": {"attention": "softmax"}},
    "no-noise-loss": {"model": "fair", "label": "w/o noise loss", "set": {"noise_weight": 0}},
    "no-mi-loss": {"model": "fair", "label": "w/o MI loss", "set": {"mi_weight": 0}},
}
STRENGTH = {"fair": 1.0, "no-focused-attention": 0.88, "no-noise-loss": 0.99, "no-mi-loss": 0.95}
ACTIONS = ("like", "five_stars", "dislike")
FIDELITY = {
    "paper": "Xiao et al., FAIR, arXiv 2512.11254",
    "status": "reconstruction",
    "verified": ["attention is the difference of two softmax maps with separate queries and keys"],
    "choices": [{"option": "normalisation", "reason": "the paper's form is not known", "source": "assumption"}],
    "departures": [],
}


def write_run(
    folder: str | Path,
    *,
    variants: dict[str, dict[str, Any]] | None = None,
    datasets: Sequence[str] = ("ml-100k",),
    seeds: int = 5,
    users: int = 943,
    items: int = 1682,
    task: str = "retrieval",
    attention: bool = True,
    strength: dict[str, float] | None = None,
    **study: Any,
) -> Path:
    """Writes a whole run folder and returns its path. ``study`` overrides keys of study.yaml."""
    folder = Path(folder)
    variants = variants or VARIANTS
    strength = STRENGTH | (strength or {})
    retrieval = task == "retrieval"
    design = {
        "study": "ablations" if retrieval else "actions",
        "title": "FAIR's parts, one taken away at a time" if retrieval else "Actions without interleaving",
        "question": "Which of FAIR's three parts carries its accuracy?" if retrieval else "Is interleaving needed?",
        "task": task,
        "datasets": list(datasets),
        "seeds": seeds,
        "control": next(iter(variants)),
        "data": {"split": "leave-one-out", "max_length": 50},
        "variants": variants,
        "budget": {"epochs": 40, "patience": 5},
        "candidates": "unseen",
        "metrics": ["recall@5", "recall@10", "ndcg@5", "ndcg@10"] if retrieval else ["bce", "ne", "auc", "gauc"],
        "primary": "ndcg@10" if retrieval else "ne",
        "attention": attention,
        "fidelity": dict.fromkeys(variants, FIDELITY),
        "preset": "default",
    } | study
    cells = [
        {"id": _digest([design["study"], d, v, s, *([c] if c else [])])[:16], "dataset": d, "variant": v, "seed": s}
        | ({"draw": c} if c else {})
        for d in datasets
        for v in variants
        for s in range(seeds)
        for c in range(1 if variants[v]["model"] == "sasrec" else design.get("codes", 1))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(design | {"cells": cells}, sort_keys=False), encoding="utf-8")
    for cell in cells:
        write_cell(folder, design, cell, users=users, items=items, strength=strength.get(cell["variant"], 0.9))
    listed = [{**cell, "status": "finished"} for cell in cells]
    command = f"harness run --study {design['study']}"
    _json(folder / "summary.json", {"study": design["study"], "run": folder.name, "command": command, "cells": listed})
    return folder


def write_cell(folder: Path, design: dict[str, Any], cell: dict[str, Any], *, users: int, items: int, strength: float):
    """One finished cell."""
    out = folder / "cells" / cell["id"]
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(int(cell["id"], 16))
    shared = np.random.default_rng(int(_digest(cell["dataset"]), 16))  # the same users and targets in every cell
    variant = design["variants"][cell["variant"]]
    history, best = _history(random, design, strength)
    history.to_csv(out / "history.csv", index=False)
    rows = _ranking_rows if design["task"] == "retrieval" else _action_rows
    pq.write_table(rows(random, shared, users, items, strength), out / "rows.parquet", compression="zstd")
    if design["attention"]:
        _attention(random, variant).to_parquet(out / "attention.parquet", index=False)
    _json(out / "metrics.json", {"test": {}, "valid": {}})
    seconds = float(random.uniform(20, 30) * strength)
    _json(
        out / "cost.json",
        {
            "parameters": 250_000 + 40_000 * (cell["variant"] == design["control"]),
            "training_flops_per_event": 1.2e6 * strength,
            "data_seconds": 0.1 * seconds,
            "train_seconds": seconds,
            "evaluation_seconds": 0.2 * seconds,
            "events_per_second": 98_000 * len(history) / seconds,
            "peak_memory_bytes": int(4e8 * strength),
            "epochs": len(history),
            "resumed": 0,
        },
    )
    _json(
        out / "cell.json",
        {
            "format": 1,
            **cell,
            "study": design["study"],
            "task": design["task"],
            "model": variant["model"],
            "config": {"dim": 64, **variant.get("set", {})},
            "training": {"batch_size": 256, "learning_rate": 1e-3},
            "data": design["data"],
            "items": {},
            "budget": design["budget"],
            "fingerprints": {
                "files": {f"{cell['dataset']}.inter": _digest(["file", cell["dataset"]])},
                "log": _digest(["log", cell["dataset"]]),
                "split": _digest(["split", cell["dataset"]]),
                "codes": _digest(["codes", cell["dataset"]]),
            },
            "outcome": {"best_epoch": best, "epochs": len(history), "stopped": "patience"},
            "versions": {"python": "3.11.9", "harness": "0.1.0", "torch": "2.13.0", "numpy": "2.4.0"},
            "git": {"commit": "0" * 40, "dirty": False},
            "hardware": {"cpu": "a CPU", "cores": 2, "threads": 1, "device": "cpu", "memory_bytes": 8 << 30},
            "started": "2026-01-01T00:00:00Z",
            "finished": "2026-01-01T00:01:00Z",
        },
    )


def _ranking_rows(random, shared, users: int, items: int, strength: float) -> pa.Table:
    target = shared.integers(items, size=users)
    ease = shared.normal(size=users)  # some users are easy for every model
    length = shared.integers(3, 200, size=users)
    parts = []
    for phase in ("test", "valid"):
        skill = strength * (1 + 0.01 * random.normal())
        depth = 0.3 * random.normal(size=users) + ease - 1.4 * skill
        everywhere = np.clip(np.ceil(items / (1 + np.exp(-1.6 * depth + 1.6))), 1, items).astype(np.int32)
        unseen = np.maximum(1, (everywhere * (1 - length / items * 0.5)).astype(np.int32))
        parts.append(
            pa.table(
                {
                    "phase": pa.array([phase]).take(pa.array(np.zeros(users, np.int32))),
                    "user": pa.array(np.char.mod("%d", np.arange(1, users + 1))),
                    "target": pa.array(np.char.mod("%d", target + 1)),
                    "rank_all": pa.array(everywhere, mask=random.random(users) < 0.001),
                    "rank_unseen": pa.array(unseen, mask=random.random(users) < 0.001),
                    "length_all": pa.array(np.full(users, items, np.int32)),
                    "length_unseen": pa.array((items - length).astype(np.int32)),
                    "history": pa.array(length.astype(np.int32)),
                    "score": pa.array(random.normal(size=users).astype(np.float32)),
                }
            )
        )
    return pa.concat_tables(parts)


def _action_rows(random, shared, users: int, items: int, strength: float) -> pa.Table:
    events = 5
    n = users * events * len(ACTIONS)
    user = np.repeat(np.arange(1, users + 1), events * len(ACTIONS))
    taste = shared.normal(size=n)
    item = np.repeat(shared.integers(items, size=users * events), len(ACTIONS))
    parts = []
    for phase in ("test", "valid"):
        label = (shared.random(n) < 1 / (1 + np.exp(-1.5 * taste))).astype(np.int8)
        noise = 0.8 * random.normal(size=n) + 0.02 * random.normal()
        probability = 1 / (1 + np.exp(-1.5 * (strength * taste + 0.5 * noise)))
        parts.append(
            pa.table(
                {
                    "phase": pa.array([phase]).take(pa.array(np.zeros(n, np.int32))),
                    "user": pa.array(np.char.mod("%d", user)),
                    "item": pa.array(np.char.mod("%d", item + 1)),
                    "position": pa.array(np.tile(np.repeat(np.arange(events), len(ACTIONS)), users).astype(np.int32)),
                    "action": pa.array(ACTIONS).take(pa.array(np.tile(np.arange(len(ACTIONS)), users * events))),
                    "label": pa.array(label),
                    "probability": pa.array(probability.astype(np.float32)),
                }
            )
        )
    return pa.concat_tables(parts)


def _history(random, design: dict[str, Any], strength: float) -> tuple[pd.DataFrame, int]:
    epochs = int(random.integers(18, 30))
    epoch = np.arange(1, epochs + 1)
    rise = 1 - np.exp(-epoch / 5)
    loss = 6 - 2 * rise + 0.02 * random.normal(size=epochs)
    lines = {"epoch": epoch, "loss": loss, "loss/prediction": loss * 0.9}
    for metric in design["metrics"]:
        curve = 0.08 * strength * rise + 0.001 * random.normal(size=epochs)
        lines[f"valid/{metric}"] = curve if design["task"] == "retrieval" else 0.9 - curve
    rates = {"learning_rate": 1e-3, "data_seconds": 0.1, "train_seconds": 1.0, "evaluation_seconds": 0.2}
    primary = lines[f"valid/{design['primary']}"]
    best = int(np.argmax(primary) if design["task"] == "retrieval" else np.argmin(primary)) + 1
    return pd.DataFrame(lines | rates), best


def _attention(random, variant: dict[str, Any], layers: int = 2, heads: int = 4, bins: int = 50) -> pd.DataFrame:
    signed = variant.get("set", {}).get("attention") != "softmax" and variant["model"] == "fair"
    lines = []
    for layer in range(layers):
        for head in range(heads):
            decay = np.exp(-np.arange(bins) / random.uniform(3, 12))
            share = decay / decay.sum()
            mass = share * 0.4 - (0.1 / bins if signed else -0.6 / 0.4 * share * 0.4)
            entropy = float(random.uniform(1.5, 2.2) if signed else random.uniform(2.6, 3.3))
            single = {
                "entropy": entropy,
                "entropy_relative": entropy / np.log(bins),
                "negative": float(random.uniform(0.2, 0.4)) if signed else 0.0,
                "sum": float(mass.sum()),
            }
            for name, values in (("recency", mass), ("recency_abs", share)):
                lines += [(layer, head, name, b, float(x)) for b, x in enumerate(values)]
            lines += [(layer, head, name, -1, x) for name, x in single.items()]
    frame = pd.DataFrame(lines, columns=["layer", "head", "statistic", "bin", "value"])
    frame["users"] = 943
    return frame.astype({"layer": "int16", "head": "int16", "bin": "int32", "users": "int64"})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
