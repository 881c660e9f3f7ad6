"""Evidence that can't be compared, through the command line: one line, exit code 2, or said in the table."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic_run import write_run


def cells_of(run, variant):
    cards = {path.parent: json.loads(path.read_text()) for path in run.glob("cells/*/cell.json")}
    return {card["seed"]: folder for folder, card in cards.items() if card["variant"] == variant}


def change(cell, **fingerprints):
    card = json.loads((cell / "cell.json").read_text())
    card["fingerprints"] |= fingerprints
    (cell / "cell.json").write_text(json.dumps(card))


def rewrite(cell, column, values):
    rows = pq.read_table(cell / "rows.parquet")
    place = rows.column_names.index(column)
    rows = rows.set_column(
        place, column, pa.array(values(rows[column].to_numpy(zero_copy_only=False)), rows[column].type)
    )
    pq.write_table(rows, cell / "rows.parquet")


def study_of(run):
    return "--study", run / "study.yaml"


def test_rows_of_different_splits(refused, tmp_path):
    for kind in ("split", "log"):
        run = write_run(tmp_path / kind, users=40, seeds=2)
        cell = cells_of(run, "fair")[1]
        change(cell, **{kind: "0" * 64})
        line = refused("report", *study_of(run))
        assert cell.name in line
        assert kind in line
        assert refused("verify", *study_of(run)) == line


def test_rows_of_different_users(refused, own_run):
    cell = cells_of(own_run, "fair")[0]
    rewrite(cell, "user", lambda users: np.array([f"other-{user}" for user in users]))
    assert cell.name in refused("report", *study_of(own_run))


def test_missing_seeds_of_one_arm_are_said_and_not_compared(harness, own_run):
    shutil.rmtree(cells_of(own_run, "no-mi-loss")[2])
    done = harness("report", *study_of(own_run))
    assert done.returncode == 0, done.stderr
    table = (own_run / "tables" / "main.md").read_text()
    assert "(3 seeds)" in table
    assert "2 of 3" in table or "2 seeds" in table


def test_a_single_seed_has_no_test(harness, tmp_path):
    run = write_run(tmp_path / "one", users=40, seeds=1)
    done = harness("report", *study_of(run))
    assert done.returncode == 0, done.stderr
    text = (run / "tables" / "differences.md").read_text()
    assert "one seed: no test and no interval" in text
    assert "nan" not in text.lower()


def test_metrics_that_do_not_vary_are_said(harness, tmp_path):
    run = write_run(tmp_path / "constant", users=40, seeds=3)
    for cell in run.glob("cells/*"):
        for column in ("rank_all", "rank_unseen"):
            rewrite(cell, column, lambda ranks: np.full(len(ranks), 3))
    done = harness("report", *study_of(run))
    assert done.returncode == 0, done.stderr
    text = (run / "tables" / "differences.md").read_text()
    assert "identical in every seed: what was varied had no effect at all" in text
    assert "nan" not in text.lower()


def test_ranks_that_are_none(refused, own_run):
    cell = cells_of(own_run, "fair")[0]
    rewrite(cell, "rank_unseen", lambda ranks: np.where(np.arange(len(ranks)) == 5, 0, ranks))
    line = refused("report", *study_of(own_run))
    assert cell.name in line
    assert "a rank_unseen below 1" in line


def test_probabilities_that_are_not_numbers(refused, tmp_path):
    variants = {"interleaved": {"model": "interleaved"}, "attn-lfa": {"model": "attn-lfa"}}
    run = write_run(tmp_path / "actions", users=40, seeds=2, task="action", variants=variants)
    cell = cells_of(run, "attn-lfa")[1]
    rewrite(cell, "probability", lambda p: np.where(np.arange(len(p)) == 5, np.nan, p))
    line = refused("report", *study_of(run))
    assert cell.name in line
