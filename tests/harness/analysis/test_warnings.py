"""Warnings against counts made by hand from the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.synthetic_run import write_run
from harness.analysis.comparisons import comparisons
from harness.analysis.report import write_report
from harness.analysis.rows import Run, load_run
from harness.analysis.verify import verify
from harness.analysis.warnings import warnings_of
from harness.errors import InputError

VARIANTS = {"interleaved": {"model": "interleaved"}, "attn-lfa": {"model": "attn-lfa"}}


@pytest.fixture
def folder(tmp_path):
    """150 users with 5 test events of each of three actions."""
    return write_run(tmp_path / "actions", users=150, seeds=2, task="action", variants=VARIANTS, attention=False)


def relabel(folder, action: str, users: int, events: int) -> None:
    """Leaves ``action`` to the first ``events`` test events of the first ``users`` users, in every cell."""
    for cell in (folder / "cells").iterdir():
        rows = pq.read_table(cell / "rows.parquet").to_pandas()
        chosen = (rows["phase"] == "test") & (rows["action"] == action)
        label = (rows["user"].astype(int) <= users) & (rows["position"] < events)
        rows.loc[chosen, "label"] = label[chosen].astype(np.int8)
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), cell / "rows.parquet")


def test_nothing_to_warn_of(folder):
    assert warnings_of(load_run(folder)) == []
    write_report(folder)
    assert "Read with care" not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("users", "events", "positives", "gauc_users"),
    [(99, 1, 99, 99), (100, 1, None, None), (50, 2, None, 50), (40, 5, None, 0), (30, 3, 90, 30)],
)
def test_few_positives_and_few_users(folder, users, events, positives, gauc_users):
    relabel(folder, "like", users, events)
    said = warnings_of(load_run(folder))
    rows = pd.read_parquet(next((folder / "cells").iterdir()) / "rows.parquet")
    rows = rows[(rows["phase"] == "test") & (rows["action"] == "like")]
    both = rows.groupby("user")["label"].nunique().eq(2).sum()
    assert rows["label"].sum() == users * events
    assert both == (gauc_users if gauc_users is not None else users)
    few = [s for s in said if "have the action" in s]
    gauc = [s for s in said if "GAUC" in s]
    assert [f"like ({positives})" in s for s in few] == [True] * (positives is not None)
    assert [f"like ({gauc_users})" in s for s in gauc] == [True] * (gauc_users is not None)
    assert not any("dislike" in s for s in said)


def test_gauc_is_left_alone_where_the_study_does_not_list_it(folder):
    relabel(folder, "like", 99, 1)
    study = (folder / "study.yaml").read_text(encoding="utf-8")
    (folder / "study.yaml").write_text(study.replace("- gauc\n", ""), encoding="utf-8")
    said = warnings_of(load_run(folder))
    assert len(said) == 1
    assert "have the action: like (99)" in said[0]
    write_report(folder)
    assert "Read with care" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_ranking_has_no_actions_to_warn_of(run):
    assert warnings_of(run) == []


@pytest.mark.slow
def test_looks_are_noted_warned_of_and_corrected_for(tmp_path):
    """A study of 3 seeds that is widened to 5 and 8, with a report each time."""
    folder = write_run(tmp_path / "ablations", users=60, seeds=8, attention=False)
    design = yaml.safe_load((folder / "study.yaml").read_text())

    def widen(seeds: int, **changes) -> Run:
        cells = [cell for cell in design["cells"] if cell["seed"] < seeds]
        (folder / "study.yaml").write_text(yaml.safe_dump(design | {"cells": cells, "seeds": seeds} | changes))
        write_report(folder)
        return load_run(folder)

    assert widen(3).looks == [3]
    assert widen(3).looks == [3]  # the same rows again are no other look
    assert warnings_of(widen(3)) == []
    run = widen(5)
    (said,) = [sentence for sentence in warnings_of(run) if "looked at" in sentence]
    assert "3 and 5 seeds" in said
    assert "`looks: 2`" in said
    alone = {contrast: c.p_adjusted for contrast, c in comparisons(widen(8)).items()}
    corrected = widen(8, looks=2)  # one more look was taken than declared
    assert corrected.looks == [3, 5, 8]
    assert not [sentence for sentence in warnings_of(corrected) if "looked at" in sentence]
    for contrast, c in comparisons(corrected).items():
        assert c.p_adjusted == pytest.approx(min(1, 3 * alone[contrast]))
    assert "holds for 3 looks" in (folder / "tables" / "differences.md").read_text()
    assert [check.problem for check in verify(folder) if check.name.startswith("tables") and not check.ok] == []
    (folder / "looks.json").write_text("{}")
    with pytest.raises(InputError, match=r"looks\.json is damaged"):
        warnings_of(load_run(folder))
