"""Accuracy by the length of the history: for whom a model ranks well, and for whom not.

Users are put into bins by the number of events before their test target. A bin's interval is over its users, of each
user's mean over seeds: it says how far the bin's mean would move with other users of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, metric_label
from harness.analysis.style import FULL, look, new_figure, style
from harness.analysis.tables import Column, Entry, Line, Table, fixed

__all__ = ["LENGTHS", "Slice", "by_history", "history_figure", "history_table"]

LENGTHS = (1, 4, 10, 20, 50, 100)
"""Where the bins of history lengths begin; the last one has no end."""
FEWEST = 20
"""Users that a bin must have to be shown."""


@dataclass(frozen=True)
class Slice:
    """The users of one bin and what a variant reaches for them."""

    label: str
    users: int
    mean: float
    half: float
    """Half the width of the 95 % interval over users (Student's t)."""


def by_history(run: Run, dataset: str, variant: str) -> list[Slice]:
    """The primary metric of a variant in each bin of at least ``FEWEST`` users, shortest histories first."""
    cells = run.ids(dataset, variant)
    if not cells:
        return []
    run.check_same_users(cells)
    lengths = run.rows(cells[0], ["history"])["history"].to_numpy()  # (U,)
    by_cell = [values for cell in cells if (values := run.user_values(cell, run.primary)) is not None]
    values = np.mean(by_cell, axis=0)  # (U,)
    found = []
    for place, start in enumerate(LENGTHS):
        last = place + 1 == len(LENGTHS)
        end = np.inf if last else LENGTHS[place + 1]
        inside = values[(lengths >= start) & (lengths < end)]
        if len(inside) >= FEWEST:
            half = stats.t.ppf(0.975, len(inside) - 1) * stats.sem(inside)
            label = f"{start}+" if last else f"{start}–{end - 1}"
            found.append(Slice(label, len(inside), float(inside.mean()), float(half)))
    return found


def history_table(run: Run) -> Table | None:
    """Variants x bins on every data set; None where no data set has two bins."""
    lines = []
    heads: dict[str, Column] = {}
    for dataset in run.datasets:
        for variant in run.variants:
            slices = by_history(run, dataset, variant)
            heads |= {s.label: Column(s.label, s.label) for s in slices}
            entries = {s.label: _entry(s, tuple(run.ids(dataset, variant))) for s in slices}
            lines.append((dataset, variant, entries))
    if len(heads) < 2:
        return None
    order = sorted(heads, key=lambda label: int(label.rstrip("+").partition("–")[0]))
    sizes = {s.label: s.users for d in run.datasets[:1] for v in run.variants for s in by_history(run, d, v)}
    users = ", ".join(f"{label}: {sizes[label]}" for label in order if label in sizes)
    grouped = len(run.datasets) > 1
    caption = (
        f"{metric_label(run.primary)} by the number of events before the test target: mean over users and seeds, ± "
        "half the 95 % interval over users."
    )
    if not grouped:
        caption += f" Data: {run.datasets[0]}. Users in each bin: {users}."
    body = tuple(
        Line(v, run.label(v), tuple(entries.get(label, Entry()) for label in order), d if grouped else "")
        for d, v, entries in lines
    )
    notes = provenance(run, run.datasets, run.variants)
    return Table(
        "history-length", caption, "Variant", tuple(heads[label] for label in order), body, notes,
        f"{run.name}-history-length",
    )  # fmt: skip


def history_figure(run: Run, dataset: str) -> Figure | None:
    """The primary metric against the bins of history lengths, a line per variant; None where there are not two bins."""
    slices = {variant: by_history(run, dataset, variant) for variant in run.variants}
    slices = {variant: found for variant, found in slices.items() if len(found) > 1}
    if not slices:
        return None
    with style():
        figure = new_figure(FULL, 3.0)
        axis = figure.subplots()
        width = 0.35 / len(slices)
        for place, (variant, found) in enumerate(slices.items()):
            seen = look(run, variant)
            x = np.arange(len(found)) + (place - (len(slices) - 1) / 2) * width
            axis.errorbar(
                x, [s.mean for s in found], yerr=[s.half for s in found], color=seen.color, marker=seen.marker,
                linestyle=seen.linestyle, elinewidth=0.8, label=run.label(variant),
            )  # fmt: skip
        first = next(iter(slices.values()))
        axis.set_xticks(range(len(first)), [f"{s.label}\n{s.users:,} users" for s in first])
        axis.set_xlabel("Events before the test target")
        axis.set_ylabel(metric_label(run.primary))
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=min(4, len(slices)))
    return figure


def _entry(found: Slice, cells: tuple[str, ...]) -> Entry:
    return Entry(fixed(found.mean, 4), found.mean, fixed(found.half, 4), found.half, cells=cells)
