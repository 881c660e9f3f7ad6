"""The README and the pages about its use: code runs as it stands, commands exist, and nothing public is left out."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import harness
from harness.api import Run
from harness.cli import app
from harness.trained import TrainedModel

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OWN_PAGES = [f"docs/{path.relative_to(DOCS)}" for path in (*DOCS.glob("*.md"), *DOCS.glob("guides/*.md"))]
PAGES = ["README.md", "docs/quickstart.md", "docs/commands.md", "docs/item-codes.md", "docs/python.md", "docs/data.md"]


def notebook() -> list[dict]:
    """The code cells of the notebook."""
    cells = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def execute(code: str, folder: Path) -> None:
    (folder / "code.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "code.py"],
        cwd=folder,
        env=harness_environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def harness_environment(folder: Path) -> dict[str, str]:
    return os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "HARNESS_OUT": str(folder / "results")}


def command_line(folder: Path, *words: str) -> str:
    """What a command prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *words],
        cwd=folder,
        env=harness_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_runs(tmp_path):
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    execute("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), tmp_path)
    for command in re.findall(r"^harness .*$", page, re.MULTILINE):
        assert command_line(tmp_path, *shlex.split(command)[1:]).strip()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """By Python alone, without a Jupyter kernel: the cells hold no magic."""
    execute("\n".join("".join(cell["source"]) for cell in notebook()), tmp_path)
    assert (tmp_path / "results" / "sasrec-losses" / "report.html").is_file()


def test_the_notebook_shows_what_its_cells_answer():
    for cell in notebook():
        assert not [output for output in cell["outputs"] if output["output_type"] == "error"]
        if isinstance(ast.parse("".join(cell["source"])).body[-1], ast.Expr):
            assert cell["outputs"], cell["source"]
    kinds = {kind for cell in notebook() for output in cell["outputs"] for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds


def test_the_page_names_all_that_is_public():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    names = [f"harness.{name}" for name in harness.__all__ if name not in {"Run", "__version__"}]
    for kind, spoken in ((Run, "run"), (TrainedModel, "model")):
        members = [name for name in (*vars(kind), *kind.__annotations__) if not name.startswith("_")]
        names += [f"{spoken}.{name}" for name in members if name != "name"]
    assert not [name for name in names if not re.search(rf"\b{re.escape(name)}\b", page)]


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of one language that stand on a page."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def shop(folder: Path) -> Path:
    """The README's study, and the file that it is about: 40 customers who go through 12 items in turn."""
    lines = [f"c{c},s{(c + step) % 12},2024-01-{1 + step:02}" for c in range(40) for step in range(3 + c % 6)]
    (folder / "purchases.csv").write_text("\n".join(["customer,sku,bought_at", *lines]), encoding="utf-8")
    (folder / "shop.yaml").write_text(blocks("README.md", "yaml")[0], encoding="utf-8")
    return folder / "shop.yaml"


def commands(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    return [line for line in found if line.startswith("harness ")]


@pytest.mark.parametrize(("page", "command"), [(page, line) for page in PAGES for line in commands(page)])
def test_a_command_is_one_that_the_parser_takes(page, command):
    words = shlex.split(command, comments=True)[1:]
    found, name = typer.main.get_command(app), ""
    while hasattr(found, "commands"):
        name, *words = words
        assert name in found.commands, command
        found = found.commands[name]
    found.make_context(name, words)  # raises where an option, or its value, does not fit


def test_the_pages_of_the_start_show_commands():
    assert all(commands(page) for page in PAGES)


def test_the_readmes_study_has_ten_lines_and_is_that_of_the_quick_start():
    (study,) = blocks("README.md", "yaml")
    assert len(study.splitlines()) == 10
    assert blocks("docs/quickstart.md", "yaml") == [study]
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line]) <= 5
    assert blocks("docs/quickstart.md", "python") == [code]


def test_the_readmes_study_is_planned(tmp_path, monkeypatch, capsys):
    shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert app(["plan", "--study", "shop.yaml"], standalone_mode=False) in {0, None}
    assert "shop" in capsys.readouterr().out


@pytest.mark.slow
def test_the_readmes_study_runs(tmp_path):
    shop(tmp_path)
    short = ["--seeds", "2", "--set", "budget.epochs=1", "--set", "budget.patience=null"]
    printed = command_line(tmp_path, "run", "--study", "shop.yaml", *short)
    assert (tmp_path / "results" / "shop" / "report.html").is_file()
    assert "esasrec" in printed


def test_the_readmes_python_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(blocks("README.md", "python")[0], "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "no-mi-loss" in shown
    assert "undecided" in shown


# docs/reference is made at every build of the site, which checks its links.
@pytest.mark.parametrize("page", ["README.md", *OWN_PAGES])
def test_links_lead_to_files_that_are_there(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)
    made = {link for link in links if "reference/" in link}  # test_site.py looks at those
    assert not [link for link in links if link not in made and not ((ROOT / page).parent / link).exists()]
