"""What several commands do."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api import Run

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def command_line() -> str:
    """What was typed, for the record, which is no place for a password."""
    from harness.study.storage import without_passwords

    return without_passwords(shlex.join(["harness", *sys.argv[1:]]))


def report_on(run: Run) -> None:
    for path in run.report():
        print(path)
    for sentence in run.warnings():
        say(f"warning: {sentence}")


def say(line: str) -> None:
    print(line, file=sys.stderr)
