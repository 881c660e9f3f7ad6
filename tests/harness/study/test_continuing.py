"""A cell that goes on under a larger budget ends as one that never stopped, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from harness.errors import InputError

STUDY = """
study: longer
datasets: ["synthetic-sessions:users=40,items=20"]
seeds: 1
common: {dim: 8, layers: 1, heads: 1, inner: 8, dropout: 0.2, training.schedule: inverse-sqrt}
references: [counts]
variants:
  ce: {model: sasrec}
  counts: {model: transitions}
metrics: [ndcg@10]
primary: ndcg@10
budget: {epochs: 2, patience: 2}
keep_last_state: true
"""


def cell_of(run) -> Path:
    (cell,) = run.cells().query("variant == 'ce'")["id"]
    return run.path / "cells" / cell


def weights(path: Path) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


def test_it_ends_as_one_that_never_stopped(run_here, capfd):
    short = cell_of(run_here(STUDY, "grown"))
    grown = run_here(STUDY, "grown", {"budget.epochs": 4, "budget.patience": 3}, continue_training=True)
    assert "cells that go on from their last state: 1; that start from scratch: 1" in capfd.readouterr().err
    cell = cell_of(grown)
    whole = cell_of(run_here(STUDY, "whole", {"budget.epochs": 4, "budget.patience": 3}))
    assert cell.name == whole.name != short.name
    assert (cell / "rows.parquet").read_bytes() == (whole / "rows.parquet").read_bytes()
    for file in ("model.safetensors", "last_state.safetensors"):
        assert weights(cell / file) == weights(whole / file)
    ours, theirs = (pd.read_csv(c / "history.csv").filter(regex="^(?!.*seconds)") for c in (cell, whole))
    assert len(ours) == 4
    assert ours.equals(theirs)
    ours, theirs = (json.loads((c / "cell.json").read_text()) for c in (cell, whole))
    assert ours["outcome"] == theirs["outcome"]
    assert (ours["continued_from"], "continued_from" in theirs) == (short.name, False)
    assert json.loads((cell / "cost.json").read_text())["resumed"] == 1
    with pytest.raises(InputError, match=r"was trained with budget \(epochs 4, patience 3.*raise epochs or patience"):
        run_here(STUDY, "grown", {"budget.epochs": 4, "budget.patience": 1}, continue_training=True)


@pytest.mark.parametrize(
    ("first", "then", "reason"),
    [
        (
            {"training.schedule": "cosine"},
            {"training.schedule": "cosine"},
            "schedule cosine, whose learning rate depends",
        ),
        ({"keep_last_state": False}, {}, "cells keep it where the study says keep_last_state: true"),
        ({"budget.eval_every": 2, "budget.epochs": 1}, {"budget.eval_every": 2}, "its epoch 1 was validated only as"),
        ({"budget.eval_every": 2}, {}, "leave eval_every as it is"),
        ({}, {"threads": 2}, "other --threads or --device"),
        ({}, {"dim": 16}, "the design differs"),
    ],
)
def test_what_would_end_otherwise_is_refused(run_here, first, then, reason):
    run = run_here(STUDY, "grown", {"budget.epochs": 2, "budget.patience": None, "variants.counts": None, **first})
    design = (run.path / "study.yaml").read_text()
    changes = {"budget.epochs": 4, "budget.patience": None, "variants.counts": None, **then}
    options = {"threads": changes.pop("threads", 1)}
    with pytest.raises(InputError, match=reason) as refused:
        run_here(STUDY, "grown", changes, continue_training=True, **options)
    assert "\n" not in str(refused.value)
    assert (run.path / "study.yaml").read_text() == design
