"""Entries that several tables share: means over seeds, differences, and what stands behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from harness.analysis.rows import Run, lower_is_better
from harness.analysis.statistics import Comparison
from harness.analysis.table import Entry, fixed

__all__ = [
    "DIGITS", "THESE", "WIDEST", "family_size", "mark", "mean_entry", "metric_column", "pair", "title", "with_cells",
]  # fmt: skip

DIGITS = 4
THESE = "(*)"
"""Marks a difference on these users only."""
WIDEST = 6
"""More columns of results than this are stacked, one block of lines per data set."""


def metric_column(
    run: Run,
    dataset: str,
    metric: str,
    rows: Sequence[str],
    tested: dict,
    candidates: str | None = None,
    errors: bool = False,
) -> dict[str, Entry]:
    """One column: mean ± sd of each variant, the best two marked, with stars where the test found a difference.

    ``errors``: with the standard error over users, which is shown for the primary metric and else in the CSV file only.
    """
    values = {v: list(run.by_seed(dataset, v, metric, candidates=candidates).values()) for v in rows}
    values = {v: [x for x in found if np.isfinite(x)] for v, found in values.items()}
    means = {v: float(np.mean(found)) for v, found in values.items() if found}
    order = sorted(set(means.values()), reverse=not lower_is_better(metric)) if len(means) > 1 else []
    styles: dict[float | None, Literal["", "best", "second"]]
    styles = dict(zip(order, ("best", "second"), strict=False))
    entries = {}
    for variant, found in values.items():
        entry = mean_entry(found, DIGITS)
        error = _error_over_users(run, dataset, variant, metric) if errors and found else None
        entries[variant] = replace(
            entry,
            error=fixed(error, DIGITS) if error is not None and metric == run.primary else "",
            error_value=error,
            mark=mark(tested.get((dataset, variant))),
            style=styles.get(means.get(variant), ""),
            cells=tuple(run.ids(dataset, variant)),
        )
    return entries


def _error_over_users(run: Run, dataset: str, variant: str, metric: str) -> float | None:
    """Standard error over users of the mean over seeds and users: how far it would move with other users."""
    cells = run.ids(dataset, variant)
    run.check_same_users(cells)
    values = [found for cell in cells if (found := run.user_values(cell, metric)) is not None]
    if len(values) < len(cells) or len(values[0]) < 2:
        return None
    return float(stats.sem(np.mean(values, axis=0)))


def mark(c: Comparison | None) -> str:
    """What stands behind a number whose difference was tested."""
    return {"better": "*", "worse": "*", "on these users only": THESE}.get(c.verdict, "") if c else ""


def mean_entry(values: Sequence[float], digits: int, spread: bool = True) -> Entry:
    """Mean and, with ``spread``, standard deviation; none where all are the same."""
    if not values:
        return Entry()
    mean = float(np.mean(values))
    if len(set(values)) == 1 or not spread:
        return Entry(_thousands(mean, digits), mean)
    sd = float(np.std(values, ddof=1))
    return Entry(_thousands(mean, digits), mean, _thousands(sd, digits), sd)


def _thousands(value: float, digits: int) -> str:
    """Large whole numbers with narrow spaces between thousands, all else with fixed decimals."""
    return f"{value:,.0f}".replace(",", "\u202f") if digits == 0 else fixed(value, digits)


def with_cells(entry: Entry, cells: tuple[str, ...]) -> Entry:
    """The entry with the ids of the cells behind it."""
    return replace(entry, cells=cells)


def pair(interval: tuple[float, float] | None) -> str | None:
    """An interval as the value of an entry."""
    return None if interval is None else f"{interval[0]:.12g} {interval[1]:.12g}"


def title(run: Run) -> str:
    """The study's title as a sentence."""
    text = str(run.study.get("title") or run.name)
    return text if text.endswith((".", "?", "!")) else f"{text}."


def family_size(tested: Mapping[Any, Comparison]) -> int:
    """How many comparisons the correction is for, with those that were declared and have no runs yet."""
    return next(iter(tested.values())).family_size if tested else 0
