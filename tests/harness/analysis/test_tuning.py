from __future__ import annotations

import json

import pytest

from harness.analysis import figures
from harness.analysis.rows import load_run
from harness.analysis.study_tables import study_tables
from harness.analysis.tables import render
from harness.analysis.tuning import border_distance, equal_budgets, ledger_table, load_tuning
from harness.analysis.verify import trace
from harness.errors import InputError


def _entry(variant, values, rates=None):
    trials = [
        {
            "number": i, "state": "pruned" if value is None else "complete", "value": value, "epochs": 2,
            "seconds": 1.5, "params": {"rate": (rates or [1e-2] * 9)[i], "layers": 2},
        }
        for i, value in enumerate(values)
    ]  # fmt: skip
    space = {"rate": {"low": 1e-4, "high": 1.0, "log": True}, "layers": {"choices": [1, 2]}}
    return {"dataset": "ml-100k", "variant": variant, "space": space, "trials": trials}


def test_ledger_counts_and_marks_unequal_budgets(run):
    entries = [_entry("fair", [0.1, None, 0.3]), _entry("no-mi-loss", [0.2, 0.1])]
    assert not equal_budgets(entries)
    table = ledger_table(run, entries)
    first, second = ({c.key: e for c, e in zip(table.columns, x.entries, strict=True)} for x in table.lines)
    assert (first["trials"].value, first["pruned"].value, first["epochs"].value) == (3, 1, 6)
    assert (first["best"].value, first["best_trial"].value) == (0.3, 3)
    assert (first["trials"].mark, second["trials"].mark) == ("", "†")
    assert "not fair" in table.notes[0]
    assert equal_budgets(entries[:1])
    assert ledger_table(run, entries[:1]).notes == ()


def test_border_distance_is_measured_on_the_scale_of_the_space():
    middle = _entry("fair", [0.1, 0.2], rates=[1e-4, 1e-2])
    assert border_distance(middle, lower=False) == {"rate": pytest.approx(0.5)}
    assert border_distance(middle, lower=True) == {"rate": pytest.approx(0.0)}
    assert border_distance(_entry("fair", [None]), lower=False) == {}


def test_curve_is_the_best_so_far(run):
    axis = figures.tuning_curves(run, [_entry("fair", [0.1, 0.05, None, 0.3])]).axes[0]
    assert list(axis.lines[0].get_ydata()) == [0.1, 0.1, 0.1, 0.3]


def test_loading(own_run):
    assert load_tuning(load_run(own_run)) == []
    (own_run / "tuning.json").write_text(json.dumps([_entry("fair", [0.1])]))
    assert len(load_tuning(load_run(own_run))) == 1
    (own_run / "tuning.json").write_text(json.dumps([{"dataset": "x"}]))
    with pytest.raises(InputError, match="lacks 'variant'"):
        load_tuning(load_run(own_run))


def test_tables_that_mix_unequal_budgets_carry_a_mark(own_run):
    fair, other = _entry("fair", [0.1, 0.2, 0.3]), _entry("no-mi-loss", [0.2])
    (own_run / "tuning.json").write_text(json.dumps([fair, other]))
    tables = {table.name: table for table in study_tables(load_run(own_run))}
    for name in ("main", "differences", "candidates"):
        labels = {line.key: line.label for line in tables[name].lines}
        assert labels["no-mi-loss"] == "w/o MI loss †"
        assert labels["no-noise-loss"] == "w/o noise loss †"
        assert labels.get("fair", "FAIR") == "FAIR"
        assert "w/o noise loss 0 of 3; w/o MI loss 1 of 3" in tables[name].notes[-1]
    assert r"w/o MI loss $\dagger$" in render(tables["main"], "tex")
    assert "†" not in render(tables["tuning"], "tex")
    assert trace(own_run, "main", "w/o MI loss", "NDCG@10").row == "w/o MI loss †"


def test_tables_of_equal_budgets_carry_none(own_run):
    variants = load_run(own_run).variants
    (own_run / "tuning.json").write_text(json.dumps([_entry(variant, [0.1, 0.2]) for variant in variants]))
    assert not any("†" in render(table, "md") for table in study_tables(load_run(own_run)))
