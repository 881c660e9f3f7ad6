"""The guides work to the letter: their files are installed as a package, and a study uses what it registers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow

GUIDES = Path(__file__).parent.parent / "docs" / "guides"
STUDY = """
study: guided
datasets: ["{dataset}"]
seeds: 2
control: few
references: [popularity]
variants:
  few: {{model: sasrec, set: {{dim: 8, layers: 1, heads: 1, inner: 8, loss: bce}}}}
  popularity: {{model: popularity}}
budget: {{epochs: 1}}
{more}
"""
METRICS = "metrics: [ndcg@10, linear@10, long-tail@10]\nprimary: ndcg@10"


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (GUIDES / guide).read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the packages of all guides, as pip installs them anywhere."""
    target = tmp_path_factory.mktemp("site")
    for guide in ("metric.md", "dataset.md", "splitter.md", "probe.md", "table.md", "figure.md", "tracker.md"):
        source = tmp_path_factory.mktemp("source")
        text = (GUIDES / guide).read_text(encoding="utf-8")
        name = re.search(r"^`(\w+\.py)`", text, flags=re.M).group(1)
        (source / name).write_text(blocks(guide, "python")[0], encoding="utf-8")
        (source / "pyproject.toml").write_text(blocks(guide, "toml")[0], encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def guided(site, harness, tmp_path):
    """Runs a study with a guide's lines in it; returns its folder and the environment."""
    env = {"PYTHONPATH": str(site)}

    def run(more: str, dataset: str = "synthetic-sessions:users=60,items=30") -> Path:
        (tmp_path / "guided.yaml").write_text(STUDY.format(dataset=dataset, more=more), encoding="utf-8")
        done = harness("run", "--study", "guided.yaml", "--workers", "1", "--data-root", "data", env=env)
        assert done.returncode == 0, done.stderr
        return tmp_path / "out" / "guided"

    run.env = env
    return run


def test_metrics(guided, harness):
    folder = guided(METRICS)
    printed = (folder / "tables" / "main.md").read_text()
    assert "Linear gain@10 |" in printed
    assert "Long tail@10 |" in printed
    table = pd.read_csv(folder / "tables" / "main.csv", comment="#")
    assert table.filter(like="long-tail@10").notna().any().any()
    (cell, *_) = sorted(folder.glob("cells/*"))
    ranks = pd.read_parquet(cell / "rows.parquet").query("phase == 'test'")["rank_unseen"].to_numpy(float)
    expected = np.where(ranks <= 10, 1 - (ranks - 1) / 10, 0).mean()
    stored = json.loads((cell / "metrics.json").read_text())["test"]["unseen"]
    assert stored["linear@10"] == pytest.approx(expected)
    assert "long-tail@10" not in stored  # lists are not part of what training sums up
    checked = harness("verify", "--study", "guided", env=guided.env)
    assert checked.returncode == 0, checked.stdout


def test_a_run_with_a_metric_that_is_not_installed_says_so(guided, harness):
    guided(METRICS)
    done = harness("report", "--study", "guided")
    assert done.returncode in (1, 2)
    assert "unknown metric 'linear" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_set(guided, harness, tmp_path):
    rng = np.random.default_rng(0)
    plays = pd.DataFrame(
        {
            "listener": np.repeat([f"l{n}" for n in range(40)], 10),
            "track": [f"t{n}" for n in (*range(25), *rng.integers(0, 25, 375))],
            "second": np.arange(400) * 60,
        }
    )
    (tmp_path / "data" / "radio").mkdir(parents=True)
    plays.to_csv(tmp_path / "data" / "radio" / "plays.csv", index=False)
    env = guided.env | {"HARNESS_DATA": str(tmp_path / "data")}
    (listed,) = [
        entry
        for entry in json.loads(harness("list", "datasets", "--json", env=env).stdout)
        if entry["dataset"] == "radio"
    ]
    assert listed["title"] == "A week of a radio's requests"
    assert (listed["users"], listed["items"], listed["events"], listed["state"]) == (40, 25, 400, "ready")
    folder = guided("metrics: [ndcg@10]\nprimary: ndcg@10", dataset="radio")
    assert (folder / "report.html").exists()


def test_a_splitter(guided, harness):
    folder = guided(f"metrics: [ndcg@10]\nprimary: ndcg@10\n{blocks('splitter.md', 'yaml')[0]}")
    card = json.loads(next(folder.glob("cells/*/cell.json")).read_text())
    assert (card["data"]["split"], card["data"]["split_options"]) == ("last-n", {"n": 3})
    shown = harness(
        "data", "show", "synthetic-sessions:users=60,items=30", "--set", "split=last-n", "--json", env=guided.env
    )
    assert shown.returncode == 0, shown.stderr
    assert "last-n" in harness("list", "splitters", env=guided.env).stdout
    refused = harness(
        "data", "show", "synthetic-sessions:users=60,items=30",
        "--set", "split=last-n", "--set", "split_options.m=3", env=guided.env,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "data.split_options: unknown key 'm'; known: n" in refused.stderr


def test_a_probe(guided, harness):
    folder = guided(f"metrics: [ndcg@10]\nprimary: ndcg@10\n{blocks('probe.md', 'yaml')[0]}")
    for cell in folder.glob("cells/*"):
        found = pd.read_parquet(cell / "repeats.parquet")
        assert len(found) == 60
        assert found["repeated"].between(0, 1).all()
        assert json.loads((cell / "cell.json").read_text())["probes"] == {"repeats": {"first": 5}}
    assert "how many of the first items" in harness("list", "probes", env=guided.env).stdout
    refused = harness("run", "--study", "guided.yaml", "--set", "probes.repeats.last=5", env=guided.env)
    assert refused.returncode == 2
    assert "last" in refused.stderr


def test_a_table_and_a_figure(guided, harness):
    folder = guided("metrics: [ndcg@10]\nprimary: ndcg@10")
    table = pd.read_csv(folder / "tables" / "median-ranks.csv")
    ranks = {}
    for cell in folder.glob("cells/*"):
        card = json.loads((cell / "cell.json").read_text())
        rows = pd.read_parquet(cell / "rows.parquet").query("phase == 'test'")["rank_unseen"].to_numpy(float)
        ranks.setdefault(card["variant"], []).append(np.nanmedian(rows))
    shown = table.set_index("label")["Median rank"]
    assert shown.to_dict() == pytest.approx({variant: np.nanmedian(found) for variant, found in ranks.items()})
    for name in ("rank-curve.pdf", "rank-curve.png", "column/rank-curve.pdf"):
        assert (folder / "figures" / name).stat().st_size > 1000
    page = (folder / "report.html").read_text()
    assert "Median rank of the test targets" in page
    assert "Share of test targets among the first K items" in page
    checked = harness("verify", "--study", "guided", env=guided.env)
    assert checked.returncode == 0, checked.stdout
    assert "median-ranks" in harness("list", "tables", env=guided.env).stdout
    assert "rank-curve" in harness("list", "figures", env=guided.env).stdout


def test_a_tracker(guided, harness):
    folder = guided(f"metrics: [ndcg@10]\nprimary: ndcg@10\n{blocks('tracker.md', 'yaml')[0]}")
    cells = {path.name: path for path in folder.glob("cells/*")}
    assert len(cells) == 4
    for name, cell in cells.items():
        card = json.loads((cell / "cell.json").read_text())
        begun, *epochs, ended = map(json.loads, (folder.parents[1] / "followed" / f"{name}.jsonl").open())
        assert (begun["model"], begun["seed"]) == (card["model"], card["seed"])
        history = pd.read_csv(cell / "history.csv")
        assert [row["loss"] for row in epochs] == pytest.approx(history["loss"].tolist() if len(history) else [])
        assert (
            ended["test"]["unseen/ndcg@10"]
            == json.loads((cell / "metrics.json").read_text())["test"]["unseen"]["ndcg@10"]
        )
    refused = harness("run", "--study", "guided.yaml", "--set", "trackers.lines.file=x", env=guided.env)
    assert refused.returncode == 2
    assert "trackers.lines: unknown key 'file'; did you mean 'folder'?" in refused.stderr
