"""The command line: parses, calls, prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from harness import __version__
from harness.cli import data, exporting, items, listing, reading, running, scoring, using
from harness.cli.common import BAD_INPUT, DONE, INTERRUPTED
from harness.errors import InputError, Interrupted

app = typer.Typer(
    help="Benchmarks and ablations of generative recommenders: from a study file to a paper's evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Of the click that this typer was built with, its own or the package."""

for group, name in ((listing.list_app, "list"), (data.data_app, "data"), (items.items_app, "items")):
    app.add_typer(group, name=name)
app.add_typer(exporting.export_app, name="export")
for command in (
    running.run,
    reading.report,
    reading.evaluate,
    running.plan,
    running.tune,
    reading.verify,
    reading.trace,
    reading.claims,
    using.compare,
    using.across,
    using.recommend,
    scoring.score,
    running.worker,
):
    app.command()(command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: turns the harness's errors into one line and an exit code."""
    sys.exit(guarded(lambda: app(standalone_mode=False)))


def guarded(work: Callable[[], Any]) -> int:  # noqa: PLR0911 (one return per way to end)
    try:
        code = work()
        if code == INTERRUPTED:  # typer's way of passing a Ctrl-C on
            raise KeyboardInterrupt
        return code if isinstance(code, int) else DONE
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stopped:
        again = (
            "the same command goes on from here" if isinstance(stopped, Interrupted) else "give the same command again"
        )
        print(f"interrupted; {again}", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        if not str(error):  # a command group without a command has shown its help
            return BAD_INPUT
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return BAD_INPUT
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
