"""`harness report`, `verify`, `trace` and `claims`: what is read off finished runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.common import FAILED, report_on, say
from harness.cli.options import AsJson, DataRoot, Device, Name, Out, Preset, RunName
from harness.cli.printing import print_json, print_rows
from harness.errors import InputError
from harness.resolve import existing_run, usable_device

if TYPE_CHECKING:
    from harness.analysis.claims import Finding


def report(
    study: Annotated[str | None, typer.Option("--study", "-s", help="As for `harness verify`.")] = None,
    preset: Preset = "default",
    name: Name = None,
    text_width: Annotated[
        float, typer.Option(min=100, help="Width in points of the text that LaTeX tables must fit.")
    ] = 455,
    column_width: Annotated[
        float, typer.Option(min=100, help="Width in points of a column of a paper with two (IEEEtran: 252).")
    ] = 241,
    index: Annotated[
        bool, typer.Option("--index", help="Write a page that lists all runs below --out, with their verdicts.")
    ] = False,
    out: Out = Path("results"),
) -> None:
    """Derive every table, figure and the report again from the rows, without training anything.

    Exits with 1 if a table or figure could not be made; the others are in the report all the same.
    """
    from harness.api import load_run

    if study is None and not index:
        raise InputError("name a run with --study, or ask for the list of all runs with --index")
    if index:
        from harness.analysis.index import write_index

        print(write_index(out))
    if study is not None:
        report_on(load_run(existing_run(study, preset, name, out)), text=text_width, column=column_width)


def evaluate(
    study: RunName,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Add this metric to the run's tables (repeatable).")
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option("--probe", help="Measure this on the trained models too (repeatable).")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Evaluate every cell, not only those that lack something.")
    ] = False,
    preset: Preset = "default",
    name: Name = None,
    device: Device = "auto",
    out: Out = Path("results"),
    data_root: DataRoot = None,
) -> None:
    """Make rows, lists, metrics and probes from kept weights, without training; then the report.

    Exits with 1 if a cell had to be left as it is.
    """
    from harness.api import load_run
    from harness.study.cells import Inputs
    from harness.study.evaluate import evaluate_run, with_changes
    from harness.study.folder import RunFolder

    folder = RunFolder(existing_run(study, preset, name, out))
    with folder.run_lock() as mine:
        if not mine:
            raise InputError(f"{folder.path} is being run; wait until that has ended")
        design, extra = folder.read_design()
        changed = with_changes(design, metric or [], probe or [])
        inputs = Inputs(data_root, out / "cache", say)
        found = evaluate_run(folder, changed, inputs, again=again, device=usable_device(device), say=say)
        if changed != design:
            folder.write_design(changed, extra)
    report_on(load_run(folder.path))
    if any(cell.left for cell in found):
        raise typer.Exit(FAILED)


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
