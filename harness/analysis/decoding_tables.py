"""The decoding audit of a run as a table: what free decoding makes up, and what a beam misses."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.analysis.provenance import provenance
from harness.analysis.rows import Run
from harness.analysis.table import Column, Entry, Line, Table, fixed

__all__ = ["decoding_table"]


def decoding_table(run: Run) -> Table | None:
    """Shares in percent, mean ± standard deviation over seeds; None where no cell's decoding was audited."""
    audits = {
        (d, v): {cell: found for cell in run.ids(d, v) if (found := run.decoding(cell)) is not None}
        for d in run.datasets
        for v in run.variants
    }
    audits = {key: found for key, found in audits.items() if found}
    if not audits:
        return None
    every = [audit for found in audits.values() for audit in found.values()]
    k = min(max(_cutoffs(audit)) for audit in every)
    free, items, exact = "Free", "Codes of items", "Against exact"
    columns = (
        (Column(f"free/invalid@{k}", "Invalid", free), ("free", f"invalid@{k}")),
        (Column(f"free/short@{k}", "Short", free), ("free", f"short@{k}")),
        (Column(f"free/recall@{k}", "Recall", free), ("free", f"recall@{k}")),
        (Column(f"constrained/recall@{k}", "Recall", items), ("constrained", f"recall@{k}")),
        (Column(f"constrained/code_recall@{k}", "Of codes", items), ("constrained", f"code_recall@{k}")),
        (Column(f"constrained/prefix_recall@{k}", "But last", items), ("constrained", f"prefix_recall@{k}")),
        (Column(f"exact/overlap@{k}", "Overlap", exact), ("exact", f"overlap@{k}")),
        (Column(f"exact/same@{k}", "Same", exact), ("exact", f"same@{k}")),
        (Column("catalogue/colliding", "Colliding", "Items"), ("catalogue", "colliding")),
    )
    lines = []
    for (dataset, variant), found in audits.items():
        entries = [_entry([_read(audit, *path) for audit in found.values()], tuple(found)) for _, path in columns]
        lines.append(Line(variant, run.label(variant), tuple(entries), dataset if len(run.datasets) > 1 else ""))
    beams = _beams({run.label(v): audit["beams"] for (_, v), found in audits.items() for audit in found.values()})
    users = sorted({audit["users"] for audit in every})
    compared = sorted({audit["exact"]["users"] for audit in every})
    caption = (
        f"Decoding audit{'' if len(run.datasets) > 1 else ' on ' + run.datasets[0]}, in percent, mean ± standard "
        f"deviation over seeds, of the first {k} of each list; {_list(users)} test histories, beams of "
        f"{beams}, history kept among the candidates. Free: any combination of codes may come out; invalid: it "
        f"names no item; short: fewer than {k} items are left. Codes of items: only those are followed; recall of "
        "codes counts a hit whoever shares the codes, but last if the last code may differ. Against exact: what the "
        f"list shares with the ranking of the whole catalogue, for {_list(compared)} histories. Colliding: items that "
        "share their codes."
    )
    notes = provenance(run, run.datasets, run.variants)[1:]
    heads = tuple(column for column, _ in columns)
    return Table("decoding", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-decoding")


def _cutoffs(audit: dict[str, Any]) -> list[int]:
    return [int(name.removeprefix("recall@")) for name in audit["constrained"] if name.startswith("recall@")]


def _read(audit: dict[str, Any], part: str, name: str) -> float | None:
    """A share, 0 to 1; None where it was not measured."""
    if part == "catalogue":
        return audit[part]["colliding_items"] / audit[part]["items"]
    if name.startswith("prefix"):
        name = f"{name}/{audit['catalogue']['levels'] - 1}"
    return audit[part].get(name)


def _entry(values: list[float | None], cells: tuple[str, ...]) -> Entry:
    percent = [100 * value for value in values if value is not None]
    if not percent:
        return Entry(cells=cells)
    mean = float(np.mean(percent))
    if len(set(percent)) == 1:
        return Entry(fixed(mean, 1), mean, cells=cells)
    sd = float(np.std(percent, ddof=1))
    return Entry(fixed(mean, 1), mean, fixed(sd, 1), sd, cells=cells)


def _beams(of: dict[str, int]) -> str:
    """Beam widths in words, with the variants that have them where they differ."""
    widths = sorted(set(of.values()))
    if len(widths) == 1:
        return str(widths[0])
    having = {width: ", ".join(label for label, own in of.items() if own == width) for width in widths}
    return " and ".join(f"{width} ({labels})" for width, labels in having.items())


def _list(numbers: list[int]) -> str:
    return " or ".join(f"{number:,}".replace(",", "\u202f") for number in numbers)
