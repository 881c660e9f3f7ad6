"""Accuracy by the target's popularity and by whether its transition was seen in training."""

from __future__ import annotations

from harness.analysis.artefacts import ReportTable
from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, metric_label
from harness.analysis.slices import KINDS, Slice, by_kind
from harness.analysis.table import Column, Entry, Line, Table, fixed

__all__ = ["TargetSlices"]

SHOWN = ("popularity", "transition")


class TargetSlices(ReportTable):
    """The primary metric by kinds of targets: variants x bins on every data set."""

    order = 72
    compares = True

    def applies(self, run: Run) -> bool:
        return run.task == "retrieval" and len(_columns(run)) > 1

    def make(self, run: Run) -> Table:
        grouped, columns = len(run.datasets) > 1, _columns(run)
        lines = []
        for dataset in run.datasets:
            for variant in run.variants:
                found = {(k, s.label): s for k in SHOWN for s in by_kind(run, dataset, variant, k)}
                cells = tuple(run.ids(dataset, variant))
                entries = tuple(_entry(found[c], cells) if c in found else Entry() for c in columns)
                lines.append(Line(variant, run.label(variant), entries, dataset if grouped else ""))
        caption = (
            f"{metric_label(run.primary)} by the target's events in the training part (0: a cold target) and by "
            "whether the target has directly followed the last item of the history there, of any user: mean over users "
            "and seeds, ± half the 95 % interval over users."
        )
        if not grouped:
            sizes = {(k, s.label): s.users for v in run.variants for k in SHOWN for s in by_kind(run, dataset, v, k)}
            users = ", ".join(f"{label}: {sizes[kind, label]}" for kind, label in columns)
            caption += f" Data: {run.datasets[0]}. Users in each bin: {users}."
        heads = tuple(Column(f"{kind}/{label}", label) for kind, label in columns)
        notes = provenance(run, run.datasets, run.variants)
        label = f"{run.name}-targets"
        return Table("targets", caption, "Variant", heads, tuple(lines), notes, label, spread="half_width")


def _columns(run: Run) -> list[tuple[str, str]]:
    """Kind and label of the bins that some variant has on some data set."""
    there = {(k, s.label) for d in run.datasets for v in run.variants for k in SHOWN for s in by_kind(run, d, v, k)}
    return [(kind, label) for kind in SHOWN for label, _, _ in KINDS[kind].bins() if (kind, label) in there]


def _entry(found: Slice, cells: tuple[str, ...]) -> Entry:
    return Entry(fixed(found.mean, 4), found.mean, fixed(found.half, 4), found.half, cells=cells)
