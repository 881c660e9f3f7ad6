"""A table as CSV, its values in full precision."""

from __future__ import annotations

import csv
import io
import math

from harness.analysis.table import Table

__all__ = ["comma_separated"]


def comma_separated(table: Table) -> str:
    """Values in full precision (12 significant digits). Behind each that has them stand ``... sd``, over seeds (or what
    ``Table.spread`` says), and ``... se``, over users."""
    places = range(len(table.columns))
    grouped = any(line.group for line in table.lines)
    spread = [any(entry.spread for entry in table.column(i)) for i in places]
    errors = [any(entry.error_value is not None for entry in table.column(i)) for i in places]
    marks = [any(entry.mark for entry in table.column(i)) for i in places]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = []
    for column, wide, known, marked in zip(table.columns, spread, errors, marks, strict=True):
        heads += [column.key] + [f"{column.key} {table.spread}"] * wide + [f"{column.key} se"] * known
        heads += [f"{column.key} mark"] * marked
    writer.writerow([*([table.block.lower()] if grouped else []), "key", "label", *heads])
    for line in table.lines:
        values = []
        for entry, wide, known, marked in zip(line.entries, spread, errors, marks, strict=True):
            values += [_full(entry.value)] + [_full(entry.spread_value)] * wide + [_full(entry.error_value)] * known
            values += [entry.mark] * marked
        writer.writerow([*([line.group] if grouped else []), line.key, line.label, *values])
    return out.getvalue()


def _full(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "" if math.isnan(value) else f"{value:.12g}"
