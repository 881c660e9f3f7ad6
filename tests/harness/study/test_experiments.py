"""The noise experiment and the decoding audit as a study asks for them: settings, cells and their files."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from harness.errors import InputError
from harness.settings import parse
from harness.study.cells import Inputs, make_cells
from harness.study.design import Study
from harness.study.folder import RunFolder
from harness.study.run_cell import run_cell

SMALL = {"dim": 8, "heads": 1, "inner": 8}
DESIGN = {
    "study": "experiments",
    "datasets": ["synthetic-sessions:users=30,items=24"],
    "seeds": 1,
    "data": {"max_length": 6},
    "items": {"encoder": {"kind": "tfidf-svd", "dim": 4}, "quantiser": {"kind": "rkmeans", "levels": 2, "size": 8}},
    "variants": {
        "fair": {"model": "fair", "set": SMALL},
        "codes": {"model": "fair", "set": {**SMALL, "granularity": "code"}},
        "sasrec": {"model": "sasrec", "set": SMALL},
        "tiger": {
            "model": "tiger",
            "set": {"dim": 8, "heads": 1, "head_dim": 8, "feed_forward": 8, "encoder_layers": 1, "decoder_layers": 1},
        },
    },
    "budget": {"epochs": 1},
    "metrics": ["ndcg@10"],
    "primary": "ndcg@10",
    "attention": True,
}
EXPERIMENTS = {"noise": {"shares": [0.5, 0.2]}, "decoding_audit": True}


def study(**changes):
    return parse(Study, {**DESIGN, **changes}, "study 'experiments'")


def test_every_experiment_leaves_its_file_where_the_model_allows_it(tmp_path):
    design, inputs = study(**EXPERIMENTS), Inputs(None, tmp_path / "cache")
    folder = RunFolder(tmp_path / "run")
    found, tokens, noise = {}, {}, {}
    for cell in make_cells(design, inputs):
        run_cell(design, cell, inputs, folder)
        path = folder.cell(cell.id)
        names = {p.name for p in path.iterdir()}
        found[cell.arm.variant] = names & {"attention.parquet", "examples.json", "noise.parquet", "decoding.json"}
        tokens[cell.arm.variant] = json.loads((path / "cost.json").read_text()).get("tokens_per_event")
        noise[cell.arm.variant] = pd.read_parquet(path / "noise.parquet")
        metrics = json.loads((path / "metrics.json").read_text())["test"]["unseen"]
        calm = noise[cell.arm.variant].set_index(["share", "history", "statistic"])["value"]
        assert calm[0.0, "injected", "unseen/ndcg@10"].item() == metrics["ndcg@10"]
    attention = {"attention.parquet", "examples.json"}
    assert found["fair"] == found["codes"] == attention | {"noise.parquet", "decoding.json"}
    assert found["sasrec"] == attention | {"noise.parquet"}
    assert found["tiger"] == {"noise.parquet", "decoding.json"}
    levels = 3  # two, and one that tells colliding items apart
    assert tokens == {"fair": 1, "codes": 2, "sasrec": 1, "tiger": levels}
    for frame in noise.values():  # the same histories, whatever the model
        for statistic in ("events", "dropped"):
            same = [f[f["statistic"] == statistic]["value"].tolist() for f in (frame, noise["fair"])]
            assert same[0] == same[1]
        assert sorted(frame["share"].unique()) == [0.0, 0.2, 0.5]


def test_what_is_asked_for_later_is_measured_on_the_weights_that_are_there(tmp_path, monkeypatch):
    inputs, folder = Inputs(None, tmp_path / "cache"), RunFolder(tmp_path / "run")
    before, after = study(seeds=[0, 1]), study(seeds=[0, 1], **EXPERIMENTS)
    first = [cell for cell in make_cells(before, inputs) if cell.arm.variant == "codes"]
    for cell in first:
        run_cell(before, cell, inputs, folder)

    def trains(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("harness.study.run_cell.fit", trains)
    cells = make_cells(after, inputs)
    for old, new in zip(first, [cell for cell in cells if cell.arm.variant == "codes"], strict=True):
        run_cell(after, new, inputs, folder)
        had, has = folder.cell(old.id), folder.cell(new.id)
        assert old.id != new.id
        assert json.loads((has / "cell.json").read_text())["weights_of"]["id"] == old.id
        for name in ("rows.parquet", "history.csv", "cost.json", "metrics.json"):
            assert (had / name).read_bytes() == (has / name).read_bytes()
        assert (has / "noise.parquet").exists()
        assert (has / "decoding.json").exists()
    with pytest.raises(AssertionError, match="trained again"):
        run_cell(after, next(cell for cell in cells if cell.arm.variant == "sasrec"), inputs, folder)


def test_the_experiments_are_part_of_what_a_cell_is(tmp_path):
    inputs = Inputs(None, tmp_path / "cache")
    one = {"variants": {"sasrec": DESIGN["variants"]["sasrec"]}}

    def cell(**changes):
        (found,) = make_cells(study(**one, **changes), inputs)
        return found

    plain = cell()
    assert not {"noise", "decoding_audit"} & set(plain.identity)  # so that older cells keep their ids
    ids = [plain.id, cell(noise={}).id, cell(noise={"seed": 1}).id, cell(noise={"shares": [0.5]}).id]
    ids.append(cell(decoding_audit=True).id)
    assert len(set(ids)) == len(ids)
    assert cell(decoding_audit=False).id == plain.id
    assert cell(noise={"shares": [0.5, 0]}).id == cell(noise={"shares": [0.5]}).id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"shares": [1.0]}}, "shares of injected events lie from 0 to below 1"),
        ({"noise": {"shares": [-0.1]}}, "shares of injected events lie from 0 to below 1"),
        ({"noise": {"share": 0.1}}, "unknown key 'noise.share'; did you mean 'shares'"),
        ({"task": "action", "metrics": ["ne"], "primary": "ne", "noise": {}}, "'noise' is about ranked lists"),
        ({"task": "action", "metrics": ["ne"], "primary": "ne", "decoding_audit": True}, "'decoding_audit' is about"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        study(**changes)
