"""Nothing that is decided before the test evaluation depends on a test event: the whole path, tuning included.

Two copies of a log differ in the events of the test part alone: other items, at other times, in another order of
ratings. Codes, trials, tuned settings, weights, best epochs and validation rows must be the same to the byte.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from tests.conftest import run_harness

USERS, ITEMS = 30, 20
STUDY = {
    "study": "poison",
    "datasets": ["log.csv"],
    "seeds": 1,
    "control": "fair",
    "items": {"encoder": {"kind": "cooccurrence", "dim": 8}, "quantiser": {"kind": "opq", "levels": 2, "size": 8}},
    "common": {"dim": 8, "layers": 1, "heads": 1, "inner": 8},
    "variants": {"fair": {"model": "fair"}, "sasrec": {"model": "sasrec"}},
    "budget": {"epochs": 2},
    "metrics": ["ndcg@10"],
    "primary": "ndcg@10",
    "search": {v: {"training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}} for v in ("fair", "sasrec")},
}
SPLITS = {
    "leave-one-out": {"split": "leave-one-out"},
    "temporal": {"split": "temporal", "valid_fraction": 0.2, "test_fraction": 0.2, "targets": "all"},
}


def log(split: str) -> tuple[pd.DataFrame, np.ndarray]:
    """A log, and which of its events test. The first user has all items, in training, so that ids stay."""
    rng = np.random.default_rng(0)
    rows = [("u0", f"i{n % ITEMS}", n, 3) for n in range(ITEMS + 2)]
    moments = rng.permutation(np.arange(100, 1000))  # no two events at one, so that none ties with the split's moment
    for user in range(1, USERS):
        times, moments = np.split(moments, [int(rng.integers(5, 12))])
        times = np.sort(times)
        start, step = rng.integers(0, ITEMS), rng.integers(1, 3)
        rows += [(f"u{user}", f"i{(start + n * step) % ITEMS}", int(t), 3) for n, t in enumerate(times)]
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "rating"])
    if split == "leave-one-out":
        return frame, ~frame["user"].duplicated(keep="last").to_numpy()
    moment = np.sort(frame["time"])[int(len(frame) * 0.8 + 1e-9)]
    return frame, (frame["time"] >= moment).to_numpy()


def poisoned(frame: pd.DataFrame, test: np.ndarray) -> pd.DataFrame:
    rng, changed = np.random.default_rng(1), frame.copy()
    changed.loc[test, "item"] = [f"i{n}" for n in rng.integers(0, ITEMS, test.sum())]
    changed.loc[test, "time"] += 5000 + rng.integers(0, 3, test.sum()).cumsum()
    changed.loc[test, "rating"] = rng.integers(1, 6, test.sum())
    return changed


def decided(out: Path) -> dict[str, object]:
    """All that a tuning and a run settle before they look at the test part, by what it is."""
    run = out / "poison"
    found: dict[str, object] = {"tuned": yaml.safe_load((run / "tuned.yaml").read_text())["tuned"]}
    codes = [load_file(path) for path in (out / "cache" / "codes").glob("*.safetensors")]
    found["codes"] = [{name: values.tobytes() for name, values in sorted(one.items())} for one in codes]
    found["trials"] = sorted(
        json.dumps([{k: v for k, v in trial.items() if k != "seconds"} for trial in json.loads(path.read_text())])
        for path in (run / "tuning").glob("*/trials.json")
    )
    for path in (run / "cells").glob("*/cell.json"):
        card = json.loads(path.read_text())
        cell = card["variant"], card["seed"]
        tensors = load_file(path.parent / "model.safetensors")
        found["weights", *cell] = {name: tensor.tobytes() for name, tensor in sorted(tensors.items())}
        found["outcome", *cell] = card["outcome"]
        rows = pq.read_table(path.parent / "rows.parquet")
        found["validation", *cell] = rows.filter(pc.equal(rows["phase"], "valid"))
        found["test", *cell] = rows.filter(pc.equal(rows["phase"], "test")).select(["user", "target", "rank_all"])
        history = pd.read_csv(path.parent / "history.csv")
        found["history", *cell] = history[[name for name in history if "seconds" not in name]].to_csv()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_what_the_test_part_holds_decides_nothing(split, tmp_path):
    frame, test = log(split)
    results = []
    for name, content in (("clean", frame), ("poisoned", poisoned(frame, test))):
        folder = tmp_path / name
        folder.mkdir()
        content.to_csv(folder / "log.csv", index=False)
        (folder / "poison.yaml").write_text(yaml.safe_dump(STUDY | {"data": SPLITS[split] | {"max_length": 8}}))
        for words in (("tune", "--trials", "2"), ("run", "--tuned")):
            done = run_harness(folder, words[0], "--study", "poison.yaml", "--workers", "1", *words[1:])
            assert done.returncode == 0, done.stderr
        results.append(decided(folder / "out"))
    clean, changed = results
    assert clean.keys() == changed.keys()
    assert len(clean["codes"]) == 1
    assert len(clean["trials"]) == 2
    assert len(clean) == 3 + 5 * 2
    for key, value in clean.items():
        if key[0] != "test":
            assert value == changed[key], key
    assert all(clean[key] != changed[key] for key in clean if key[0] == "test")  # the poison got there
