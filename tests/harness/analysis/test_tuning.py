from __future__ import annotations

import json

import pytest

from harness.analysis import figures
from harness.analysis.rows import load_run
from harness.analysis.study_tables import study_tables
from harness.analysis.style import png
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


def _with_own(entry, first_pruning=6):
    """The entry as a search leaves it whose first trial was the study's own setting."""
    drawn = ["own", "random", "tpe", "tpe"]
    trials = [trial | {"drawn": who} for trial, who in zip(entry["trials"], drawn, strict=False)]
    return entry | {"trials": trials, "cap": {"trials": 4, "epochs": 12, "first_pruning": first_pruning}}


def _columns(table, line):
    return {column.key: entry for column, entry in zip(table.columns, line.entries, strict=True)}


def test_ledger_says_where_the_studys_own_setting_was_the_best(run):
    entries = [_with_own(_entry("fair", [0.1, None, 0.3, 0.2])), _with_own(_entry("no-mi-loss", [0.2, 0.1, 0.2, 0.1]))]
    table = ledger_table(run, entries)
    first, second = (_columns(table, line) for line in table.lines)
    assert (first["own"].value, first["best"].value, first["best_trial"].text) == (0.1, 0.3, "3")
    assert (second["own"].value, second["best"].value, second["best_trial"].text) == (0.2, 0.2, "1 (own)")
    assert "Trial 1 is the study's own setting (own: it was the best)" in table.caption
    assert "random draws, spread evenly over the space (1), then TPE's choices (2); none was pruned" in table.caption
    assert "before epoch 6 of 12" in table.caption
    never = ledger_table(run, [_with_own(entries[0], first_pruning=12)])
    assert "none was pruned for its values" in never.caption


def test_ledger_of_unequal_searches_gives_the_range_of_its_counts(run):
    entries = [_with_own(_entry("fair", [0.1, 0.2, 0.3, 0.2])), _with_own(_entry("no-mi-loss", [0.2, 0.1]))]
    assert "(1), then TPE's choices (0 to 2)" in ledger_table(run, entries).caption


def test_ledger_of_a_search_without_the_own_setting_says_nothing_of_it(run):
    """As those that were written before there was one: every byte of them stays."""
    table = ledger_table(run, [_entry("fair", [0.1, 0.2]), _with_own(_entry("no-mi-loss", [0.2, 0.1]))])
    assert "own" not in table.caption
    assert "own" not in [column.key for column in table.columns]
    assert [_columns(table, line)["best_trial"].text for line in table.lines] == ["2", "1"]


def test_an_own_setting_that_was_not_finished_has_no_value(run):
    table = ledger_table(run, [_with_own(_entry("fair", [None, 0.2]))])
    assert _columns(table, table.lines[0])["own"].value is None
    assert _columns(table, table.lines[0])["best_trial"].text == "2"


def _distance(space, value):
    """The border distance of a best trial with this value of one parameter."""
    trial = {"number": 0, "state": "complete", "value": 0.1, "params": {"it": value}}
    return border_distance({"space": {"it": space}, "trials": [trial]}, lower=False).get("it")


@pytest.mark.parametrize(
    ("choices", "value", "distance"),
    [
        ([32, 8, 16], 8, 0.0),
        ([32, 8, 16], 16, 0.5),
        ([32, 8, 16], 32, 0.0),
        ([0.0, 0.001, 0.01, 0.1, 1.0], 0.001, 0.25),
        ([8, 16], 8, None),
        (["a", "b", "c"], "a", None),
        ([None, 1, 2], 2, None),
        ([True, 2, 3], 3, None),
    ],
)
def test_choices_that_are_three_numbers_or_more_have_a_border(choices, value, distance):
    assert _distance({"choices": choices}, value) == distance


@pytest.mark.parametrize(
    ("closed", "value", "distance"),
    [
        ([], 0.0, 0.0),
        (["low"], 0.0, 0.5),
        (["low"], 0.2, 0.5),
        (["low"], 0.9, pytest.approx(0.1)),
        (["high"], 0.9, 0.5),
        (["low", "high"], 0.9, None),
    ],
)
def test_an_end_that_the_model_closes_is_no_border(closed, value, distance):
    assert _distance({"low": 0.0, "high": 1.0, "log": False, "closed": closed}, value) == distance


def test_an_own_setting_on_the_border_lies_there():
    """Of a logarithmic space: the middle of 0.01 and 1 is 0.1."""
    space = {"low": 0.01, "high": 1, "log": True}
    assert [_distance(space, value) for value in (0.01, 1, 1.0)] == [0.0, 0.0, 0.0]
    assert _distance(space, 0.1) == pytest.approx(0.5)


def test_border_distance_is_measured_on_the_scale_of_the_space():
    middle = _entry("fair", [0.1, 0.2], rates=[1e-4, 1e-2])
    assert border_distance(middle, lower=False) == {"rate": pytest.approx(0.5)}
    assert border_distance(middle, lower=True) == {"rate": pytest.approx(0.0)}
    assert border_distance(_entry("fair", [None]), lower=False) == {}


def _drawn(axis):
    return {line.get_label(): [list(map(float, data)) for data in line.get_data()] for line in axis.lines}


def test_curve_is_the_best_so_far(run):
    axis = figures.tuning_curves(run, [_entry("fair", [0.1, 0.05, None, 0.3])]).axes[0]
    assert list(axis.lines[0].get_ydata()) == [0.1, 0.1, 0.1, 0.3]


def test_every_trial_stands_in_the_figure(run):
    entry = _with_own(_entry("fair", [0.1, None, 0.3, None]))
    entry["trials"][1]["curve"] = [[1, 0.05], [2, 0.2], [3, 0.15]]
    figure = figures.tuning_curves(run, [entry])
    drawn = _drawn(figure.axes[0])
    assert drawn["a trial's best epoch"] == [[1, 3], [0.1, 0.3]]
    assert drawn["pruned"] == [[2], [0.2]]
    assert drawn["no value"][0] == [4]
    assert drawn["the study's own setting"][1] == [0.1, 0.1]
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == sorted(drawn)


def test_a_first_trial_without_a_value_leaves_the_curve_to_the_others(run, recwarn):
    entry = _with_own(_entry("fair", [None, 0.2, 0.1]))
    figure = figures.tuning_curves(run, [entry])
    png(figure)
    drawn = _drawn(figure.axes[0])
    assert drawn["best so far"][1][1:] == [0.2, 0.2]
    assert drawn["no value"][0] == [1]
    assert "the study's own setting" not in drawn
    assert not list(recwarn)


def test_each_search_has_a_panel_with_a_scale_of_its_own(run, recwarn):
    entries = [_entry(variant, [0.01 * 10**place] * 3) for place, variant in enumerate(run.variants[:2])]
    entries += [entry | {"dataset": "beauty"} for entry in entries[:1]]
    figure = figures.tuning_curves(run, entries)
    png(figure)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left").splitlines()[0] for axis in shown] == ["ml-100k", "ml-100k", "beauty"]
    assert shown[0].get_ylim()[1] < shown[1].get_ylim()[0]
    assert not list(recwarn)


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
