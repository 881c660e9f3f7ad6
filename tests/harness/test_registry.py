"""The registry, and a model that comes from a package of somebody else's."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

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

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "somebody-elses"
version = "1"
[project.entry-points."harness.models"]
somebodys = "somebody_elses:Popularity"
[tool.setuptools]
py-modules = ["somebody_elses"]
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
    monkeypatch.setattr("harness.registry.entry_points", lambda group: both)
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
    (source / "somebody_elses.py").write_text(MODEL)
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
    assert done.returncode == 0, done.stderr
    metrics = next((tmp_path / "out" / "outside" / "cells").glob("*/metrics.json"))
    assert json.loads(metrics.read_text())["test"]["all"]["mrr"] > 0


def test_without_the_package_the_model_is_unknown(harness, tmp_path):
    (tmp_path / "outside.yaml").write_text(STUDY)
    done = harness("run", "--study", "outside.yaml")
    assert done.returncode == 2
    assert "unknown model 'somebodys'" in done.stderr
