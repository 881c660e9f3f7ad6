"""`harness report`, `verify`, `trace` and `claims`: what is read off finished runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.common import FAILED, report_on, say
from harness.cli.options import AsJson, Name, Out, Preset, RunName
from harness.cli.printing import print_json, print_rows
from harness.errors import InputError
from harness.resolve import existing_run

if TYPE_CHECKING:
    from harness.analysis.claims import Finding


def report(
    study: RunName,
    preset: Preset = "default",
    name: Name = None,
    out: Out = Path("results"),
) -> None:
    """Derive every table, figure and the report again from the rows, without training anything."""
    from harness.api import load_run

    report_on(load_run(existing_run(study, preset, name, out)))


def verify(
    study: RunName,
    preset: Preset = "default",
    name: Name = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Derive every table again and compare byte for byte; check every cell. Exits with 1 if anything differs."""
    from harness.analysis.verify import verify as checks_of

    checks = checks_of(existing_run(study, preset, name, out))
    problems = [check for check in checks if not check.ok]
    if as_json:
        print_json([asdict(check) | {"ok": check.ok} for check in checks])
    else:
        for check in problems:
            print(f"{check.name}: {check.problem}")
        print(f"{len(checks) - len(problems)} of {len(checks)} cells and tables are what the rows say")
    if problems:
        raise typer.Exit(FAILED)


def trace(
    study: RunName,
    table: Annotated[str, typer.Argument(help="A table's name, as its file's: main, differences, ...")],
    row: Annotated[str, typer.Argument(help="A variant; DATASET/VARIANT where the table has a block per data set.")],
    column: Annotated[str, typer.Argument(help="A column's key, as in the CSV file, or its title.")],
    preset: Preset = "default",
    name: Name = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Name the cells behind one number of a table."""
    from harness.analysis.verify import trace as trace_of

    found = trace_of(existing_run(study, preset, name, out), table, row, column)
    sources = [asdict(source) | {"path": str(source.path)} for source in found.sources]
    if as_json:
        print_json(asdict(found) | {"sources": sources})
        return
    print(f"{found.table}, {found.row}, {found.column}: {found.printed}")
    columns = {key: key for key in ("dataset", "variant", "seed", "value", "path")}
    print_rows(sources, columns=columns)


def claims(
    out: Out = Path("results"),
    file: Annotated[Path | None, typer.Option("--claims", help="Another claims file than the one that ships.")] = None,
    as_json: AsJson = False,
) -> None:
    """What the papers claim, and what the runs below --out say about it. Exits with 1 if a run had to be left out."""
    from harness.analysis.claims import evaluate, load_claims, measurements_below, runs_below

    papers, known = load_claims(file)
    damaged: list[InputError] = []
    findings = evaluate(known, runs_below(out, known, damaged.append), measurements_below(out))
    _print_claims(papers, findings, as_json)
    for error in damaged:
        say(f"left out: {error}")
    if damaged:
        raise typer.Exit(FAILED)


def _print_claims(papers: dict[str, dict[str, Any]], findings: list[Finding], as_json: bool) -> None:
    from harness.analysis.claims import ledger_table

    if as_json:
        shown = [asdict(finding) | {"claim": finding.claim.model_dump(mode="json")} for finding in findings]
        print_json(shown)
        return
    table = ledger_table(papers, findings)
    for paper in dict.fromkeys(line.group for line in table.lines):
        print(paper)
        titles = {column.title: column.title for column in table.columns}
        lines = [
            {"Claim": line.label} | dict(zip(titles, (entry.text for entry in line.entries), strict=True))
            for line in table.lines
            if line.group == paper
        ]
        print_rows(lines, columns={"Claim": "Claim"} | titles)
        print()
