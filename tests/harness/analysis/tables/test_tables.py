from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchmarks.synthetic_run import write_run
from harness.analysis.artefacts import tables_of
from harness.analysis.render import render
from harness.analysis.report import write_report
from harness.analysis.rows import load_run
from harness.analysis.tables.cost import Cost
from harness.analysis.tables.results import results_table
from harness.analysis.two_levels import two_level_interval
from harness.errors import InputError


def evidence_tables(run):
    """The tables without seconds: a function of rows and design alone."""
    return [table for table in tables_of(run) if table.name != "cost"]


def _entry(table, row, column, group=""):
    line = next(line for line in table.lines if line.key == row and line.group == group)
    return line.entries[[c.key for c in table.columns].index(column)]


def test_means_and_deviations_over_seeds(run):
    table = results_table(run)
    values = np.array(list(run.by_seed("ml-100k", "no-mi-loss", "ndcg@10").values()))
    entry = _entry(table, "no-mi-loss", "ml-100k/ndcg@10")
    assert entry.value == pytest.approx(values.mean())
    assert entry.spread_value == pytest.approx(values.std(ddof=1))
    assert entry.text == f"{values.mean():.4f}"
    assert len(entry.cells) == 5
    users = np.mean([run.user_values(cell, "ndcg@10") for cell in run.ids("ml-100k", "no-mi-loss")], axis=0)
    assert entry.error_value == pytest.approx(users.std(ddof=1) / np.sqrt(200))
    assert entry.error == f"{entry.error_value:.4f}"
    other = _entry(table, "no-mi-loss", "ml-100k/recall@5")
    assert (other.error, other.error_value > 0) == ("", True)  # in the CSV file alone
    assert "ml-100k/recall@5 se" in render(table, "csv").splitlines()[0]


def test_best_and_second_and_stars(run):
    table = results_table(run)
    means = {line.key: _entry(table, line.key, "ml-100k/ndcg@10") for line in table.lines}
    order = sorted(means, key=lambda v: -means[v].value)
    assert [means[v].style for v in order] == ["best", "second", "", ""]

    values = run.metric_table("ndcg@10")["ndcg@10"]["ml-100k"].unstack("seed")
    others = [v for v in run.variants if v != "fair"]
    p = [stats.ttest_rel(values.loc[v], values.loc["fair"]).pvalue for v in others]
    significant = multipletests(p, method="holm")[0]
    over_users = multipletests(
        [two_level_interval(run.differences("ml-100k", v, "fair", "ndcg@10").T).p() for v in others], method="holm"
    )[0]
    marks = [("(*)", "*")[int(both)] if seeds else "" for seeds, both in zip(significant, over_users, strict=True)]
    assert [means[v].mark for v in others] == marks
    assert significant.any()  # otherwise the line above shows nothing


def test_differences_equal_scipy_and_statsmodels(run):
    table = next(t for t in evidence_tables(run) if t.name == "differences")
    values = run.metric_table("ndcg@10")["ndcg@10"]["ml-100k"].unstack("seed")
    tests = [stats.ttest_rel(values.loc[line.key], values.loc["fair"]) for line in table.lines]
    holm = multipletests([t.pvalue for t in tests], method="holm")[1]
    for line, test, adjusted in zip(table.lines, tests, holm, strict=True):
        d = (values.loc[line.key] - values.loc["fair"]).to_numpy()
        assert _entry(table, line.key, "difference").value == pytest.approx(d.mean())
        assert _entry(table, line.key, "percent").value == pytest.approx(100 * d.mean() / values.loc["fair"].mean())
        wide = two_level_interval(run.differences("ml-100k", line.key, "fair", "ndcg@10").T)
        low, high = map(float, _entry(table, line.key, "two-level").value.split())
        assert (low, high) == pytest.approx(wide.interval, rel=1e-6)
        beaten = [x > y for x in values.loc[line.key] for y in values.loc["fair"]]
        assert _entry(table, line.key, "better").value == pytest.approx(np.mean(beaten))
        assert _entry(table, line.key, "p").value == pytest.approx(test.pvalue)
        assert _entry(table, line.key, "p_holm").value == pytest.approx(adjusted)
        low, high = map(float, _entry(table, line.key, "interval").value.split())
        assert (low, high) == pytest.approx(tuple(test.confidence_interval()), rel=1e-6)


def test_several_data_sets_are_columns_while_they_fit_and_blocks_otherwise(wide_dir):
    run = load_run(wide_dir)
    stacked = results_table(run)
    assert {line.group for line in stacked.lines} == {"ml-100k", "amazon_beauty"}
    beside = results_table(run, columns=["ndcg@10", "recall@10"])
    assert [c.group for c in beside.columns] == ["ml-100k"] * 3 + ["amazon_beauty"] * 3
    assert (
        _entry(stacked, "fair", "ndcg@10", "amazon_beauty").value
        == _entry(beside, "fair", "amazon_beauty/ndcg@10").value
    )


def test_lower_is_better_for_losses(action_dir):
    table = results_table(load_run(action_dir))
    ne = {line.key: _entry(table, line.key, "ml-100k/ne") for line in table.lines}
    assert min(ne, key=lambda v: ne[v].value) == next(v for v in ne if ne[v].style == "best")
    assert [c.title for c in table.columns][:4] == ["BCE ↓", "NE ↓", "AUC", "GAUC"]


def test_tables_do_not_depend_on_time_order_or_interruptions(own_run, tmp_path):
    before = [render(t, form) for t in evidence_tables(load_run(own_run)) for form in ("tex", "md", "csv", "html")]
    copy = tmp_path / "elsewhere" / "ablations"
    shutil.copytree(own_run, copy)
    for card in copy.glob("cells/*/cell.json"):
        value = json.loads(card.read_text())
        value["started"] = value["finished"] = "2031-01-01T00:00:00Z"
        value["hardware"]["cpu"] = "another CPU"
        card.write_text(json.dumps(value))
    for cost in copy.glob("cells/*/cost.json"):
        value = json.loads(cost.read_text())
        value["train_seconds"] *= random.random()
        value["resumed"] = 3
        cost.write_text(json.dumps(value))
    after = [render(t, form) for t in evidence_tables(load_run(copy)) for form in ("tex", "md", "csv", "html")]
    assert after == before
    assert render(Cost("cost").make(load_run(copy)), "csv") != render(Cost("cost").make(load_run(own_run)), "csv")


def test_missing_cells_are_said_and_a_lone_seed_is_not_tested(own_run):
    cells = load_run(own_run).cells
    for line in cells[(cells["variant"] == "no-mi-loss") & (cells["seed"] > 0)].itertuples():
        shutil.rmtree(own_run / "cells" / line.id)
    for line in cells[cells["variant"] == "no-noise-loss"].itertuples():
        shutil.rmtree(own_run / "cells" / line.id)
    tables = {table.name: table for table in tables_of(load_run(own_run))}
    assert any(
        "w/o MI loss on ml-100k 1 of 3; " in n or "w/o MI loss on ml-100k 1 of 3." in n for n in tables["main"].notes
    )
    assert _entry(tables["main"], "no-noise-loss", "ml-100k/ndcg@10").text == "–"
    assert _entry(tables["main"], "no-mi-loss", "ml-100k/ndcg@10").spread == ""
    assert _entry(tables["differences"], "no-mi-loss", "p").text == "–"
    assert _entry(tables["differences"], "no-noise-loss", "verdict").text == "not run"
    assert any("one seed" in note for note in tables["differences"].notes)


def test_constant_metrics_do_not_break_the_tables(own_run):
    run = load_run(own_run)
    for cell in run.cells["id"]:
        path = run.file(cell, "rows.parquet")
        rows = pd.read_parquet(path)
        rows["rank_unseen"] = rows["rank_all"] = np.int32(1)
        rows.to_parquet(path, index=False)
    tables = {table.name: table for table in tables_of(load_run(own_run))}
    entry = _entry(tables["main"], "fair", "ml-100k/ndcg@10")
    assert (entry.text, entry.spread) == ("1.0000", "")
    assert "Deterministic, the same in every seed: FAIR, w/o focused attention" in " ".join(tables["main"].notes)
    assert _entry(tables["differences"], "no-mi-loss", "verdict").text == "undecided"


def test_a_study_chooses_rows_and_columns(own_run):
    path = own_run / "study.yaml"
    study = yaml.safe_load(path.read_text())
    chosen = {"small": {"rows": ["fair", "no-mi-loss"], "columns": ["recall@10"]}}
    path.write_text(yaml.safe_dump(study | {"tables": chosen}))
    table = evidence_tables(load_run(own_run))[0]
    assert (table.name, [line.key for line in table.lines]) == ("small", ["fair", "no-mi-loss"])
    assert [c.key for c in table.columns] == ["ml-100k/recall@10"]
    path.write_text(yaml.safe_dump(study | {"tables": {"small": {"rows": ["fare"]}}}))
    with pytest.raises(InputError, match="unknown row 'fare'; did you mean 'fair'"):
        evidence_tables(load_run(own_run))


def test_every_footer_names_protocol_seeds_split_fingerprints_and_version(run):
    for table in evidence_tables(run)[:2]:
        text = " ".join(table.notes)
        assert "(unseen)" in text
        assert "Split: leave-one-out. Seeds: 0–4 (5 seeds)." in text
        assert str(run.cells["split"].iloc[0])[:8] in text
        assert "harness 0.1.0" in text


def test_data_sets_that_are_paths_get_tables_and_figures_of_their_own(tmp_path):
    variants = {"interleaved": {"model": "interleaved"}, "attn-lfa": {"model": "attn-lfa"}}
    names = ("data/one", "data/two")
    folder = write_run(tmp_path / "run", users=40, seeds=2, task="action", variants=variants, datasets=names)
    write_report(folder)
    for name in names:
        (table,) = folder.glob(f"tables/per-action-{name.replace('/', '-')}.tex")
        assert name in table.read_text()
        assert (folder / "figures" / f"calibration-{name.replace('/', '-')}.png").is_file()


def test_a_caption_does_not_deny_what_another_table_finds(tmp_path):
    """An arm with two contrasts has no column of its own in the table of results."""
    contrasts = [["no-focused-attention", "fair"], ["no-focused-attention", "no-noise-loss"]]
    folder = write_run(tmp_path / "run", users=300, attention=False, control=None, contrasts=contrasts)
    tables = {table.name: table for table in tables_of(load_run(folder))}
    assert "worse" in [line.entries[-1].text for line in tables["differences"].lines]
    assert "No " not in tables["main"].caption
    assert "2 more comparisons in the table of differences." in tables["main"].caption
