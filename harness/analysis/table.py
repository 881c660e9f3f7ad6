"""The description of a table, before it is printed; :mod:`harness.analysis.render` prints it.

A table holds plain Unicode text; each way of printing escapes it. Beside its printed form every entry keeps its
value in full precision (for the CSV file) and the ids of the cells it was derived from (for :func:`verify.trace`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Column", "Entry", "Line", "Table", "between", "fixed", "from_frame", "probability"]

MISSING = "–"
MINUS = "−"


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

    @property
    def behind(self) -> list[str]:
        """What stands behind a number: its deviation over seeds, and in brackets its error over users."""
        return [f"± {self.spread}"] * bool(self.spread) + [f"({self.error})"] * bool(self.error)


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
    spread: str = "sd"
    """What stands behind ±, in the heads of the CSV file: ``sd`` over seeds, or ``half_width`` of a 95 % interval."""
    block: str = "Dataset"
    """What the groups of lines are, as the heading of their column in Markdown and CSV."""

    def column(self, place: int) -> list[Entry]:
        """The entries below one heading."""
        return [line.entries[place] for line in self.lines]

    def column_groups(self, places: Iterable[int] | None = None) -> Iterator[tuple[str, list[int]]]:
        """Headings that columns side by side share, with the places of those columns; of ``places`` alone, or all."""
        places = range(len(self.columns)) if places is None else places
        for group, members in groupby(places, key=lambda place: self.columns[place].group):
            yield group, list(members)

    def line_groups(self) -> Iterator[tuple[str, list[Line]]]:
        """Headings that lines below each other share, with those lines."""
        for group, lines in groupby(self.lines, key=lambda line: line.group):
            yield group, list(lines)


def from_frame(
    name: str,
    frame: pd.DataFrame,
    caption: str,
    *,
    digits: int = 4,
    corner: str = "Variant",
    notes: tuple[str, ...] = (),
) -> Table:
    """A table of a frame's values: its index gives the rows' labels, its columns the headings.

    A second level in front of the index, or of the columns, gives the headings of groups. Fractions are printed with
    ``digits`` decimals, whole numbers and texts as they are, missing values as a dash.
    """
    heads = [(str(head[0]), str(head[1])) if isinstance(head, tuple) else ("", str(head)) for head in frame.columns]
    numbers = [frame.iloc[:, place].dtype.kind in "biuf" for place in range(len(heads))]
    columns = tuple(
        Column("/".join(filter(None, (group, title))), title, group, "r" if number else "l")
        for (group, title), number in zip(heads, numbers, strict=True)
    )
    lines = []
    for label, values in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        group, text = (str(label[0]), str(label[1])) if isinstance(label, tuple) else ("", str(label))
        lines.append(Line(text, text, tuple(_entry(value, digits) for value in values), group))
    return Table(name, caption, corner, columns, tuple(lines), notes)


def _entry(value: Any, digits: int) -> Entry:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Entry()
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return Entry(fixed(value, digits), value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Entry(str(value).replace("-", MINUS), float(value))
    return Entry(str(value), str(value))


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
