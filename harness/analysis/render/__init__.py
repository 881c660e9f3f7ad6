"""A table as LaTeX, Markdown, CSV or HTML: one module per form."""

from __future__ import annotations

from pathlib import Path

from harness.analysis.render.comma import comma_separated
from harness.analysis.render.latex import DEFAULT_WIDTHS, Widths, latex, two_column_latex
from harness.analysis.render.markdown import markdown
from harness.analysis.render.page import html_table
from harness.analysis.table import Table
from harness.files import write_text

__all__ = ["FILES", "TWO_COLUMN", "render", "write_tables"]

TWO_COLUMN = "two-column"
"""Subfolder of the LaTeX for papers with two columns."""
FILES = {"tex": "{}.tex", TWO_COLUMN: TWO_COLUMN + "/{}.tex", "md": "{}.md", "csv": "{}.csv"}
"""Form -> its file below the folder of tables."""


def render(table: Table, form: str, widths: Widths = DEFAULT_WIDTHS) -> str:
    """The table as ``tex``, ``two-column`` (LaTeX too), ``md``, ``csv`` or ``html``."""
    if form == "tex":
        return latex(table, widths)
    if form == TWO_COLUMN:
        return two_column_latex(table, widths)
    return {"md": markdown, "csv": comma_separated, "html": html_table}[form](table)


def write_tables(tables: list[Table], folder: Path, widths: Widths = DEFAULT_WIDTHS) -> list[Path]:
    """Writes every table in every form except HTML, which lives in the report; returns the paths."""
    paths = []
    for table in tables:
        for form, name in FILES.items():
            paths.append(folder / name.format(table.name))
            write_text(paths[-1], render(table, form, widths))
    return paths
