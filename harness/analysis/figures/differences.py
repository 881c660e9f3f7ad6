"""Forest plot of the declared differences."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.artefacts import ReportFigure
from harness.analysis.comparisons import comparisons, named, to_base
from harness.analysis.figures.common import is_narrow
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.statistics import CORRECTIONS, Comparison
from harness.analysis.style import GREY, INK, look, new_figure, style

__all__ = ["Differences"]

LABEL = 22
"""Letters of a label in a narrow figure before it is broken."""


class Differences(ReportFigure):
    """The declared differences in the primary metric with 95 % intervals, a panel with its own scale per data set."""

    order = 15

    def applies(self, run: Run) -> bool:
        return bool(comparisons(run))

    def caption(self, run: Run) -> str:
        return (
            f"Differences in {metric_label(run.primary)}{to_base(run)}, paired over seeds, with 95 % intervals: thick "
            "over seeds (Student's t), for these users; thin over users and seeds. The grey band is the stated margin. "
            f"At the right: relative difference and verdict, {CORRECTIONS[run.correction]}-corrected over the whole "
            "family at 0.05."
        )

    def make(self, run: Run, width: float) -> Figure:
        tested, narrow = comparisons(run), is_narrow(width)
        labels = [named(run, *pair)[1] for pair in run.pairs]
        shown = [textwrap.fill(label, LABEL) if narrow else label for label in labels]
        each = 0.27 + 0.11 * max(label.count("\n") for label in shown)
        several = len(run.datasets) > 1
        with style():
            figure = new_figure(width, 0.75 + len(run.datasets) * (0.45 + 0.25 * several + each * len(shown)))
            axes = figure.subplots(len(run.datasets), 1, squeeze=False)[:, 0]
            for axis, dataset in zip(axes, run.datasets, strict=True):
                for row, pair in enumerate(run.pairs):
                    _line(axis, row, run, pair[0], labels[row], tested.get((dataset, *pair)), narrow)
                _dress(axis, shown, narrow)
                axis.set_title(dataset)
            direction = " (lower is better)" if lower_is_better(run.primary) else ""
            to = "" if narrow else to_base(run)
            axes[-1].set_xlabel(f"Difference in {metric_label(run.primary)}{to}{direction}")
        return figure


def _dress(axis: Axes, labels: list[str], narrow: bool) -> None:
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(labels)), labels)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=3 if narrow else 7))
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _line(axis: Axes, row: int, run: Run, arm: str, label: str, c: Comparison | None, narrow: bool) -> None:
    """One comparison: its margin, its two intervals, its difference, and the verdict at the right."""
    if c is None:
        axis.text(0.0, row, " not run", va="center", color=GREY, fontsize=7)
        return
    seen = look(run, arm)
    if c.margin is not None:
        axis.fill_betweenx((row - 0.4, row + 0.4), -c.margin, c.margin, color=GREY, alpha=0.15, linewidth=0)
    for interval, weight in ((c.interval_users, 0.8), (c.interval, 2.2)):
        if interval is not None:
            axis.plot(interval, (row, row), color=seen.color, linewidth=weight, solid_capstyle="butt")
    axis.plot(c.difference, row, seen.marker, color=seen.color, markersize=6, label=label)
    change = "" if c.percent is None else f"{c.percent:+.1f} %".replace("-", "−")
    verdict = c.verdict if c.seeds > 1 else "one seed, no test"
    axis.annotate(
        f"{change}{chr(10) if narrow else '  '}{verdict}" if not narrow or c.verdict != "undecided" else change,
        (1.0, row),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5 if not narrow else 7,
        linespacing=0.95,
        color=INK if c.verdict in ("better", "worse") else GREY,
    )
