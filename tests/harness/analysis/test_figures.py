from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

from benchmarks.synthetic_run import write_run
from harness.analysis import attention_figures, figures
from harness.analysis.comparisons import comparisons
from harness.analysis.rows import load_run
from harness.analysis.style import look, look_at
from harness.errors import InputError


def test_forest_plot_draws_the_intervals_of_the_table(run):
    axis = figures.forest_plot(run).axes[0]
    drawn = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    for comparison in comparisons(run).values():
        assert any(np.allclose(x, comparison.interval) for x in drawn)
        assert any(np.allclose(x, comparison.interval_users) for x in drawn)


def test_learning_curves_are_means_over_seeds_while_all_train(run):
    axis = figures.learning_curves(run).axes[0]
    curve = next(line for line in axis.lines if line.get_label() == "FAIR")
    histories = [run.history(cell) for cell in run.ids("ml-100k", "fair")]
    shortest = min(map(len, histories))
    assert len(curve.get_xdata()) == shortest
    assert curve.get_ydata()[3] == pytest.approx(np.mean([h["valid/ndcg@10"][3] for h in histories]))


def test_learning_curves_show_validations_with_epochs_between_them(run):
    sparse = copy.copy(run)
    column = "valid/ndcg@10"
    skipped = lambda history: history["epoch"] % 3 != 0  # noqa: E731
    sparse.history = lambda cell: run.history(cell).assign(**{column: lambda h: h[column].mask(skipped(h))})
    axis = figures.learning_curves(sparse).axes[0]
    for variant in run.variants:
        curve = next(line for line in axis.lines if line.get_label() == run.label(variant))
        shortest = min(len(run.history(cell)) for cell in run.ids("ml-100k", variant))
        assert list(curve.get_xdata()) == [e for e in range(1, shortest + 1) if e % 3 == 0]
        assert np.isfinite(curve.get_ydata()).all()
        best = np.mean([run.cards[cell]["outcome"]["best_epoch"] for cell in run.ids("ml-100k", variant)])
        (marked,) = curve.get_markevery()
        assert abs(curve.get_xdata()[marked] - best) == np.abs(curve.get_xdata() - best).min()


def test_recency_shows_signed_and_absolute_weight_apart(run):
    signed, absolute = attention_figures.recency(run, "ml-100k").axes
    assert (signed.get_title("left"), absolute.get_title("left")) == ("Signed weight", "Share of absolute weight")
    frame = attention_figures.attention_frame(run, "ml-100k")
    for axis, statistic in ((signed, "recency"), (absolute, "recency_abs")):
        curve = next(line for line in axis.lines if line.get_label() == "FAIR")
        chosen = frame[(frame["variant"] == "fair") & (frame["statistic"] == statistic) & (frame["bin"] == 2)]
        assert curve.get_ydata()[2] == pytest.approx(chosen["value"].mean())


def test_entropy_has_a_panel_per_layer(run):
    figure = attention_figures.entropy_by_head(run, "ml-100k")
    assert [axis.get_title("left") for axis in figure.axes[:2]] == ["Layer 1", "Layer 2"]


def test_no_attention_no_figure(tmp_path):
    run = load_run(write_run(tmp_path / "plain", users=20, seeds=2, attention=False))
    assert attention_figures.recency(run, "ml-100k") is None
    assert attention_figures.entropy_by_head(run, "ml-100k") is None


def test_variants_keep_their_look_and_differ(run):
    looks = [look(run, v) for v in run.variants]
    assert len({x.color for x in looks}) == len({x.marker for x in looks}) == 4
    assert looks == [look(run, v) for v in run.variants]


def test_the_front_holds_what_nothing_beats():
    points = [(1, 0.1), (2, 0.3), (3, 0.2), (4, 0.4), (2, 0.1)]
    assert figures._pareto(points, 1) == [(1, 0.1), (2, 0.3), (4, 0.4)]
    assert figures._pareto(points, -1) == [(1, 0.1)]


def test_accuracy_against_cost_has_a_panel_per_data_set(wide_dir):
    figure = figures.accuracy_against_cost(load_run(wide_dir))
    assert [axis.get_title("left") for axis in figure.axes] == ["ml-100k", "amazon_beauty"]


def test_calibration_bins_hold_equal_numbers_and_average_to_the_rates(action_dir):
    run = load_run(action_dir)
    figure = figures.calibration(run, "ml-100k")
    assert [axis.get_title("left") for axis in figure.axes] == ["like", "five_stars", "dislike"]
    cell = run.ids("ml-100k", "attn-lfa")[0]
    rows = run.rows(cell, ["action", "label", "probability"]).to_pandas()
    predicted, observed = figures._reliability(run, cell, 10)["like"]
    like = rows[rows["action"] == "like"]
    assert observed.mean() == pytest.approx(like["label"].mean())
    assert predicted.mean() == pytest.approx(like["probability"].mean(), rel=1e-5)
    assert (np.diff(predicted) > 0).all()


def test_critical_differences_need_six_data_sets(run, tmp_path):
    with pytest.raises(InputError, match="at least 6 data sets"):
        figures.critical_differences(run)
    names = [f"d{i}" for i in range(6)]
    folder = write_run(tmp_path / "many", datasets=names, seeds=1, users=20, attention=False)
    figure = figures.critical_differences(load_run(folder))
    assert "6 data sets" in figure.axes[0].get_title("left")


def test_efficiency_has_a_panel_per_quantity_where_there_is_one_width():
    table = pd.DataFrame({"arm": list("aabb"), "dim": 8, "length": [64, 128] * 2, "seconds": [1.0, 2.0, 3.0, 4.0]})
    figure = figures.efficiency_curves(table.assign(memory=0), {"seconds": "Seconds per step", "memory": "Memory"})
    axis, empty = figure.axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[1, 2], [3, 4]]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert axis.get_title("left") == "Seconds per step"
    assert np.isnan(empty.lines[0].get_ydata()).all()


def test_training_time_wraps_after_six_lengths():
    lengths = [2**n for n in range(8)]
    table = pd.DataFrame({"arm": ["a"] * 8 + ["b"] * 8, "dim": 8, "length": lengths * 2, "part": 0.5})
    table = table.assign(relative=1.0, relative_lowest=0.9, relative_highest=1.1)
    axes = [axis for axis in figures.training_time(table, {"part": "Part"}, "a").axes if axis.get_visible()]
    assert [axis.get_title("left") for axis in axes[:1] + axes[5:]] == ["Length 1", "32", "64", "128"]


def test_code_usage_draws_what_it_is_given():
    levels = [{"use": 1.0, "perplexity": 3.2, "size": 4}, {"use": 0.75, "perplexity": 2.8, "size": 4}]
    quality = {"levels": levels, "alone": 0.6, "items": 5, "collisions": {2: 1}}
    left, right = figures.code_usage(quality, "goods").axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([1.0, 0.75, 0.8, 0.7])
    assert [bar.get_height() for bar in right.patches] == [3, 2]
    assert [label.get_text() for label in right.get_xticklabels()] == ["1", "2"]


def test_the_legend_names_what_any_panel_shows(wide_dir):
    run = load_run(wide_dir)
    first = run.datasets[0]
    kept = ~((run.cells["dataset"] == first) & (run.cells["variant"] == run.control))
    partial = copy.copy(run)
    partial.cells = run.cells[kept]
    (legend,) = figures.learning_curves(partial).legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(run.label(v) for v in run.variants)


def test_sixteen_looks_differ_without_their_lines():
    assert len({look_at(place)[:2] for place in range(16)}) == 16


def test_a_long_legend_takes_nothing_from_the_panels(tmp_path):
    heights = []
    for count in (2, 16):
        variants = {f"v{n}": {"model": "fair", "label": f"a variant with a long name {n}"} for n in range(count)}
        options = {"variants": variants, "strength": dict.fromkeys(variants, 1.0), "seeds": 2, "users": 40}
        figure = figures.learning_curves(load_run(write_run(tmp_path / str(count), **options, attention=False)))
        figure.canvas.draw()
        heights.append(figure.axes[0].get_window_extent().height)
    assert heights[1] > 0.85 * heights[0]
