"""Whether each variant passes each reference, for new seeds and new users."""

from __future__ import annotations

from typing import Literal

from harness.analysis.artefacts import ReportTable
from harness.analysis.comparisons import over_users_and_seeds
from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.table import Column, Entry, Line, Table, between, fixed
from harness.analysis.tables.numbers import DIGITS, pair
from harness.analysis.two_levels import Sampled

__all__ = ["References", "passes", "reference_metrics"]

_HEADS: tuple[tuple[str, str, Literal["r", "l"]], ...] = (
    ("difference", "Difference", "r"),
    ("two-level", "Users × seeds", "r"),
    ("passes", "Passes", "l"),
)
"""Key, title and alignment of each metric's columns."""


class References(ReportTable):
    """Difference of each variant to each reference, with its interval over users and seeds."""

    order = 50
    compares = True

    def applies(self, run: Run) -> bool:
        return 0 < len(run.contenders) < len(run.variants)

    def make(self, run: Run) -> Table:
        metrics = reference_metrics(run)
        lines = []
        for dataset in run.datasets:
            for reference in [v for v in run.variants if v not in run.contenders]:
                where = f"{dataset}, " if len(run.datasets) > 1 else ""
                for variant in run.contenders:
                    entries = [e for m in metrics for e in _entries(run, dataset, variant, reference, m)]
                    group = f"{where}{run.label(reference)}"
                    lines.append(Line(f"{variant}/{reference}", run.label(variant), tuple(entries), group))
        shown = " and ".join(metric_label(metric) for metric in metrics)
        caption = (
            f"Differences in {shown} to the references{'' if len(run.datasets) > 1 else ' on ' + run.datasets[0]}, "
            "with the 95 % interval for new seeds and new users. A variant passes a reference where the whole interval "
            "is on the better side of 0, does not where it is on the other, else it is undecided; the number of "
            "comparisons is not corrected for."
        )
        notes, label = provenance(run, run.datasets, run.variants), f"{run.name}-references"
        return Table("references", caption, "Variant", _heads(metrics), tuple(lines), notes, label, "Reference")


def reference_metrics(run: Run) -> list[str]:
    """What variants are held against references by: the primary metric; for actions NE too, whose mean over actions
    gives a rare one the weight of any other."""
    return list(dict.fromkeys([run.primary, "ne"] if run.task == "action" else [run.primary]))


def passes(wide: Sampled | None, lower: bool) -> str:
    """Whether a difference to a reference is for the better: "yes", "no", "undecided"; "not tested" without seeds."""
    if wide is None:
        return "not tested"
    low, high = (-wide.interval[1], -wide.interval[0]) if lower else wide.interval
    return "yes" if low > 0 else "no" if high < 0 else "undecided"


def _heads(metrics: list[str]) -> tuple[Column, ...]:
    return tuple(
        Column(f"{metric}/{key}", title, metric_label(metric) if len(metrics) > 1 else "", align)
        for metric in metrics
        for key, title, align in _HEADS
    )


def _entries(run: Run, dataset: str, variant: str, reference: str, metric: str) -> list[Entry]:
    ids = tuple(run.ids(dataset, variant) + run.ids(dataset, reference))
    wide = over_users_and_seeds(run, dataset, variant, reference, metric)
    said = passes(wide, lower_is_better(metric))
    difference, interval = (wide.difference, wide.interval) if wide else (None, None)
    return [
        Entry(fixed(difference, DIGITS, sign=True), difference, cells=ids),
        Entry(between(interval, DIGITS), pair(interval), cells=ids),
        Entry(said, said, cells=ids),
    ]
