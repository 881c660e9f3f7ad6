"""Figures of a study of speed: quantities against the length of the sequences, and the parts of a step."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.analysis.artefacts import ReportFigure
from harness.analysis.efficiency import PARTS, Efficiency
from harness.analysis.figures.common import is_narrow, legend
from harness.analysis.style import GREY, INK, look_at, new_figure, style

__all__ = ["SpeedCurves", "TrainingTime", "efficiency_curves", "training_time"]

_PART_COLOURS = ("#BDBDBD", "#0072B2", "#E69F00", "#666666")
"""Of what surrounds a model in grey, of its backbone and head in colour."""
_PART_TITLES = ("Embeddings", "Backbone", "Head and loss", "Optimizer")


class SpeedCurves(ReportFigure):
    """Step time, tokens per second, FLOPs and memory against the length of the sequences."""

    section = "efficiency"
    order = 10
    subject = Efficiency

    def caption(self, run: Efficiency) -> str:
        return (
            "Step time (median over turns), tokens per second, FLOPs and peak memory of a training step on "
            f"{run.study['events']:,} events against the length of the sequences, on logarithmic axes."
        )

    def make(self, run: Efficiency, width: float) -> Figure:
        table = run.frame.assign(
            step_milliseconds=run.frame["step_seconds"] * 1e3,
            gigaflops=run.frame["flops"] / 1e9,
            peak_mebibytes=run.frame["peak_memory_bytes"] / 2**20,
        )
        quantities = {
            "step_milliseconds": "Milliseconds of a step",
            "tokens_per_second": "Tokens per second",
            "gigaflops": "GFLOPs of a step",
            "peak_mebibytes": "Peak MiB of a step",
        }
        return efficiency_curves(table, quantities, width)


class TrainingTime(ReportFigure):
    """Time of a training step relative to the control's, split in its parts."""

    section = "efficiency"
    order = 20
    subject = Efficiency

    def caption(self, run: Efficiency) -> str:
        return (
            f"Time of a training step on {run.study['events']:,} events relative to {run.control}, by sequence length. "
            "Bars: its parts, timed in steps of their own; marks: whole steps, median and extremes of the ratios "
            "within a turn."
        )

    def make(self, run: Efficiency, width: float) -> Figure:
        parts = {f"relative_{part}": title for part, title in zip(PARTS, _PART_TITLES, strict=True)}
        return training_time(run.frame, parts, run.control, width)


def efficiency_curves(table: pd.DataFrame, quantities: dict[str, str], width: float) -> Figure:
    """Quantities against the sequence length on logarithmic axes, one line per arm, a column of panels per width.

    Args:
        table: one row per arm, width and length, with the columns ``arm``, ``dim``, ``length`` and each key of
            ``quantities``; a value of 0 or less is left out.
        quantities: column -> axis title, one row of panels each (two panels in a row where there is one width).
    """
    dims = list(dict.fromkeys(table["dim"]))
    columns = len(dims) if len(dims) > 1 else min(1 if is_narrow(width) else 2, len(quantities))
    rows = -(-len(quantities) * len(dims) // columns)
    with style():
        figure = new_figure(width, 0.4 + 1.75 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if len(dims) > 1 else False).ravel()
        for axis in axes[len(quantities) * len(dims) :]:
            axis.set_visible(False)
        shown = [(column, title, dim) for column, title in quantities.items() for dim in dims]
        for axis, (column, title, dim) in zip(axes, shown, strict=False):
            _curves(axis, table[table["dim"] == dim], column, list(dict.fromkeys(table["arm"])))
            axis.set_title(title if len(dims) == 1 else f"{title},{chr(10) if is_narrow(width) else ' '}width {dim}")
        for axis in axes[max(0, len(shown) - columns) : len(shown)]:
            axis.set_xlabel("Sequence length (events)")
        legend(figure)
    return figure


def _curves(axis: Axes, table: pd.DataFrame, column: str, arms: list[str]) -> None:
    for place, arm in enumerate(arms):
        seen, lines = look_at(place), table[table["arm"] == arm]
        values = lines[column].where(lines[column] > 0).astype(float)
        axis.plot(lines["length"], values, color=seen.color, linestyle=seen.linestyle, marker=seen.marker, label=arm)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sorted(table["length"].unique()))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    low, high = axis.get_ylim()  # numbers instead of powers, and more than one where the axis spans little
    subs = (1.0,) if high / low > 200 else (1.0, 3.0) if high / low > 12 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def training_time(table: pd.DataFrame, parts: dict[str, str], control: str, width: float) -> Figure:
    """Time of a training step relative to the control's, split in its parts; a panel per width and length.

    Bars stack the parts, which were timed in steps of their own; the mark is the whole step, with its smallest and
    largest ratio.

    Args:
        table: one row per arm, width and length, with the columns ``arm``, ``dim``, ``length``, ``relative``,
            ``relative_lowest``, ``relative_highest`` and each key of ``parts``.
        parts: column -> legend.
    """
    arms, dims, lengths = (list(dict.fromkeys(table[key])) for key in ("arm", "dim", "length"))
    columns = min(2 if is_narrow(width) else 6, len(lengths))
    per_dim = -(-len(lengths) // columns)
    with style():
        figure = new_figure(width, 0.8 + len(dims) * per_dim * (0.35 + 0.19 * len(arms)))
        axes = figure.subplots(len(dims) * per_dim, columns, squeeze=False, sharex=True, sharey=True)
        for axis in axes.ravel():
            axis.set_visible(False)
        for row, dim in enumerate(dims):
            for number, length in enumerate(lengths):
                axis = axes[row * per_dim + number // columns, number % columns]
                axis.set_visible(True)
                lines = table[(table["dim"] == dim) & (table["length"] == length)].set_index("arm").loc[arms]
                _bars(axis, lines, parts)
                axis.set_title(f"{'Length ' if columns < 5 or not number else ''}{length:,}")
                if not number % columns:
                    axis.set_ylabel(f"Width {dim}")
        axes[0, 0].set_xlim(left=0)
        figure.supxlabel(f"Time of a training step relative to {control}", fontsize=8)
        legend(figure)
    return figure


def _bars(axis: Axes, lines: pd.DataFrame, parts: dict[str, str]) -> None:
    """The arms of one panel."""
    places, left = range(len(lines)), np.zeros(len(lines))
    for order, (column, title) in enumerate(parts.items()):
        widths = lines[column].to_numpy(float)
        axis.barh(places, widths, 0.72, left=left, color=_PART_COLOURS[order], label=title)
        left += widths
    middle = lines["relative"].to_numpy(float)
    ends = [middle - lines["relative_lowest"], lines["relative_highest"] - middle]
    axis.errorbar(
        middle, places, xerr=ends, fmt="o", color=INK, markersize=2.5, elinewidth=0.9, label="Whole step (extremes)",
    )  # fmt: skip
    axis.axvline(1, color=GREY, linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
    axis.set_yticks(places, lines.index)
    axis.set_ylim(len(lines) - 0.4, -0.6)
    axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
