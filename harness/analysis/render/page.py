"""A table as HTML, for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from harness.analysis.table import Entry, Line, Table

__all__ = ["file_links", "html_table"]


def html_table(table: Table, files: Mapping[str, str] | None = None) -> str:
    """A ``figure`` with the table, its caption, its notes and links to its ``files``: title -> path beside the report.

    The report's style sheet dresses it, and its script sorts it by ``data-value``, the full precision. Every group of
    lines is a body of its own, so that lines are sorted within it.
    """
    head = ""
    if any(column.group for column in table.columns):
        cells = "".join(
            f'<th scope="colgroup" colspan="{len(members)}" class="group">{escape(group)}</th>'
            for group, members in table.column_groups()
        )
        head = f"<tr><td></td>{cells}</tr>"
    titles = "".join(f'<th scope="col" class="{c.align}">{escape(c.title)}</th>' for c in table.columns)
    head += f'<tr class="heads"><th scope="col" class="l">{escape(table.corner)}</th>{titles}</tr>'
    bodies = "\n".join(_body(table, group, lines) for group, lines in table.line_groups())
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return (
        f'<figure class="table" id="table-{escape(table.name)}"><figcaption>{escape(table.caption)}</figcaption>'
        f'<div class="scroll"><table class="data"><thead>{head}</thead>\n{bodies}\n</table></div>'
        f'<div class="notes">{notes}</div>{file_links(files or {})}</figure>'
    )


def file_links(files: Mapping[str, str]) -> str:
    """A line of links; nothing without any."""
    links = " ".join(f'<a href="{escape(path)}">{escape(title)}</a>' for title, path in files.items())
    return f'<p class="files">{links}</p>' if links else ""


def _body(table: Table, group: str, lines: list[Line]) -> str:
    width = len(table.columns) + 1
    out = [f'<tr class="block"><th scope="rowgroup" colspan="{width}">{escape(group)}</th></tr>'] * bool(group)
    for line in lines:
        cells = "".join(
            f'<td class="{" ".join(filter(None, (column.align, entry.style)))}"{_value(entry)}>{_entry(entry)}</td>'
            for column, entry in zip(table.columns, line.entries, strict=True)
        )
        out.append(f'<tr><th scope="row">{escape(line.label)}</th>{cells}</tr>')
    return "<tbody>" + "\n".join(out) + "</tbody>"


def _value(entry: Entry) -> str:
    if isinstance(entry.value, str) or entry.value is None or math.isnan(entry.value):
        return ""
    return f' data-value="{entry.value:.12g}"'


def _entry(entry: Entry) -> str:
    text = f'<span class="value">{escape(entry.text)}</span>'
    behind = escape(" ".join(entry.behind))
    text += f'<span class="spread"> {behind}</span>' if behind else ""
    return text + (f"<sup>{escape(entry.mark)}</sup>" if entry.mark else "")
