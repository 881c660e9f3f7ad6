"""Accuracy by history length against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.figures.slices import Slices
from harness.analysis.rows import load_run
from harness.analysis.slices import KINDS, LENGTHS, by_history, by_kind
from harness.analysis.tables.breakdowns import HistoryLength
from harness.analysis.tables.slices import TargetSlices
from harness.metrics.ranking import per_user


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
    assert not Slices("history").applies(small, "ml-100k")


def test_data_sets_are_groups_of_lines(wide_dir):
    table = HistoryLength("history-length").make(load_run(wide_dir))
    assert {line.group for line in table.lines} == {"ml-100k", "amazon_beauty"}


def test_kinds_of_targets_are_told_apart_by_the_rows(finished_run):
    """Against a loop over the rows of a run that was trained."""
    run = load_run(finished_run)
    (dataset,), variant = run.datasets, run.variants[0]
    frames = [run.rows(cell).to_pandas() for cell in run.ids(dataset, variant)]
    values = np.mean([per_user(run.primary, f[f"rank_{run.candidates}"].to_numpy(float)) for f in frames], axis=0)
    for kind in ("popularity", "transition"):
        column = frames[0][KINDS[kind].column].to_numpy()
        found = {s.label: s for s in by_kind(run, dataset, variant, kind)}
        for label, start, end in KINDS[kind].bins():
            inside = values[(column >= start) & (column < end)]
            assert (label in found) == (len(inside) >= 20)
            if label in found:
                assert found[label].users == len(inside)
                assert found[label].mean == pytest.approx(inside.mean())
    assert {s.label for s in by_kind(run, dataset, variant, "transition")} & {"new pair", "known pair"}


def test_rows_of_earlier_versions_have_histories_alone(run):
    assert by_kind(run, "ml-100k", run.variants[0], "popularity") == []
    assert not TargetSlices("targets").applies(run)
    assert Slices("slices").applies(run, "ml-100k")
