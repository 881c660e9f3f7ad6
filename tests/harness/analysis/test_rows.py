from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.analysis.rows import load_run, lower_is_better, metric_label
from harness.errors import InputError


def test_cells_stand_in_the_order_of_the_design(run):
    assert list(run.cells["state"].unique()) == ["finished"]
    assert run.variants == ["fair", "no-focused-attention", "no-noise-loss", "no-mi-loss"]
    assert run.seeds("ml-100k", "fair") == [0, 1, 2, 3, 4]
    assert (run.task, run.primary, run.candidates, run.control) == ("retrieval", "ndcg@10", "unseen", "fair")


@pytest.mark.parametrize("candidates", ["unseen", "all"])
@pytest.mark.parametrize("phase", ["valid", "test"])
def test_metrics_equal_those_of_a_loop_over_users(run, candidates, phase):
    table = run.metric_table(["recall@10", "ndcg@10"], phase=phase, candidates=candidates)
    line = run.cells.iloc[7]
    rows = pd.read_parquet(run.file(line.id, "rows.parquet"))
    rows = rows[rows["phase"] == phase]
    recall, ndcg = 0.0, 0.0
    for rank in rows[f"rank_{candidates}"]:
        if not pd.isna(rank) and rank <= 10:
            recall += 1 / len(rows)
            ndcg += 1 / np.log2(1 + rank) / len(rows)
    found = table.loc[(line.dataset, line.variant, line.seed)]
    assert found["recall@10"] == pytest.approx(recall)
    assert found["ndcg@10"] == pytest.approx(ndcg)


def test_differences_are_per_user_and_average_to_the_difference_of_means(run):
    differences = run.differences("ml-100k", "no-mi-loss", "fair", "ndcg@10")
    assert differences.shape == (200, 5)
    means = run.metric_table("ndcg@10")["ndcg@10"].groupby(level="variant").mean()
    expected = means["no-mi-loss"] - means["fair"]
    assert differences.mean() == pytest.approx(expected)


def test_action_metrics_come_from_rows(action_dir):
    run = load_run(action_dir)
    cell = run.ids("ml-100k", "attn-lfa")[0]
    rows = pd.read_parquet(run.file(cell, "rows.parquet")).query("phase == 'test'")
    p, y = rows["probability"].astype(float), rows["label"]
    losses = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert run.metric(cell, "bce") == pytest.approx(losses.groupby(rows["action"]).mean().mean(), rel=1e-5)
    with pytest.raises(InputError, match="did you mean 'auc'"):
        run.metric(cell, "auk")


def test_unfinished_cells_are_kept_as_lines(own_run):
    run = load_run(own_run)
    gone, failed = run.cells["id"].iloc[0], run.cells["id"].iloc[5]
    shutil.rmtree(own_run / "cells" / gone)
    (own_run / "failed").mkdir()
    shutil.move(own_run / "cells" / failed, own_run / "failed" / failed)
    states = load_run(own_run).cells.set_index("id")["state"]
    assert (states[gone], states[failed]) == ("missing", "failed")
    assert len(load_run(own_run).metric_table()) == len(run.cells) - 2


def _edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d, c: (d / "study.yaml").unlink(), "is .* the folder of a run"),
        (lambda d, c: (d / "study.yaml").write_text("a: [1"), "not valid YAML"),
        (lambda d, c: (d / "study.yaml").write_text("study: x\n"), "lacks 'task'"),
        (lambda d, c: (c / "cell.json").write_text("{"), "not valid JSON"),
        (lambda d, c: _edit(c / "cell.json", lambda v: v.update(seed=99)), "'seed' is 99"),
        (lambda d, c: _edit(c / "cell.json", lambda v: v["fingerprints"].update(split="0" * 64)), "different splits"),
        (lambda d, c: (c / "rows.parquet").write_bytes(b"PAR1"), "is damaged"),
        (lambda d, c: (c / "rows.parquet").unlink(), "does not exist"),
        (lambda d, c: pq.write_table(pa.table({"phase": ["test"]}), c / "rows.parquet"), "has no column"),
        (lambda d, c: shutil.rmtree(d / "cells"), "no finished cell"),
    ],
)
def test_damage_is_one_clear_line(own_run, damage, message):
    cell = yaml.safe_load((own_run / "study.yaml").read_text())["cells"][4]["id"]
    damage(own_run, own_run / "cells" / cell)
    with pytest.raises(InputError, match=message) as caught:
        load_run(own_run).metric_table()
    assert "\n" not in str(caught.value)


def test_cells_of_other_users_are_not_compared(own_run):
    run = load_run(own_run)
    path = run.file(run.ids("ml-100k", "fair")[1], "rows.parquet")
    table = pq.read_table(path)
    users = pa.array([u + "x" for u in table["user"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("user"), "user", users), path)
    with pytest.raises(InputError, match="different users"):
        load_run(own_run).differences("ml-100k", "no-mi-loss", "fair", "ndcg@10")


def test_names_of_metrics():
    assert metric_label("ndcg@10") == "NDCG@10"
    assert metric_label("ne/like") == "NE (like)"
    assert lower_is_better("ne/like")
    assert not lower_is_better("ndcg@10")
