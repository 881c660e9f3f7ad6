from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from harness.analysis.artefacts import tables_of
from harness.analysis.figures.tuning import tuning_curves
from harness.analysis.render import render
from harness.analysis.rows import load_run
from harness.analysis.run_files import OUTSIDE
from harness.analysis.style import FULL, png
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


def _found(entries):
    """What the design of a run has under ``tuned`` that was trained with what these searches found."""
    tuned = {}
    for entry in entries:
        done = [trial for trial in entry["trials"] if trial["value"] is not None]
        best = max(done, key=lambda trial: trial["value"])["params"]
        tuned.setdefault(entry["dataset"], {})[entry["variant"]] = best
    return tuned


def _tuned(run, entries, **study):
    return replace(run, study=run.study | {"tuned": _found(entries)} | study)


def test_ledger_counts_and_marks_unequal_budgets(run):
    entries = [_entry("fair", [0.1, None, 0.3]), _entry("no-mi-loss", [0.2, 0.1])]
    run = _tuned(run, entries)
    assert not equal_budgets(entries)
    table = ledger_table(run, entries)
    first, second = ({c.key: e for c, e in zip(table.columns, x.entries, strict=True)} for x in table.lines)
    assert (first["trials"].value, first["pruned"].value, first["epochs"].value) == (3, 1, 6)
    assert (first["best"].value, first["best_trial"].value) == (0.3, 3)
    assert (first["trials"].mark, second["trials"].mark) == ("", "†")
    assert "not fair" in table.notes[0]
    assert equal_budgets(entries[:1])
    assert ledger_table(run, entries[:1]).notes == ()
    elsewhere = ledger_table(run, [entries[0], entries[1] | {"dataset": "beauty"}])
    assert [_columns(elsewhere, line)["trials"].mark for line in elsewhere.lines] == ["", ""]
    assert ledger_table(_tuned(run, entries, references=["no-mi-loss"]), entries).notes == ()


def test_ledger_shows_what_confirmed_the_choice(run):
    again = [
        {"trial": t, "seed": s, "state": "complete", "value": v, "epochs": 3, "seconds": 2.0}
        for t, values in ((1, [0.2, 0.22]), (0, [0.24, 0.26]))
        for s, v in enumerate(values)
    ]
    how = {"confirm": {"top": 2, "seeds": 2}, "confirmed": again, "chosen": 0}
    entries = [_entry("fair", [0.1, 0.3]) | how, _entry("no-mi-loss", [0.2, 0.1]) | how | {"confirmed": []}]
    table = ledger_table(run, entries[:1])
    shown = _columns(table, table.lines[0])
    assert (shown["best"].value, shown["confirmed"].value, shown["best_trial"].value) == (0.3, pytest.approx(0.25), 1)
    assert shown["confirmed"].spread_value == pytest.approx(0.02 / 2**0.5)
    assert (shown["runs"].value, shown["epochs"].value, shown["seconds"].value) == (4, 2 * 2 + 4 * 3, 2 * 1.5 + 4 * 2)
    assert "optimistic" in table.caption
    assert "the best 2 with 2 new seeds each were trained again" in table.caption
    assert next(column.title for column in table.columns if column.key == "best").endswith("(optimistic)")
    assert border_distance(entries[0], lower=False)["rate"] == border_distance(_entry("fair", [0.1]), False)["rate"]
    assert not equal_budgets([entries[0], entries[1] | {"confirm": None}])
    old = ledger_table(run, [_entry("fair", [0.1, 0.3])])
    assert "confirmed" not in [column.key for column in old.columns]
    assert "trained again" not in old.caption


def test_equal_seconds_are_an_equal_budget(run):
    def entry(variant, values, seconds=60):
        cap = {"trials": None, "epochs": 2, "seconds": seconds, "first_pruning": 2}
        return _entry(variant, values) | {"cap": cap}

    entries = [entry("fair", [0.1, None, 0.3]), entry("no-mi-loss", [0.2, 0.1])]
    assert equal_budgets(entries)
    assert [line.entries[0].mark for line in ledger_table(run, entries).lines] == ["", ""]
    shorter = [entries[0], entry("no-mi-loss", [0.2, 0.1], 30)]
    assert not equal_budgets(shorter)
    table = ledger_table(_tuned(run, shorter), shorter)
    assert [line.entries[0].mark for line in table.lines] == ["", "†"]
    assert "a smaller budget than others" in table.notes[0]


def test_ledger_counts_failed_trials_where_there_are_any(run):
    entries = [_entry("fair", [0.1, None, 0.3]), _entry("no-mi-loss", [0.2, 0.1, 0.1])]
    assert "failed" not in [column.key for column in ledger_table(run, entries).columns]
    entries[0]["trials"][1]["state"] = "failed"
    table = ledger_table(run, entries)
    first, second = (_columns(table, line) for line in table.lines)
    assert (first["pruned"].value, first["failed"].value, second["failed"].value) == (0, 1, 0)


def test_ledger_says_which_cells_were_not_trained_with_what_was_found(run):
    entries = [_entry("fair", [0.1, 0.3]), _entry("no-mi-loss", [0.2, 0.1])]
    said = {e["variant"]: f"The cells of {run.label(e['variant'])} on ml-100k were not trained with these settings."
            for e in entries}  # fmt: skip
    assert ledger_table(_tuned(run, entries), entries).notes == ()
    assert ledger_table(run, entries).notes == (said["fair"], said["no-mi-loss"])
    later = [_entry("fair", [0.1, 0.3], rates=[1e-2, 1e-3]), entries[1]]
    assert ledger_table(_tuned(run, entries), later).notes == (said["fair"],)
    unfinished = replace(run, cells=run.cells.assign(state="missing"))
    assert ledger_table(unfinished, entries).notes == ()


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"dim": 64, "training.learning_rate": 0.001, "data.max_length": 50}, True),
        ({"dim": 64, "training.learning_rate": 0.002}, False),
        ({"dim": 64, "training.stride": None}, False),
        ({"learning_rate": 0.001}, False),
    ],
)
def test_cells_of_an_untuned_run_may_have_the_settings_all_the_same(run, settings, known):
    """Where the study's own setting was the best, say: then their cards hold them."""
    entry = _entry("fair", [0.1])
    entry["trials"][0]["params"] = settings
    entry["space"] = {}
    assert (ledger_table(run, [entry]).notes == ()) == known


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
    assert "then come random draws, spread evenly over the space (1), then TPE's choices (2); " in table.caption
    assert "none was pruned for its values before epoch 6 of 12." in table.caption
    assert "seconds" not in table.caption
    never = ledger_table(run, [_with_own(entries[0], first_pruning=12)])
    assert "none was pruned for its values. " in never.caption
    entries[1]["cap"] = {"trials": 4, "epochs": 20, "first_pruning": 10}
    assert "for its values before epoch 6 of 12, or 10 of 20." in ledger_table(run, entries).caption


def test_ledger_names_the_cap_of_seconds(run):
    entries = [_with_own(_entry("fair", [0.1, None])), _with_own(_entry("no-mi-loss", [0.2, 0.1]))]
    entries[0]["cap"]["seconds"] = 90.0
    assert "Some searches ended with the epoch in which 90 seconds were spent" in ledger_table(run, entries).caption
    entries[1]["cap"]["seconds"] = 600
    caption = ledger_table(run, entries).caption
    assert "A search ended with the epoch in which 90, or 600 seconds were spent, if it had not before" in caption
    assert "a trial that this cut counts as pruned" in caption


def test_ledger_claims_no_order_of_a_search_that_was_given_more_trials_later(run):
    entries = [_with_own(_entry("fair", [0.1, 0.2, 0.3, 0.2])), _with_own(_entry("no-mi-loss", [0.2, 0.1, 0.2, 0.1]))]
    entries[0]["trials"][3]["drawn"] = "random"
    caption = ledger_table(run, entries).caption
    assert "some are random draws (1 to 2) and some TPE's choices (1 to 2), in no fixed order; none was" in caption
    assert "then" not in caption
    assert "evenly" not in caption


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
    axis = tuning_curves(run, [_entry("fair", [0.1, 0.05, None, 0.3])], FULL).axes[0]
    assert list(axis.lines[0].get_ydata()) == [0.1, 0.1, 0.1, 0.3]


def test_every_trial_stands_in_the_figure(run):
    entry = _with_own(_entry("fair", [0.1, None, 0.3, None]))
    entry["trials"][1]["curve"] = [[1, 0.05], [2, 0.2], [3, 0.15]]
    figure = tuning_curves(run, [entry], FULL)
    drawn = _drawn(figure.axes[0])
    assert drawn["a trial's best epoch"] == [[1, 3], [0.1, 0.3]]
    assert drawn["pruned"] == [[2], [0.2]]
    assert drawn["no value"][0] == [4]
    assert drawn["the study's own setting"][1] == [0.1, 0.1]
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == sorted(drawn)


def test_a_first_trial_without_a_value_leaves_the_curve_to_the_others(run, recwarn):
    entry = _with_own(_entry("fair", [None, 0.2, 0.1]))
    figure = tuning_curves(run, [entry], FULL)
    png(figure)
    drawn = _drawn(figure.axes[0])
    assert drawn["best so far"][1][1:] == [0.2, 0.2]
    assert drawn["no value"][0] == [1]
    assert "the study's own setting" not in drawn
    assert not list(recwarn)


def test_each_search_has_a_panel_with_a_scale_of_its_own(run, recwarn):
    entries = [_entry(variant, [0.01 * 10**place] * 3) for place, variant in enumerate(run.variants[:2])]
    entries += [entry | {"dataset": "beauty"} for entry in entries[:1]]
    figure = tuning_curves(run, entries, FULL)
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
    with pytest.raises(InputError, match=r"'0.variant': Field required"):
        load_tuning(load_run(own_run))


def _write(folder, entries, **study):
    """Puts a ledger into a run folder, and its best settings, or something else, into the design there."""
    (folder / "tuning.json").write_text(json.dumps(entries))
    design = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(design | {"tuned": _found(entries)} | study, sort_keys=False))


def _tables(folder):
    return {table.name: table for table in tables_of(load_run(folder))}


def test_tables_that_mix_unequal_budgets_carry_a_mark(own_run):
    _write(own_run, [_entry("fair", [0.1, 0.2, 0.3]), _entry("no-mi-loss", [0.2])])
    tables = _tables(own_run)
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
    _write(own_run, [_entry(variant, [0.1, 0.2]) for variant in load_run(own_run).variants])
    assert not any("†" in render(table, "md") for table in _tables(own_run).values())


def test_references_carry_no_mark(own_run):
    variants = load_run(own_run).variants
    assert variants[-1] == "no-mi-loss"
    _write(own_run, [_entry(variant, [0.1, 0.2]) for variant in variants[:-1]])
    assert "w/o MI loss †" in render(_tables(own_run)["main"], "md")
    _write(own_run, [_entry(variant, [0.1, 0.2]) for variant in variants[:-1]], references=["no-mi-loss"])
    for table in _tables(own_run).values():
        assert "†" not in render(table, "md")
        assert not any("trials" in note for note in table.notes)


def test_of_outside_variants_the_budget_is_unknown(own_run):
    """They are not part of the study, so its ledger can't know."""
    _write(own_run, [_entry(variant, [0.1, 0.2]) for variant in load_run(own_run).variants[:-1]])
    path = own_run / "study.yaml"
    design = yaml.safe_load(path.read_text())
    added = {"variants": {"no-mi-loss": design["variants"].pop("no-mi-loss")}}
    added["cells"] = [cell for cell in design["cells"] if cell["variant"] == "no-mi-loss"]
    design["cells"] = [cell for cell in design["cells"] if cell["variant"] != "no-mi-loss"]
    path.write_text(yaml.safe_dump(design, sort_keys=False))
    (own_run / OUTSIDE).write_text(json.dumps(added))
    main = _tables(own_run)["main"]
    assert "†" not in render(main, "md")
    assert main.notes[-1] == "With how many trials these were tuned is unknown: w/o MI loss."


def test_cells_that_the_ledger_does_not_tell_of_carry_no_mark(own_run):
    variants = load_run(own_run).variants
    entries = [_entry(variant, [0.1, 0.2]) for variant in variants[:-1]]
    _write(own_run, entries, tuned={})
    main = _tables(own_run)["main"]
    assert "†" not in render(main, "md")  # no cell was tuned
    assert not any("trials" in note for note in main.notes)
    tuned = _found([*entries, _entry(variants[-1], [0.1])])
    _write(own_run, [_entry("fair", [0.1, 0.2, 0.3], rates=[0.5] * 3), *entries[1:]], tuned=tuned)
    main = _tables(own_run)["main"]
    assert "†" not in render(main, "md")
    assert main.notes[-1] == "With how many trials these were tuned is unknown: FAIR; w/o MI loss."
