"""What a cell costs: the one table of a run with seconds in it."""

from __future__ import annotations

from typing import Any

from harness.analysis.artefacts import ReportTable
from harness.analysis.provenance import count, provenance
from harness.analysis.rows import Run
from harness.analysis.table import Column, Entry, Line, Table
from harness.analysis.tables.numbers import mean_entry, with_cells

__all__ = ["Cost"]

_KINDS = (
    ("parameters", "Parameters (k)", 1e-3, 1),
    ("training_flops_per_event", "MFLOPs/event", 1e-6, 2),
    ("train_seconds", "Train (s)", 1, 1),
    ("evaluation_seconds", "Evaluate (s)", 1, 1),
    ("events_per_second", "k events/s", 1e-3, 1),
    ("peak_memory_bytes", "Memory (MiB)", 2**-20, 0),
    ("epochs", "Epochs", 1, 1),
)
"""Key of the cost record, heading, scale, decimals."""


class Cost(ReportTable):
    """Parameters, FLOPs, seconds and memory of one cell of each variant."""

    section = "cost"
    order = 10

    def make(self, run: Run) -> Table:
        lines = [
            Line(v, run.label(v), _entries(run, d, v), d if len(run.datasets) > 1 else "")
            for d in run.datasets
            for v in run.variants
        ]
        devices = sorted({_device(card) for card in run.cards.values() if card.get("hardware")})
        caption = (
            f"Cost of one cell{'' if len(run.datasets) > 1 else ' on ' + run.datasets[0]}, mean ± standard deviation "
            "over seeds. Training and evaluation seconds exclude each other and the loading of data; memory is the "
            "peak."
        )
        measured = [f"Measured on {'; '.join(devices)}."] if devices else []
        notes = (*measured, *provenance(run, run.datasets, run.variants)[-1:])
        heads = tuple(Column(key, title) for key, title, _, _ in _KINDS)
        return Table("cost", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-cost")


def _entries(run: Run, dataset: str, variant: str) -> tuple[Entry, ...]:
    ids = run.ids(dataset, variant)
    costs = [run.cost(cell) for cell in ids]
    entries = []
    for key, _, scale, digits in _KINDS:
        values = [cost[key] * scale for cost in costs if cost.get(key) is not None]
        same = len(set(values)) == 1
        entries.append(with_cells(mean_entry(values, digits, spread=not same), tuple(ids)))
    return tuple(entries)


def _device(card: dict[str, Any]) -> str:
    hardware = card.get("hardware", {})
    device, threads = hardware.get("device", "cpu"), hardware.get("threads", 1)
    return f"{hardware.get('cpu', 'CPU')} ({count(threads, 'thread')})" if device == "cpu" else str(device)
