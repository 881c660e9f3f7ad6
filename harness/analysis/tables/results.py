"""Results of the test part: every metric of every variant, with the test of the primary one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.analysis.artefacts import ReportTable
from harness.analysis.comparisons import Contrast, base_of_all, comparisons
from harness.analysis.provenance import count, incomplete, provenance
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.statistics import CORRECTIONS, TESTS, Comparison
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.analysis.tables.numbers import THESE, WIDEST, family_size, metric_column, title
from harness.errors import InputError, nearest

__all__ = ["Results", "results_table"]

_RELATIVE = "percent"


class Results(ReportTable):
    """Mean and deviation of every metric: the study's ``tables``, or one called ``main``."""

    order = 10
    compares = True

    def make(self, run: Run) -> list[Table]:
        return [results_table(run, name, **choice) for name, choice in _choices(run).items()]


def results_table(
    run: Run,
    name: str = "main",
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
) -> Table:
    """Variants x (data set x metric): mean ± standard deviation over seeds; the primary metric carries the test.

    ``rows`` are variants, ``columns`` metrics, ``datasets`` data sets; each defaults to all of the study.
    """
    part = _Part(run, list(rows or run.variants), list(columns or run.metrics), list(datasets or run.datasets))
    heads, lines = part.body()
    notes = (
        *provenance(run, part.datasets, part.rows),
        *_deterministic(run, part.datasets, part.rows),
        *_undefined(run, part.datasets, part.columns),
        *_outside(run, part.datasets, part.rows),
    )
    return Table(name, part.caption(), "Variant", tuple(heads), tuple(lines), notes, f"{run.name}-{name}")


@dataclass
class _Part:
    """What one table of results shows of a run."""

    run: Run
    rows: list[str]
    metrics: list[str]
    datasets: list[str]

    @cached_property
    def declared(self) -> dict[Contrast, Comparison]:
        return comparisons(self.run) if self.run.primary in self.metrics else {}

    @cached_property
    def tested(self) -> dict[tuple[str, str], Comparison]:
        """(data set, variant) -> its comparison with what it is first compared with."""
        return {(d, arm): c for (d, arm, than), c in self.declared.items() if self.run.bases.get(arm) == than}

    @property
    def columns(self) -> list[str]:
        return self.metrics + [_RELATIVE] * bool(self.tested)

    @cached_property
    def cells(self) -> dict[tuple[str, str], dict[str, Entry]]:
        """(data set, column) -> variant -> entry."""
        run = self.run
        found = {
            (d, m): metric_column(run, d, m, self.rows, self.tested if m == run.primary else {}, errors=True)
            for d in self.datasets
            for m in self.metrics
        }
        if self.tested:
            found |= {(d, _RELATIVE): _relative(run, d, self.rows, self.tested) for d in self.datasets}
        return found

    def body(self) -> tuple[list[Column], list[Line]]:
        """Data sets side by side while they fit, else below each other."""
        run, rows, columns, datasets = self.run, self.rows, self.columns, self.datasets
        titles = {_RELATIVE: "Δ %"} | {
            m: metric_label(m) + (" ↓" if lower_is_better(m) else "") for m in self.metrics
        }  # fmt: skip
        if len(datasets) * len(columns) <= WIDEST or len(datasets) == 1:
            group = (lambda dataset: dataset) if len(datasets) > 1 else (lambda dataset: "")
            heads = [Column(f"{d}/{m}", titles[m], group(d)) for d in datasets for m in columns]
            entries = {v: tuple(self.cells[d, m][v] for d in datasets for m in columns) for v in rows}
            return heads, [Line(v, run.label(v), entries[v]) for v in rows]
        heads = [Column(m, titles[m]) for m in columns]
        lines = [Line(v, run.label(v), tuple(self.cells[d, m][v] for m in columns), d) for d in datasets for v in rows]
        return heads, lines

    def caption(self) -> str:
        run, references = self.run, [self.run.label(v) for v in self.rows if v not in self.run.contenders]
        data = f" Data: {self.datasets[0]}." if len(self.datasets) == 1 else ""
        said = f"{title(run)}{data} Test part, mean ± standard deviation over seeds; best in bold, second underlined."
        if any(entry.error for column in self.cells.values() for entry in column.values()):
            said += f" In brackets behind {metric_label(run.primary)}: its standard error over users."
        if self.tested:
            said += self._of_differences(references)
        elsewhere = len(self.declared) - len(self.tested)
        if elsewhere:
            said += f" {count(elsewhere, 'more comparison')} in the table of differences."
        if references:
            said += f" For orientation: {', '.join(references)} (see the table of references)."
        return said

    def _of_differences(self, references: list[str]) -> str:
        """What the caption says of the last column and of the stars."""
        run, tested = self.run, self.tested
        metric, base = metric_label(run.primary), base_of_all(run)
        marks = {entry.mark for column in self.cells.values() for entry in column.values()} - {""}
        against = run.label(base) if base else "what it is compared with"
        said = f" Δ %: {metric} relative to {against}"
        said += ", over the seeds that both have." if incomplete(run, self.datasets, self.rows) else "."
        if any(c.p is not None for c in tested.values()) and ("*" in marks or len(self.declared) == len(tested)):
            corrected = CORRECTIONS[run.correction]
            said += (
                f" *: {metric} differs from that of {against}"
                if "*" in marks
                else f" No {'tested ' if references else ''}{metric} differs from that of {against}"
            )
            said += (
                f" at p < 0.05 ({TESTS[run.test]} over seeds, and over seeds and users; {corrected}'s correction for "
                f"{count(family_size(tested), 'comparison')})."
            )
            said += f" {THESE}: over seeds alone, so on these users only." if THESE in marks else ""
        return said


def _choices(run: Run) -> dict[str, dict[str, list[str]]]:
    """Rows and columns of the result tables, from the study's ``tables`` or all of them in one."""
    chosen = run.study.get("tables") or {"main": {}}
    known = {"rows": run.variants, "columns": None, "datasets": run.datasets}
    for name, choice in chosen.items():
        for key, values in (choice or {}).items():
            where = f"study '{run.name}', table '{name}'"
            if key not in known:
                raise InputError(f"{where}: unknown key '{key}'; {nearest(key, known)}")
            allowed = known[key]
            odd = [value for value in values if allowed is not None and value not in allowed]
            if allowed is not None and odd:
                raise InputError(f"{where}: unknown {key[:-1]} '{odd[0]}'; {nearest(odd[0], allowed)}")
    return {name: choice or {} for name, choice in chosen.items()}


def _relative(
    run: Run, dataset: str, rows: Sequence[str], tested: Mapping[tuple[str, str], Comparison]
) -> dict[str, Entry]:
    """The column of relative differences, in percent of the mean of what a variant is compared with."""
    entries = {}
    for variant in rows:
        comparison = tested.get((dataset, variant))
        base = run.bases.get(variant)
        entries[variant] = Entry(cells=tuple(run.ids(dataset, variant) + (run.ids(dataset, base) if base else [])))
        if comparison is not None:
            shown = fixed(comparison.percent, 1, sign=True)
            entries[variant] = Entry(shown, comparison.percent, cells=entries[variant].cells)
    return entries


def _outside(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> list[str]:
    """What a reader must know of predictions that another system made."""
    return [
        f"{run.label(str(cell.variant))}{f' on {cell.dataset}' if len(datasets) > 1 else ''}, seed {cell.seed}: {note}."
        for cell in run.finished.itertuples()
        if cell.dataset in datasets and cell.variant in rows
        for note in (note.rstrip(".") for note in run.cards[str(cell.id)].get("notes", ()))
    ]


def _deterministic(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Which variants have no deviation, because their rows are the same in every seed."""
    found = [
        run.label(v)
        for v in rows
        if all(len({*found.values()}) == 1 < len(found) for found in (run.by_seed(d, v, run.primary) for d in datasets))
    ]
    return [f"Deterministic, the same in every seed: {', '.join(found)}."] if found else []


def _undefined(run: Run, datasets: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Which actions leave a metric without a value, and why."""
    notes = []
    for dataset in datasets if run.task == "action" else ():
        for cell in run.ids(dataset)[:1]:
            names = [
                (metric_label(metric), action)
                for metric in metrics
                for action in run.actions(dataset)
                if metric in run.metrics and "/" not in metric and np.isnan(run.metric(cell, f"{metric}/{action}"))
            ]
            for action in dict.fromkeys(action for _, action in names):
                undefined = ", ".join(metric for metric, of in names if of == action)
                notes.append(
                    f"'{action}' occurs in every or in no test event of {dataset}, or of each of its users: "
                    f"{undefined} undefined for it, and so on average."
                )
    return notes
