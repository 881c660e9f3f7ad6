"""The registry, and a model that comes from a package of somebody else's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

from harness.analysis.artefacts import SECTIONS, Failures, registered
from harness.errors import InputError
from harness.fidelity import card
from harness.interface import Choice, Fidelity, Recommender
from harness.registry import load_model, model_names

MODEL = '''
import torch
from harness.interface import Fidelity, Recommender, Task
from harness.settings import Settings


class PopularityConfig(Settings):
    power: float = 1.0


class Popularity(Recommender):
    """Items by how often they occur in training."""

    Config = PopularityConfig
    tasks = frozenset({Task.RETRIEVAL})
    fidelity = Fidelity(paper="none", status="control")

    def __init__(self, config, schema):
        super().__init__(config, schema)
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def losses(self, batch):
        return {"bias": self.bias.square()}

    def score_items(self, batch):
        counts = self.schema.item_counts[1:].float() ** self.config.power + self.bias
        return counts.expand(len(batch.items), -1)
'''

TABLE = """
import pandas as pd
from harness.analysis.artefacts import ReportTable
from harness.analysis.table import from_frame


class Spread(ReportTable):
    \"\"\"Lowest and highest seed of each variant.\"\"\"

    section = "seeds"

    def applies(self, run):
        return run.task == "retrieval"

    def make(self, run):
        values = run.metric_table(run.primary)[run.primary].groupby(level=["dataset", "variant"], sort=False)
        frame = pd.DataFrame({"Lowest": values.min(), "Highest": values.max(), "Seeds": values.size()})
        return from_frame(self.name, frame, "The seeds of each variant.")
"""

FIGURE = """
from matplotlib.figure import Figure
from harness.analysis.artefacts import ReportFigure
from harness.analysis.style import new_figure, style


class Dots(ReportFigure):
    \"\"\"Each seed as a dot.\"\"\"

    section = "seeds"

    def caption(self, run):
        return "Each seed of each variant."

    def make(self, run, width):
        with style():
            figure = new_figure(width, 2)
            axis = figure.subplots()
            for variant in run.variants:
                values = run.by_seed(run.datasets[0], variant, run.primary)
                axis.plot(list(values), list(values.values()), "o", label=run.label(variant))
            axis.set(xlabel="Seed", ylabel=run.primary)
        return figure
"""

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "somebody-elses"
version = "1"
[project.entry-points."harness.models"]
somebodys = "somebody_elses:Popularity"
[project.entry-points."harness.tables"]
seeds = "somebody_elses_table:Spread"
not-there = "somebody_elses_table:Gone"
[project.entry-points."harness.figures"]
dots = "somebody_elses_figure:Dots"
no-figure = "somebody_elses_table:Spread"
[tool.setuptools]
py-modules = ["somebody_elses", "somebody_elses_table", "somebody_elses_figure"]
"""

STUDY = """
study: outside
datasets: ["synthetic-sessions:users=40,items=20"]
seeds: 1
variants: {somebodys: {model: somebodys, set: {power: 0.5}}}
budget: {epochs: 1}
metrics: [mrr]
primary: mrr
"""


def own_models() -> list[str]:
    return [
        name for name, value in model_names().items() if value.startswith(("harness.models.", "harness.baselines."))
    ]


@pytest.mark.parametrize("name", own_models())
def test_every_registered_model_keeps_the_interface(name):
    model = load_model("recbole:SASRec" if name == "recbole" else name)
    assert issubclass(model, Recommender)
    assert model.tasks
    assert not model.__abstractmethods__
    shown = card(model)  # fails where a choice names an option that there is not
    assert shown["paper"]
    assert all(choice["reason"] for choice in shown["choices"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sasrek", "did you mean 'sasrec'"),
        ("sasrec:GRU4Rec", "is not a family"),
        ("recbole", "name a member"),
        ("recbole:GRU5Rec", "did you mean 'GRU4Rec'"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        load_model(name)


def test_a_name_that_stands_for_two_models_is_refused(monkeypatch):
    both = [EntryPoint("mine", f"{place}:Model", "harness.models") for place in ("here", "there")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: both)
    with pytest.raises(InputError, match="registered twice, as here:Model and there:Model"):
        model_names()


def test_a_card_with_an_option_that_there_is_not():
    class Other(load_model("sasrec")):
        fidelity = Fidelity(paper="none", status="control", choices=(Choice("widht", "a slip of the pen"),))

    with pytest.raises(InputError, match="Other names the option 'widht'"):
        card(Other)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the package installed into it, as pip would install it anywhere."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    for module, text in (("", MODEL), ("_table", TABLE), ("_figure", FIGURE)):
        (source / f"somebody_elses{module}.py").write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_a_model_of_an_installed_package_runs_in_a_study(site, harness, tmp_path):
    env = {"PYTHONPATH": str(site)}
    listed = json.loads(harness("list", "models", "--json", env=env).stdout)
    assert "somebodys" in {entry["name"] for entry in listed}
    (tmp_path / "outside.yaml").write_text(STUDY)
    done = harness("run", "--study", "outside.yaml", env=env)
    assert done.returncode == 1, done.stderr  # for the table and the figure that are not there
    metrics = next((tmp_path / "out" / "outside" / "cells").glob("*/metrics.json"))
    assert json.loads(metrics.read_text())["test"]["all"]["mrr"] > 0


def test_without_the_package_the_model_is_unknown(harness, tmp_path):
    (tmp_path / "outside.yaml").write_text(STUDY)
    done = harness("run", "--study", "outside.yaml")
    assert done.returncode == 2
    assert "unknown model 'somebodys'" in done.stderr


def test_a_table_and_a_figure_of_an_installed_package_stand_in_the_report(site, harness, finished_run, tmp_path):
    run = tmp_path / "out" / "tiny"
    shutil.copytree(finished_run, run)
    done = harness("report", "--study", "tiny", env={"PYTHONPATH": str(site)})
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.index('<section id="seeds">') < text.index('id="table-seeds"') < text.index('id="reproduce"')
    assert 'id="figure-dots"' in text
    table = pd.read_csv(run / "tables" / "seeds.csv").set_index("label")
    main = pd.read_csv(run / "tables" / "main.csv")
    assert (table["Seeds"] == 2).all()
    assert (table["Lowest"].to_numpy() <= main.filter(regex="ndcg@10$").to_numpy().ravel() + 1e-9).all()
    assert all((run / "figures" / name).is_file() for name in ("dots.png", "dots.pdf", "column/dots.pdf"))
    # What can't be loaded, or is of another kind, is one line each; the report is there all the same.
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("not in the report: ")]
    assert ["table not-there" in told[0], "figure no-figure" in told[1], len(told)] == [True, True, 2]
    assert "is not a subclass of harness.analysis.artefacts.ReportFigure or DatasetFigure" in told[1]
    verified = harness("verify", "--study", "tiny", env={"PYTHONPATH": str(site)})
    assert "table not-there: can't be derived" in verified.stdout


def test_every_shipped_table_and_figure_says_what_it_is():
    for kind in ("tables", "figures"):
        failures = Failures()
        for artefact in registered(kind, failures):
            assert artefact.section in SECTIONS
            assert artefact.order < 100
            assert type(artefact).__doc__
        assert not failures
