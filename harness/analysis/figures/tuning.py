"""Tuning: what each trial reached."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.analysis.artefacts import ReportFigure
from harness.analysis.figures.common import is_narrow
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.style import GREY, INK, look, new_figure, style
from harness.analysis.tuning import load_tuning

__all__ = ["TuningCurves", "tuning_curves"]

_LINES: dict[str, dict[str, Any]] = {
    "best so far": {"color": INK},
    "a trial's best epoch": {"color": INK, "linestyle": "", "marker": "o"},
    "pruned": {"color": INK, "linestyle": "", "marker": "o", "markerfacecolor": "white"},
    "no value": {"color": GREY, "linestyle": "", "marker": "x"},
    "the study's own setting": {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 2))},
}
"""What the panels hold; the first three in the variant's colour."""


class TuningCurves(ReportFigure):
    """Each trial's best validation value, and the best so far of the finished ones, in a panel per search."""

    section = "tuning"
    order = 20

    def applies(self, run: Run) -> bool:
        return bool(load_tuning(run))

    def caption(self, run: Run) -> str:
        return (
            f"Tuning: validation {metric_label(run.primary)} of each trial at its best epoch (pruned trials hollow), "
            "and the best so far. The dashed line is the study's own setting, where it was tried first. Each panel has "
            "its own scale, since what a search gains is small beside what variants differ by."
        )

    def make(self, run: Run, width: float) -> Figure:
        return tuning_curves(run, load_tuning(run), width)


def tuning_curves(run: Run, entries: list[dict[str, Any]], width: float) -> Figure:
    """A panel per entry of ``tuning.json``; each data set begins a row."""
    searches: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        searches.setdefault(entry["dataset"], []).append(entry)
    narrow = is_narrow(width)
    columns = min(2 if narrow else 4, max(map(len, searches.values())))
    heights = [-(-len(found) // columns) for found in searches.values()]
    with style():
        figure = new_figure(width, (1.1 if narrow else 0.6) + 1.9 * sum(heights))
        axes = figure.subplots(sum(heights), columns, squeeze=False)
        blocks = np.split(axes, np.cumsum(heights)[:-1])  # each data set begins a row
        for (dataset, found), block in zip(searches.items(), blocks, strict=True):
            for axis, entry in zip(block.ravel(), found, strict=False):
                _panel(axis, entry, look(run, entry["variant"]).color, lower_is_better(run.primary))
                title = textwrap.fill(run.label(entry["variant"]), (40 if narrow else 80) // columns)
                axis.set_title(f"{dataset}\n{title}" if len(searches) > 1 else title)
            for axis in block[:, 0]:
                axis.set_ylabel(f"Validation {metric_label(run.primary)}")
            for axis in block.ravel()[len(found) :]:
                axis.set_visible(False)
        own = "" if narrow else " (the scale of the values is each panel's own)"
        figure.supxlabel(f"Trial{own}", fontsize=8)
        drawn = {line.get_label() for axis in axes.ravel() for line in axis.lines}
        handles = [Line2D([], [], label=name, **seen) for name, seen in _LINES.items() if name in drawn]
        figure.legend(handles=handles, loc="outside upper left", ncols=2 if narrow else len(handles))
    return figure


def _panel(axis: Axes, entry: dict[str, Any], color: str, lower: bool) -> None:
    pick = min if lower else max
    points: dict[str, list[tuple[int, float]]] = {"a trial's best epoch": [], "pruned": [], "no value": []}
    finished, so_far = points["a trial's best epoch"], []
    own = math.nan
    for number, trial in enumerate(entry["trials"], start=1):
        reached = pick((value for _, value in trial.get("curve", ())), default=None)
        if trial["state"] == "complete" and trial["value"] is not None:
            finished.append((number, trial["value"]))
            own = trial["value"] if trial.get("drawn") == "own" else own
        elif trial["state"] == "pruned" and reached is not None:
            points["pruned"].append((number, reached))
        else:
            points["no value"].append((number, 0.03))  # a cross at the foot
        so_far.append(pick((value for _, value in finished), default=math.nan))
    axis.step(range(1, len(so_far) + 1), so_far, where="post", color=color, label="best so far")
    if math.isfinite(own):
        axis.axhline(own, label="the study's own setting", zorder=0, **_LINES["the study's own setting"])
    for name, found in points.items():
        if found:
            foot = {"transform": axis.get_xaxis_transform()} if name == "no value" else {"color": color}
            axis.plot(*zip(*found, strict=True), label=name, **_LINES[name] | foot)
    axis.set_xlim(0.5, len(so_far) + 0.5)
    axis.margins(y=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
