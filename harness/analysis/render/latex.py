"""A table as LaTeX, for papers with one column and with two.

The code needs the package booktabs alone. A number and its spread are a right- and a left-aligned column side by side:
as all numbers of a column have the same decimals, their points stand in line without siunitx. A table that is too wide
for the page is set in a smaller font, and where that is not enough it is broken into panels below each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from harness.analysis.table import Entry, Line, Table

__all__ = ["DEFAULT_WIDTHS", "Widths", "escape_latex", "latex", "two_column_latex", "widths_of"]

LONG = 32
"""Texts with more letters than this are broken into lines."""


class Widths(NamedTuple):
    """Of a page, in TeX's points."""

    text: float = 455.0
    """The text of a paper with one column: 16 cm."""
    column: float = 241.0
    """A column of a paper with two: that of acmart, the narrowest in use (IEEEtran's has 252)."""
    gap: float = 24.0
    """Between the two columns."""

    @property
    def both(self) -> float:
        return 2 * self.column + self.gap


DEFAULT_WIDTHS = Widths()


@dataclass(frozen=True)
class _Size:
    """A font size, and how wide the average letter of a table is in it."""

    letters: int
    """That fit a line of 455 points."""
    command: str
    gap: float
    """Between columns, on either side of each, in points."""


_SIZES = (
    _Size(86, "", 6),
    _Size(98, r"\small", 5),
    _Size(118, r"\footnotesize", 3.5),
    _Size(136, r"\scriptsize", 3),
)

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


def latex(table: Table, widths: Widths = DEFAULT_WIDTHS) -> str:
    """A ``table`` environment for a paper with one column."""
    return _comment(widths) + _environment(table, "table", widths.text, _SIZES)


def two_column_latex(table: Table, widths: Widths = DEFAULT_WIDTHS) -> str:
    """For a paper with two columns: a ``table`` where one column holds it, else a ``table*`` across both.

    The smallest font is ``\\footnotesize``, as such papers have smaller letters to begin with.
    """
    sizes = _SIZES[1:3]
    every = list(range(len(table.columns)))
    narrow = _letters(table, every) <= _room(sizes[-1], widths.column)
    width, name = (widths.column, "table") if narrow else (widths.both, "table*")
    return _comment(widths) + _environment(table, name, width, sizes)


def _comment(widths: Widths) -> str:
    """A first line that says for which widths the table was made, where they are not the usual ones."""
    return "" if widths == DEFAULT_WIDTHS else f"% text {widths.text:g} pt, column {widths.column:g} pt\n"


def widths_of(text: str) -> Widths:
    """The widths that a table was made for, from its LaTeX."""
    found = re.match(r"% text ([\d.]+) pt, column ([\d.]+) pt\n", text)
    return Widths(float(found[1]), float(found[2])) if found else DEFAULT_WIDTHS


def _environment(table: Table, name: str, width: float, sizes: tuple[_Size, ...]) -> str:
    every = list(range(len(table.columns)))
    size = next((size for size in sizes if _letters(table, every) <= _room(size, width)), sizes[-1])
    out = [
        rf"\begin{{{name}}}[t]",
        r"  \centering",
        rf"  \caption{{{escape_latex(table.caption)}}}",
        rf"  \label{{tab:{table.label or table.name}}}",
    ]
    out += [f"  {size.command}", rf"  \setlength{{\tabcolsep}}{{{size.gap:g}pt}}"] if size.command else []
    for number, places in enumerate(_panels(table, _room(size, width))):
        out += [r"  \par\medskip"] if number else []
        out += _tabular(table, places)
    if table.notes:
        out += [r"  \par\smallskip", r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"]
        out += [
            f"    {escape_latex(note)}{end}"
            for note, end in zip(table.notes, [r" \\"] * (len(table.notes) - 1) + [""], strict=True)
        ]
        out += [r"  \end{minipage}"]
    return "\n".join([*out, rf"\end{{{name}}}", ""])


def _tabular(table: Table, places: list[int]) -> list[str]:
    """The lines of one ``tabular`` with the columns at ``places``."""
    spread = {i: any(e.behind or e.mark for e in table.column(i)) for i in places}
    kinds = [r"r@{\,}l" if spread[i] else _kind(table, i) for i in places]
    first = r"p{0.28\linewidth}" if max(len(line.label) for line in table.lines) > LONG else "l"
    out = [rf"  \begin{{tabular}}{{@{{}}{first}{''.join(kinds)}@{{}}}}", r"    \toprule"]
    if any(table.columns[i].group for i in places):
        heads, rules, at = [], [], 2
        for group, members in table.column_groups(places):
            span = sum(2 if spread[i] else 1 for i in members)
            heads.append(rf"\multicolumn{{{span}}}{{c}}{{{escape_latex(group)}}}")
            rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if group else []
            at += span
        out += [f"    & {' & '.join(heads)} \\\\", f"    {' '.join(rules)}"]
    titles = [escape_latex(table.columns[i].title) for i in places]
    titles = [rf"\multicolumn{{2}}{{c}}{{{t}}}" if spread[i] else t for i, t in zip(places, titles, strict=True)]
    out += [f"    {escape_latex(table.corner)} & {' & '.join(titles)} \\\\", r"    \midrule"]
    span = 1 + sum(1 + wide for wide in spread.values())
    for number, (group, lines) in enumerate(table.line_groups()):
        out += [r"    \midrule"] if number else []
        out += [rf"    \multicolumn{{{span}}}{{@{{}}l}}{{\textit{{{escape_latex(group)}}}}} \\"] * bool(group)
        out += [_row(line, spread) for line in lines]
    return [*out, r"    \bottomrule", r"  \end{tabular}"]


def _row(line: Line, spread: dict[int, bool]) -> str:
    dagger = r"\dagger"
    parts = [escape_latex(line.label)]
    for place, wide in spread.items():
        entry = line.entries[place]
        text = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[entry.style] % escape_latex(entry.text)
        behind = escape_latex(" ".join(entry.behind))
        behind = rf"{{\scriptsize {behind}}}" if behind else ""
        mark = f"$^{{{entry.mark.replace('†', dagger)}}}$" if entry.mark else ""
        parts += [text, behind + mark] if wide else [text]
    return f"    {' & '.join(parts)} \\\\"


def _kind(table: Table, place: int) -> str:
    """Right or left, or a paragraph where the text is long."""
    longest = max(len(entry.text) for entry in table.column(place))
    return r"p{0.17\linewidth}" if longest > LONG else table.columns[place].align


def _room(size: _Size, width: float) -> float:
    """How many letters fit a line of ``width`` points."""
    return size.letters * width / DEFAULT_WIDTHS.text


def _label_letters(table: Table) -> float:
    return min(LONG, max(len(line.label) for line in table.lines)) + 2


def _column_letters(table: Table, place: int) -> float:
    return min(LONG, max(len(table.columns[place].title), *map(_entry_letters, table.column(place)))) + 2


def _entry_letters(entry: Entry) -> float:
    """A spread is set in a script size, hence three quarters of its letters."""
    return len(entry.text) + 0.75 * sum(len(part) + 1 for part in entry.behind)


def _letters(table: Table, places: list[int]) -> float:
    """How many letters wide a line with the columns at ``places`` is, the gaps with them."""
    return _label_letters(table) + sum(_column_letters(table, place) for place in places)


def _panels(table: Table, room: float) -> list[list[int]]:
    """The columns' places in as many panels as it takes, so that each line has room; never less than one a panel."""
    panels: list[list[int]] = [[]]
    for place in range(len(table.columns)):
        if panels[-1] and _letters(table, [*panels[-1], place]) > room:
            panels.append([])
        panels[-1].append(place)
    return panels
