"""The site: its reference pages leave no setting and no model out, and it builds without a warning."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.data.config import DataConfig
from harness.items.config import ItemsConfig
from harness.registry import REGISTRIES, is_family, load_model, model_names
from harness.study.design import Budget, Confirm, Space, Study, Variant
from harness.study.efficiency_design import EfficiencyStudy
from harness.training_config import TrainingConfig

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generate):
    return generate.pages()


def entries(page: str) -> dict[str, str]:
    """Name of each setting on a page -> what is said of it."""
    found = re.split(r"^`(\w+)`\n: ", page, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        ("study.md", [Study, Variant, Space, Budget, Confirm]),
        ("data.md", [DataConfig]),
        ("items.md", [ItemsConfig]),
        ("training.md", [TrainingConfig]),
        ("efficiency.md", [EfficiencyStudy]),
    ],
)
def test_every_setting_stands_in_the_reference(pages, page, kinds):
    assert {name for kind in kinds for name in kind.model_fields} <= set(entries(pages[page]))


def test_every_kind_of_encoder_and_quantiser_has_its_section(pages):
    source = inspect.getsource(inspect.getmodule(ItemsConfig))
    kinds = re.findall(r'^    kind: Literal\["([\w-]+)"\]', source, re.MULTILINE)
    assert len(kinds) > 10
    assert sorted(re.findall(r"^## `kind: ([\w-]+)`", pages["items.md"], re.MULTILINE)) == sorted(kinds)


@pytest.mark.parametrize("name", [name for name in model_names() if not is_family(name)])
def test_every_model_has_its_page_with_all_of_its_options(pages, name):
    page, model = pages[f"models/{name}.md"], load_model(name)
    assert set(model.Config.model_fields) <= set(entries(page))
    told = [model.fidelity.paper, *model.fidelity.verified, *model.fidelity.departures]
    told += [choice.reason for choice in model.fidelity.choices]
    assert not [text for text in told if text not in page]
    assert f"]({name}.md)" in pages["models/index.md"]


def test_every_member_of_a_family_is_on_its_page(pages):
    for name in filter(is_family, model_names()):
        for member in REGISTRIES["models"].load(name).members():
            assert f"## `{name}:{member}`" in pages[f"models/{name}.md"]


@pytest.mark.parametrize("kind", [kind for kind in REGISTRIES if kind not in {"models", "datasets"}])
def test_everything_that_is_registered_is_named(pages, kind):
    assert not [name for name in REGISTRIES[kind].names() if f"- `{name}`: " not in pages["registered.md"]]


def test_an_entry_holds_type_bounds_default_and_text(pages):
    study, training = entries(pages["study.md"]), entries(pages["training.md"])
    assert training["learning_rate"].strip().startswith("number, > 0 · default `0.001`")
    assert study["test"].startswith("`t` or `exact` or `wilcoxon` or `pooled` · default `t`\n\n  What gives")
    assert "**required**" in study["datasets"]
    assert study["budget"].startswith("[Budget](#settings-budget) · ")
    assert "Share of events between" in entries(pages["data.md"])["valid_fraction"]


def test_a_page_of_a_model_that_is_gone_goes_too(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "pages", lambda: {"a.md": "one", "models/b.md": "two"})
    generate.write(tmp_path / "reference")
    (tmp_path / "reference" / "models" / "gone.md").write_text("a model that was")
    generate.write(tmp_path / "reference")
    assert sorted(path.name for path in tmp_path.rglob("*.md")) == ["a.md", "b.md"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo", reason="the site needs the extra docs: pip install harness[docs]")
    pytest.importorskip("myst_parser", reason="the site needs the extra docs: pip install harness[docs]")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees", DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in (tmp_path / "site" / "reference" / "training.html").read_text(encoding="utf-8")
