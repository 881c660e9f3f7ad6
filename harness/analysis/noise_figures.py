"""Figures of the noise experiment: what variants do as more of the history is noise, and how they differ."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from harness.analysis.comparisons import to_base
from harness.analysis.figures import _legend
from harness.analysis.noise import (
    ATTENTION,
    RANKING,
    Quantity,
    noise_comparisons,
    noise_quantities,
    noise_shares,
    noise_values,
)
from harness.analysis.rows import Run
from harness.analysis.style import FULL, GREY, look, new_figure, style

__all__ = ["noise_accuracy", "noise_attention"]


def noise_attention(run: Run, dataset: str) -> Figure | None:
    """Absolute and signed weight on injected events, and how much of the attention on the real ones stays.

    Above, means over seeds with 95 % intervals; below, paired differences to the control with theirs. None where no
    cell measured attention under noise.
    """
    return _figure(run, dataset, ATTENTION)


def noise_accuracy(run: Run, dataset: str) -> Figure | None:
    """The primary metric, what of its change the noise alone explains, and how many of the ten best items stay."""
    return _figure(run, dataset, RANKING)


def _figure(run: Run, dataset: str, keys: tuple[str, ...]) -> Figure | None:
    shares = noise_shares(run)
    quantities = {key: noise_quantities(run)[key] for key in keys}
    shown = [v for v in run.variants if shares and noise_values(run, dataset, v, quantities[keys[0]], shares[-1])]
    if not shown:
        return None
    tested = {key: noise_comparisons(run, quantity) for key, quantity in quantities.items()}
    others = [pair for pair in run.pairs if any((dataset, *pair, s) in tested[keys[0]] for s in shares)]
    with style():
        figure = new_figure(FULL, 4.4 if others else 2.6)
        axes = figure.subplots(2 if others else 1, len(keys), sharex=True, squeeze=False)
        for column, (key, quantity) in enumerate(quantities.items()):
            for variant in shown:
                _curve(run, dataset, variant, quantity, shares, axes[0, column])
            if key == "injected_abs":
                axes[0, column].plot(shares, _proportion(run, dataset, shares), color=GREY, linestyle=":", zorder=0)
            if key == "metric":
                _calm(run, dataset, shown, shares, axes[0, column])
            _limit(axes[0, column])
            axes[0, column].set_title(quantity.heading)
            axes[-1, column].set_xlabel("Injected events (%)")
            axes[-1, column].set_xticks(shares, [f"{100 * share:g}" for share in shares])
            for place, pair in enumerate(others):
                lines = {s: tested[key][dataset, *pair, s] for s in shares if (dataset, *pair, s) in tested[key]}
                seen = look(run, pair[0])
                at = np.array(list(lines)) + 0.006 * (place - (len(others) - 1) / 2)
                difference = np.array([c.difference for c in lines.values()])
                ends = np.array([c.interval or (c.difference, c.difference) for c in lines.values()]).reshape(-1, 2)
                axes[1, column].errorbar(
                    at, difference, np.abs(ends.T - difference), color=seen.color, linestyle=seen.linestyle,
                    marker=seen.marker, markersize=3.5, linewidth=1, elinewidth=1,
                )  # fmt: skip
            if others:
                axes[1, column].axhline(0, color=GREY, linewidth=0.8)
        axes[0, 0].set_ylabel("Mean over seeds")
        if others:
            axes[1, 0].set_ylabel(f"Difference{to_base(run)}")
        _legend(figure)
    return figure


def _curve(run: Run, dataset: str, variant: str, quantity: Quantity, shares: list[float], axis: Axes) -> None:
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


def _calm(run: Run, dataset: str, variants: list[str], shares: list[float], axis: Axes) -> None:
    """The metric of the same real events alone, as thin dotted lines: what shortening the history costs."""
    statistic = f"{run.candidates}/{run.primary}"
    for variant in variants:
        found = [[run.noise(cell)[statistic, "real", s] for cell in run.ids(dataset, variant)] for s in shares]
        mean = np.mean(found, axis=1)
        axis.plot(shares, mean, color=look(run, variant).color, linestyle=":", linewidth=0.9)
