"""The figure of a training's diagnostics: gradient shares of the auxiliary losses and the cosine of users' states."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.analysis.diagnostics import COLLAPSED, HIGHEST_SHARE, LOWEST_SHARE, STATES, auxiliary_terms
from harness.analysis.figures import _legend, _values_over_seeds
from harness.analysis.rows import Run
from harness.analysis.style import FULL, GREY, look, new_figure, style

__all__ = ["training_diagnostics"]

COLUMNS = 3
LOWEST_PERCENT = 1e-3
"""The lower end of the axis of shares; a smaller share lies on it."""


def training_diagnostics(run: Run, dataset: str) -> Figure | None:
    """A panel per auxiliary loss and one of the states, against epochs: mean over seeds with the seeds' extremes.

    A line is drawn as far as every seed trained, its mark at the mean of the chosen epochs. None where no cell of the
    data set has a second loss or shows states.
    """
    histories = {v: [run.history(cell) for cell in run.ids(dataset, v)] for v in run.variants}
    every = [history for found in histories.values() for history in found]
    terms = list(dict.fromkeys(term for history in every for term in auxiliary_terms(history)))
    panels = {f"gradient/{term}": f"Gradient of '{term}'" for term in terms}
    if any(STATES in history for history in every):
        panels[STATES] = "Cosine of users' states"
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(FULL, 0.6 + 2.1 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, (column, title) in zip(axes, panels.items(), strict=False):
            for variant, found in histories.items():
                _line(run, dataset, variant, found, column, axis)
            axis.set_title(title)
            axis.set_xlabel("Epoch")
            axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        shares, states = axes[: len(terms)], axes[len(terms) : len(panels)]
        _share_axes(list(shares))
        for axis in states:
            axis.axhline(COLLAPSED, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
            axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.02)
            axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, COLLAPSED])
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_ylabel("Mean cosine")
        _legend(figure)
    return figure


def _line(run: Run, dataset: str, variant: str, histories: list, column: str, axis: Axes) -> None:
    epoch, values = _values_over_seeds(histories, column)
    if not len(epoch):
        return
    if column != STATES:
        values = np.maximum(100 * values, LOWEST_PERCENT)
    seen = look(run, variant)
    best = np.mean([run.cards[cell]["outcome"]["best_epoch"] for cell in run.ids(dataset, variant)])
    axis.plot(
        epoch, values.mean(axis=0), color=seen.color, linestyle=seen.linestyle, marker=seen.marker,
        markevery=[int(np.abs(epoch - best).argmin())], markersize=6, label=run.label(variant),
    )  # fmt: skip
    axis.fill_between(epoch, values.min(axis=0), values.max(axis=0), color=seen.color, alpha=0.15, linewidth=0)


def _share_axes(axes: list[Axes]) -> None:
    """One logarithmic scale of percent for all panels of shares, the healthy band shaded."""
    if not axes:
        return
    low = min(axis.dataLim.intervaly[0] for axis in axes)
    high = max(axis.dataLim.intervaly[1] for axis in axes)
    for axis in axes:
        band = 100 * LOWEST_SHARE, 100 * HIGHEST_SHARE
        axis.axhspan(*band, color="#E6EFE0", linewidth=0, zorder=-1)
        axis.text(
            0.98, 1.15 * band[0], "{:g} to {:g} %".format(*band), transform=axis.get_yaxis_transform(), ha="right",
            va="bottom", color=GREY, fontsize=7, zorder=0,
        )  # fmt: skip
        axis.set_yscale("log")
        axis.set_ylim(max(LOWEST_PERCENT, min(low, 100 * LOWEST_SHARE) / 1.6), max(high, 100 * HIGHEST_SHARE) * 1.6)
        axis.yaxis.set_major_locator(LogLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    for axis in axes[::COLUMNS]:
        axis.set_ylabel("% of the main loss' gradient")
