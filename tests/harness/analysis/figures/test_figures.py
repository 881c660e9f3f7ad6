"""Figures against the numbers that they are drawn from, and what a printed page asks of all of them."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from benchmarks.synthetic_run import write_run
from harness.analysis import style
from harness.analysis.artefacts import Failures, pictures
from harness.analysis.comparisons import comparisons
from harness.analysis.figures.attention import Entropy, Recency, attention_frame
from harness.analysis.figures.calibration import Calibration, reliability
from harness.analysis.figures.codes import code_usage
from harness.analysis.figures.common import by_eights
from harness.analysis.figures.cost import AccuracyAgainstCost, pareto
from harness.analysis.figures.differences import Differences
from harness.analysis.figures.learning import LearningCurves
from harness.analysis.figures.ranks import CriticalDifferences
from harness.analysis.figures.speed import efficiency_curves, training_time
from harness.analysis.rows import load_run
from harness.analysis.style import COLUMN, FULL, SMALLEST, look, look_at, png
from harness.errors import InputError


def curve_of(axis, label):
    return next(line for line in axis.lines if line.get_label() == label)


def untrained(folder, variant):
    """Makes a variant one that nothing was trained for."""
    for path in folder.glob("cells/*/cell.json"):
        card = json.loads(path.read_text())
        if card["variant"] == variant:
            cost = json.loads((path.parent / "cost.json").read_text())
            changed = cost | {"epochs": 0, "training_flops_per_event": 0, "train_seconds": 0.0}
            (path.parent / "cost.json").write_text(json.dumps(changed))


def test_the_forest_draws_the_intervals_of_the_table(run, draw):
    axis = draw(Differences, run).axes[0]
    drawn = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    for comparison in comparisons(run).values():
        assert any(np.allclose(x, comparison.interval) for x in drawn)
        assert any(np.allclose(x, comparison.interval_users) for x in drawn)


def test_data_sets_of_a_forest_have_scales_of_their_own(wide_dir, draw):
    first, second = draw(Differences, load_run(wide_dir)).axes
    assert first.get_xlim() != second.get_xlim()


def test_learning_curves_are_means_over_seeds_while_all_train(run, draw):
    validation, loss = draw(LearningCurves, run).axes
    histories = [run.history(cell) for cell in run.ids("ml-100k", "fair")]
    shortest = min(map(len, histories))
    curve = curve_of(validation, "FAIR")
    assert len(curve.get_xdata()) == shortest
    assert curve.get_ydata()[3] == pytest.approx(np.mean([h["valid/ndcg@10"][3] for h in histories]))
    terms = [h["loss/prediction"] for h in histories]
    assert curve_of(loss, "FAIR").get_ydata()[5] == pytest.approx(np.mean([term[5] / term[0] for term in terms]))


def test_a_mark_stands_at_what_was_chosen_not_at_the_mean_curve(run, draw):
    validation, _ = draw(LearningCurves, run).axes
    marks = [line for line in validation.lines if len(line.get_xdata()) == 1]
    for variant, mark in zip(run.variants, marks, strict=True):
        chosen = []
        for cell in run.ids("ml-100k", variant):
            best = run.cards[cell]["outcome"]["best_epoch"]
            chosen.append((best, run.history(cell).set_index("epoch")["valid/ndcg@10"][best]))
        assert mark.get_xydata()[0] == pytest.approx(np.mean(chosen, axis=0))


def test_learning_curves_show_validations_with_epochs_between_them(run, draw):
    sparse = copy.copy(run)
    column = "valid/ndcg@10"
    skipped = lambda history: history["epoch"] % 3 != 0  # noqa: E731
    sparse.history = lambda cell: run.history(cell).assign(**{column: lambda h: h[column].mask(skipped(h))})
    axis = draw(LearningCurves, sparse).axes[0]
    for variant in run.variants:
        curve = curve_of(axis, run.label(variant))
        shortest = min(len(run.history(cell)) for cell in run.ids("ml-100k", variant))
        assert list(curve.get_xdata()) == [e for e in range(1, shortest + 1) if e % 3 == 0]
        assert np.isfinite(curve.get_ydata()).all()


def test_what_was_not_trained_has_no_curve_and_no_seconds(own_run, draw):
    untrained(own_run, "no-mi-loss")
    run = load_run(own_run)
    for axis in draw(LearningCurves, run).axes:
        assert run.label("no-mi-loss") not in [line.get_label() for line in axis.lines]
    axis = draw(AccuracyAgainstCost, run).axes[0]
    level = curve_of(axis, run.label("no-mi-loss"))
    assert level.get_ydata()[0] == pytest.approx(
        np.mean(list(run.by_seed("ml-100k", "no-mi-loss", "ndcg@10").values()))
    )
    assert axis.get_xlim()[0] > 1  # an axis in seconds of training


def test_many_variants_are_drawn_in_groups_with_the_control(tmp_path, draw):
    variants = {f"v{n}": {"model": "fair", "label": f"V{n}"} for n in range(16)}
    options = {"variants": variants, "strength": dict.fromkeys(variants, 1.0), "seeds": 2, "users": 40}
    run = load_run(write_run(tmp_path / "many", **options, attention=False))
    groups = by_eights(run, run.variants)
    assert all(group[0] == "v0" and len(group) <= 8 for group in groups)
    assert {variant for group in groups for variant in group} == set(run.variants)
    axes = draw(LearningCurves, run).axes
    assert len(axes) == 2 * len(groups) == 6
    assert len({axis.get_ylim() for axis in axes[::2]}) == 1


def test_recency_shows_layers_and_signed_and_absolute_weight_apart(run, draw):
    figure = draw(Recency, run, "ml-100k")
    axes = dict(zip([("recency", 0), ("recency", 1), ("recency_abs", 0), ("recency_abs", 1)], figure.axes, strict=True))
    assert [axes["recency", layer].get_title("left") for layer in (0, 1)] == ["Layer 1", "Layer 2"]
    assert axes["recency", 0].get_ylabel() == "Signed attention weight"
    assert axes["recency_abs", 0].get_ylabel() == "Share of absolute weight"
    frame = attention_frame(run, "ml-100k")
    for (statistic, layer), axis in axes.items():
        chosen = frame[(frame["variant"] == "fair") & (frame["statistic"] == statistic) & (frame["layer"] == layer)]
        assert curve_of(axis, "FAIR").get_ydata()[2] == pytest.approx(chosen[chosen["bin"] == 2]["value"].mean())


def test_attention_captions_end_in_what_was_measured(run):
    frame = attention_frame(run, "ml-100k")
    caption = Recency("attention-recency").caption(run, "ml-100k")
    layer = int(re.search(r"Measured: in layer (\d)", caption)[1]) - 1
    chosen = frame[(frame["statistic"] == "recency_abs") & (frame["layer"] == layer) & (frame["bin"] < 3)]
    by_seed = 100 * chosen.groupby(["variant", "seed", "head"])["value"].sum().groupby(["variant", "seed"]).mean()
    for variant in run.variants:
        mean, sd = by_seed[variant].mean(), by_seed[variant].std()
        assert f"{mean:.1f} ± {sd:.1f} % for {run.label(variant)}" in caption
    means = [100 * g["value"].mean() for _, g in frame[frame["statistic"] == "negative"].groupby("layer")]
    assert max(means) > 0
    assert "the negative share of the weight is" in Entropy("attention-entropy").caption(run, "ml-100k")


def test_entropy_has_a_panel_per_layer(run, draw):
    figure = draw(Entropy, run, "ml-100k")
    assert [axis.get_title("left") for axis in figure.axes[:2]] == ["Layer 1", "Layer 2"]


def test_no_attention_no_figure(tmp_path, draw):
    run = load_run(write_run(tmp_path / "plain", users=20, seeds=2, attention=False))
    assert draw(Recency, run, "ml-100k") is None
    assert draw(Entropy, run, "ml-100k") is None


def test_variants_keep_their_look_and_differ(run):
    looks = [look(run, v) for v in run.variants]
    assert len({x.color for x in looks}) == len({x.marker for x in looks}) == 4
    assert looks == [look(run, v) for v in run.variants]


def test_the_front_holds_what_nothing_beats():
    points = [(1, 0.1), (2, 0.3), (3, 0.2), (4, 0.4), (2, 0.1)]
    assert pareto(points, 1) == [(1, 0.1), (2, 0.3), (4, 0.4)]
    assert pareto(points, -1) == [(1, 0.1)]


def test_accuracy_against_cost_has_a_panel_per_data_set(wide_dir, draw):
    figure = draw(AccuracyAgainstCost, load_run(wide_dir))
    assert [axis.get_title("left") for axis in figure.axes] == ["ml-100k", "amazon_beauty"]


def test_calibration_bins_hold_equal_numbers_and_average_to_the_rates(action_dir, draw):
    run = load_run(action_dir)
    figure = draw(Calibration, run, "ml-100k")
    assert [axis.get_title("left") for axis in figure.axes] == ["like", "five_stars", "dislike"]
    cell = run.ids("ml-100k", "attn-lfa")[0]
    rows = run.rows(cell, ["action", "label", "probability"]).to_pandas()
    predicted, observed = reliability(run, cell, dict.fromkeys(run.actions("ml-100k"), 10))["like"]
    like = rows[rows["action"] == "like"]
    assert observed.mean() == pytest.approx(like["label"].mean())
    assert predicted.mean() == pytest.approx(like["probability"].mean(), rel=1e-5)
    assert (np.diff(predicted) > 0).all()


def test_a_rare_action_has_few_bins(tmp_path, draw):
    variants = {"a": {"model": "interleaved"}, "b": {"model": "attn-lfa"}}
    folder = write_run(tmp_path / "rare", users=20, seeds=2, task="action", variants=variants)  # some 50 positives
    run = load_run(folder)
    axis = draw(Calibration, run, "ml-100k").axes[0]
    positives = run.rows(run.ids()[0], ["action", "label"]).to_pandas().groupby("action")["label"].sum()["like"]
    assert axis.get_title("left") == f"like, {positives // 20} bins"
    assert len(axis.containers[0].lines[0].get_xdata()) == positives // 20 < 10


def test_critical_differences_need_six_data_sets(run, tmp_path, draw):
    assert not CriticalDifferences("c").applies(run)
    with pytest.raises(InputError, match="at least 6 data sets"):
        CriticalDifferences("c").make(run, FULL)
    names = [f"d{i}" for i in range(6)]
    folder = write_run(tmp_path / "many", datasets=names, seeds=1, users=20, attention=False)
    figure = draw(CriticalDifferences, load_run(folder))
    assert "6 data sets" in figure.axes[0].get_title("left")


def test_efficiency_has_a_panel_per_quantity_where_there_is_one_width():
    table = pd.DataFrame({"arm": list("aabb"), "dim": 8, "length": [64, 128] * 2, "seconds": [1.0, 2.0, 3.0, 4.0]})
    quantities = {"seconds": "Seconds per step", "memory": "Memory"}
    axis, empty = efficiency_curves(table.assign(memory=0), quantities, FULL).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[1, 2], [3, 4]]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert axis.get_title("left") == "Seconds per step"
    assert np.isnan(empty.lines[0].get_ydata()).all()


def test_training_time_wraps_after_six_lengths():
    lengths = [2**n for n in range(8)]
    table = pd.DataFrame({"arm": ["a"] * 8 + ["b"] * 8, "dim": 8, "length": lengths * 2, "part": 0.5})
    table = table.assign(relative=1.0, relative_lowest=0.9, relative_highest=1.1)
    axes = [axis for axis in training_time(table, {"part": "Part"}, "a", FULL).axes if axis.get_visible()]
    assert [axis.get_title("left") for axis in axes[:1] + axes[5:]] == ["Length 1", "32", "64", "128"]


def test_code_usage_draws_what_it_is_given():
    levels = [{"use": 1.0, "perplexity": 3.2, "size": 4}, {"use": 0.75, "perplexity": 2.8, "size": 4}]
    quality = {"levels": levels, "alone": 0.6, "items": 5, "collisions": {2: 1}}
    left, right = code_usage(quality, "goods").axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([1.0, 0.75, 0.8, 0.7])
    assert [bar.get_height() for bar in right.patches] == [3, 2]
    assert [label.get_text() for label in right.get_xticklabels()] == ["1", "2"]


def test_the_legend_names_what_any_panel_shows(wide_dir, draw):
    run = load_run(wide_dir)
    first = run.datasets[0]
    kept = ~((run.cells["dataset"] == first) & (run.cells["variant"] == run.control))
    partial = copy.copy(run)
    partial.cells = run.cells[kept]
    (legend,) = draw(LearningCurves, partial).legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(run.label(v) for v in run.variants)


def test_sixteen_looks_differ_without_their_lines():
    assert len({look_at(place)[:2] for place in range(16)}) == 16


def test_a_long_legend_takes_nothing_from_the_panels(tmp_path, draw):
    heights = []
    for count in (2, 8):
        variants = {f"v{n}": {"model": "fair", "label": f"a variant with a long name {n}"} for n in range(count)}
        options = {"variants": variants, "strength": dict.fromkeys(variants, 1.0), "seeds": 2, "users": 40}
        figure = draw(LearningCurves, load_run(write_run(tmp_path / str(count), **options, attention=False)))
        figure.canvas.draw()
        heights.append(figure.axes[0].get_window_extent().height)
    assert heights[1] > 0.85 * heights[0]


@pytest.mark.parametrize("kind", ["wide_dir", "action_dir"])
def test_every_figure_can_be_read_in_print_at_both_widths(kind, request):
    failures = Failures()
    found = pictures(load_run(request.getfixturevalue(kind)), failures)
    assert len(found) >= 5
    assert not failures
    for picture in found:
        for figure, width in ((picture.figure, FULL), (picture.narrow, COLUMN)):
            png(figure, dpi=50)
            assert figure.get_figwidth() == width
            shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
            assert min(text.get_fontsize() for text in shown) >= SMALLEST, picture.name
            box = figure.get_tightbbox()
            assert box.width <= width + 0.02, f"{picture.name} is {box.width:.2f} inches wide at {width}"


def test_dollars_are_no_formulas(tmp_path):
    variants = {"a": {"model": "fair", "label": "$x_1$ and $"}, "b": {"model": "fair", "label": r"\frac $\bad{ %"}}
    run = load_run(write_run(tmp_path / "dollars", variants=variants, users=40, seeds=2))
    failures = Failures()
    for picture in pictures(run, failures):
        png(picture.figure, dpi=50)
    assert not failures


def test_letters_of_a_pdf_are_truetype_which_publishers_accept(run, draw, tmp_path, monkeypatch):
    monkeypatch.setitem(style._RC, "pdf.fonttype", 42)  # the tests' own is quicker
    (path,) = style.save(draw(Differences, run), tmp_path, "letters", forms=("pdf",))
    content = path.read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
