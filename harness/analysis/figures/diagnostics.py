"""The figure of a training's diagnostics: gradient shares of the auxiliary losses and the cosine of users' states."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.diagnostics import COLLAPSED, HIGHEST_SHARE, LOWEST_SHARE, STATES, auxiliary_terms
from harness.analysis.figures.common import legend, panels, values_over_seeds
from harness.analysis.rows import Run
from harness.analysis.style import GREY, look, style

__all__ = ["Diagnostics"]

LOWEST_PERCENT = 1e-3
"""The lower end of the axis of shares; a smaller share lies on it."""


class Diagnostics(DatasetFigure):
    """A panel per auxiliary loss and one of the states, against epochs: mean over seeds with the seeds' extremes."""

    section = "training"
    order = 20

    def applies(self, run: Run, dataset: str) -> bool:
        return bool(_columns(run, dataset))

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"What trained{self.on(run, dataset)}: the gradient of each auxiliary loss in percent of the main loss' "
            "(over the parameters that both reach, on one fixed batch), shaded from 1 to 50 %: below, a loss does next "
            "to nothing; above, it competes with the main one. The mean cosine between the states of different users "
            "(before the validation targets), dashed at 0.95: above, the ranking depends little on the user. Mean over "
            "seeds, band from the lowest to the highest, as far as every seed trained; the mark stands at the mean of "
            "the chosen epochs."
        )

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        columns = _columns(run, dataset)
        with style():
            figure, axes = panels(len(columns), width, 2.1, columns=3, narrow=1)
            for axis, (column, title) in zip(axes, columns.items(), strict=True):
                for variant in run.variants:
                    _line(run, dataset, variant, column, axis)
                axis.set_title(title)
                axis.set_xlabel("Epoch")
                axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            _share_axes([axis for axis, column in zip(axes, columns, strict=True) if column != STATES])
            for axis in [axis for axis, column in zip(axes, columns, strict=True) if column == STATES]:
                axis.axhline(COLLAPSED, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
                axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.02)
                axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, COLLAPSED])
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_ylabel("Mean cosine")
            legend(figure)
        return figure


def _columns(run: Run, dataset: str) -> dict[str, str]:
    """Column of the histories -> heading of its panel."""
    histories = [run.history(cell) for cell in run.ids(dataset)]
    terms = list(dict.fromkeys(term for history in histories for term in auxiliary_terms(history)))
    columns = {f"gradient/{term}": f"Gradient of '{term}'" for term in terms}
    if any(STATES in history for history in histories):
        columns[STATES] = "Cosine of users' states"
    return columns


def _line(run: Run, dataset: str, variant: str, column: str, axis: Axes) -> None:
    cells = run.ids(dataset, variant)
    epoch, values = values_over_seeds([run.history(cell) for cell in cells], column)
    if not len(epoch):
        return
    if column != STATES:
        values = np.maximum(100 * values, LOWEST_PERCENT)
    seen = look(run, variant)
    best = np.mean([run.cards[cell]["outcome"]["best_epoch"] for cell in cells])
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
        place = axis.get_subplotspec()
        if place is not None and place.is_first_col():
            axis.set_ylabel("% of the main loss' gradient")
