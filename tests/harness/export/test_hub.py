"""A model that left its run answers as it did there, and its card holds the run's numbers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

import harness
from harness.cli import app, guarded
from harness.errors import InputError
from harness.export.hub import write_hub


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Folders of exported models, each made once."""
    folder, done = tmp_path_factory.mktemp("hub"), {}

    def export(variant):
        if variant not in done:
            done[variant] = folder / variant
            write_hub(run, done[variant], variant, 1, licence="mit")
        return done[variant]

    return export


@pytest.mark.parametrize("variant", ["exact", "search", "counts"])
def test_it_answers_as_it_did_in_its_run(run, exported, variant, monkeypatch):
    original, alone = run.model(variant, 1), harness.load_model(exported(variant))
    monkeypatch.setattr("harness.data.datasets.load", None)  # no data are read
    for user in original.log.users[:6]:
        history = original.events_of(user)["item"]
        for options in ({}, {"exclude_seen": False, "k": 30}):
            pd.testing.assert_frame_equal(alone.recommend(history, **options), original.recommend(history, **options))
    if variant == "exact":
        pd.testing.assert_frame_equal(alone.attention_of(history), original.attention_of(history))
    with pytest.raises(InputError, match="is an exported model, which knows no users"):
        alone.recommend(history, user=user)


def test_a_model_of_actions_comes_back_too(told, tmp_path):
    write_hub(told, tmp_path / "mixed", "mixed")
    original, alone = told.model("mixed", 0), harness.load_model(tmp_path / "mixed")
    events = original.events_of(original.log.users[0])
    asked = {"times": events["time"], "actions": events["actions"]}
    found = alone.attention_of(events["item"], **asked)
    pd.testing.assert_frame_equal(found, original.attention_of(events["item"], **asked))


def test_nothing_of_a_user_is_given_away(run, exported):
    users = run.rows("exact", 1)["user"]
    for path in exported("search").iterdir():
        if path.suffix in (".json", ".md"):
            assert not [user for user in users if f'"{user}"' in path.read_text()]
    assert set(pd.read_parquet(exported("search") / "items.parquet")) == {"item", "title", "count", "codes"}


def test_the_card_holds_the_run_s_numbers(run, exported):
    text = (exported("exact") / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["library_name"]) == ("mit", "harness")
    (result,) = front["model-index"][0]["results"]
    table = run.metrics().query("variant == 'exact'").set_index("seed")
    assert {m["type"]: m["value"] for m in result["metrics"]} == pytest.approx(
        table.loc[1, ["ndcg@10", "recall@5", "coverage@10"]].to_dict(), abs=1e-6
    )
    seeds = table["ndcg@10"]
    low, high = stats.t.interval(0.95, 1, seeds.mean(), stats.sem(seeds))
    users = np.where((ranks := run.rows("exact", 1)["rank_unseen"]) <= 10, 1 / np.log2(ranks + 1), 0)
    own = stats.t.interval(0.95, len(users) - 1, users.mean(), stats.sem(users))
    line = f"{seeds[1]:.4f} [{own[0]:.4f}, {own[1]:.4f}] | {seeds.mean():.4f} [{low:.4f}, {high:.4f}] |"
    assert line in text
    for part in ("# Exact on synthetic-sessions", "hf upload USER/exact exact", "harness recommend exact", "Citation"):
        assert part in text


def test_the_hub_s_own_library_reads_the_card(exported):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(exported("search") / "README.md")
    assert card.data.license == "mit"
    assert {"generative-recommendation", "tiger"} <= set(card.data.tags)
    assert {r.metric_type for r in card.data.eval_results} == {"ndcg@10", "recall@5", "coverage@10"}


def test_the_command_line(run, exported, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = guarded(lambda: app(list(map(str, words)), standalone_mode=False))
        return code, *capsys.readouterr()

    code, printed, _ = call("export", "hub", run.path, "--variant", "exact", "--to", "given", "--licence", "mit")
    assert code == 0
    assert printed.split() == [
        f"given/{name}" for name in ("README.md", "config.json", "items.parquet", "model.safetensors")
    ]
    history = run.model("exact", 0).log.items[1:4]
    code, printed, _ = call("recommend", "given", "--history", ",".join(history), "-k", "3", "--json")
    expected = run.model("exact", 0).recommend(history, 3)
    assert [line["item"] for line in json.loads(printed)] == expected["item"].tolist()
    assert call("export", "top-k", run.path, "--variant", "exact", "--to", "k.csv")[:2] == (0, "k.csv: 1200 rows\n")
    assert call("export", "predictions", run.path, "--to", "p.parquet")[0] == 0
    for words, message in (
        (("export", "hub", run.path, "--variant", "exact", "--to", "given"), "given is there; choose another folder"),
        (("export", "hub", run.path, "--variant", "exact", "--to", run.path / "x"), "lies inside the run"),
        (("recommend", run.path, "--history", "1"), "name the variant of the run"),
        (("recommend", "nowhere", "--history", "1"), "name the variant of the run"),
    ):
        code, _, error = call(*words)
        assert (code, len(error.splitlines())) == (2, 1)
        assert message in error


def test_a_model_that_needs_the_events_is_not_given_away(run, tmp_path):
    with pytest.raises(InputError, match="the training events"):
        write_hub(run, tmp_path / "next", "next")
    assert not list(tmp_path.iterdir())


def test_a_log_of_one_s_own_keeps_its_titles_and_hides_its_folder(tmp_path, working_here):
    mine = tmp_path / "somewhere" / "mine.csv"
    mine.parent.mkdir()
    lines = [f"u{user},i{(user * 7 + step * step) % 11},{step}" for user in range(20) for step in range(6)]
    mine.write_text("\n".join(["user,item,time", *lines]))
    study = {"study": "own", "datasets": [str(mine)], "seeds": 1, "metrics": ["ndcg@10"], "primary": "ndcg@10"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study | {"variants": {"counts": {"model": "popularity"}}}))
    with working_here():
        own = harness.run(tmp_path / "own.yaml", out=tmp_path / "out", device="cpu", report=False)
    write_hub(own, tmp_path / "hub", "counts")
    original, alone = own.model("counts", 0), harness.load_model(tmp_path / "hub")
    pd.testing.assert_frame_equal(alone.recommend(["i3"]), original.recommend(["i3"]))
    for file in ("README.md", "config.json"):
        text = (tmp_path / "hub" / file).read_text()
        assert "mine.csv" in text
        assert "somewhere" not in text


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda text: text.replace('"format": 1', '"format": 9'), "'format'"),
        ("config.json", lambda text: text.replace('"dim": 8', '"dmi": 8'), "unknown key 'dmi'; did you mean 'dim'"),
        ("config.json", lambda text: text.replace('"model": "tiger"', '"model": "tigr"'), "did you mean 'tiger'"),
        ("config.json", lambda text: text.replace('"n_items": 30', '"n_items": 31'), "expected 31 different items"),
        ("config.json", lambda text: text[:40], "is not valid JSON"),
        ("items.parquet", lambda text: "PAR", "is damaged"),
        ("model.safetensors", lambda text: "x", "is damaged"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(exported, tmp_path, file, change, message):
    folder = shutil.copytree(exported("search"), tmp_path / "damaged")
    text = (folder / file).read_text() if file.endswith("json") else ""
    (folder / file).write_text(change(text))
    with pytest.raises(InputError, match=message) as refused:
        harness.load_model(folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="holds no exported model"):
        harness.load_model(tmp_path)
