"""The wheel, installed where the checkout can't be seen: it holds one package, and runs wherever one stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]
SMALLEST = {
    "dim": 8,
    "inner": 8,
    "items.encoder.dim": 8,
    "items.quantiser": "{kind: rkmeans, levels: 2, size: 4}",
    **{f"variants.{name}": "null" for name in ("zero-lambda", "no-noise-loss", "no-mi-loss", "transitions")},
}


def finished(*words: str | Path, cwd: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME", "HARNESS_OUT", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the checkout in a folder called harness, so that building leaves nothing in the checkout."""
    clone = tmp_path_factory.mktemp("above") / "harness"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, clone)
    for name in ("harness", "models", "baselines", "studies"):
        shutil.copytree(CHECKOUT / name, clone / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return clone


@pytest.fixture(scope="module")
def wheel(clone) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    finished(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", ".", cwd=clone)
    (wheel,) = (clone / "dist").glob("harness-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of an environment that sees this one's libraries, but no editable install in them."""
    place = tmp_path_factory.mktemp("environment")
    finished(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (site / "libraries.pth").write_text("\n".join(libraries))  # folders named here have their own .pth files left out
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    finished(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    return python.parent


def test_it_holds_one_package_and_all_of_it(wheel, clone):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"harness"}
    kinds = {".py", ".yaml", ".html", ".css", ".js"}
    sources = [path for path in clone.rglob("*") if path.suffix in kinds and "build" not in path.parts]
    expected = {
        path.relative_to(clone).as_posix()
        if path.is_relative_to(clone / "harness")
        else f"harness/{path.relative_to(clone)}"
        for path in sources
    }
    assert expected | {"harness/py.typed"} == names


def test_the_folders_of_the_checkout_are_no_packages(installed, tmp_path):
    code = (
        "import importlib.util, harness, harness.models.fair\n"
        "print(harness.__file__)\n"
        "print([name for name in ('models', 'baselines', 'studies') if importlib.util.find_spec(name)])"
    )
    where, found = finished(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(where).is_relative_to(installed.parent)
    assert found == "[]"


@pytest.mark.parametrize("place", ["root", "above a clone", "beside another harness"])
def test_a_study_runs_from_anywhere(installed, clone, tmp_path, place):
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("raise ImportError('the wrong harness')")
    folder = {"root": Path("/"), "above a clone": clone.parent, "beside another harness": tmp_path}[place]
    words = ["run", "--study", "ablations", "--preset", "smoke", "--seeds", "1", "--workers", "1", "--device", "cpu"]
    words += ["--dataset", "synthetic-sessions:users=60,items=30", "--out", tmp_path / "out"]
    words += [word for key, value in SMALLEST.items() for word in ("--set", f"{key}={value}")]
    finished(installed / "harness", *words, cwd=folder)
    run = tmp_path / "out" / "ablations-smoke"
    assert len(list(run.glob("cells/*/cell.json"))) == 3
    assert (run / "report.html").is_file()
    finished(installed / "harness", "verify", "--study", run / "study.yaml", cwd=folder)
