"""The reference results and the README's numbers: each is what its rows say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
import pytest

from harness.analysis.verify import verify
from harness.cli import app

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/study.yaml"))


def value(run: str, table: str, row: str, column: str) -> float:
    found = pd.read_csv(ROOT / "results" / run / "tables" / f"{table}.csv").set_index("key")
    return float(found.loc[row, column])


def words(page: str = "README.md") -> str:
    """A page's text on one line."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_there_are_reference_results():
    assert {"ablations", "actions", "noise", "benchmark"} <= {run.name for run in RUNS}


def _patient(run: Path) -> Any:
    """Runs of actions have a row for each event and action."""
    return pytest.param(run, id=run.name, marks=[pytest.mark.slow] if "actions" in run.name else [])


@pytest.mark.parametrize("run", [*map(_patient, RUNS)])
def test_reference_results_are_what_their_rows_say(run):
    assert [f"{check.name}: {check.problem}" for check in verify(run) if not check.ok] == []


def test_the_readmes_table_is_the_ablations():
    shown = re.search(r"<!-- ablations: (\S+) -->\n(.*?)<!-- end -->", (ROOT / "README.md").read_text(), re.DOTALL)
    table = [line for line in (ROOT / shown[1]).read_text().splitlines() if line.startswith("|")]
    assert [line for line in shown[2].splitlines() if line.startswith("|")] == table


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("NDCG@10 {:.4f}, GRU4Rec", ("benchmark", "main", "sasrec-ce", "amazon-scientific/ndcg@10")),
        ("GRU4Rec {:.4f}", ("benchmark", "main", "gru4rec", "amazon-scientific/ndcg@10")),
        ("FAIR {:.4f}", ("benchmark", "main", "fair", "amazon-scientific/ndcg@10")),
        ("SASRec with BCE {:.4f}", ("benchmark", "main", "sasrec-bce", "amazon-scientific/ndcg@10")),
        ("popularity {:.4f}", ("benchmark", "main", "popularity", "amazon-scientific/ndcg@10")),
        ("TIGER {:.4f}", ("benchmark", "main", "tiger", "amazon-scientific/ndcg@10")),
        ("reaches Recall@10 {:.4f}", ("beauty", "main", "sasrec-ce", "amazon-beauty/recall@10")),
        ("NDCG@10 {:.4f}, and", ("beauty", "main", "sasrec-ce", "amazon-beauty/ndcg@10")),
        ("and {:.4f} once", ("beauty", "candidates", "sasrec-ce", "amazon-beauty/unseen")),
        ("reaches {:.4f} ±", ("tuning", "main", "sasrec-ce", "ml-100k/ndcg@10")),
        ("± {:.4f} and FAIR", ("tuning", "main", "sasrec-ce", "ml-100k/ndcg@10 sd")),
        ("and FAIR {:.4f} with", ("tuning", "main", "fair", "ml-100k/ndcg@10")),
        ("passes popularity ({:.4f})", ("ablations", "main", "popularity", "ml-100k/ndcg@10")),
        ("None passes `transitions` ({:.4f})", ("ablations", "main", "transitions", "ml-100k/ndcg@10")),
        ("(without it −{:.1f} %, Holm", ("ablations", "differences", "no-mi-loss", "percent")),
        ("%, Holm p = {:.2f}) and the noise loss", ("ablations", "differences", "no-mi-loss", "p_holm")),
        ("(without it +{:.1f} %, Holm", ("ablations", "differences", "no-noise-loss", "percent")),
        ("%, Holm p = {:.2f}). Taking", ("ablations", "differences", "no-noise-loss", "p_holm")),
        ("nothing measurable (+{:.1f} %)", ("ablations", "differences", "zero-lambda", "percent")),
        ("FAIR reaches Recall@5 {:.4f}", ("beauty-fair", "main", "fair", "amazon-beauty/recall@5")),
        ("and `transitions` {:.4f}. Validation", ("beauty-fair", "main", "transitions", "amazon-beauty/recall@5")),
        ("FAIR reaches NDCG@10 {:.4f}, SASRec", ("benchmark-parallel", "main", "fair", "amazon-scientific/ndcg@10")),
        ("same width {:.4f} (difference", ("benchmark-parallel", "main", "sasrec-ce", "amazon-scientific/ndcg@10")),
        ("FAIR's parent, {:.4f}.", ("benchmark-parallel", "main", "rpg", "amazon-scientific/ndcg@10")),
        ("`transitions` reaches {:.4f}", ("benchmark-parallel", "main", "transitions", "amazon-scientific/ndcg@10")),
        ("SASRec reaches {:.4f} and FAIR", ("benchmark-parallel", "targets", "sasrec-ce", "transition/known pair")),
        ("and FAIR {:.4f}; where it has not", ("benchmark-parallel", "targets", "fair", "transition/known pair")),
        ("where it has not, FAIR reaches {:.4f} (±", ("benchmark-parallel", "targets", "fair", "transition/new pair")),
        ("RPG {:.4f} and SASRec", ("benchmark-parallel", "targets", "rpg", "transition/new pair")),
        ("RPG 0.0189 and SASRec {:.4f} (±", ("benchmark-parallel", "targets", "sasrec-ce", "transition/new pair")),
        ("is {:.4f} with codes from titles", ("item_vectors-fair", "main", "fair-text", "ml-100k/ndcg@10")),
        ("{:.4f} with codes from co-occ", ("item_vectors-fair", "main", "fair-cooccurrence", "ml-100k/ndcg@10")),
        ("{:.4f} with both", ("item_vectors-fair", "main", "fair-fused", "ml-100k/ndcg@10")),
        ("{:.4f} with random codes", ("item_vectors-fair", "main", "fair-random", "ml-100k/ndcg@10")),
        ("interleaved model by {:.1f} %", ("actions", "relative", "attn-lfa", "bce")),
        ("AttnMVP by {:.1f} %", ("actions", "relative", "attn-mvp", "bce")),
        ("AttnLFA lowers it by {:.1f} %", ("actions", "relative", "attn-lfa-unscaled", "bce")),
    ],
)
def test_the_readmes_numbers_are_those_of_the_tables(said, source):
    assert said.format(abs(value(*source))) in words()


def test_the_readmes_sentence_on_ablations_follows_the_verdicts():
    found = pd.read_csv(ROOT / "results" / "ablations" / "tables" / "differences.csv")
    assert set(found["verdict"]) == {"undecided"}
    assert "no part of FAIR changes NDCG@10 by more than five seeds can tell from noise" in words()
    passed = pd.read_csv(ROOT / "results" / "ablations" / "tables" / "references.csv").set_index("key")[
        "ndcg@10/passes"
    ]
    assert set(passed.filter(like="/popularity")) == {"yes"}
    assert passed.filter(like="/transitions").to_dict() == {
        f"{variant}/transitions": "no" if variant == "no-mi-loss" else "undecided"
        for variant in ("fair", "no-focused-attention", "zero-lambda", "no-noise-loss", "no-mi-loss")
    }
    assert "every variant passes popularity" in words()
    assert "FAIR without its MI loss lies below it, the other four are undecided" in words()


def test_the_readmes_sentence_on_fair_beside_sasrec_follows_the_verdict():
    found = pd.read_csv(ROOT / "results" / "benchmark-parallel" / "tables" / "differences.csv").set_index("key")
    assert found.loc["fair", "verdict"] == "undecided"
    assert "(difference undecided)" in words()
    references = pd.read_csv(ROOT / "results" / "benchmark-parallel" / "tables" / "references.csv").set_index("key")
    assert set(references.filter(like="/transitions", axis=0)["ndcg@10/passes"]) == {"no"}
    assert "by 95 % intervals over users and seeds none of the three passes it" in words()
    targets = pd.read_csv(ROOT / "results" / "benchmark-parallel" / "tables" / "targets.csv").set_index("key")
    new, half = targets["transition/new pair"], targets["transition/new pair half_width"]
    assert new["fair"] - half["fair"] > new["sasrec-ce"] + half["sasrec-ce"]
    assert f"(± {half['fair']:.4f}), RPG" in words()
    assert f"(± {half['sasrec-ce']:.4f}). SASRec remembers" in words()


def test_the_readmes_recall_without_the_history():
    cells = [path.parent for path in (ROOT / "results" / "beauty").glob("cells/*/cell.json")]
    ours = [cell for cell in cells if json.loads((cell / "cell.json").read_text())["variant"] == "sasrec-ce"]
    assert len(ours) == 3
    unseen = mean(json.loads((cell / "metrics.json").read_text())["test"]["unseen"]["recall@10"] for cell in ours)
    assert f"{unseen:.4f} and 0.0539 once" in words()


def test_the_readmes_shares_of_the_published_numbers():
    found = pd.read_csv(ROOT / "results" / "beauty-generative" / "tables" / "published.csv").set_index("label")
    share = 100 * found["recall@5/share"]
    assert f"{share['TIGER']:.0f} % and {share['FAIR']:.0f} % of their published Recall@5" in words()


def test_the_readmes_tiger_on_beauty():
    share = pd.read_csv(ROOT / "results" / "beauty-tiger" / "tables" / "published.csv").set_index("label")
    reached = f"Recall@10 {value('beauty-tiger', 'main', 'tiger', 'amazon-beauty/recall@10'):.4f}"
    assert f"{reached}, {100 * share.loc['TIGER', 'recall@10/share']:.0f} % of its published 0.0648" in words()
    bins = pd.read_csv(ROOT / "results" / "beauty-tiger" / "tables" / "history-length.csv").set_index("key")
    short, long = bins["4–9"], bins["20–49"]
    assert f"falls from {short['tiger']:.4f} for users with 4 to 9 earlier events to {long['tiger']:.4f}" in words()
    assert f"rises from {short['transitions']:.4f} to {long['transitions']:.4f}." in words()


def reading_commands() -> list[str]:
    """The README's commands that only read, and those of the page of commands."""
    tours = [
        (ROOT / page).read_text(encoding="utf-8").split(heading)[1].split("\n```\n")[1]
        for page, heading in (("README.md", "## Look around"), ("docs/commands.md", "## Look\n"))
    ]
    lines = [line for tour in tours for line in tour.splitlines() if line.startswith("harness ")]
    return list(dict.fromkeys(" ".join(line.split("#")[0].split()) for line in lines))


def test_the_readme_has_commands_that_only_read():
    assert {"verify", "trace", "plan"} <= {command.split()[1] for command in reading_commands()}


@pytest.mark.parametrize("command", reading_commands())
def test_the_readmes_commands_work(command, monkeypatch):
    environment = {key: value for key, value in os.environ.items() if key != "HARNESS_OUT"}
    words = [sys.executable, "-m", "harness.cli", *shlex.split(command)[1:]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_run_is_found_by_its_folders_name(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    app(["trace", "--study", "code_length-movies", "main", "codes-8", "ndcg@10"], standalone_mode=False)
    assert "results/code_length-movies/cells/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arm", "said"), [("attn-lfa", "AttnLFA takes {} to {} times"), ("attn-mvp", "AttnMVP {} to {} times")]
)
def test_the_step_times_on_the_page_of_speed(arm, said):
    found = pd.read_csv(ROOT / "results" / "efficiency" / "tables" / "training-time.csv").set_index("key").loc[arm]
    ratios = found.drop("label").astype(float)
    assert said.format(f"{ratios.min():.2f}", f"{ratios.max():.2f}") in words("docs/speed.md")
