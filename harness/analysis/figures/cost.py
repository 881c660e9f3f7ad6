"""Accuracy against cost."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.analysis.artefacts import ReportFigure
from harness.analysis.figures.common import legend, panels, trained
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.style import GREY, look, style

__all__ = ["AccuracyAgainstCost"]


class AccuracyAgainstCost(ReportFigure):
    """Primary metric against training seconds, what nothing beats in both, and untrained variants as levels."""

    section = "cost"
    order = 20

    def applies(self, run: Run) -> bool:
        return len(run.variants) > 1 and any(trained(run, d, v) for d in run.datasets for v in run.variants)

    def caption(self, run: Run) -> str:
        return (
            f"Accuracy against cost: test {metric_label(run.primary)}, mean and one standard deviation over seeds, and "
            "training seconds, mean and extremes. The grey line joins the variants that no other beats in both. Dotted "
            "lines: variants that nothing was trained for. The seconds are those that went by, with whatever else the "
            "machine did meanwhile; FLOPs per event stand in the table of costs."
        )

    def make(self, run: Run, width: float) -> Figure:
        with style():
            figure, axes = panels(len(run.datasets), width, 2.3)
            for axis, dataset in zip(axes, run.datasets, strict=True):
                points = [_point(run, dataset, variant, axis) for variant in run.variants]
                _front(axis, [point for point in points if point], -1 if lower_is_better(run.primary) else 1)
                axis.set(xlabel="Training seconds", ylabel=f"Test {metric_label(run.primary)}", title=dataset)
                axis.set_title(dataset)
            legend(figure)
        return figure


def _point(run: Run, dataset: str, variant: str, axis: Axes) -> tuple[float, float] | None:
    """Draws a variant; its seconds and value where it was trained."""
    ids = run.ids(dataset, variant)
    values = np.array([run.metric(cell, run.primary) for cell in ids])
    if not ids or not np.isfinite(values).all():
        return None
    seen, label, y = look(run, variant), run.label(variant), values.mean()
    if not trained(run, dataset, variant):
        axis.axhline(y, color=seen.color, linewidth=1, linestyle=":", label=label, zorder=0)
        return None
    seconds = np.array([run.cost(cell)["train_seconds"] for cell in ids])
    x = seconds.mean()
    sd = values.std(ddof=1) if len(ids) > 1 else 0.0
    axis.errorbar(
        x, y, xerr=[[x - seconds.min()], [seconds.max() - x]], yerr=sd, fmt=seen.marker, color=seen.color,
        elinewidth=0.8, markersize=6, label=label,
    )  # fmt: skip
    return x, y


def _front(axis: Axes, points: list[tuple[float, float]], sign: int) -> None:
    """The line of what nothing beats, and a logarithmic axis with plain numbers."""
    axis.set_xscale("log")
    front = pareto(points, sign)
    if front:  # on to the right border: what costs more and is no better lies under it
        front.append((axis.get_xlim()[1], front[-1][1]))
        axis.set_xlim(axis.get_xlim())
    axis.step([x for x, _ in front], [y for _, y in front], where="post", color=GREY, linewidth=0.8, zorder=0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    low, high = axis.get_xlim()
    if high / low < 20:  # too narrow for powers of ten alone
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high / low < 8 else (1, 3)))


def pareto(points: list[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """The (cost, value) points that no other beats in cost and value, by cost; ``sign`` is -1 for losses."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * y > sign * front[-1][1]:
            front.append((x, y))
    return front
