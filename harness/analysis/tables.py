"""One description of a table, four ways to print it: LaTeX (booktabs), Markdown, HTML and CSV.

A table holds plain Unicode text; each way of printing escapes it. Beside its printed form every entry keeps its
value in full precision (for the CSV file) and the ids of the cells it was derived from (for :func:`verify.trace`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Literal

from harness.files import write_text

__all__ = ["Column", "Entry", "Line", "Table", "between", "fixed", "probability", "render", "write_tables"]

MISSING = "–"
MINUS = "−"
LONG = 32
"""Texts with more letters than this are broken into lines."""


@dataclass(frozen=True)
class Entry:
    """One number or text of a table."""

    text: str = MISSING
    """As printed, in plain Unicode."""
    value: float | str | None = None
    spread: str = ""
    """Standard deviation over seeds as printed, empty where there is none."""
    spread_value: float | None = None
    mark: str = ""
    """What stands behind the number, such as ``*``."""
    style: Literal["", "best", "second"] = ""
    cells: tuple[str, ...] = ()
    """Ids of the cells that the entry was derived from."""
    error: str = ""
    """Standard error over users as printed behind the spread, empty where it is not shown."""
    error_value: float | None = None


@dataclass(frozen=True)
class Column:
    """The heading of one column of a table."""

    key: str
    """What :func:`verify.trace` knows the column by, such as ``ml-100k/ndcg@10``."""
    title: str
    group: str = ""
    """Columns that stand side by side with the same group share a heading."""
    align: Literal["r", "l"] = "r"


@dataclass(frozen=True)
class Line:
    """One row of a table: its label, and one entry per column."""

    key: str
    label: str
    entries: tuple[Entry, ...]
    group: str = ""
    """Lines that follow each other with the same group stand under one heading (a data set, say)."""


@dataclass(frozen=True)
class Table:
    """A table as it is described, before it is printed."""

    name: str
    """Name of the files, and the end of the LaTeX label."""
    caption: str
    corner: str
    """Heading of the column of row labels."""
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    label: str = field(default="")
    """LaTeX label without ``tab:``; the name where empty."""
    block: str = "Dataset"
    """What the groups of lines are, as the heading of their column in Markdown and CSV."""


# -- numbers ----------------------------------------------------------------------------------------------------


def fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """``value`` with ``digits`` decimals, a true minus sign and no negative zero; a dash where it is undefined."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return (f"{value:+.{digits}f}" if sign else text).replace("-", MINUS)


def between(interval: tuple[float, float] | None, digits: int) -> str:
    """An interval: ``[−0.0012, +0.0030]``."""
    return MISSING if interval is None else f"[{', '.join(fixed(end, digits, sign=True) for end in interval)}]"


def probability(value: float | None) -> str:
    """A p-value with three decimals, ``<0.001`` below them."""
    if value is None or math.isnan(value):
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


# -- printing ---------------------------------------------------------------------------------------------------


def render(table: Table, form: str) -> str:
    """The table as ``tex``, ``md``, ``csv`` or ``html``."""
    return {"tex": latex, "md": markdown, "csv": comma_separated, "html": html_table}[form](table)


def write_tables(tables: list[Table], folder: Path) -> list[Path]:
    """Writes every table in every format except HTML, which lives in the report; returns the paths."""
    paths = []
    for table in tables:
        for form in ("tex", "md", "csv"):
            paths.append(folder / f"{table.name}.{form}")
            write_text(paths[-1], render(table, form))
    return paths


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "±": r"$\pm$", "−": r"$-$",
    "×": r"$\times$", "Δ": r"$\Delta$", "λ": r"$\lambda$", "β": r"$\beta$", "α": r"$\alpha$", "≤": r"$\leq$",
    "≥": r"$\geq$", "†": r"$\dagger$", "–": "--", "—": "---", "…": r"\dots{}", "→": r"$\to$", "\u00a0": "~",
    "“": "``", "”": "''", "’": "'", "·": r"$\cdot$", "≈": r"$\approx$", "|": r"\textbar{}", "\n": " ",
    "\u202f": r"\,", "ⁿ": r"$^{n}$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", '"': r"\textquotedbl{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Plain text with everything escaped that LaTeX reads as a command. Letters stay as they are (UTF-8)."""
    return "".join(_TEX.get(character, character) for character in text)


def latex(table: Table) -> str:
    """A complete ``table`` environment; needs the package booktabs only.

    A number and its spread are a right- and a left-aligned column side by side: as all numbers of a column have
    the same decimals, their points stand in line.
    """
    tex, dagger = escape_latex, r"\dagger"
    spread = [
        any(e.spread or e.error or e.mark for e in (line.entries[i] for line in table.lines))
        for i in range(_width(table))
    ]
    kinds = [r"r@{\,}l" if spread[i] else _latex_kind(table, i) for i in range(_width(table))]
    first = r"p{0.28\linewidth}" if max(len(line.label) for line in table.lines) > LONG else "l"
    out = [
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{tex(table.caption)}}}",
        rf"  \label{{tab:{_label(table)}}}",
        *_latex_size(table),
        rf"  \begin{{tabular}}{{@{{}}{first}{''.join(kinds)}@{{}}}}",
        r"    \toprule",
    ]
    if any(column.group for column in table.columns):
        heads, rules, at = [], [], 2
        for group, members in _column_groups(table):
            span = sum(2 if spread[i] else 1 for i in members)
            heads.append(rf"\multicolumn{{{span}}}{{c}}{{{tex(group)}}}")
            rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if group else []
            at += span
        out += [f"    & {' & '.join(heads)} \\\\", f"    {' '.join(rules)}"]
    titles = [
        rf"\multicolumn{{2}}{{c}}{{{tex(c.title)}}}" if s else tex(c.title)
        for c, s in zip(table.columns, spread, strict=True)
    ]
    out += [f"    {tex(table.corner)} & {' & '.join(titles)} \\\\", r"    \midrule"]
    for number, (group, lines) in enumerate(_line_groups(table)):
        out += [r"    \midrule"] if number else []
        out += [
            rf"    \multicolumn{{{1 + sum(1 + s for s in spread)}}}{{@{{}}l}}{{\textit{{{tex(group)}}}}} \\"
        ] * bool(group)
        for line in lines:
            parts = [tex(line.label)]
            for entry, wide in zip(line.entries, spread, strict=True):
                text = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[entry.style] % tex(entry.text)
                behind = tex(" ".join(_behind(entry)))
                behind = rf"{{\scriptsize {behind}}}" if behind else ""
                mark = f"$^{{{entry.mark.replace('†', dagger)}}}$" if entry.mark else ""
                parts += [text, behind + mark] if wide else [text]
            out.append(f"    {' & '.join(parts)} \\\\")
    out += [r"    \bottomrule", r"  \end{tabular}"]
    if table.notes:
        out += [r"  \par\smallskip", r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"]
        out += [
            f"    {tex(note)}{end}"
            for note, end in zip(table.notes, [r" \\"] * (len(table.notes) - 1) + [""], strict=True)
        ]
        out += [r"  \end{minipage}"]
    return "\n".join([*out, r"\end{table}", ""])


def _latex_kind(table: Table, column: int) -> str:
    """Right or left, or a paragraph where the text is long."""
    longest = max(len(line.entries[column].text) for line in table.lines)
    return r"p{0.17\linewidth}" if longest > LONG else table.columns[column].align


def _latex_size(table: Table) -> list[str]:
    """A smaller font where the widest line would not fit a text width of about 16 cm."""
    widths: list[float] = [min(LONG, max(len(line.label) for line in table.lines))]
    for i, column in enumerate(table.columns):
        # A spread is set in a script size, hence three quarters of its letters.
        entries = [
            len(e.text) + 0.75 * sum(len(part) + 1 for part in _behind(e)) for e in (x.entries[i] for x in table.lines)
        ]
        widths.append(min(float(LONG), max(len(column.title), *entries)))
    letters = sum(widths) + 2 * len(widths)
    for limit, size, gap in ((86, "", 6), (98, r"\small", 5), (118, r"\footnotesize", 3.5)):
        if letters <= limit:
            return [f"  {size}", rf"  \setlength{{\tabcolsep}}{{{gap}pt}}"] if size else []
    return [r"  \scriptsize", r"  \setlength{\tabcolsep}{3pt}"]


def markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below. Best is bold, second underlined."""

    def cell(text: str) -> str:
        return (
            text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
        )

    def shown(entry: Entry) -> str:
        text = {"best": "**%s**", "second": "<ins>%s</ins>", "": "%s"}[entry.style] % cell(entry.text)
        return " ".join([text, *_behind(entry)]) + cell(entry.mark)

    grouped = any(line.group for line in table.lines)
    heads = [
        *([table.block] if grouped else []),
        table.corner,
        *(" ".join(filter(None, (c.group, c.title))) for c in table.columns),
    ]
    rows = [
        [*([cell(line.group)] if grouped else []), cell(line.label), *map(shown, line.entries)] for line in table.lines
    ]
    rule = [":---"] * (len(heads) - _width(table)) + ["---:" if c.align == "r" else ":---" for c in table.columns]
    body = "\n".join(f"| {' | '.join(row)} |" for row in [list(map(cell, heads)), rule, *rows])
    notes = "".join(f"{cell(note)}  \n" for note in table.notes)
    return f"{cell(table.caption)}\n\n{body}\n" + (f"\n{notes}" if notes else "")


def comma_separated(table: Table) -> str:
    """Values in full precision (12 significant digits). Behind each that has them stand ``... sd``, over seeds, and
    ``... se``, over users."""
    grouped = any(line.group for line in table.lines)
    spread = [any(line.entries[i].spread for line in table.lines) for i in range(_width(table))]
    errors = [any(line.entries[i].error_value is not None for line in table.lines) for i in range(_width(table))]
    marks = [any(line.entries[i].mark for line in table.lines) for i in range(_width(table))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = []
    for column, wide, known, marked in zip(table.columns, spread, errors, marks, strict=True):
        heads += [column.key] + [f"{column.key} sd"] * wide + [f"{column.key} se"] * known
        heads += [f"{column.key} mark"] * marked
    writer.writerow([*([table.block.lower()] if grouped else []), "key", "label", *heads])
    for line in table.lines:
        values = []
        for entry, wide, known, marked in zip(line.entries, spread, errors, marks, strict=True):
            values += [_full(entry.value)] + [_full(entry.spread_value)] * wide + [_full(entry.error_value)] * known
            values += [entry.mark] * marked
        writer.writerow([*([line.group] if grouped else []), line.key, line.label, *values])
    return out.getvalue()


def html_table(table: Table) -> str:
    """A ``figure`` with the table, its caption and its notes; the report's style sheet dresses it."""
    head = ""
    if any(column.group for column in table.columns):
        cells = "".join(
            f'<th scope="colgroup" colspan="{len(members)}" class="group">{escape(group)}</th>'
            for group, members in _column_groups(table)
        )
        head = f"<tr><td></td>{cells}</tr>"
    titles = "".join(f'<th scope="col" class="{c.align}">{escape(c.title)}</th>' for c in table.columns)
    head += f'<tr><th scope="col" class="l">{escape(table.corner)}</th>{titles}</tr>'
    body = []
    for group, lines in _line_groups(table):
        if group:
            body.append(
                f'<tr class="block"><th scope="rowgroup" colspan="{_width(table) + 1}">{escape(group)}</th></tr>'
            )
        for line in lines:
            cells = "".join(
                f'<td class="{" ".join(filter(None, (column.align, entry.style)))}">{_html_entry(entry)}</td>'
                for column, entry in zip(table.columns, line.entries, strict=True)
            )
            body.append(f'<tr><th scope="row">{escape(line.label)}</th>{cells}</tr>')
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return (
        f'<figure class="table" id="table-{escape(table.name)}"><figcaption>{escape(table.caption)}</figcaption>'
        f'<div class="scroll"><table><thead>{head}</thead><tbody>\n' + "\n".join(body) + "\n</tbody></table></div>"
        f'<div class="notes">{notes}</div></figure>'
    )


def _html_entry(entry: Entry) -> str:
    text = f'<span class="value">{escape(entry.text)}</span>'
    behind = escape(" ".join(_behind(entry)))
    text += f'<span class="spread"> {behind}</span>' if behind else ""
    return text + (f"<sup>{escape(entry.mark)}</sup>" if entry.mark else "")


def _behind(entry: Entry) -> list[str]:
    """What stands behind a number: its deviation over seeds, and in brackets its error over users."""
    return [f"± {entry.spread}"] * bool(entry.spread) + [f"({entry.error})"] * bool(entry.error)


def _width(table: Table) -> int:
    return len(table.columns)


def _label(table: Table) -> str:
    return table.label or table.name


def _column_groups(table: Table) -> Iterator[tuple[str, list[int]]]:
    for group, members in groupby(range(_width(table)), key=lambda i: table.columns[i].group):
        yield group, list(members)


def _line_groups(table: Table) -> Iterator[tuple[str, list[Line]]]:
    for group, lines in groupby(table.lines, key=lambda line: line.group):
        yield group, list(lines)


def _full(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "" if math.isnan(value) else f"{value:.12g}"
