"""The command line: parses, calls, prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from harness import __version__
from harness.cli import data, exporting, items, listing, reading, running, scoring, using
from harness.cli.common import BAD_INPUT, DONE, FAILED, INTERRUPTED
from harness.cli.examples import epilog
from harness.cli.unexpected import say_unexpected
from harness.errors import LONGEST, InputError, Interrupted, in_one_line, shortened, shown
from harness.passwords import hide_storage_password
from harness.reading.bounds import first_odd

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
    app.command(epilog=epilog(command.__name__))(command)


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
    hide_storage_password()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know all letters
            stream.reconfigure(errors="backslashreplace")
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Does what the command line ``arguments`` say; returns the exit code."""

    def work() -> Any:
        for word in arguments:
            if odd := first_odd(word):
                raise InputError(f"the argument {shown(word)} holds the character U+{ord(odd[0]):04X}; leave it out")
        return app(list(arguments), standalone_mode=False)

    return guarded(work)


def guarded(work: Callable[[], Any]) -> int:  # noqa: PLR0911 (one return per way to end)
    """The exit code of ``work``. The one place where an error becomes a line: a foreseen one says what, where and how
    to fix it, and any other where its traceback lies."""
    try:
        code = work()
        if code == INTERRUPTED:  # typer's way of passing a Ctrl-C on
            raise KeyboardInterrupt
        return code if isinstance(code, int) else DONE
    except InputError as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
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
        print(f"error: {shortened(error.format_message(), LONGEST)}", file=sys.stderr)
        return BAD_INPUT
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        what = shown(str(error.filename)) if error.filename is not None else "a file or the network"
        reason = error.strerror or in_one_line(error)
        print(f"error: {what} can't be used ({reason}); check the path, its permissions and the disk", file=sys.stderr)
        return BAD_INPUT
    except MemoryError:
        print("error: the memory does not suffice; take fewer or smaller data, or a machine with more", file=sys.stderr)
        return FAILED
    except Exception as error:
        say_unexpected(error)
        return FAILED
