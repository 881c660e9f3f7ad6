"""Examples in `--help`: each is a command that the parser takes, and it stands in the help."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.examples import EXAMPLES

HAVE_EXAMPLES = {"run", "report", "tune", "compare", "recommend", "data get", "data import"}
HAVE_EXAMPLES |= {"export top-k", "export predictions", "export hub"}


def test_the_commands_that_people_start_with_have_examples():
    assert set(EXAMPLES) >= HAVE_EXAMPLES


@pytest.mark.parametrize(("command", "example"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_an_example_is_a_command_that_the_parser_takes(command, example):
    words = shlex.split(example)
    path = command.split()
    assert words[: 1 + len(path)] == ["harness", *path]
    found = typer.main.get_command(app)
    for name in path:
        found = found.commands[name]
    found.make_context(command, words[1 + len(path) :])  # raises where an option or a value does not fit


@pytest.mark.parametrize("command", sorted(HAVE_EXAMPLES))
def test_the_help_ends_with_the_examples(command):
    shown = (
        CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).output
    )
    told = " ".join(shown.split())
    assert all(example in told for example in EXAMPLES[command])
