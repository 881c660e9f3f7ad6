"""Figures of a study: learning curves, differences to the control, accuracy against cost, critical differences.

Each function returns a finished matplotlib figure and draws from rows, histories and costs only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.comparisons import against_control
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.style import FULL, GREY, INK, look, new_figure, style

__all__ = ["forest_plot", "learning_curves"]


def learning_curves(run: Run) -> Figure:
    """Validation curve of the primary metric and training loss: mean and standard deviation over seeds.

    A curve is drawn as far as every seed trained; beyond, it would be a mean over the seeds that were slow to stop.
    A dot stands at the mean epoch that was chosen.
    """
    with style():
        figure = new_figure(FULL, 0.5 + 1.9 * len(run.datasets))
        axes = figure.subplots(len(run.datasets), 2, squeeze=False)
        for row, dataset in enumerate(run.datasets):
            for variant in run.variants:
                _learning_curve(run, dataset, variant, *axes[row])
            where = f"{dataset}: " if len(run.datasets) > 1 else ""
            axes[row, 0].set_title(f"{where}validation {metric_label(run.primary)}")
            axes[row, 1].set_title(f"{where}training loss")
            for axis in axes[row]:
                axis.set_xlabel("Epoch")
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, axes[0, 0])
    return figure


def _learning_curve(run: Run, dataset: str, variant: str, validation: Axes, loss: Axes) -> None:
    ids = run.ids(dataset, variant)
    histories = [run.history(cell) for cell in ids]
    seen = look(run, variant)
    for axis, column in ((validation, f"valid/{run.primary}"), (loss, "loss")):
        epoch, mean, sd = _over_seeds(histories, column)
        if not len(epoch):
            continue
        axis.plot(epoch, mean, color=seen.color, linestyle=seen.linestyle, label=run.label(variant))
        axis.fill_between(epoch, mean - sd, mean + sd, color=seen.color, alpha=0.15, linewidth=0)
        if axis is validation:
            best = np.mean([run.cards[cell]["outcome"]["best_epoch"] for cell in ids])
            at = min(float(best), float(epoch[-1]))
            axis.plot(at, np.interp(at, epoch, mean), seen.marker, color=seen.color, markeredgecolor="white")


def forest_plot(run: Run) -> Figure:
    """Differences to the control on the primary metric with 95 % intervals, one panel per data set."""
    tested = against_control(run)
    others = [v for v in run.variants if v != run.control]
    with style():
        figure = new_figure(FULL, 0.75 + len(run.datasets) * (0.45 + 0.27 * len(others)))
        axes = figure.subplots(len(run.datasets), 1, sharex=True, squeeze=False)[:, 0]
        for axis, dataset in zip(axes, run.datasets, strict=True):
            for row, variant in enumerate(others):
                c = tested.get((dataset, variant))
                if c is None:
                    axis.text(0.0, row, " not run", va="center", color=GREY, fontsize=7)
                    continue
                seen = look(run, variant)
                if c.interval is not None:
                    axis.plot(c.interval, (row, row), color=seen.color, linewidth=1.6, solid_capstyle="butt")
                axis.plot(c.difference, row, seen.marker, color=seen.color, markersize=5)
                change = "" if c.percent is None else f"{c.percent:+.1f} %".replace("-", "−")
                axis.annotate(
                    f"{change}  {c.verdict}",
                    (1.0, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                    color=INK if c.verdict in ("better", "worse") else GREY,
                )
            axis.axvline(0, color=INK, linewidth=0.8)
            axis.set_yticks(range(len(others)), [run.label(v) for v in others])
            axis.set_ylim(len(others) - 0.4, -0.6)
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
            axis.spines["left"].set_visible(False)
            axis.set_title(dataset)
        direction = " (lower is better)" if lower_is_better(run.primary) else ""
        axes[-1].set_xlabel(f"Difference in {metric_label(run.primary)} to {run.label(run.control)}{direction}")
    return figure


def _over_seeds(histories: list[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs that every seed trained, and the mean and standard deviation of a column over seeds there."""
    histories = [history for history in histories if column in history]
    if not histories:
        return np.empty(0), np.empty(0), np.empty(0)
    length = min(len(history) for history in histories)
    values = np.stack([history[column].to_numpy(float)[:length] for history in histories])  # (S, E)
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(length)
    return histories[0]["epoch"].to_numpy()[:length], values.mean(axis=0), sd


def _legend(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """One legend above all panels, with the entries of ``axis``."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, max(1, len(labels))))
