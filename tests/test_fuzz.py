"""Whatever a file holds, a command does its work or says in one line what is wrong with it (see ``fuzzing.py``)."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.synthetic_run import write_run
from harness.analysis import artefacts, report
from tests.fuzzing import NASTY, bytes_like, damage, fuzz, refuses_or_works, values_like
from tests.tiny import STUDY

RICH = {
    **yaml.safe_load(STUDY),
    "question": "Which?",
    "contrasts": [["bce", "ce"]],
    "references": ["pop"],
    "variants": {**yaml.safe_load(STUDY)["variants"], "pop": {"model": "popularity"}},
    "data": {"split": "leave-one-out", "max_length": 20},
    "items": {"quantiser": {"kind": "opq", "levels": 4, "size": 8}, "encoder": {"kind": "tfidf-svd", "dim": 8}},
    "noise": {"shares": [0, 0.1], "seed": 0},
    "tables": {"main": {"rows": ["ce"], "columns": ["ndcg@10"]}},
    "search": {"ce": {"training.learning_rate": {"low": 0.001, "high": 0.01, "log": True}}},
    "tuned": {"synthetic-sessions:users=60,items=30": {"ce": {"layers": 1}}},
    "equivalence_margin": "5 %",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@given(data=st.data())
@fuzz(12)
def test_study_files(place, data):
    path = place / "study.yaml"
    if data.draw(st.booleans()):
        text = yaml.safe_dump(data.draw(values_like(RICH)), allow_unicode=True, sort_keys=False).encode()
    else:
        text = data.draw(bytes_like(STUDY.encode()))
    path.write_bytes(text)
    words = []
    if data.draw(st.integers(0, 3)) == 0:
        key = data.draw(
            st.sampled_from(["dim", "max_length", "budget.epochs", "variants.ce", "seeds", "datasets", "a.b.c", ""])
        )
        value = data.draw(
            st.sampled_from([*map(str, NASTY), "[", "*x", "&a [*a]", "!!int abc", "{a: 1, a: 2}", "[" * 300])
        )
        words = ["--set", f"{key}={value}"]
    refuses_or_works("plan", "--study", path, "--out", place / "out", *words)


EVENTS = pd.DataFrame(
    {
        "user_id": [f"u{i // 6}" for i in range(36)],
        "item_id": [f"i{(5 * i) % 7}" for i in range(36)],
        "timestamp": 1_700_000_000 + 60 * np.arange(36),
        "rating": [1.0, 2.5, 5.0] * 12,
    }
)


def _write_log(folder: Path, kind: str) -> Path:
    path = folder / f"log.{kind}"
    if kind == "parquet":
        EVENTS.to_parquet(path)
    elif kind == "jsonl":
        EVENTS.to_json(path, orient="records", lines=True)
    elif kind == "inter":
        EVENTS.rename(columns=lambda name: f"{name}:{'token' if name.endswith('id') else 'float'}").to_csv(
            path, sep="\t", index=False
        )
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(EVENTS.to_csv(index=False).encode(), mtime=0))
    else:
        EVENTS.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


@given(data=st.data())
@fuzz(16)
def test_logs(place, data):
    kind = data.draw(st.sampled_from(["csv", "tsv", "inter", "jsonl", "parquet", "csv.gz"]))
    folder = place / "log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = _write_log(folder, kind)
    if kind == "csv.gz" and data.draw(st.booleans()):
        path.write_bytes(gzip.compress(data.draw(bytes_like(gzip.decompress(path.read_bytes()))), mtime=0))
    else:
        damage(data, path)
    refuses_or_works("data", "show", path, *data.draw(st.sampled_from([[], ["--json"]])))


@given(data=st.data())
@fuzz(8, 0.3)
def test_predictions_and_vectors(place, data):
    folder = place / "beside"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log = _write_log(folder, "csv")
    items = sorted(set(EVENTS["item_id"]))
    kind = data.draw(st.sampled_from(["csv", "parquet", "trec", "vectors.npy", "index.json"]))
    if kind in ("csv", "parquet", "trec"):
        rows = pd.DataFrame(
            [(u, i, float(n)) for u in set(EVENTS["user_id"]) for n, i in enumerate(items)],
            columns=["user", "item", "score"],
        )
        path = folder / f"them.{kind}"
        if kind == "csv":
            rows.to_csv(path, index=False)
        elif kind == "parquet":
            rows.to_parquet(path)
        else:
            path.write_text("".join(f"{u} Q0 {i} 1 {s} tag\n" for u, i, s in rows.itertuples(index=False)))
        damage(data, path)
        refuses_or_works("score", "--predictions", path, "--dataset", log, "--out", folder / "out")
        return
    path = folder / kind
    if kind == "vectors.npy":
        np.save(path, np.eye(len(items), dtype=np.float32))
        path.with_suffix(".txt").write_text("\n".join(items))
        chosen = {"encoder": {"kind": "file", "path": str(path)}, "quantiser": {"kind": "opq", "levels": 2, "size": 4}}
    else:
        path.write_text(json.dumps({i: [f"<a_{n}>", f"<b_{n}>"] for n, i in enumerate(items)}))
        chosen = {"quantiser": {"kind": "file", "path": str(path), "size": 8}}
    damage(data, path)
    refuses_or_works(
        "items", "export", log, folder / "out.json", "--set", f"items={json.dumps(chosen)}", "--out", folder / "out"
    )


@pytest.fixture(scope="module")
def runs(place):
    """Folders of runs that hold every kind of file."""
    variants = {"fair": {"model": "fair"}, "soft": {"model": "fair", "label": "w/o $x$"}}
    write_run(place / "runs" / "ablations", variants=variants, seeds=2, users=12, items=30)
    actions = {"interleaved": {"model": "interleaved"}, "attn-lfa": {"model": "attn-lfa"}}
    write_run(place / "runs" / "actions", variants=actions, seeds=2, users=12, items=30, task="action")
    results = Path(__file__).parents[1] / "results"
    _copy_some(results / "noise", place / "runs" / "noise")
    _copy_some(results / "benchmark-parallel", place / "runs" / "parallel")
    for name in ("tuning", "efficiency"):
        _copy_some(results / name, place / "runs" / name)
    for run in (place / "runs").iterdir():
        (run / "looks.json").write_text("[2]\n")
    return place / "runs"


def _copy_some(source: Path, target: Path) -> None:
    """A run's folder with the cells of its first seed alone."""
    target.mkdir()
    for file in ("study.yaml", "summary.json", "tuning.json", "efficiency.json"):
        if (source / file).exists():
            shutil.copy(source / file, target)
    for cell in yaml.safe_load((source / "study.yaml").read_text()).get("cells", ()):
        if cell["seed"] == 0:
            shutil.copytree(source / "cells" / cell["id"], target / "cells" / cell["id"])


@given(data=st.data())
@fuzz(6, 0.5)
def test_run_folders(runs, place, data):
    folder = place / "damaged" / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(runs / data.draw(st.sampled_from(sorted(path.name for path in runs.iterdir()))), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = sorted({path.name for path in files})
    name = data.draw(st.sampled_from(names))
    path = data.draw(st.sampled_from([path for path in files if path.name == name]))
    how = damage(data, path)
    command = data.draw(st.sampled_from(["report", "report", "trace", "compare", "plan", "claims", "score"]))
    if command == "trace":
        refuses_or_works("trace", "--study", folder / "study.yaml", "main", "fair", "ndcg@10")
    elif command == "compare":
        refuses_or_works("compare", folder, runs / "ablations")
    elif command == "plan":
        refuses_or_works("plan", "--study", "sasrec", "--out", folder.parent)
    elif command == "claims":
        refuses_or_works("claims", "--out", folder.parent)
    else:
        with pytest.MonkeyPatch.context() as patch:  # drawing takes a hundred times as long as all else
            patch.setattr(report, "save", lambda *_, **__: [])
            patch.setattr("harness.analysis.page._picture", lambda picture: "")
            patch.setattr(artefacts, "FULL", artefacts.COLUMN)
            _, said = refuses_or_works("report", "--study", folder / "study.yaml")
        faults = [line for line in said.splitlines() if line.startswith("not in the report")]
        assert all(": InputError: " in line for line in faults), (
            how,
            path.name,
            *(p.read_text() for p in folder.glob("failures/*")),
        )
        refuses_or_works("verify", "--study", folder / "study.yaml")
