"""What several figures share: legends, grids of panels, and curves over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.rows import Run
from harness.analysis.style import COLUMN, FULL, new_figure

__all__ = ["MOST_LINES", "by_eights", "is_narrow", "legend", "panels", "trained", "values_over_seeds"]

MOST_LINES = 8
"""More lines than this in a panel tangle, and colours repeat."""
LEGEND_LETTERS = 120
"""Letters, with room for a line and a gap in each column, that fit beside each other in a legend of full width."""
ROWS_ALLOWED_FOR, LEGEND_ROW = 2, 0.16
"""Legend rows that the figures' heights leave room for; inches of each further one."""


def is_narrow(width: float) -> bool:
    """Whether a figure is for one column of a paper with two."""
    return width < (COLUMN + FULL) / 2


def panels(
    number: int, width: float, height: float, columns: int = 2, narrow: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels of a ``height`` in inches, in ``columns`` or, in a column of a paper, ``narrow``.

    ``options`` are those of ``Figure.subplots``.
    """
    columns = min(narrow if is_narrow(width) else columns, number)
    rows = -(-number // columns)
    figure = new_figure(width, 0.5 + height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).ravel())
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, axes[:number]


def trained(run: Run, dataset: str, variant: str) -> bool:
    """Whether some training gave the variant's results: not of another system's, nor of a count of items."""
    costs = [run.cost(cell) for cell in run.ids(dataset, variant)]
    return any(cost.get("epochs") and cost.get("training_flops_per_event") != 0 for cost in costs)


def by_eights(run: Run, variants: Iterable[str]) -> list[list[str]]:
    """The variants in groups of at most :data:`MOST_LINES`, each with the control where there is one."""
    variants = list(variants)
    if len(variants) <= MOST_LINES:
        return [variants]
    first = [v for v in variants if v == run.control]
    rest = [v for v in variants if v != run.control]
    size = MOST_LINES - len(first)
    number = -(-len(rest) // size)
    return [[*first, *rest[len(rest) * i // number : len(rest) * (i + 1) // number]] for i in range(number)]


def values_over_seeds(histories: list[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (E,) in which every seed has a value of a column, and the values (S, E) there."""
    histories = [history for history in histories if column in history]
    if not histories:
        return np.empty(0), np.empty((1, 0))
    length = min(len(history) for history in histories)
    values = np.stack([history[column].to_numpy(float)[:length] for history in histories])  # (S, E)
    measured = np.isfinite(values).all(axis=0)  # not every epoch ends in a validation
    return histories[0]["epoch"].to_numpy()[:length][measured], values[:, measured]


def legend(figure: Figure, **options: Any) -> None:
    """One legend above all panels, with the entries of all of them, in as few rows as fit; the figure grows with it."""
    entries: dict[str, Any] = {}
    for axis in sorted(
        figure.axes, key=lambda axis: -len(axis.get_legend_handles_labels()[1])
    ):  # the fullest orders them
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        letters = LEGEND_LETTERS * figure.get_figwidth() / FULL
        columns = max(1, min(len(entries), int(letters // (max(map(len, entries)) + 8))))
        rows = -(-len(entries) // columns)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - ROWS_ALLOWED_FOR))
        figure.legend(entries.values(), entries, loc="outside upper left", ncols=columns, **options)
