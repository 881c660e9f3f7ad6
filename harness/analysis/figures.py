"""Figures of a study: learning curves, declared differences, accuracy against cost, critical differences.

Each function returns a finished matplotlib figure and draws from rows, histories and costs only.
"""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.analysis.comparisons import comparisons, named, to_base
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.statistics import friedman
from harness.analysis.style import FULL, GREY, INK, look, look_at, new_figure, style

__all__ = [
    "accuracy_against_cost",
    "calibration",
    "code_usage",
    "critical_differences",
    "efficiency_curves",
    "forest_plot",
    "learning_curves",
    "training_time",
    "tuning_curves",
]

_PART_COLOURS = ("#BDBDBD", "#0072B2", "#E69F00", "#666666")
"""Of what surrounds a model in grey, of its backbone and head in colour."""


LEGEND_LETTERS = 120
"""Letters, with room for a line and a gap in each column, that fit beside each other in a legend of full width."""
ROWS_ALLOWED_FOR, LEGEND_ROW = 2, 0.16
"""Legend rows that the figures' heights leave room for; inches of each further one."""


def learning_curves(run: Run) -> Figure:
    """Validation curve of the primary metric and training loss: mean and standard deviation over seeds.

    A curve is drawn as far as every seed trained; beyond, it would be a mean over the seeds that were slow to stop.
    A mark stands at the validation nearest to the mean of the chosen epochs.
    """
    with style():
        figure = new_figure(FULL, 0.5 + 1.9 * len(run.datasets))
        axes = figure.subplots(len(run.datasets), 2, squeeze=False)
        for row, dataset in enumerate(run.datasets):
            for variant in run.variants:
                _learning_curve(run, dataset, variant, *axes[row])
            where = f"{dataset}: " if len(run.datasets) > 1 else ""
            axes[row, 0].set_title(f"{where}validation {metric_label(run.primary)}")
            axes[row, 1].set_title(f"{where}training loss")
            for axis in axes[row]:
                axis.set_xlabel("Epoch")
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure)
    return figure


def _learning_curve(run: Run, dataset: str, variant: str, validation: Axes, loss: Axes) -> None:
    ids = run.ids(dataset, variant)
    histories = [run.history(cell) for cell in ids]
    seen = look(run, variant)
    for axis, column in ((validation, f"valid/{run.primary}"), (loss, "loss")):
        epoch, mean, sd = _over_seeds(histories, column)
        if not len(epoch):
            continue
        best = np.mean([run.cards[cell]["outcome"]["best_epoch"] for cell in ids])
        marked = [int(np.abs(epoch - best).argmin())] if axis is validation else []
        axis.plot(
            epoch, mean, color=seen.color, linestyle=seen.linestyle, marker=seen.marker, markevery=marked, markersize=6,
            label=run.label(variant),
        )  # fmt: skip
        axis.fill_between(epoch, mean - sd, mean + sd, color=seen.color, alpha=0.15, linewidth=0)


def forest_plot(run: Run) -> Figure:
    """Declared differences in the primary metric with 95 % intervals, one panel per data set."""
    tested = comparisons(run)
    others = run.pairs
    with style():
        figure = new_figure(FULL, 0.75 + len(run.datasets) * (0.45 + 0.27 * len(others)))
        axes = figure.subplots(len(run.datasets), 1, sharex=True, squeeze=False)[:, 0]
        for axis, dataset in zip(axes, run.datasets, strict=True):
            for row, (arm, than) in enumerate(others):
                c = tested.get((dataset, arm, than))
                if c is None:
                    axis.text(0.0, row, " not run", va="center", color=GREY, fontsize=7)
                    continue
                seen = look(run, arm)
                if c.margin is not None:
                    axis.fill_betweenx((row - 0.4, row + 0.4), -c.margin, c.margin, color=GREY, alpha=0.15, linewidth=0)
                if c.interval_users is not None:
                    axis.plot(c.interval_users, (row, row), color=seen.color, linewidth=0.8, solid_capstyle="butt")
                if c.interval is not None:
                    axis.plot(c.interval, (row, row), color=seen.color, linewidth=2.2, solid_capstyle="butt")
                axis.plot(c.difference, row, seen.marker, color=seen.color, markersize=6)
                change = "" if c.percent is None else f"{c.percent:+.1f} %".replace("-", "−")
                axis.annotate(
                    f"{change}  {c.verdict if c.seeds > 1 else 'one seed, no test'}",
                    (1.0, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                    color=INK if c.verdict in ("better", "worse") else GREY,
                )
            axis.axvline(0, color=INK, linewidth=0.8)
            axis.set_yticks(range(len(others)), [named(run, *pair)[1] for pair in others])
            axis.xaxis.set_major_locator(MaxNLocator(nbins=7))
            axis.set_ylim(len(others) - 0.4, -0.6)
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
            axis.spines["left"].set_visible(False)
            axis.set_title(dataset)
        direction = " (lower is better)" if lower_is_better(run.primary) else ""
        axes[-1].set_xlabel(f"Difference in {metric_label(run.primary)}{to_base(run)}{direction}")
    return figure


def accuracy_against_cost(run: Run) -> Figure:
    """Primary metric (mean ± sd over seeds) against training seconds (mean and extremes), and what nothing beats."""
    sign = -1 if lower_is_better(run.primary) else 1
    with style():
        columns = min(2, len(run.datasets))
        rows = -(-len(run.datasets) // columns)
        figure = new_figure(FULL, 0.5 + 2.3 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(run.datasets) :]:
            axis.set_visible(False)
        for axis, dataset in zip(axes, run.datasets, strict=False):
            points = []
            for variant in run.variants:
                ids = run.ids(dataset, variant)
                if not ids:
                    continue
                costs = [run.cost(cell).get("train_seconds") for cell in ids]
                if not all(costs):  # trained elsewhere, or not at all
                    continue
                seconds = np.array(costs)
                values = np.array([run.metric(cell, run.primary) for cell in ids])
                if not np.isfinite(values).all():
                    continue
                sd = values.std(ddof=1) if len(ids) > 1 else 0.0
                seen = look(run, variant)
                x, y = seconds.mean(), values.mean()
                axis.errorbar(
                    x, y, xerr=[[x - seconds.min()], [seconds.max() - x]], yerr=sd, fmt=seen.marker, color=seen.color,
                    elinewidth=0.8, markersize=6, label=run.label(variant),
                )  # fmt: skip
                points.append((x, y))
            axis.set_xscale("log")
            front = _pareto(points, sign)
            if front:  # on to the right border: what costs more and is no better lies under it
                front.append((axis.get_xlim()[1], front[-1][1]))
                axis.set_xlim(axis.get_xlim())
            axis.step([x for x, _ in front], [y for _, y in front], where="post", color=GREY, linewidth=0.8, zorder=0)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            low, high = axis.get_xlim()
            if high / low < 20:  # too narrow for powers of ten alone
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axis.set_xlabel("Training seconds")
            axis.set_title(dataset)
        for axis in axes[::columns]:
            axis.set_ylabel(metric_label(run.primary))
        _legend(figure)
    return figure


def critical_differences(run: Run) -> Figure:
    """Average ranks of the variants over data sets; a bar joins those that Nemenyi's test can't tell apart.

    Raises:
        InputError: too few data sets or variants, or a variant without a result on some data set.
    """
    means = run.metric_table(run.primary)[run.primary].groupby(level=["dataset", "variant"], sort=False).mean()
    table = means.unstack("variant").reindex(index=run.datasets, columns=run.contenders)
    found = friedman(table, higher_is_better=not lower_is_better(run.primary))

    from scikit_posthocs import critical_difference_diagram  # takes seconds to import

    with style():
        figure = new_figure(FULL, 0.9 + 0.2 * len(run.contenders))
        axis = figure.subplots()
        ranks = {run.label(v): float(found.average_ranks[v]) for v in run.contenders}
        labels = [run.label(v) for v in run.contenders]
        critical_difference_diagram(
            ranks,
            found.nemenyi.set_axis(labels).set_axis(labels, axis=1),
            ax=axis,
            label_fmt_left="{label}  {rank:.2f} ",
            label_fmt_right=" {rank:.2f}  {label}",
            color_palette={run.label(v): look(run, v).color for v in run.contenders},
            crossbar_props={"color": INK, "linewidth": 2.5},
            text_h_margin=0.1,
        )
        for text in axis.texts:
            text.set_color(INK)
        axis.grid(visible=False)
        axis.set_title(
            f"Average rank over {found.blocks} data sets (Friedman p {found.p:.2g}, "
            f"critical difference {found.critical_difference:.2f})"
        )
    return figure


def calibration(run: Run, dataset: str, bins: int = 10) -> Figure:
    """Share of events with the action against the predicted probability, in bins of equal numbers of events."""
    first = run.rows(run.ids(dataset)[0], ["action"])
    actions = list(dict.fromkeys(first["action"].to_pylist()))
    with style():
        columns = min(3, len(actions))
        rows = -(-len(actions) // columns)
        figure = new_figure(FULL, 0.5 + 2.2 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(actions) :]:
            axis.set_visible(False)
        curves = {v: [_reliability(run, cell, bins) for cell in run.ids(dataset, v)] for v in run.variants}
        for axis, action in zip(axes, actions, strict=False):
            axis.plot((0, 1), (0, 1), color=GREY, linewidth=0.7, zorder=0)
            top = 0.0
            for variant, cells in curves.items():
                if not cells:
                    continue
                seen = look(run, variant)
                predicted, observed = np.stack([cell[action] for cell in cells]).transpose(1, 0, 2)  # (S, bins) each
                axis.plot(
                    predicted.mean(0), observed.mean(0), color=seen.color, linestyle=seen.linestyle, marker=seen.marker,
                    markersize=3, linewidth=1, label=run.label(variant),
                )  # fmt: skip
                top = max(top, predicted.max(), observed.max())
                if len(cells) > 1:
                    sd = observed.std(0, ddof=1)
                    low, high = observed.mean(0) - sd, observed.mean(0) + sd
                    axis.fill_between(predicted.mean(0), low, high, color=seen.color, alpha=0.15, linewidth=0)
            end = min(1.0, 1.05 * top)  # a rare action would fill a corner only
            axis.set(xlim=(0, end), ylim=(0, end), xlabel="Predicted probability", aspect="equal")
            axis.set_title(action)
        for axis in axes[::columns]:
            axis.set_ylabel("Share with the action")
        _legend(figure)
    return figure


def efficiency_curves(table: pd.DataFrame, quantities: dict[str, str]) -> Figure:
    """Quantities against the sequence length on logarithmic axes, one line per arm, a column of panels per width.

    Args:
        table: one row per arm, width and length, with the columns ``arm``, ``dim``, ``length`` and each key of
            ``quantities``; a value of 0 or less is left out.
        quantities: column -> axis title, one row of panels each (two panels in a row where there is one width).
    """
    dims = list(dict.fromkeys(table["dim"]))
    columns = len(dims) if len(dims) > 1 else min(2, len(quantities))
    rows = -(-len(quantities) * len(dims) // columns)
    with style():
        figure = new_figure(FULL, 0.4 + 1.75 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if len(dims) > 1 else False).ravel()
        for axis in axes[len(quantities) * len(dims) :]:
            axis.set_visible(False)
        panels = [(column, title, dim) for column, title in quantities.items() for dim in dims]
        for axis, (column, title, dim) in zip(axes, panels, strict=False):
            for place, arm in enumerate(dict.fromkeys(table["arm"])):
                seen = look_at(place)
                lines = table[(table["arm"] == arm) & (table["dim"] == dim)]
                values = lines[column].where(lines[column] > 0).astype(float)
                axis.plot(
                    lines["length"], values, color=seen.color, linestyle=seen.linestyle, marker=seen.marker, label=arm
                )
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(sorted(table["length"].unique()))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            _plain_log_labels(axis)
            axis.set_title(title if len(dims) == 1 else f"{title}, width {dim}")
        for axis in axes[max(0, len(panels) - columns) : len(panels)]:
            axis.set_xlabel("Sequence length (events)")
        _legend(figure)
    return figure


def _plain_log_labels(axis: Axes) -> None:
    """Numbers instead of powers on a logarithmic y axis, and more than one of them where it spans little."""
    low, high = axis.get_ylim()
    subs = (1.0,) if high / low > 200 else (1.0, 3.0) if high / low > 12 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def training_time(table: pd.DataFrame, parts: dict[str, str], control: str) -> Figure:
    """Time of a training step relative to the control's, split in its parts; a panel per width and length.

    Bars stack the parts, which were timed in steps of their own; the mark is the whole step, with its smallest and
    largest ratio.

    Args:
        table: one row per arm, width and length, with the columns ``arm``, ``dim``, ``length``, ``relative``,
            ``relative_lowest``, ``relative_highest`` and each key of ``parts``.
        parts: column -> legend.
    """
    arms = list(dict.fromkeys(table["arm"]))
    dims, lengths = (list(dict.fromkeys(table[key])) for key in ("dim", "length"))
    columns = min(6, len(lengths))
    per_dim = -(-len(lengths) // columns)
    with style():
        figure = new_figure(FULL, 0.8 + len(dims) * per_dim * (0.35 + 0.19 * len(arms)))
        axes = figure.subplots(len(dims) * per_dim, columns, squeeze=False, sharex=True, sharey=True)
        for axis in axes.ravel():
            axis.set_visible(False)
        for place, (dim, length) in enumerate((dim, length) for dim in dims for length in range(len(lengths))):
            number = place % len(lengths)
            axis = axes[(place // len(lengths)) * per_dim + number // columns, number % columns]
            axis.set_visible(True)
            lines = table[(table["dim"] == dim) & (table["length"] == lengths[length])].set_index("arm").loc[arms]
            left = np.zeros(len(arms))
            for order, (column, title) in enumerate(parts.items()):
                widths = lines[column].to_numpy(float)
                axis.barh(range(len(arms)), widths, 0.72, left=left, color=_PART_COLOURS[order], label=title)
                left += widths
            middle = lines["relative"].to_numpy(float)
            ends = [middle - lines["relative_lowest"], lines["relative_highest"] - middle]
            axis.errorbar(
                middle, range(len(arms)), xerr=ends, fmt="o", color=INK, markersize=2.5, elinewidth=0.9,
                label="Whole step (extremes)",
            )  # fmt: skip
            axis.axvline(1, color=GREY, linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
            axis.set_yticks(range(len(arms)), arms)
            axis.set_ylim(len(arms) - 0.4, -0.6)
            axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
            axis.set_title(f"{'Length ' if columns < 5 or not number else ''}{lengths[length]:,}")
            if not number % columns:
                axis.set_ylabel(f"Width {dim}")
        axes[0, 0].set_xlim(left=0)
        figure.supxlabel(f"Time of a training step relative to {control}", fontsize=8)
        _legend(figure)
    return figure


def code_usage(quality: dict[str, Any], title: str) -> Figure:
    """Use and perplexity of each level's codebook, and how many items share their tuple with how many.

    ``quality``: of :class:`harness.items.codes.ItemCodes`.
    """
    levels = quality["levels"]
    numbers = np.arange(1, len(levels) + 1)
    groups = {1: round(quality["alone"] * quality["items"])}
    groups |= {int(size): tuples * int(size) for size, tuples in quality["collisions"].items()}
    with style():
        figure = new_figure()
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        left.bar(numbers - 0.2, [level["use"] for level in levels], 0.4, color=look_at(0).color, label="in use")
        relative = [level["perplexity"] / level["size"] for level in levels]
        left.bar(numbers + 0.2, relative, 0.4, color=look_at(4).color, label="perplexity")
        left.set(xlabel="level", ylabel="share of the codebook", ylim=(0, 1.02), title=title, xticks=_ticks(numbers))
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        right.bar(np.arange(len(groups)), list(groups.values()), color=look_at(2).color)
        shown = _ticks(np.arange(len(groups)))
        right.set_xticks(shown, [str(list(groups)[place]) for place in shown])
        right.set(xlabel="items with the same codes", ylabel="items", yscale="log", title="collisions")
    return figure


def tuning_curves(run: Run, entries: list[dict[str, Any]]) -> Figure:
    """Each trial's best validation value, and the best so far of the finished ones, in a panel per search.

    Every panel has a scale of its own, since what a search gains is small beside what variants differ by. A trial
    without any value stands as a cross at the foot.
    """
    searches: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        searches.setdefault(entry["dataset"], []).append(entry)
    columns = min(4, max(map(len, searches.values())))
    heights = [-(-len(found) // columns) for found in searches.values()]
    with style():
        figure = new_figure(FULL, 0.6 + 1.9 * sum(heights))
        axes = figure.subplots(sum(heights), columns, squeeze=False)
        blocks = np.split(axes, np.cumsum(heights)[:-1])  # each data set begins a row
        for (dataset, found), block in zip(searches.items(), blocks, strict=True):
            for axis, entry in zip(block.ravel(), found, strict=False):
                _tuning_panel(axis, entry, look(run, entry["variant"]).color, lower_is_better(run.primary))
                title = textwrap.fill(run.label(entry["variant"]), 80 // columns)
                axis.set_title(f"{dataset}\n{title}" if len(searches) > 1 else title)
            for axis in block[:, 0]:
                axis.set_ylabel(f"Validation {metric_label(run.primary)}")
            for axis in block.ravel()[len(found) :]:
                axis.set_visible(False)
        figure.supxlabel("Trial (the scale of the values is each panel's own)", fontsize=8)
        drawn = {line.get_label() for axis in axes.ravel() for line in axis.lines}
        handles = [Line2D([], [], label=name, **seen) for name, seen in _TUNING_LINES.items() if name in drawn]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


_TUNING_LINES: dict[str, dict[str, Any]] = {
    "best so far": {"color": INK},
    "a trial's best epoch": {"color": INK, "linestyle": "", "marker": "o"},
    "pruned": {"color": INK, "linestyle": "", "marker": "o", "markerfacecolor": "white"},
    "no value": {"color": GREY, "linestyle": "", "marker": "x"},
    "the study's own setting": {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 2))},
}
"""What the panels of a tuning figure hold; the first three in the variant's colour."""


def _tuning_panel(axis: Axes, entry: dict[str, Any], color: str, lower: bool) -> None:
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
            points["no value"].append((number, 0.03))
        so_far.append(pick((value for _, value in finished), default=math.nan))
    axis.step(range(1, len(so_far) + 1), so_far, where="post", color=color, label="best so far")
    if math.isfinite(own):
        axis.axhline(own, label="the study's own setting", zorder=0, **_TUNING_LINES["the study's own setting"])
    for name, found in points.items():
        if found:
            foot = {"transform": axis.get_xaxis_transform()} if name == "no value" else {"color": color}
            axis.plot(*zip(*found, strict=True), label=name, **_TUNING_LINES[name] | foot)
    axis.set_xlim(0.5, len(so_far) + 0.5)
    axis.margins(y=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _pareto(points: list[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """The (cost, value) points that no other beats in cost and value, by cost; ``sign`` is -1 for losses."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * y > sign * front[-1][1]:
            front.append((x, y))
    return front


def _reliability(run: Run, cell: str, bins: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Action -> mean predicted probability and share of positive labels, (bins,) each, by predicted quantile."""
    rows = run.rows(cell, ["action", "label", "probability"]).to_pandas()
    found = {}
    for action, lines in rows.groupby("action", sort=False):
        order = np.argsort(lines["probability"].to_numpy(), kind="stable")
        parts = [np.array_split(lines[column].to_numpy(float)[order], bins) for column in ("probability", "label")]
        found[str(action)] = tuple(np.array([part.mean() if len(part) else np.nan for part in side]) for side in parts)
    return found


def _over_seeds(histories: list[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs in which every seed has a value of a column, and its mean and standard deviation over seeds there."""
    epoch, values = _values_over_seeds(histories, column)
    return epoch, values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(epoch))


def _values_over_seeds(histories: list[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (E,) in which every seed has a value of a column, and the values (S, E) there."""
    histories = [history for history in histories if column in history]
    if not histories:
        return np.empty(0), np.empty((1, 0))
    length = min(len(history) for history in histories)
    values = np.stack([history[column].to_numpy(float)[:length] for history in histories])  # (S, E)
    measured = np.isfinite(values).all(axis=0)  # not every epoch ends in a validation
    return histories[0]["epoch"].to_numpy()[:length][measured], values[:, measured]


def _legend(figure: Figure) -> None:
    """One legend above all panels, with the entries of all of them, in as few rows as fit; the figure grows with it."""
    entries: dict[str, Any] = {}
    for axis in sorted(
        figure.axes, key=lambda axis: -len(axis.get_legend_handles_labels()[1])
    ):  # the fullest orders them
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = max(1, min(len(entries), LEGEND_LETTERS // (max(map(len, entries)) + 8)))
        rows = -(-len(entries) // columns)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - ROWS_ALLOWED_FOR))
        figure.legend(entries.values(), entries, loc="outside upper left", ncols=columns)


def _ticks(numbers: np.ndarray) -> np.ndarray:
    """At most 16 of some numbers, evenly spaced."""
    return numbers[:: -(-len(numbers) // 16)]
