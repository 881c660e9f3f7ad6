"""A table as LaTeX, for papers with one column and with two.

The code needs the package booktabs alone. A number and its spread are a right- and a left-aligned column side by side:
as all numbers of a column have the same decimals, their points stand in line without siunitx. A table that is too wide
for the page is set in a smaller font, and where that is not enough it is broken into panels below each other.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from harness.analysis.render.breaks import BREAKS
from harness.analysis.table import Line, Table

__all__ = ["DEFAULT_WIDTHS", "Widths", "escape_latex", "latex", "two_column_latex", "widths_of"]

LONG = 32
"""Texts with more letters than this are broken into lines."""
_LABELS, _PARAGRAPH = 0.28, 0.17
"""Shares of the line's width that are given to long labels, and to a column of long texts."""


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


class _Size(NamedTuple):
    """A font size of a table."""

    command: str
    scale: float
    """Width of a letter, of one in ten points."""
    gap: float
    """On either side of a column, in points."""


_SIZES = (
    _Size("", 1.0, 6),
    _Size(r"\small", 0.925, 5),
    _Size(r"\footnotesize", 0.85, 3.5),
    _Size(r"\scriptsize", 0.8, 3),
)
_SPREAD = _SIZES[-1].scale
"""What stands behind a number is set in \\scriptsize whatever the table's size is."""
_BOLD = 1.15
_LETTERS = (
    ("ilI.,:;'|!", 2.8),
    (" fjrt()[]/-", 3.9),
    ("−+±×Δ<>=≤≥λ↓↑→@w", 7.8),
    ("mMW%–", 8.8),
)
"""Widths in points of letters of Computer Modern in ten points; that is wider than Times, Libertine and Palatino."""
_DIGIT, _CAPITAL, _OTHER = 5.0, 7.3, 5.2

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "±": r"$\pm$", "−": r"$-$",
    "×": r"$\times$", "Δ": r"$\Delta$", "λ": r"$\lambda$", "β": r"$\beta$", "α": r"$\alpha$", "≤": r"$\leq$",
    "≥": r"$\geq$", "†": r"$\dagger$", "–": "--", "—": "---", "…": r"\dots{}", "→": r"$\to$", "\u00a0": "~",
    "“": "``", "”": "''", "’": "'", "·": r"$\cdot$", "≈": r"$\approx$", "|": r"\textbar{}", "\n": " ",
    "\u202f": r"\,", "ⁿ": r"$^{n}$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", '"': r"\textquotedbl{}",
}  # fmt: skip


_DIRECTIONS = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe0e\ufe0f\ufeff]")
_BEYOND = re.compile("[^\x00-\u024f\u2000-\u22ff\ufb00-\ufb06]")
"""Letters that pdfLaTeX has no font for by itself, once those above are replaced."""


def escape_latex(text: str) -> str:
    """Plain text with everything escaped that LaTeX reads as a command. Letters stay as they are (UTF-8); what only
    directs them, which LaTeX knows no letter for, is left out."""
    text = _DIRECTIONS.sub("", BREAKS.sub(" ", text))
    return "".join(_TEX.get(character, character) for character in text)


def latex(table: Table, widths: Widths = DEFAULT_WIDTHS) -> str:
    """A ``table`` environment for a paper with one column."""
    return _comment(widths) + _with_letters(_environment(table, "table", widths.text, _SIZES))


def two_column_latex(table: Table, widths: Widths = DEFAULT_WIDTHS) -> str:
    """For a paper with two columns: a ``table`` where one column holds it, else a ``table*`` across both.

    The smallest font is ``\\footnotesize``, as such papers have smaller letters to begin with.
    """
    sizes, every = _SIZES[1:3], list(range(len(table.columns)))
    narrow = _width(table, every, sizes[-1], widths.column) <= widths.column
    width, name = (widths.column, "table") if narrow else (widths.both, "table*")
    return _comment(widths) + _with_letters(_environment(table, name, width, sizes))


def _with_letters(code: str) -> str:
    """The code below a line that says what its letters need, where they need something."""
    if not _BEYOND.search(code):
        return code
    return (
        "% This table has letters beyond Latin: compile it with LuaLaTeX or XeLaTeX and a font that has them, set\n"
        "% with the package fontspec, as in \\setmainfont{Noto Serif CJK SC}.\n" + code
    )


def _comment(widths: Widths) -> str:
    """A first line that says for which widths the table was made, where they are not the usual ones."""
    return "" if widths == DEFAULT_WIDTHS else f"% text {widths.text:g} pt, column {widths.column:g} pt\n"


def widths_of(text: str) -> Widths:
    """The widths that a table was made for, from its LaTeX."""
    found = re.match(r"% text ([\d.]+) pt, column ([\d.]+) pt\n", text)
    return Widths(float(found[1]), float(found[2])) if found else DEFAULT_WIDTHS


def _environment(table: Table, name: str, width: float, sizes: tuple[_Size, ...]) -> str:
    every = list(range(len(table.columns)))
    size = next((size for size in sizes if _width(table, every, size, width) <= width), sizes[-1])
    out = [
        rf"\begin{{{name}}}[t]",
        r"  \centering",
        rf"  \caption{{{escape_latex(table.caption)}}}",
        rf"  \label{{tab:{table.label or table.name}}}",
    ]
    out += [f"  {size.command}", rf"  \setlength{{\tabcolsep}}{{{size.gap:g}pt}}"] if size.command else []
    for number, places in enumerate(_panels(table, size, width)):
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
    first = rf"p{{{_LABELS:g}\linewidth}}" if max(len(line.label) for line in table.lines) > LONG else "l"
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
    return rf"p{{{_PARAGRAPH:g}\linewidth}}" if _is_long(table, place) else table.columns[place].align


def _is_long(table: Table, place: int) -> bool:
    return max(len(entry.text) for entry in table.column(place)) > LONG


def _points(text: str) -> float:
    """How wide a text is in ten points, about."""
    return sum(map(_letter, text))


@cache
def _letter(letter: str) -> float:
    for letters, points in _LETTERS:
        if letter in letters:
            return points
    return _DIGIT if letter.isdigit() else _CAPITAL if letter.isupper() else _OTHER


def _column(table: Table, place: int, size: _Size, width: float) -> float:
    """Points of a column without the gaps beside it."""
    entries, title = table.column(place), size.scale * _points(table.columns[place].title)
    if _is_long(table, place):
        return max(title, _PARAGRAPH * width)
    texts = max(size.scale * _points(e.text) * (_BOLD if e.style == "best" else 1) for e in entries)
    behind = max(_SPREAD * _points(" ".join(e.behind)) + 0.75 * size.scale * _points(e.mark) for e in entries)
    return max(title, texts + behind + 2 * bool(behind))


def _width(table: Table, places: list[int], size: _Size, width: float) -> float:
    """Points of a line with the columns at ``places``, on a page that is ``width`` wide."""
    labels = [line.label for line in table.lines]
    first = _LABELS * width if max(map(len, labels)) > LONG else size.scale * max(map(_points, [*labels, table.corner]))
    total = first
    for group, members in table.column_groups(places):
        own = sum(_column(table, place, size, width) + 2 * size.gap for place in members)
        total += max(own, size.scale * _points(group) + 2 * size.gap)
    return total


def _panels(table: Table, size: _Size, width: float) -> list[list[int]]:
    """The columns' places in as few panels as it takes, about as wide as each other; one column at least in each."""
    fewest = _filled(table, size, width, width)
    rooms = (width * share / 20 for share in range(1, 20))
    return next((found for room in rooms if len(found := _filled(table, size, width, room)) == len(fewest)), fewest)


def _filled(table: Table, size: _Size, width: float, room: float) -> list[list[int]]:
    """Panels that take columns for as long as their lines have ``room``."""
    panels: list[list[int]] = [[]]
    for place in range(len(table.columns)):
        if panels[-1] and _width(table, [*panels[-1], place], size, width) > room:
            panels.append([])
        panels[-1].append(place)
    return panels
