"""The report of a run: all its tables and figures as files, and one HTML page that holds everything.

It is a function of the run folder and of what is registered alone: no date, no random id. A table or figure that
fails is a line of the page; only a run whose primary metric can't be computed from its rows has no report.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.artefacts import Failures, Picture, make_tables, pictures
from harness.analysis.comparisons import note_look
from harness.analysis.efficiency import Efficiency, is_efficiency, load_efficiency
from harness.analysis.page import render_page
from harness.analysis.render import write_tables
from harness.analysis.render.latex import DEFAULT_WIDTHS, Widths
from harness.analysis.rows import Run, load_run
from harness.analysis.style import save
from harness.analysis.table import Table
from harness.analysis.verdicts import headline, speed_headline
from harness.analysis.verify import write_efficiency_evidence, write_evidence
from harness.files import refuse_links, write_text

__all__ = ["COLUMN_FIGURES", "Report", "write_report"]

COLUMN_FIGURES = "column"
"""Subfolder of the figures for one column of a paper with two."""


@dataclass(frozen=True)
class Report:
    """What was written, and what could not be made."""

    paths: list[Path]
    failures: Failures
    page: Path
    main: Table | None
    """The first table of results."""
    headline: str
    """The main verdict in one sentence; of a study of speed, what it found."""


def write_report(run_dir: str | Path, widths: Widths = DEFAULT_WIDTHS) -> Report:
    """Derives every table and figure of the run in ``run_dir`` and its page; ``widths`` are those of the LaTeX tables.

    Raises:
        InputError: no run folder, no finished cell, a damaged file of the run or rows that the primary metric can't be
            told from.
    """
    refuse_links(run_dir)
    failures = Failures()
    subject: Run | Efficiency
    if is_efficiency(run_dir):
        subject = load_efficiency(run_dir)
    else:
        subject = load_run(run_dir)
        subject.metric_table(subject.primary)
        note_look(subject)
    tables = make_tables(subject, failures)
    drawn = pictures(subject, failures)
    filed = [table for maker, table in tables if not maker.page_only]
    paths = write_tables(filed, subject.path / "tables", widths)
    for picture in drawn:
        paths += _save(picture, subject.path / "figures")
    page = render_page(subject, tables, drawn, failures)
    paths += _write_traces(failures, subject.path)
    paths.append(subject.path / "report.html")
    write_text(paths[-1], page)
    main = next((table for maker, table in tables if maker.section == "results"), None)
    said = headline(subject) if isinstance(subject, Run) else speed_headline(subject)
    evidence = write_evidence(subject) if isinstance(subject, Run) else write_efficiency_evidence(subject)
    return Report([*paths, evidence], failures, subject.path / "report.html", main, said)


def _save(picture: Picture, folder: Path) -> list[Path]:
    return [
        *save(picture.figure, folder, picture.name),
        *save(picture.narrow, folder / COLUMN_FIGURES, picture.name, forms=("pdf",)),
    ]


def _write_traces(failures: Failures, folder: Path) -> list[Path]:
    """The tracebacks of this report; those of an earlier one are gone."""
    shutil.rmtree(folder / "failures", ignore_errors=True)
    paths = []
    for failure in failures:
        paths.append(folder / failure.file)
        write_text(paths[-1], failure.trace)
    return paths
