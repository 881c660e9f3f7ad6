"""The reference results and the README's numbers: each is what its rows say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean

import pandas as pd
import pytest

from harness.analysis.verify import verify

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/study.yaml"))


def value(run: str, table: str, row: str, column: str) -> float:
    found = pd.read_csv(ROOT / "results" / run / "tables" / f"{table}.csv").set_index("key")
    return float(found.loc[row, column])


def words() -> str:
    """The README's text on one line."""
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_there_are_reference_results():
    assert {"ablations", "actions", "noise", "benchmark"} <= {run.name for run in RUNS}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
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
        ("TIGER {:.4f}", ("benchmark", "main", "tiger", "amazon-scientific/ndcg@10")),
        ("reaches Recall@10 {:.4f}", ("beauty", "main", "sasrec-ce", "amazon-beauty/recall@10")),
        ("NDCG@10 {:.4f}, and", ("beauty", "main", "sasrec-ce", "amazon-beauty/ndcg@10")),
        ("and {:.4f} once", ("beauty", "candidates", "sasrec-ce", "amazon-beauty/unseen")),
        ("{:.3f} ± 0.008 under the same", ("sasrec", "candidates", "ce", "ml-100k/unseen")),
        ("0.103 ± {:.3f} under the same", ("sasrec", "candidates", "ce", "ml-100k/unseen sd")),
        ("−{:.1f} % NDCG@10, Holm", ("ablations", "differences", "no-focused-attention", "percent")),
        ("Holm p = {:.2f}", ("ablations", "differences", "no-focused-attention", "p_holm")),
        ("interleaved model by {:.1f} %", ("actions", "relative", "attn-lfa", "bce")),
        ("AttnMVP by {:.1f} %", ("actions", "relative", "attn-mvp", "bce")),
    ],
)
def test_the_readmes_numbers_are_those_of_the_tables(said, source):
    assert said.format(abs(value(*source))) in words()


def test_the_readmes_recall_without_the_history():
    cells = (ROOT / "results" / "beauty").glob("cells/*/metrics.json")
    unseen = mean(json.loads(path.read_text())["test"]["unseen"]["recall@10"] for path in cells)
    assert f"{unseen:.4f} and 0.0529 once" in words()


def test_the_readmes_shares_of_the_published_numbers():
    found = pd.read_csv(ROOT / "results" / "beauty-generative" / "tables" / "published.csv")
    found = found[(found["metric"] == "recall@5") & found["ours"].notna()].set_index("label")
    share = 100 * found["ours"].astype(float) / found["published"].astype(float)
    assert f"{share['TIGER']:.0f} % and {share['FAIR']:.0f} % of their published Recall@5" in words()


@pytest.mark.parametrize(
    ("arm", "said"), [("attn-lfa", "AttnLFA takes {} to {} times"), ("attn-mvp", "AttnMVP {} to {} times")]
)
def test_the_readmes_step_times(arm, said):
    found = pd.read_csv(ROOT / "results" / "efficiency" / "tables" / "training-time.csv").set_index("key").loc[arm]
    ratios = found.drop("label").astype(float)
    assert said.format(f"{ratios.min():.2f}", f"{ratios.max():.2f}") in words()
