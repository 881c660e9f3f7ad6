"""The page and the notebook about Python: their code runs as it stands, and they leave nothing public out."""

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

import harness
from harness.api import Run
from harness.trained import TrainedModel

DOCS = Path(__file__).parents[1] / "docs"


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


@pytest.mark.slow
def test_the_page_runs(tmp_path):
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    execute("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), tmp_path)
    for command in re.findall(r"^harness .*$", page, re.MULTILINE):
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *shlex.split(command)[1:]],
            cwd=tmp_path,
            env=harness_environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


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
