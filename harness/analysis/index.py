"""A page that lists the runs of a results folder: what each asks, its verdict, and the way to its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from harness.analysis.efficiency import is_efficiency, load_efficiency
from harness.analysis.page import document
from harness.analysis.provenance import count
from harness.analysis.render.page import html_table
from harness.analysis.rows import Run, load_run, metric_label
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.analysis.verdicts import headline, leaders, speed_headline
from harness.errors import InputError
from harness.files import write_text

__all__ = ["write_index"]


def write_index(out: Path) -> Path:
    """Writes ``index.html`` beside the runs in ``out``; a run that can't be read is listed with the reason.

    Raises:
        InputError: no run below ``out``.
    """
    folders = sorted(path.parent for path in out.glob("*/study.yaml"))
    if not folders:
        raise InputError(f"{out} holds no run; start one with `harness run`, or check --out")
    runs = [_entry(folder) for folder in folders]
    lines = [line for run in runs for line in run.pop("lines")]
    facts = f"{count(len(runs), 'run')} in {out.name}."
    page = out / "index.html"
    write_text(page, document("index.html", title="Runs", facts=facts, runs=runs, table=_best(lines)))
    return page


def _entry(folder: Path) -> dict[str, Any]:
    """What the page says of a run."""
    said: dict[str, Any] = {"title": folder.name, "question": "", "headline": "", "facts": "", "problem": ""}
    said |= {"page": f"{quote(folder.name)}/report.html" if (folder / "report.html").exists() else "", "lines": []}
    try:
        said |= _speed(folder) if is_efficiency(folder) else _cells(folder)
    except InputError as error:
        said["problem"] = f"This run can't be read: {error}"
    except Exception as error:  # one run must not hide the others
        said["problem"] = f"This run can't be read ({type(error).__name__}: {error}); write its report for more."
    said["problem"] = said["problem"] or (
        "" if said["page"] else f"No report yet: harness report --study {folder.name}"
    )
    return said


def _speed(folder: Path) -> dict[str, Any]:
    found = load_efficiency(folder)
    return {
        "title": found.study["title"] or folder.name,
        "question": found.study["question"],
        "headline": speed_headline(found),
        "facts": f"{folder.name}: speed of {count(len(found.variants), 'variant')}",
    }


def _cells(folder: Path) -> dict[str, Any]:
    run = load_run(folder)
    parts = [
        count(len(run.variants), "variant"),
        ", ".join(run.datasets),
        f"{len(run.finished)} of {len(run.cells)} cells",
    ]
    return {
        "title": run.study.get("title") or folder.name,
        "question": run.study.get("question") or "",
        "headline": headline(run),
        "facts": f"{folder.name}: {', '.join(parts)}",
        "lines": _lines(run, folder.name),
    }


def _lines(run: Run, name: str) -> list[Line]:
    return [
        Line(
            f"{name}/{dataset}",
            name,
            (
                Entry(dataset, dataset),
                Entry(run.label(variant), variant),
                Entry(metric_label(run.primary), run.primary),
                Entry(fixed(value, 4), value),
            ),
        )
        for dataset, variant, value in leaders(run)
    ]


def _best(lines: list[Line]) -> Markup | None:
    """The best variant of each run and data set, to be sorted and filtered."""
    if not lines:
        return None
    heads = (
        Column("data", "Data", align="l"),
        Column("best", "Best variant", align="l"),
        Column("metric", "Metric", align="l"),
        Column("value", "Value"),
    )
    caption = "The best variant of each run by the run's primary metric, means over seeds. Runs differ in protocol."
    return Markup(html_table(Table("runs", caption, "Run", heads, tuple(lines))))
