"""Calibration of predicted actions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.figures.common import by_eights, legend, panels
from harness.analysis.rows import Run
from harness.analysis.style import GREY, look, style

__all__ = ["Calibration", "reliability"]

BINS = 10
POSITIVES = 20
"""Events with the action that a bin holds on average at the least: fewer, and the points say nothing but noise."""


class Calibration(DatasetFigure):
    """Share of events with an action against its predicted probability, in bins of equal numbers of events."""

    order = 46

    def applies(self, run: Run, dataset: str) -> bool:
        return run.task == "action" and bool(run.ids(dataset))

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"Calibration{self.on(run, dataset)}: share of test events with the action against the predicted "
            f"probability, in bins of equal numbers of events, {BINS} or as many as leave each {POSITIVES} events with "
            "the action (its number of bins stands behind an action that has fewer); mean over seeds, bars of one "
            "standard deviation. On the diagonal, probabilities mean what they say."
        )

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        actions = run.actions(dataset)
        positives = _positives(run, run.ids(dataset)[0])
        bins = {action: int(np.clip(positives[action] // POSITIVES, 1, BINS)) for action in actions}
        groups = by_eights(run, [v for v in run.variants if run.ids(dataset, v)])
        curves = {v: [reliability(run, cell, bins) for cell in run.ids(dataset, v)] for v in run.variants}
        with style():
            figure, axes = panels(len(actions) * len(groups), width, 2.2, columns=3, narrow=2)
            places = [(action, group) for action in actions for group in groups]
            for axis, (action, group) in zip(axes, places, strict=True):
                tops = [_curve(run, v, [cell[action] for cell in curves[v]], axis) for v in group]
                end = min(1.0, 1.08 * max(tops, default=1.0))  # a rare action would fill a corner only
                axis.plot((0, end), (0, end), color=GREY, linewidth=0.7, zorder=0)
                axis.set(xlim=(0, end), ylim=(0, end), aspect="equal")
                number = {BINS: "", 1: ", 1 bin"}.get(bins[action], f", {bins[action]} bins")
                axis.set_title(f"{action}{number}")
                axis.locator_params(nbins=4)
            figure.supxlabel("Predicted probability", fontsize=8)
            figure.supylabel("Share with the action", fontsize=8)
            legend(figure)
        return figure


def _curve(run: Run, variant: str, cells: list[tuple[np.ndarray, np.ndarray]], axis: Axes) -> float:
    """Draws a variant's seeds, a pair of (bins,) each; the largest value that shows."""
    seen = look(run, variant)
    predicted, observed = np.stack(cells).transpose(1, 0, 2)  # (S, bins) each
    sd = observed.std(0, ddof=1) if len(cells) > 1 else np.zeros(observed.shape[1])
    axis.errorbar(
        predicted.mean(0), observed.mean(0), sd, color=seen.color, linestyle=seen.linestyle, marker=seen.marker,
        markersize=3, linewidth=1, elinewidth=0.6, label=run.label(variant),
    )  # fmt: skip
    return float(max(predicted.mean(0).max(), observed.mean(0).max()))


def _positives(run: Run, cell: str) -> dict[str, int]:
    """Action -> test events that have it, the same in all cells of a data set."""
    rows = run.rows(cell, ["action", "label"]).to_pandas()
    return rows.groupby("action", sort=False)["label"].sum().to_dict()


def reliability(run: Run, cell: str, bins: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Action -> mean predicted probability and share of positive labels by predicted quantile, each (bins[action],)."""
    rows = run.rows(cell, ["action", "label", "probability"]).to_pandas()
    found = {}
    for action, lines in rows.groupby("action", sort=False):
        order = np.argsort(lines["probability"].to_numpy(), kind="stable")
        parts = [
            np.array_split(lines[column].to_numpy(float)[order], bins[action]) for column in ("probability", "label")
        ]
        predicted, observed = (np.array([part.mean() if len(part) else np.nan for part in side]) for side in parts)
        found[str(action)] = predicted, observed
    return found
