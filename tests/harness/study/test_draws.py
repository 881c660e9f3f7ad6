"""Draws of the item codes as a factor of a study: its cells, their codes, and a run of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from harness.analysis.comparisons import comparisons
from harness.analysis.rows import load_run
from harness.study.cells import Inputs, make_cells
from harness.study.folder import RunFolder
from harness.study.item_reports import codes_of_study
from harness.study.loading import load_study
from harness.study.plan import make_plan
from harness.study.queue import Queue

ITEMS = {"encoder": {"kind": "cooccurrence", "dim": 8}, "quantiser": {"kind": "pq", "size": 8, "levels": 2}}


@pytest.fixture
def drawn(study_file):
    """The tiny study with a model of item codes, which are drawn ``codes`` times."""

    def make(codes=3, **changes):
        raw = yaml.safe_load(study_file.read_text()) | {"codes": codes, "items": ITEMS}
        raw["variants"] = {"fair": {"model": "fair"}, "ce": {"model": "sasrec"}}
        study_file.write_text(yaml.safe_dump(raw | changes, sort_keys=False))
        return load_study(str(study_file))

    return make


def test_each_seed_trains_with_each_draw(drawn, tmp_path):
    said: list[str] = []
    inputs = Inputs(None, tmp_path / "cache", said.append)
    cells = make_cells(drawn(), inputs)
    assert [(c.arm.variant, c.seed, c.draw) for c in cells] == [
        (variant, seed, draw)
        for seed in (0, 1)
        for draw in range(3)
        for variant in ("fair", "ce")
        if variant == "fair" or draw == 0
    ]
    assert any("3 draws of the codes: ce train" in line for line in said)
    assert cells[2].name.endswith("seed 0, codes 1")
    codes = [inputs.codes(c.dataset, c.arm, c.draw) for c in cells if c.arm.variant == "fair"]
    assert [c.identity["fingerprints"]["codes"] for c in cells if c.arm.variant == "fair"] == [
        found.fingerprint for found in codes
    ]
    assert len({found.fingerprint for found in codes}) == 3  # the same for every seed
    # A draw is what another seed of the quantiser gives.
    other = drawn(1, items=ITEMS | {"seed": 1_000_003})
    (first, _), (_, second, *_) = make_cells(other, inputs)[:2], codes
    assert np.array_equal(inputs.codes(first.dataset, first.arm).codes, second.codes)
    assert len(list(codes_of_study(drawn(), inputs))) == 3


def test_cells_of_the_first_draw_are_those_of_a_study_of_one(drawn, tmp_path):
    inputs = Inputs(None, tmp_path / "cache")
    many, one = make_cells(drawn(2), inputs), make_cells(drawn(1), inputs)
    assert [c.id for c in many if not c.draw] == [c.id for c in one]
    assert len({c.id for c in many}) == 6
    assert all("draw" not in c.identity and "draw" not in c.entry for c in one)


def test_codes_of_a_file_have_one_draw(drawn, tmp_path):
    inputs = Inputs(None, tmp_path / "cache")
    log = make_cells(drawn(1), inputs)[0]
    items = inputs.log(log.dataset, log.arm.data).items[1:]
    tokens = {str(item): [f"<a_{i % 8}>", f"<b_{i // 8}>"] for i, item in enumerate(items)}
    (tmp_path / "codes.json").write_text(json.dumps(tokens))
    study = drawn(2, items={"quantiser": {"kind": "file", "path": str(tmp_path / "codes.json"), "size": 8}})
    assert [c.draw for c in make_cells(study, inputs)] == [0] * 4


def test_the_queue_and_the_plan_know_the_draws(drawn, tmp_path):
    study = drawn(2)
    cells = make_cells(study, Inputs(None, tmp_path / "cache"))
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", "q", study, cells, RunFolder(tmp_path / "run"), create=True)
    assert queue.synchronise() == 6
    waiting = [trial.system_attrs["fixed_params"] for trial in queue.study.get_trials()]
    assert sorted((w["variant"], w["seed"], w["draw"]) for w in waiting) == sorted(
        (c.arm.variant, c.seed, c.draw) for c in cells
    )
    plan = make_plan(study, tmp_path / "results", "tiny")
    assert [(arm.variant, arm.cells) for arm in plan.arms] == [("fair", 4), ("ce", 2)]


@pytest.mark.slow
def test_a_study_is_widened_by_draws(drawn, harness, tmp_path):
    drawn(1)
    done = harness("run", "--study", "tiny.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    before = {path.name for path in (tmp_path / "out" / "tiny" / "cells").iterdir()}
    drawn(2)
    done = harness("run", "--study", "tiny.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "6 cells, 4 of them finished before" in done.stderr
    assert "finished  synthetic-sessions:users=60,items=30 / fair / seed 1, codes 1" in done.stderr
    run = load_run(tmp_path / "out" / "tiny")
    assert before < set(run.ids())
    assert {run.cards[cell].get("draw", 0) for cell in run.ids()} == {0, 1}
    assert {c.draws for c in comparisons(run).values()} == {2}
    assert (run.path / "tables" / "variance.md").exists()
    again = harness("evaluate", "--study", "tiny", "--again")
    assert again.returncode == 0, again.stderr
