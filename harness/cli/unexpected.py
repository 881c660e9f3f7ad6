"""What becomes of an error that nobody foresaw: one line, its traceback in a file, and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from harness import __version__
from harness.errors import LONGEST, in_one_line, shortened
from harness.passwords import without_passwords

__all__ = ["say_unexpected"]


def say_unexpected(error: BaseException) -> None:
    """Prints what happened and where the traceback lies, which names no password."""
    what = shortened(without_passwords(in_one_line(error)), LONGEST // 2)
    kind = type(error).__name__
    print(f"error: unexpected {kind}{f': {what}' if what else ''}; {_saved(error)}", file=sys.stderr)


def _saved(error: BaseException) -> str:
    command = " ".join(sys.argv)
    text = f"harness {__version__}, Python {sys.version.split()[0]}\n{command}\n\n"
    text = without_passwords(text + "".join(traceback.format_exception(error)))
    try:
        handle, path = tempfile.mkstemp(prefix="harness-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" (raised in {last[0].filename}, line {last[0].lineno})" if last else ""
        return f"its traceback could not be saved{where}; what is finished stands, and the same command goes on"
    return f"what is finished stands. This is a fault of the harness: report it with the traceback in {path}"
