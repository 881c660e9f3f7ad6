"""What several commands do."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import typer

from harness.passwords import without_passwords

if TYPE_CHECKING:
    from harness.api import Run

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def command_line() -> str:
    """What was typed, for the record, which is not a place for a password."""
    return without_passwords(shlex.join(["harness", *sys.argv[1:]]))


def report_on(run: Run, **widths: float) -> None:
    """Writes the report and says what came out: the main table, the verdict, the page. Exits with 1 if a part of the
    report could not be made. ``widths``: as :meth:`harness.api.Run.report` takes them."""
    from harness.cli.printing import print_table

    report = run.report(**widths)
    if report.main is not None:
        print_table(report.main)
        print()
    print(report.headline)
    print(f"Report: {report.page}; tables and figures beside it ({len(report.paths)} files)")
    for sentence in run.warnings():
        say(f"warning: {sentence}")
    for failure in report.failures:
        say(f"not in the report: {failure} (traceback: {run.path / failure.file})")
    if report.failures:
        raise typer.Exit(FAILED)


def say(line: str) -> None:
    print(line, file=sys.stderr)
