"""Learning curves: validation and main loss, epoch by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.artefacts import ReportFigure
from harness.analysis.figures.common import by_eights, legend, panels, trained, values_over_seeds
from harness.analysis.rows import Run, metric_label
from harness.analysis.style import look, style

__all__ = ["LearningCurves"]


class LearningCurves(ReportFigure):
    """Validation of the primary metric, and the main loss relative to its first epoch's, of every trained variant."""

    section = "training"
    order = 10

    def applies(self, run: Run) -> bool:
        return any(len(run.history(cell)) for d in run.datasets for v in _trained(run, d) for cell in run.ids(d, v))

    def caption(self, run: Run) -> str:
        return (
            "Learning curves of the variants that were trained: mean over seeds, band of one standard deviation, as "
            f"far as every seed trained. A mark stands at the mean of the chosen epochs and of the {_metric(run)} "
            "that they were chosen for. The main loss, which other terms are added to, is shown as a share of what it "
            "was in the first epoch, since the losses of different models have no common scale."
        )

    def make(self, run: Run, width: float) -> Figure:
        rows = [(dataset, group) for dataset in run.datasets for group in by_eights(run, _trained(run, dataset))]
        with style():
            figure, axes = panels(2 * len(rows), width, 1.9)
            for place, (dataset, group) in enumerate(rows):
                validation, loss = axes[2 * place : 2 * place + 2]
                for variant in group:
                    _validation(run, dataset, variant, validation)
                    _loss(run, dataset, variant, loss)
                where = f"{dataset}: " if len(run.datasets) > 1 else ""
                validation.set_title(f"{where}{_metric(run)}")
                loss.set_title(f"{where}main loss")
                loss.set_ylabel("Share of epoch 1's")
                for axis in (validation, loss):
                    axis.set_xlabel("Epoch")
                    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            _one_scale(axes[::2], rows)
            legend(figure)
        return figure


def main_term(history: pd.DataFrame) -> str:
    """The column of the loss that the others are added to, which is the first."""
    return next((column for column in map(str, history) if column.startswith("loss/")), "loss")


def _trained(run: Run, dataset: str) -> list[str]:
    return [variant for variant in run.variants if trained(run, dataset, variant)]


def _metric(run: Run) -> str:
    return f"validation {metric_label(run.primary)}"


def _validation(run: Run, dataset: str, variant: str, axis: Axes) -> None:
    column = f"valid/{run.primary}"
    ids = run.ids(dataset, variant)
    histories = [run.history(cell) for cell in ids]
    _curve(run, variant, *values_over_seeds(histories, column), axis)
    chosen = []
    for cell, history in zip(ids, histories, strict=True):
        best = run.cards[cell]["outcome"]["best_epoch"]
        if column in history and (there := history.loc[history["epoch"] == best, column]).notna().any():
            chosen.append((best, float(there.iloc[0])))
    if chosen:
        seen = look(run, variant)
        axis.plot(*np.mean(chosen, axis=0), seen.marker, color=seen.color, markersize=6)


def _loss(run: Run, dataset: str, variant: str, axis: Axes) -> None:
    histories = [run.history(cell) for cell in run.ids(dataset, variant)]
    histories = [history for history in histories if len(history)]
    if not histories:
        return
    epoch, values = values_over_seeds(histories, main_term(histories[0]))
    if len(epoch) and (values[:, :1] > 0).all():
        _curve(run, variant, epoch, values / values[:, :1], axis)


def _curve(run: Run, variant: str, epoch: np.ndarray, values: np.ndarray, axis: Axes) -> None:
    """(S, E) ``values`` as mean and deviation. The line's marker shows in the legend alone."""
    if not len(epoch):
        return
    seen, mean = look(run, variant), values.mean(axis=0)
    axis.plot(
        epoch, mean, color=seen.color, linestyle=seen.linestyle, marker=seen.marker, markevery=[],
        label=run.label(variant),
    )  # fmt: skip
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(epoch))
    axis.fill_between(epoch, mean - sd, mean + sd, color=seen.color, alpha=0.15, linewidth=0)


def _one_scale(axes: list[Axes], rows: list[tuple[str, list[str]]]) -> None:
    """The groups of one data set on one scale."""
    for dataset in dict.fromkeys(dataset for dataset, _ in rows):
        own = [axis for axis, (d, _) in zip(axes, rows, strict=True) if d == dataset]
        for axis in own[1:]:
            axis.sharey(own[0])
        own[0].autoscale(axis="y")
