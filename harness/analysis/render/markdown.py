"""A table as Markdown."""

from __future__ import annotations

from harness.analysis.render.breaks import BREAKS
from harness.analysis.table import Entry, Table

__all__ = ["markdown"]


def markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below. Best is bold, second underlined."""
    grouped = any(line.group for line in table.lines)
    heads = [
        *([table.block] if grouped else []),
        table.corner,
        *(" ".join(filter(None, (c.group, c.title))) for c in table.columns),
    ]
    rows = [
        [*([_cell(line.group)] if grouped else []), _cell(line.label), *map(_shown, line.entries)]
        for line in table.lines
    ]
    rule = [":---"] * (len(heads) - len(table.columns)) + ["---:" if c.align == "r" else ":---" for c in table.columns]
    body = "\n".join(f"| {' | '.join(row)} |" for row in [list(map(_cell, heads)), rule, *rows])
    notes = "".join(f"{_cell(note)}  \n" for note in table.notes)
    return f"{_cell(table.caption)}\n\n{body}\n" + (f"\n{notes}" if notes else "")


def _cell(text: str) -> str:
    text = BREAKS.sub(" ", text)
    for letter in ("\\", "|", "*", "_", "`"):
        text = text.replace(letter, f"\\{letter}")
    return text.replace("<", "&lt;").replace("](", "]\\(")


def _shown(entry: Entry) -> str:
    text = {"best": "**%s**", "second": "<ins>%s</ins>", "": "%s"}[entry.style] % _cell(entry.text)
    return " ".join([text, *entry.behind]) + _cell(entry.mark)
