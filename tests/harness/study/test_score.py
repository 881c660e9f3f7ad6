from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from harness.analysis.artefacts import tables_of
from harness.analysis.rows import load_run
from harness.study.cells import Inputs, make_cells
from harness.study.folder import RunFolder
from harness.study.run_cell import build_model, load_weights, task_data

DATASET = "synthetic-sessions:users=60,items=30"


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """Scores of a trained cell of ours for every user and item, as another system would write them; and the cell."""
    torch.set_num_threads(1)
    folder, inputs = RunFolder(finished_run), Inputs(None, finished_run.parent / "cache")
    study, _ = folder.read_design()
    cell = next(c for c in make_cells(study, inputs) if (c.arm.variant, c.seed) == ("bce", 1))
    data = task_data(study, cell, inputs, "cpu")
    model = build_model(cell, data, inputs)
    load_weights(model, folder.cell(cell.id) / "model.safetensors")
    model.eval()
    windows = data.histories("test")
    parts = []
    for batch, rows in data.sequences.batches(windows, data.sequences.groups(windows, 64), data.task, supervise=False):
        with torch.inference_mode():
            scores = model.score_items(batch).numpy()
        for row, user in zip(scores, data.log.users[windows.user[rows]], strict=True):
            parts.append(pd.DataFrame({"user": user, "item": data.log.items[1:], "score": row.astype(float)}))
    path = tmp_path_factory.mktemp("exported") / "Their-Model.csv"
    pd.concat(parts).to_csv(path, index=False)
    return path, folder.cell(cell.id)


@pytest.fixture
def run(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "out" / "tiny")
    return tmp_path / "out" / "tiny"


def _test_rows(cell):
    rows = pd.read_parquet(cell / "rows.parquet")
    return rows[rows["phase"] == "test"].drop(columns="score").reset_index(drop=True)


def test_a_file_of_our_own_scores_gives_our_own_rows_and_metrics(exported, call, tmp_path, study_file):
    path, ours = exported
    ended = call("score", "--predictions", path, "--dataset", DATASET, "--study", study_file, "--json")
    assert ended.code == 0, ended.err
    scored = json.loads(ended.out)
    cell = tmp_path / scored["cell"]
    assert cell.parent.parent.name == "Their-Model"
    pd.testing.assert_frame_equal(_test_rows(cell), _test_rows(ours), check_dtype=False)
    assert scored["metrics"] == json.loads((ours / "metrics.json").read_text())["test"]
    found = load_run(tmp_path / "out" / "Their-Model")
    (line,) = next(t for t in tables_of(found) if t.name == "main").lines
    assert line.label == "Their-Model"
    assert line.entries[0].value == pytest.approx(scored["metrics"]["unseen"]["ndcg@10"])


def test_without_a_study_the_settings_say_how_the_data_is_split(exported, call, tmp_path):
    path, _ = exported
    ended = call("score", "--predictions", path, "--dataset", DATASET, "--set", "short_users=train", "--name", "alone")
    assert ended.code == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines()[:3]] == ["metric", "recall@5", "recall@10"]
    design, _ = RunFolder(tmp_path / "out" / "alone").read_design()
    assert design.data.short_users == "train"
    assert "holds a run already" in call("score", "--predictions", path, "--dataset", DATASET, "--name", "alone").err


def test_outside_predictions_stand_in_the_tables_and_tests_of_a_run(exported, call, run, study_file, tmp_path):
    path, _ = exported
    words = ("--dataset", DATASET, "--study", study_file, "--variant", "theirs")
    assert call("score", "--predictions", path, *words, "--seed", "1", "--label", "Theirs").code == 0
    rng = np.random.default_rng(0)
    frame = pd.read_csv(path).assign(score=lambda f: rng.normal(size=len(f)))
    frame.to_parquet(tmp_path / "other.parquet")
    assert call("score", "--predictions", "other.parquet", *words, "--seed", "0").code == 0
    found = load_run(run)
    assert found.variants == ["ce", "bce", "theirs"]
    assert found.label("theirs") == "Theirs"
    by_seed = found.by_seed(DATASET, "theirs", "ndcg@10")
    assert by_seed[1] == found.by_seed(DATASET, "bce", "ndcg@10")[1]
    assert by_seed[0] != by_seed[1]
    assert call("report", "--study", study_file).code == 0
    differences = (run / "tables" / "differences.md").read_text()
    assert "| Theirs |" in differences
    assert "within the family of 2" in differences
    assert call("verify", "--study", study_file).code == 0
    sources = [found.cards[cell]["source"] for cell in found.ids(DATASET, "theirs")]
    assert sources == ["other.parquet", "Their-Model.csv"]
    traced = json.loads(call("trace", "--study", study_file, "main", "Theirs", "ndcg@10", "--json").out)
    assert [source["seed"] for source in traced["sources"]] == [0, 1]


def test_the_command_that_was_typed_stands_beside_the_cell(exported, call, run, study_file, monkeypatch):
    path, _ = exported
    words = ["score", "--predictions", str(path), "--dataset", DATASET, "--study", str(study_file), "--variant", "x y"]
    monkeypatch.setattr("sys.argv", ["/somewhere/harness", *words])
    assert call(*words).code == 0
    (cell,) = json.loads((run / "outside.json").read_text())["cells"]
    assert cell["command"] == shlex.join(["harness", *words])


def test_a_study_does_not_train_beside_predictions_of_the_same_name(exported, call, refuses, run, study_file):
    path, _ = exported
    words = ("--dataset", DATASET, "--study", study_file, "--variant", "theirs")
    assert call("score", "--predictions", path, *words).code == 0
    before = sorted(run.glob("cells/*")), (run / "study.yaml").read_bytes()
    study = yaml.safe_load(study_file.read_text())
    study["variants"]["theirs"] = {"model": "sasrec", "set": {"dropout": 0.3}}
    study_file.write_text(yaml.safe_dump(study, sort_keys=False))
    line = refuses("run", "--study", study_file, "--workers", "1", "--device", "cpu")
    assert "outside.json: 'theirs' is a variant of the study too" in line
    assert (sorted(run.glob("cells/*")), (run / "study.yaml").read_bytes()) == before


def test_tables_that_choose_their_rows_show_outside_variants_too(exported, call, run, study_file):
    design = (run / "study.yaml").read_text().replace("tables: {}", "tables: {main: {rows: [ce], columns: [mrr]}}")
    (run / "study.yaml").write_text(design)
    path, _ = exported
    words = ("--dataset", DATASET, "--study", run / "study.yaml", "--variant", "theirs")
    assert call("score", "--predictions", path, *words).code == 0
    table = next(t for t in tables_of(load_run(run)) if t.name == "main")
    assert [line.key for line in table.lines] == ["ce", "theirs"]
    assert [column.title for column in table.columns] == ["MRR"]


def test_items_that_the_data_do_not_hold_count_as_misses(exported, call, tmp_path):
    good = pd.read_csv(exported[0])
    strange = good.groupby("user", as_index=False)["score"].max().assign(item="gone")  # each user's first, in a tie
    pd.concat([good, strange]).to_csv(tmp_path / "more.csv", index=False)
    words = ("score", "--predictions", tmp_path / "more.csv", "--dataset", DATASET, "--json")
    refused = call(*words)
    assert refused.code == 2
    assert "or --unknown-items misses counts" in refused.err
    scored = json.loads(call(*words, "--unknown-items", "misses").out)
    assert scored["notes"][0] == "60 predictions of 1 item that the data do not hold, 'gone' for one, count as misses"
    ranks, ours = (_test_rows(cell)["rank_all"] for cell in (tmp_path / scored["cell"], exported[1]))
    assert (ranks == ours + 1).all()


class TestBadInput:
    def test_the_file(self, refuses, tmp_path, exported):
        def line(text=None, name="p.csv", frame=None):
            path = tmp_path / name
            if frame is not None:
                frame.to_csv(path, index=False)
            elif text is not None:
                path.write_text(text)
            return refuses("score", "--predictions", path, "--dataset", DATASET)

        good = pd.read_csv(exported[0])
        assert "does not exist" in line(name="none.csv")
        assert "can't be read" in line("")
        assert "has no column 'item'" in line("user,items2,score\n1,2,3\n")
        assert "is not a user of" in line(frame=good.assign(user="nobody"))
        assert "is not an item of" in line(frame=good.assign(item="nothing"))
        assert "the score is missing, NaN or infinite" in line(frame=good.assign(score=float("nan")))
        assert "have no prediction" in line(frame=good[good["user"] == good["user"].iloc[0]])
        assert "stands twice" in line(frame=pd.concat([good, good]))
        assert "unknown kind of file" in line("", name="p.xlsx")
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*/study.yaml"))

    def test_the_command(self, refuses, exported, run, study_file):
        path, _ = exported

        def line(*words, dataset=DATASET):
            return refuses("score", "--predictions", path, "--dataset", dataset, *words)

        added = ("--study", study_file, "--variant", "theirs")
        assert "unknown data set" in line(dataset="ml-100")
        assert "leave one of the two out" in line("--study", study_file, "--set", "split=temporal")
        assert "--variant needs --study" in line("--variant", "theirs")
        assert "unknown key 'splid'; did you mean 'split'" in line("--set", "splid=temporal")
        assert "has no data set" in line(*added, dataset="ml-100k")
        assert "has no data set" in line("--study", study_file, dataset="ml-100k")
        assert "none of the run's seeds (0, 1)" in line(*added, "--seed", "7")
        assert "--variant: 'a/b' can't name a variant" in line("--study", study_file, "--variant", "a/b")
        assert "a variant of the study itself" in line("--study", study_file, "--variant", "ce")
        assert "holds no run" in line(*added, "--name", "elsewhere")
        (run / "outside.json").write_text("{")
        assert "outside.json is not valid JSON" in line(*added)
        (run / "outside.json").write_text("[]")
        assert "outside.json is damaged (Input should be a mapping" in line(*added)

    def test_a_study_of_actions(self, refuses, exported, study_file):
        study = yaml.safe_load(study_file.read_text()) | {"task": "action", "metrics": ["bce"], "primary": "bce"}
        study_file.write_text(yaml.safe_dump(study))
        words = ("--predictions", exported[0], "--dataset", DATASET, "--study", study_file)
        assert "predicts actions" in refuses("score", *words)

    def test_predictions_twice_or_of_another_copy_of_the_data(self, refuses, call, exported, run, study_file):
        words = ("--dataset", DATASET, "--study", study_file, "--variant", "theirs", "--predictions", exported[0])
        assert call("score", *words).code == 0
        assert "has predictions of 'theirs' for seed 0" in refuses("score", *words)
        for path in run.glob("cells/*/cell.json"):
            card = json.loads(path.read_text())
            card["fingerprints"]["log"] = "0" * 64
            path.write_text(json.dumps(card))
        assert "another copy" in refuses("score", *words, "--seed", "1")
