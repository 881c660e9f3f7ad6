"""The primary metric broken down: by candidate protocol, by action, by the length of the history."""

from __future__ import annotations

from harness.analysis.artefacts import ReportTable
from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.slices import Slice, by_history
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.analysis.tables.numbers import WIDEST, metric_column
from harness.files import as_file_name

__all__ = ["Candidates", "HistoryLength", "PerAction"]


class Candidates(ReportTable):
    """The primary metric under both candidate protocols."""

    order = 60
    compares = True

    def applies(self, run: Run) -> bool:
        return run.task == "retrieval"

    def make(self, run: Run) -> Table:
        grouped = len(run.datasets) > 1
        protocols = {"unseen": "History removed", "all": "History kept"}
        cells = {
            (dataset, protocol): metric_column(run, dataset, run.primary, run.variants, {}, candidates=protocol)
            for dataset in run.datasets
            for protocol in protocols
        }
        if len(run.datasets) * len(protocols) <= WIDEST:
            heads = [
                Column(f"{d}/{p}", title, d if grouped else "") for d in run.datasets for p, title in protocols.items()
            ]
            entries = {v: tuple(cells[d, p][v] for d in run.datasets for p in protocols) for v in run.variants}
            lines = [Line(v, run.label(v), entries[v]) for v in run.variants]
        else:
            heads = [Column(p, title) for p, title in protocols.items()]
            lines = [
                Line(v, run.label(v), tuple(cells[d, p][v] for p in protocols), d)
                for d in run.datasets
                for v in run.variants
            ]
        trained = any(card.get("training") for card in run.cards.values())
        chosen = f"; the epoch was chosen on validation with it {'kept' if run.candidates == 'all' else 'removed'}"
        caption = (
            f"{metric_label(run.primary)} under both candidate protocols{'' if grouped else ' on ' + run.datasets[0]}: "
            f"the user's history removed from the candidates, or kept{chosen if trained else ''}. Mean ± standard "
            "deviation over seeds; best in bold, second underlined."
        )
        notes = provenance(run, run.datasets, run.variants)[1:]
        return Table(
            "candidates", caption, "Variant", tuple(heads), tuple(lines), notes, f"{run.name}-candidates"
        )  # fmt: skip


class PerAction(ReportTable):
    """The primary metric of each action, a table per data set that has more than one."""

    order = 40
    compares = True

    def applies(self, run: Run) -> bool:
        return bool(run.pairs) and run.task == "action"

    def make(self, run: Run) -> list[Table]:
        family = run.primary.partition("/")[0]
        better = "Lower" if lower_is_better(family) else "Higher"
        tables = []
        for dataset in run.datasets:
            actions = run.actions(dataset)
            if len(actions) < 2:
                continue
            columns = [metric_column(run, dataset, f"{family}/{action}", run.variants, {}) for action in actions]
            lines = [Line(v, run.label(v), tuple(column[v] for column in columns)) for v in run.variants]
            heads = tuple(Column(f"{family}/{action}", action) for action in actions)
            caption = (
                f"{metric_label(family)} of each action on {dataset}, mean ± standard deviation over seeds; best in "
                f"bold, second underlined. {better} is better; a dash where it is undefined."
            )
            name = "per-action" if len(run.datasets) == 1 else f"per-action-{as_file_name(dataset)}"
            notes = provenance(run, [dataset], run.variants)
            tables.append(Table(name, caption, "Variant", heads, tuple(lines), notes, f"{run.name}-{name}"))
        return tables


class HistoryLength(ReportTable):
    """The primary metric by the number of events before the target: variants x bins on every data set."""

    order = 70
    compares = True

    def applies(self, run: Run) -> bool:
        return run.task == "retrieval" and len(_bins(run)) > 1

    def make(self, run: Run) -> Table:
        grouped, bins = len(run.datasets) > 1, _bins(run)
        lines = []
        for dataset in run.datasets:
            for variant in run.variants:
                found = {s.label: s for s in by_history(run, dataset, variant)}
                cells = tuple(run.ids(dataset, variant))
                entries = tuple(_entry(found[label], cells) if label in found else Entry() for label in bins)
                lines.append(Line(variant, run.label(variant), entries, dataset if grouped else ""))
        sizes = {s.label: s.users for v in run.variants for s in by_history(run, run.datasets[0], v)}
        users = ", ".join(f"{label}: {sizes[label]}" for label in bins if label in sizes)
        caption = (
            f"{metric_label(run.primary)} by the number of events before the test target: mean over users and seeds, ± "
            "half the 95 % interval over users."
        )
        if not grouped:
            caption += f" Data: {run.datasets[0]}. Users in each bin: {users}."
        notes, heads = provenance(run, run.datasets, run.variants), tuple(Column(label, label) for label in bins)
        label = f"{run.name}-history-length"
        return Table("history-length", caption, "Variant", heads, tuple(lines), notes, label, spread="half_width")


def _bins(run: Run) -> list[str]:
    """Labels of the bins that some variant has on some data set, shortest histories first."""
    labels = {s.label for d in run.datasets for v in run.variants for s in by_history(run, d, v)}
    return sorted(labels, key=lambda label: int(label.rstrip("+").partition("–")[0]))


def _entry(found: Slice, cells: tuple[str, ...]) -> Entry:
    return Entry(fixed(found.mean, 4), found.mean, fixed(found.half, 4), found.half, cells=cells)
