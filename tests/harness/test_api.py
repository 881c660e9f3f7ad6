"""The Python door: what it imports, runs, reads and refuses. Models out of a run are in test_trained.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

import harness
from harness.errors import InputError
from harness.resolve import as_pairs
from harness.study.loading import load_study


@pytest.fixture
def run(finished_run):
    return harness.load_run(finished_run)


@pytest.fixture
def copied(finished_run, tmp_path):
    """The folder of a run that may be written to."""
    return shutil.copytree(finished_run, tmp_path / "out" / "tiny")


def test_importing_it_imports_nothing_of_weight():
    heavy = "{'torch', 'numpy', 'pandas', 'optuna', 'matplotlib', 'scipy', 'pydantic', 'yaml'}"
    code = f"import sys, harness; print(*{heavy} & set(sys.modules)); assert callable(harness.run)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_a_name_that_it_lacks():
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        harness.runs  # noqa: B018


class TestRun:
    def test_a_study_is_run_read_and_run_on(self, study_file, tmp_path):
        options = {"preset": "shorter", "set": {"dim": 4, "seeds": 1}, "workers": 1, "device": "cpu"}
        run = harness.run(study_file, **options, out=tmp_path / "out")
        assert run.path == tmp_path / "out" / "tiny-shorter"
        assert (run.finished, run.total, run.failures()) == (2, 2, [])
        assert (run.path / "report.html").is_file()
        assert run.design["common"]["dim"] == 4
        assert "harness.run(" in json.loads((run.path / "summary.json").read_text())["command"]
        more = harness.run(study_file, **options | {"seeds": [0, 3]}, out=tmp_path / "out", queue_only=True)
        assert (more.finished, more.total) == (2, 4)
        assert more.cells()["seed"].tolist() == [0, 0, 3, 3]

    def test_of_a_thread_that_hears_no_signals(self, study_file):
        found = []

        def call():
            try:
                harness.run(study_file)
            except InputError as error:
                found.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert "main thread" in found[0]

    def test_what_cannot_be_run(self, study_file, tmp_path):
        with pytest.raises(InputError, match=r"unknown study 'ablation'; did you mean 'ablations'\?"):
            harness.run("ablation", out=tmp_path)
        with pytest.raises(InputError, match=r"no preset 'short'; did you mean 'shorter'\?"):
            harness.run(study_file, preset="short", out=tmp_path)
        with pytest.raises(InputError, match=r"no tuned\.yaml"):
            harness.run(study_file, tuned=True, out=tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"common.dim": 16, "budget.epochs": 2},
        {"training.learning_rate": 1e-05, "bias": None, "loss": "bce", "on": True},
        {"items.encoder": {"kind": "fused", "parts": [{"kind": "random", "dim": 8}]}, "x": "yes", "y": "a: b" * 60},
    ],
)
def test_changes_are_what_the_command_line_would_read(values, study_file):
    import yaml

    pairs = dict(pair.split("=", 1) for pair in as_pairs(values))
    assert {key: yaml.safe_load(text) for key, text in pairs.items()} == values
    if "common.dim" in values:
        study = load_study(str(study_file), settings=as_pairs(values))
        assert (study.common["dim"], study.budget.epochs) == (16, 2)


class TestLoadRun:
    def test_by_its_folder_its_file_and_its_name(self, finished_run):
        for path, out in (
            (finished_run, "results"),
            (finished_run / "study.yaml", "results"),
            ("tiny", finished_run.parent),
        ):
            assert harness.load_run(path, out).path.resolve() == finished_run.resolve()

    def test_no_run(self, finished_run):
        with pytest.raises(InputError, match=r"no run in tinny.*did you mean 'tiny'\?"):
            harness.load_run("tinny", finished_run.parent)

    def test_a_run_without_a_finished_cell(self, copied):
        shutil.rmtree(copied / "cells")
        run = harness.load_run(copied)
        assert (run.finished, run.total, run.failures()) == (0, 4, [])
        with pytest.raises(InputError, match="no finished cell yet"):
            run.metrics()

    @pytest.mark.parametrize(("text", "message"), [("{", "not valid YAML"), ("study: x", "not the resolved study")])
    def test_a_damaged_design(self, copied, text, message):
        (copied / "study.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            _ = harness.load_run(copied).task


class TestFrames:
    def test_metrics_are_means_over_the_rows(self, run):
        metrics = run.metrics()
        assert list(metrics) == ["dataset", "variant", "seed", "ndcg@10", "recall@5"]
        for line in metrics.to_dict("records"):
            rows = run.rows(line["variant"], line["seed"])
            assert set(rows["phase"]) == {"test"}
            assert line["recall@5"] == pytest.approx((rows["rank_unseen"] <= 5).mean())
        assert run.metrics(["mrr"], phase="valid", candidates="all")["mrr"].between(0, 1).all()

    def test_rows_of_several_cells_say_whose_they_are(self, run):
        rows = run.rows(seed=1, phase="valid")
        assert list(rows.columns[:3]) == ["dataset", "variant", "seed"]
        assert rows.groupby("variant").size().nunique() == 1
        assert set(rows["variant"]) == {"ce", "bce"}
        assert set(rows["seed"]) == {1}

    def test_attention(self, run, copied):
        attention = run.attention("ce", 0)
        recency = attention[attention["statistic"] == "recency_abs"]
        assert recency.iloc[0]["users"] == len(run.rows("ce", 0))
        for path in copied.glob("cells/*/attention.parquet"):
            path.unlink()
        with pytest.raises(InputError, match="no attention was measured; set attention: true"):
            harness.load_run(copied).attention()

    def test_history_and_tables(self, run):
        assert run.history("bce", 1)["epoch"].tolist() == [1, 2, 3, 4]
        means = run.metrics().groupby("variant")["ndcg@10"].mean()
        assert "ce" in run.table("main").to_string() or len(run.table("main")) == len(means)
        with pytest.raises(InputError, match="no table 'mian'; did you mean 'main'"):
            run.table("mian")

    def test_comparisons(self, run):
        (line,) = run.comparisons().to_dict("records")
        metrics = run.metrics().set_index(["variant", "seed"])["ndcg@10"]
        assert (line["arm"], line["than"], line["seeds"]) == ("bce", "ce", 2)
        assert line["difference"] == pytest.approx((metrics["bce"] - metrics["ce"]).mean())
        assert line["verdict"] in {"better", "worse", "undecided", "on these users only"}

    def test_lists_are_those_that_the_ranks_count_in(self, run, copied):
        for candidates in ("all", "unseen"):
            lists = run.lists("ce", 0, candidates=candidates).set_index("user")
            rows = run.rows("ce", 0).set_index("user")
            assert list(lists.index) == list(rows.index)
            for user, row in rows.iterrows():
                items = lists.loc[user, "items"]
                rank = row[f"rank_{candidates}"]
                assert len(items) == min(50, row[f"length_{candidates}"])
                if rank <= len(items):
                    assert items[int(rank) - 1] == row["target"]
        cell = run.cells().set_index(["variant", "seed"]).loc[("ce", 0), "id"]
        (copied / "cells" / cell / "lists.parquet").unlink()
        with pytest.raises(InputError, match="keeps no lists of items; `harness evaluate`"):
            harness.load_run(copied).lists("ce", 0)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"variant": "cee"}, r"no variant 'cee'; did you mean 'ce'\?"),
            ({"seed": 7}, "no seed '7'; known: 0, 1"),
            ({"dataset": "ml-100k"}, "no dataset 'ml-100k'"),
        ],
    )
    def test_what_is_not_there(self, run, asked, message):
        for read in (run.rows, run.attention, run.history, run.lists):
            with pytest.raises(InputError, match=message):
                read(**asked)

    def test_a_cell_that_is_not_finished(self, copied):
        run = harness.load_run(copied)
        cell = run.cells().set_index(["variant", "seed"]).loc[("ce", 1), "id"]
        shutil.rmtree(copied / "cells" / cell)
        run = harness.load_run(copied)
        assert len(run.metrics()) == 3
        with pytest.raises(InputError, match=r"no cell that is asked for is finished \(missing\)"):
            run.rows("ce", 1)

    def test_nobody_writes_into_what_is_kept(self, run):
        cells = run.cells()
        cells.loc[:, "state"] = "lost"
        assert set(run.cells()["state"]) == {"finished"}


def test_its_report_is_the_command_line_s(copied):
    before = {path: path.read_bytes() for path in (copied / "tables").rglob("*.*")}
    shutil.rmtree(copied / "tables")
    paths = harness.load_run(copied).report().paths
    assert {path: path.read_bytes() for path in (copied / "tables").rglob("*.*")} == before
    assert copied / "report.html" in paths


def test_frames_are_frames(run):
    assert isinstance(run.comparisons(), pd.DataFrame)
    assert np.isfinite(run.metrics()["ndcg@10"]).all()
