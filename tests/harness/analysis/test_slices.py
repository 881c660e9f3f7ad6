"""Accuracy by history length against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.figures.history import HistoryLength as HistoryFigure
from harness.analysis.rows import load_run
from harness.analysis.slices import LENGTHS, by_history
from harness.analysis.tables.breakdowns import HistoryLength
from harness.tasks.ranking_metrics import per_user


def expected(run, variant):
    frames = []
    for cell in run.ids("ml-100k", variant):
        frame = run.rows(cell, ["user", "history", "rank_unseen"]).to_pandas()
        frames.append(frame.assign(value=per_user(run.primary, frame["rank_unseen"].to_numpy(dtype=float))))
    users = pd.concat(frames).groupby("user").agg(history=("history", "first"), value=("value", "mean"))
    bins = pd.cut(users["history"], [*LENGTHS, np.inf], right=False)
    return users.groupby(bins, observed=True)["value"].agg(["size", "mean", "sem"])


def test_bins_hold_the_users_and_means_that_pandas_finds(run):
    for variant in run.variants:
        wanted = expected(run, variant)
        wanted = wanted[wanted["size"] >= 20]
        found = by_history(run, "ml-100k", variant)
        assert [s.users for s in found] == wanted["size"].tolist()
        assert [s.mean for s in found] == pytest.approx(wanted["mean"].tolist())
        assert all(s.half > sem for s, sem in zip(found, wanted["sem"], strict=True))


def test_the_table_has_a_line_per_variant_and_traces_to_cells(run):
    table = HistoryLength("history-length").make(run)
    assert [line.key for line in table.lines] == run.variants
    assert table.lines[0].entries[0].cells == tuple(run.ids("ml-100k", run.variants[0]))
    starts = [int(column.key.rstrip("+").partition("–")[0]) for column in table.columns]
    assert starts == sorted(starts)
    assert len(starts) >= 2


def test_too_few_users_make_no_table_and_no_figure(tmp_path):
    from benchmarks.synthetic_run import write_run

    small = load_run(write_run(tmp_path / "ablations", users=15, seeds=2))
    assert not HistoryLength("history-length").applies(small)
    assert not HistoryFigure("history").applies(small, "ml-100k")


def test_data_sets_are_groups_of_lines(wide_dir):
    table = HistoryLength("history-length").make(load_run(wide_dir))
    assert {line.group for line in table.lines} == {"ml-100k", "amazon_beauty"}
