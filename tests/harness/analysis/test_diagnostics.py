"""Warnings and the figure of training diagnostics, on histories that are invented on both sides of each bound."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from benchmarks.synthetic_run import write_run
from harness.analysis.diagnostics import auxiliary_terms, training_warnings
from harness.analysis.figures.diagnostics import Diagnostics
from harness.analysis.report import write_report
from harness.analysis.rows import load_run
from harness.analysis.verify import verify

VARIANTS = {"fair": {"model": "fair", "label": "FAIR"}, "bare": {"model": "fair", "label": "w/o {noise}"}}
EPOCHS = np.arange(1, 11)


@pytest.fixture
def folder(tmp_path):
    """Two variants with two seeds each, all best at epoch 5 of 10, as far as the budget of 20 was not used up."""
    folder = write_run(tmp_path / "run", users=20, seeds=2, variants=VARIANTS, attention=False)
    rewrite(folder, best=5, epochs=10, budget=20)
    return folder


def rewrite(folder, variant=None, seed=None, *, columns=None, best=None, epochs=None, budget=None, schedule=None):
    """Gives the cells of a variant and seed (None: of all) columns of their history, and entries of their cards."""
    for cell in (folder / "cells").iterdir():
        card = json.loads((cell / "cell.json").read_text())
        if variant not in (None, card["variant"]) or seed not in (None, card["seed"]):
            continue
        if best is not None:
            card["outcome"] |= {"best_epoch": best, "epochs": epochs, "stopped": "patience"}
            card["budget"] = {"epochs": budget}
            plain = {"epoch": EPOCHS, "loss": 1.0, "loss/mtp": 1.0, "valid/ndcg@10": 0.1, "learning_rate": 1e-3}
            pd.DataFrame(plain).to_csv(cell / "history.csv", index=False)
        if schedule is not None:
            card["training"]["schedule"] = schedule
        history = pd.read_csv(cell / "history.csv").assign(**columns or {})
        history.to_csv(cell / "history.csv", index=False)
        (cell / "cell.json").write_text(json.dumps(card))


def said(folder, dataset="ml-100k"):
    return training_warnings(load_run(folder), dataset)


def at_five(value, elsewhere):
    """A column that holds ``value`` at the chosen epoch alone."""
    return np.where(EPOCHS == 5, value, elsewhere)


def test_histories_without_the_columns_give_no_warning_and_no_figure(folder, draw):
    assert said(folder) == []
    assert draw(Diagnostics, load_run(folder), "ml-100k") is None
    write_report(folder)
    assert not list((folder / "figures").glob("diagnostics*"))


@pytest.mark.parametrize(
    ("share", "printed", "remedy"),
    [
        (0.00999, "0.999 %", "raise its weight"),
        (0.01, None, None),
        (0.2, None, None),
        (0.5, None, None),
        (0.501, "50.1 %", "lower its weight"),
        (1.85543, "186 %", "lower its weight"),
        (0.0000123, "0.00123 %", "raise its weight"),
        (0.0, "0 %", "raise its weight"),
    ],
)
def test_shares_on_both_sides_of_the_bounds(folder, share, printed, remedy):
    elsewhere = 0.2 if printed else 9.0
    rewrite(folder, "fair", columns={"gradient/mtp": 3.0, "gradient/noise": at_five(share, elsewhere)})
    sentences = said(folder)
    assert len(sentences) == (printed is not None)
    for sentence in sentences:
        assert sentence.startswith("On ml-100k, the loss 'noise' has ")
        assert f": FAIR ({printed}); {remedy}" in sentence
        assert sentence.count(".") == 1 + printed.count(".")  # one sentence


@pytest.mark.parametrize(("cosine", "printed"), [(0.95, None), (0.9501, "0.9501"), (-0.2, None), (1.0, "1")])
def test_cosines_on_both_sides_of_the_bound(folder, cosine, printed):
    rewrite(folder, "bare", columns={"state_cosine": at_five(cosine, 0.99 if printed is None else 0.1)})
    found = [re.search(r"nearly the same .*: w/o {noise} \((.*)\); raise", sentence)[1] for sentence in said(folder)]
    assert found == ([] if printed is None else [printed])


def test_seeds_are_averaged_and_variants_share_a_sentence(folder):
    for seed, share in enumerate((0.4, 0.8)):  # together above, the first alone below
        rewrite(folder, seed=seed, columns={"gradient/mtp": 1.0, "gradient/mi": share})
    (sentence,) = said(folder)
    assert ": FAIR (60 %), w/o {noise} (60 %); lower its weight." in sentence


def test_references_are_not_warned_of(tmp_path):
    folder = write_run(tmp_path / "r", users=20, seeds=1, variants=VARIANTS, attention=False, references=["bare"])
    rewrite(folder, best=10, epochs=10, budget=10, columns={"state_cosine": 0.99})
    assert len(said(folder)) == 2
    assert not any("noise" in sentence for sentence in said(folder))


@pytest.mark.parametrize(
    ("best", "budget", "late"), [(9, 10, False), (10, 10, True), (10, 12, False), (10, 11, True), (1, 1, True)]
)
def test_the_last_tenth_of_the_budget(folder, best, budget, late):
    rewrite(folder, "fair", best=best, epochs=min(10, budget), budget=budget)
    expected = f"more training may gain more: FAIR (epoch {best} of {budget}); raise budget.epochs."
    assert [expected in sentence for sentence in said(folder)] == [True] * late


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse-sqrt"])
@pytest.mark.parametrize("budget", [10, 11])
def test_a_schedule_at_zero(folder, schedule, budget):
    rewrite(folder, "fair", best=7, epochs=10, budget=budget, schedule=schedule)
    ended_at_zero = schedule in ("cosine", "linear") and budget == 10
    expected = f"ended at zero, where every curve is flat.*: FAIR \\({schedule}, best epoch 7 of 10\\); compare"
    assert [bool(re.search(expected, sentence)) for sentence in said(folder)] == [True] * ended_at_zero


def test_another_systems_cells_have_no_training_to_warn_of(folder):
    for cell in (folder / "cells").iterdir():
        card = json.loads((cell / "cell.json").read_text())
        card["outcome"] = dict.fromkeys(card["outcome"])
        del card["budget"], card["training"], card["config"], card["data"]
        (cell / "cell.json").write_text(json.dumps(card))
        (cell / "history.csv").write_text("epoch\n")
    assert said(folder) == []


def test_the_main_loss_is_the_first(folder):
    history = pd.DataFrame(columns=["epoch", "loss/b", "gradient/b", "gradient/a", "state_cosine"])
    assert auxiliary_terms(history) == ["a"]
    assert auxiliary_terms(history.drop(columns=["gradient/a"])) == []


def test_the_report_holds_warnings_and_figure_and_is_verified(folder, tmp_path):
    rewrite(folder, columns={"gradient/mtp": 1.0, "gradient/mi": 0.001, "state_cosine": 0.96})
    paths = write_report(folder).paths
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Read with care" in text
    assert "FAIR (0.1 %), w/o {noise} (0.1 %)" in text
    assert text.index('id="training"') < text.index('id="figure-diagnostics"') < text.index('id="cost"')
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    write_report(again)
    assert all((again / path.relative_to(folder)).read_bytes() == path.read_bytes() for path in paths)
    assert all(check.ok for check in verify(folder))


def test_the_figure_draws_means_in_percent_and_extremes(folder, draw):
    for seed, factor in enumerate((1.0, 3.0)):
        rewrite(
            folder, "fair", seed, columns={"gradient/mtp": 1.0, "gradient/mi": 0.01 * factor * EPOCHS, "gradient/vq": 0}
        )
        rewrite(folder, "bare", seed, columns={"state_cosine": 1 - 0.05 * factor * EPOCHS})
    mi, vq, states = draw(Diagnostics, load_run(folder), "ml-100k").axes
    assert [axis.get_title("left") for axis in (mi, vq, states)] == [
        "Gradient of 'mi'",
        "Gradient of 'vq'",
        "Cosine of users' states",
    ]
    assert [axis.get_yscale() for axis in (mi, vq, states)] == ["log", "log", "linear"]
    (line,) = mi.lines
    assert line.get_label() == "FAIR"
    assert line.get_ydata() == pytest.approx(2 * EPOCHS)
    assert line.get_markevery() == [4]
    band = mi.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(point, 6)) for point in band} >= {(e, f * e) for e in (1, 10) for f in (1, 3)}
    assert (vq.lines[0].get_ydata() == vq.get_ylim()[0]).all()  # a share of 0 has no place on a logarithmic axis
    labelled = {line.get_label(): line.get_ydata() for line in states.lines}
    assert labelled["w/o {noise}"] == pytest.approx(1 - 0.1 * EPOCHS)
    assert any(np.allclose(y, 0.95) for y in labelled.values())
    assert states.get_ylim()[0] < -0.49


def test_states_alone_make_a_figure(folder, draw):
    rewrite(folder, columns={"gradient/ce": 1.0, "state_cosine": 0.5})
    (axis,) = draw(Diagnostics, load_run(folder), "ml-100k").axes
    assert [line.get_label() for line in axis.lines[:2]] == ["FAIR", "w/o {noise}"]
