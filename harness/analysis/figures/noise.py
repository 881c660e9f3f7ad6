"""Figures of the noise experiment: what variants do as more of the history is noise, and how they differ."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.comparisons import to_base
from harness.analysis.figures.common import is_narrow, legend
from harness.analysis.noise import (
    ATTENTION,
    RANKING,
    Quantity,
    noise_comparisons,
    noise_quantities,
    noise_shares,
    noise_values,
)
from harness.analysis.rows import Run, metric_label
from harness.analysis.style import GREY, INK, look, new_figure, style

__all__ = ["NoiseAccuracy", "NoiseAttention"]

PROPORTIONAL = "dotted: the injected share of what is read"
REAL_ALONE = "dotted: the same real events alone"


class _UnderNoise(DatasetFigure):
    """Quantities against the share of injected events: levels, and differences to what a variant is compared with."""

    section = "noise"
    keys: ClassVar[tuple[str, ...]]

    def applies(self, run: Run, dataset: str) -> bool:
        return bool(_shown(run, dataset, self.keys))

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        quantities = [noise_quantities(run)[key] for key in self.keys]
        shares, shown, narrow = noise_shares(run), _shown(run, dataset, self.keys), is_narrow(width)
        tested = [noise_comparisons(run, quantity) for quantity in quantities]
        others = [pair for pair in run.pairs if any((dataset, *pair, s) in tested[0] for s in shares)]
        rows, columns = (2 if others else 1), len(quantities)
        with style():
            if narrow:  # a row per quantity
                figure = new_figure(width, 0.8 + 1.7 * columns)
                axes = figure.subplots(columns, rows, sharex=True, squeeze=False).T
            else:
                figure = new_figure(width, 0.4 + 2.1 * rows)
                axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
            for place, quantity in enumerate(quantities):
                for variant in shown:
                    _levels(run, dataset, variant, quantity, shares, axes[0, place])
                self.beside(run, dataset, shown, quantity, axes[0, place])
                _limit(axes[0, place])
                axes[0, place].set_title(quantity.heading)
                if others:
                    _differences(run, dataset, others, tested[place], shares, axes[1, place])
            for axis in axes[:, -1] if narrow else axes[-1]:
                axis.set_xlabel("Injected events (%)")
                axis.set_xticks(shares, [f"{100 * share:g}" for share in shares])
            _name_rows(run, axes, narrow)
            legend(figure)
        return figure

    def beside(self, run: Run, dataset: str, shown: list[str], quantity: Quantity, axis: Axes) -> None:
        """What else a panel of levels shows."""


class NoiseAttention(_UnderNoise):
    """Absolute and signed weight on injected events, and how much of the attention on the real ones stays."""

    order = 10
    keys = ATTENTION

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"Attention under noise{self.on(run, dataset)}, as a growing share of the test histories is random items. "
            "Levels: means over seeds with 95 % intervals; the dotted line is the injected share of what is read, "
            "where attention that can't tell noise would lie. Differences to the control: paired over seeds, with 95 % "
            "intervals (Student's t). Weights of the last event, mean over users, layers and heads."
        )

    def beside(self, run: Run, dataset: str, shown: list[str], quantity: Quantity, axis: Axes) -> None:
        if quantity.title == "Absolute":
            shares = noise_shares(run)
            level = _proportion(run, dataset, shares)
            axis.plot(shares, level, color=GREY, linestyle=":", zorder=0, label=PROPORTIONAL)


class NoiseAccuracy(_UnderNoise):
    """The primary metric, what of its change the noise alone explains, and how many of the ten best items stay."""

    order = 20
    keys = RANKING

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"Ranking under noise{self.on(run, dataset)}: test {metric_label(run.primary)} (dotted: of the same real "
            "events alone, without those that leave the window to make room), its change by the injected events in "
            "percent, how many of the ten best items stay. Levels: means over seeds with 95 % intervals; differences "
            "to the control: paired over seeds, with theirs."
        )

    def beside(self, run: Run, dataset: str, shown: list[str], quantity: Quantity, axis: Axes) -> None:
        if quantity.title != metric_label(run.primary):
            return
        shares, statistic = noise_shares(run), f"{run.candidates}/{run.primary}"
        for variant in shown:
            found = [[run.noise(cell)[statistic, "real", s] for cell in run.ids(dataset, variant)] for s in shares]
            axis.plot(shares, np.mean(found, axis=1), color=look(run, variant).color, linestyle=":", linewidth=0.9)
        axis.plot([], [], color=INK, linestyle=":", linewidth=0.9, label=REAL_ALONE)


def _shown(run: Run, dataset: str, keys: tuple[str, ...]) -> list[str]:
    """The variants that have the first quantity."""
    shares, first = noise_shares(run), noise_quantities(run)[keys[0]]
    return [v for v in run.variants if shares and noise_values(run, dataset, v, first, shares[-1])]


def _name_rows(run: Run, axes: np.ndarray, narrow: bool) -> None:
    """Says which panels are levels and which are differences."""
    names = ["Mean over seeds", f"Difference{'' if narrow else to_base(run)}"]
    for name, row in zip(names, axes, strict=False):
        for axis in row if narrow else row[:1]:
            axis.set_ylabel(name)


def _levels(run: Run, dataset: str, variant: str, quantity: Quantity, shares: list[float], axis: Axes) -> None:
    """Mean over seeds at every share, with the 95 % interval of the mean."""
    values = [list(noise_values(run, dataset, variant, quantity, share).values()) for share in shares]
    there = [(share, np.array(found)) for share, found in zip(shares, values, strict=True) if found]
    if not there:
        return
    seen = look(run, variant)
    at, mean = [share for share, _ in there], np.array([found.mean() for _, found in there])
    axis.plot(
        at, mean, color=seen.color, linestyle=seen.linestyle, marker=seen.marker, markersize=3.5,
        label=run.label(variant),
    )  # fmt: skip
    half = np.array([_half_width(found) for _, found in there])
    axis.fill_between(at, mean - half, mean + half, color=seen.color, alpha=0.15, linewidth=0)


def _differences(
    run: Run, dataset: str, pairs: list[tuple[str, str]], tested: dict, shares: list[float], axis: Axes
) -> None:
    for place, pair in enumerate(pairs):
        lines = {s: tested[dataset, *pair, s] for s in shares if (dataset, *pair, s) in tested}
        seen = look(run, pair[0])
        at = np.array(list(lines)) + 0.006 * (place - (len(pairs) - 1) / 2)
        difference = np.array([c.difference for c in lines.values()])
        ends = np.array([c.interval or (c.difference, c.difference) for c in lines.values()]).reshape(-1, 2)
        axis.errorbar(
            at, difference, np.abs(ends.T - difference), color=seen.color, linestyle=seen.linestyle,
            marker=seen.marker, markersize=3.5, linewidth=1, elinewidth=1,
        )  # fmt: skip
    axis.axhline(0, color=GREY, linewidth=0.8)


def _limit(axis: Axes) -> None:
    """Keeps the axis to the curves and as much room again; the intervals of a few seeds may reach far beyond."""
    curves = np.concatenate([line.get_ydata() for line in axis.lines])
    low, high = axis.get_ylim()
    room = np.ptp(curves) or abs(curves[0]) or 1.0
    axis.set_ylim(max(low, curves.min() - room), min(high, curves.max() + room))


def _half_width(values: np.ndarray) -> float:
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0


def _proportion(run: Run, dataset: str, shares: list[float]) -> list[float]:
    """The injected share of all visible tokens: where attention that can't tell noise would lie."""
    cells = [cell for cell in run.ids(dataset) if ("tokens", "injected", shares[0]) in run.noise(cell)]
    return [float(np.mean([run.noise(cell)["tokens", "injected", share] for cell in cells])) for share in shares]
