from __future__ import annotations

import numpy as np
import pytest

from harness.analysis import attention_figures, figures
from harness.analysis.comparisons import against_control
from harness.analysis.style import look


def test_forest_plot_draws_the_intervals_of_the_table(run):
    axis = figures.forest_plot(run).axes[0]
    drawn = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    for comparison in against_control(run).values():
        assert any(np.allclose(x, comparison.interval) for x in drawn)


def test_learning_curves_are_means_over_seeds_while_all_train(run):
    axis = figures.learning_curves(run).axes[0]
    curve = next(line for line in axis.lines if line.get_label() == "FAIR")
    histories = [run.history(cell) for cell in run.ids("ml-100k", "fair")]
    shortest = min(map(len, histories))
    assert len(curve.get_xdata()) == shortest
    assert curve.get_ydata()[3] == pytest.approx(np.mean([h["valid/ndcg@10"][3] for h in histories]))


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


def test_no_attention_no_figure(action_dir, tmp_path):
    from benchmarks.synthetic_run import write_run
    from harness.analysis.rows import load_run

    run = load_run(write_run(tmp_path / "plain", users=20, seeds=2, attention=False))
    assert attention_figures.recency(run, "ml-100k") is None
    assert attention_figures.entropy_by_head(run, "ml-100k") is None


def test_variants_keep_their_look_and_differ(run):
    looks = [look(run, v) for v in run.variants]
    assert len({x.color for x in looks}) == len({x.marker for x in looks}) == 4
    assert looks == [look(run, v) for v in run.variants]
