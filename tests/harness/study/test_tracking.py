"""Trackers hear what the cell's files hold, and nothing they do reaches the training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import harness
from harness.registry import Registry
from harness.settings import Settings
from harness.trackers import Tracker

STUDY = """
study: followed
datasets: ["synthetic-sessions:users=40,items=20"]
seeds: 1
variants:
  ce: {model: sasrec, set: {dim: 8, layers: 1, heads: 1, inner: 8, dropout: 0.2}}
metrics: [ndcg@10]
primary: ndcg@10
budget: {epochs: 2}
"""


class Unruly(Tracker):
    """Draws from every global generator, and raises where it is told to."""

    class Options(Settings):
        fails_in: str = ""

    meaning = "for the tests"

    def begin(self, cell):
        self.heard("begin")

    def epoch(self, epoch, values):
        self.heard("epoch")

    def end(self, metrics):
        self.heard("end")

    def heard(self, part):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        if part == self.options.fails_in:
            raise OSError("the server\nis away")


@pytest.fixture
def ran(run_here, monkeypatch):
    """Runs the study with trackers in this process; returns the run and its only cell."""
    monkeypatch.setattr(Registry, "load", _with_unruly(Registry.load))

    def run(name, **trackers):
        done = run_here(STUDY, name, {"trackers": trackers})
        (cell,) = (done.path / "cells").iterdir()
        return done, cell

    return run


def _with_unruly(load):
    return lambda self, name: Unruly if (self.kind, name) == ("trackers", "unruly") else load(self, name)


def bits(cell: Path) -> tuple[bytes, dict[str, bytes]]:
    weights = load_file(cell / "model.safetensors")
    return (cell / "rows.parquet").read_bytes(), {name: value.numpy().tobytes() for name, value in weights.items()}


def test_a_tracker_changes_no_bit(ran):
    assert bits(ran("with", unruly={})[1]) == bits(ran("without")[1])


@pytest.mark.parametrize("part", ["begin", "end"])
def test_one_that_fails_is_one_warning(ran, part, capfd):
    done, cell = ran("failing", unruly={"fails_in": part})
    assert json.loads((cell / "cell.json").read_text())["trackers_given_up"] == {
        "unruly": "OSError: the server is away"
    }
    assert capfd.readouterr().err.count("tracker 'unruly' is given up: OSError: the server is away") == 1
    assert [w for w in done.warnings() if "unruly" in w] == [
        "The tracker unruly was given up in 1 of 1 cells (OSError: the server is away); the cells are "
        "whole all the same."
    ]
    assert bits(cell) == bits(ran("without")[1])


def test_one_that_is_not_there_is_refused(ran):
    with pytest.raises(harness.InputError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        ran("none", tensorbord={})


def test_tensorboard_holds_what_the_cell_holds(ran):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done, cell = ran("board", tensorboard={})
    (place,) = (done.path / "tensorboard").glob("*/ce/seed-0")
    found = EventAccumulator(str(place)).Reload()
    history = pd.read_csv(cell / "history.csv")
    assert set(history.columns) - {"epoch"} == {t for t in found.Tags()["scalars"] if not t.startswith("test/")}
    for column in ("loss", "valid/ndcg@10", "learning_rate", *history.filter(like="gradient/").columns):
        scalars = found.Scalars(column)
        assert [s.step for s in scalars] == [1, 2]
        assert [s.value for s in scalars] == pytest.approx(history[column].tolist(), rel=1e-6)
    metrics = json.loads((cell / "metrics.json").read_text())["test"]
    assert found.Scalars("test/unseen/ndcg@10")[0].value == pytest.approx(metrics["unseen"]["ndcg@10"], rel=1e-6)
    (text,) = found.Tensors("settings/text_summary")
    assert '"config.dim": 8' in text.tensor_proto.string_val[0].decode()
