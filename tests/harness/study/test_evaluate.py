"""New evidence from kept weights."""

from __future__ import annotations

import json
import os
import shutil

import pandas as pd
import pytest

from harness.study import evaluate

BOUND = ["--study", "tiny"]


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run, below the folder that `harness` takes for all results."""
    copy = tmp_path / "out" / "tiny"
    shutil.copytree(finished_run, copy)
    return copy


def evidence(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.glob("cells/*/*.parquet"))}


def test_what_is_there_is_left_alone(run, harness):
    before = {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*")}
    done = harness("evaluate", *BOUND)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("up to date") == len(list(run.glob("cells/*")))
    assert {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*")} == before


def test_evidence_that_is_made_again_is_the_same_and_a_metric_is_added(run, harness):
    before = evidence(run)
    for path in run.glob("cells/*/lists.parquet"):
        path.unlink()
    shutil.rmtree(run / "catalogues")
    lacking = harness("report", *BOUND)
    assert lacking.returncode == 0, lacking.stderr  # no metric of the study needs the lists
    done = harness("evaluate", *BOUND, "--metric", "coverage@5", "--metric", "diversity@5")
    assert done.returncode == 0, done.stderr
    assert evidence(run) == before
    cards = [json.loads(path.read_text()) for path in run.glob("cells/*/cell.json")]
    assert {card["evaluated"]["users_with_another_rank"] for card in cards} == {0}
    table = (run / "tables" / "main.md").read_text()
    assert "Coverage@5" in table
    assert "ILD@5" in table
    assert harness("verify", *BOUND).returncode == 0


def test_an_old_cell_is_named_where_a_metric_needs_more_than_it_keeps(run, harness):
    for path in run.glob("cells/*/lists.parquet"):
        path.unlink()
    design = run / "study.yaml"
    design.write_text(design.read_text().replace("- ndcg@10\n", "- ndcg@10\n- coverage@5\n", 1))
    done = harness("report", *BOUND)
    assert done.returncode in (1, 2)
    assert "keeps no lists of items; `harness evaluate`" in done.stderr
    assert "damaged" not in done.stderr


def test_a_probe_is_measured_afterwards(run, harness):
    done = harness("evaluate", *BOUND, "--probe", "noise")
    assert done.returncode == 0, done.stderr
    for cell in run.glob("cells/*"):
        assert set(pd.read_parquet(cell / "noise.parquet")["share"]) == {0.0, 0.1, 0.2, 0.3, 0.5}
    again = harness("evaluate", *BOUND)
    assert "  done  " not in again.stderr


def test_a_cell_without_weights_is_left_and_named(run, harness):
    cells = sorted(run.glob("cells/*"))
    for cell in cells:
        (cell / "lists.parquet").unlink()
    (cells[0] / "model.safetensors").unlink()
    done = harness("evaluate", *BOUND)
    assert done.returncode == 1
    assert done.stderr.count("left: its weights are not there") == 1
    assert done.stderr.count("  done  ") == len(cells) - 1
    assert not (cells[0] / "lists.parquet").exists()


def test_an_evaluation_that_is_cut_off_leaves_a_cell_that_can_be_read(run, harness, monkeypatch):
    """Stopped after each of its renames, then run again: the same evidence as if nothing had happened."""
    from harness.study.cells import Inputs
    from harness.study.folder import RunFolder

    expected = evidence(run)
    (cell, *_) = sorted(run.glob("cells/*"))
    (cell / "lists.parquet").unlink()
    folder = RunFolder(run)
    design, _ = folder.read_design()
    replace, moved = os.replace, []

    class Cut(Exception):
        pass

    def cut(source, target):
        if "evaluated" in str(source) and len(moved) == 1:
            raise Cut
        moved.extend([target] if "evaluated" in str(source) else [])
        replace(source, target)

    monkeypatch.setattr(evaluate.os, "replace", cut)
    with pytest.raises(Cut):
        evaluate.evaluate_run(folder, design, Inputs(None, run.parent / "cache"), again=True)
    monkeypatch.undo()
    assert harness("report", *BOUND).returncode == 0
    assert harness("evaluate", *BOUND, "--again").returncode == 0
    assert evidence(run) == expected
    assert not list(run.glob("running/*"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--metric", "coverege@5", "did you mean 'coverage'"),
        ("--metric", "ne", "belongs to the task 'action'"),
        ("--probe", "attencion", "did you mean 'attention'"),
    ],
)
def test_what_is_unknown_is_one_line(run, harness, option, value, message):
    done = harness("evaluate", *BOUND, option, value)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
