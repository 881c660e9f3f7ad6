"""A trained model out of a run against the evaluation that the run made of it."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest

import harness
from harness.errors import InputError

RETRIEVAL = """
study: asked
datasets: ["synthetic-sessions:users=60,items=30"]
seeds: 1
items: {encoder: {kind: random}, quantiser: {kind: rkmeans, levels: 2, size: 4}}
variants:
  exact: {model: sasrec, set: {dim: 8, layers: 1, heads: 2, inner: 8}}
  search:
    model: tiger
    set:
      {dim: 8, encoder_layers: 1, decoder_layers: 1, heads: 2, head_dim: 4, feed_forward: 8, beams: 6, user_buckets: 7}
  counts: {model: popularity}
budget: {epochs: 1}
metrics: [ndcg@10]
primary: ndcg@10
attention: true
"""
ACTION = """
study: told
task: action
datasets: ["synthetic-sessions:users=60,items=30"]
seeds: 1
data: {split: within-user}
variants:
  mixed: {model: attn-mvp, set: {dim: 8, layers: 1, heads: 2, backbone: hstu}}
budget: {epochs: 1}
metrics: [ne]
primary: ne
"""


def trained_run(tmp_path_factory, text, name):
    folder = tmp_path_factory.mktemp(name)
    (folder / "study.yaml").write_text(text)
    run = harness.run(folder / "study.yaml", out=folder / "out", workers=1, device="cpu", report=False)
    assert not run.failures()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_run(tmp_path_factory, RETRIEVAL, "asked")


@pytest.fixture(scope="module")
def model(run):
    return functools.cache(lambda variant: run.model(variant, 0))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return trained_run(tmp_path_factory, ACTION, "told").model("mixed", 0)


class TestRecommend:
    @pytest.mark.parametrize("variant", ["exact", "search", "counts"])
    def test_ranks_are_those_of_the_evaluation(self, run, model, variant):
        asked = model(variant)
        for row in run.rows(variant).itertuples():
            history = asked.events_of(row.user)["item"].tolist()
            assert len(history) == row.history
            for exclude, rank in ((False, row.rank_all), (True, row.rank_unseen)):
                found = asked.recommend(history, 30, exclude, user=row.user)
                place = np.flatnonzero(found["item"] == row.target)
                assert place.tolist() == ([] if np.isnan(rank) else [rank - 1])
                if len(place):
                    assert found["score"][place[0]] == pytest.approx(row.score, rel=1e-4)

    def test_the_first_k_of_one_order(self, model):
        asked = model("exact")
        history = asked.log.items[[3, 1, 2]]
        whole = asked.recommend(history, 30)
        assert list(whole) == ["item", "title", "score"]
        assert not set(whole["item"]) & set(history)
        assert len(whole) == 27
        assert asked.recommend(history, 4).equals(whole.head(4))
        titles = asked.log.item_table["title"]
        assert whole["title"].tolist() == [titles[np.flatnonzero(asked.log.items == i)[0]] for i in whole["item"]]

    def test_of_a_long_history_the_last_events_are_read_and_all_are_seen(self, model):
        asked = model("exact")
        window = asked.data.max_length
        items = asked.log.items
        long = [items[1]] + [items[2 + i % 5] for i in range(window)]
        found = asked.recommend(long, 30)
        assert items[1] not in set(found["item"])
        again = asked.recommend(long[1:], 30)
        assert found.equals(again[again["item"] != items[1]].reset_index(drop=True))

    @pytest.mark.parametrize(
        ("history", "options", "message"),
        [
            ([], {}, "the history is empty"),
            ("i3", {}, "give a list of item ids"),
            (["nothing like it"], {}, "has no item 'nothing like it'; its ids look like"),
            (["1", "nowhere", "nothing"], {}, r"'nowhere' \(and 1 more\)"),
            (["1"], {"k": 0}, "k is 0"),
            (["1"], {"user": "nobody at all"}, "no user 'nobody at all'"),
            (["1"], {"times": [1, 2]}, "times: 2 given for a history of 1 events"),
            (["1"], {"times": ["soon"]}, "times: give whole seconds"),
            (["1", "2"], {"times": [2, 1]}, "times do not ascend"),
            (["1"], {"actions": ["jump"]}, "unknown action 'jump'"),
        ],
    )
    def test_what_it_refuses(self, model, history, options, message):
        asked = model("exact")
        history = [asked.log.items[int(i)] if i in {"1", "2"} else i for i in history] if history != "i3" else history
        with pytest.raises(InputError, match=message):
            asked.recommend(history, **options)

    def test_an_id_that_is_nearly_one(self, model):
        item = model("exact").log.items[1]
        with pytest.raises(InputError, match="did you mean '"):
            model("exact").recommend([f"{item}0"])


class TestAttention:
    def test_weights_are_those_of_the_examples(self, run, model):
        asked = model("exact")
        cell = run.cells().set_index("variant").loc["exact", "id"]
        examples = json.loads((run.path / "cells" / cell / "examples.json").read_text())
        assert examples
        for example in examples:
            found = asked.attention_of(asked.events_of(example["user"])["item"], user=example["user"])
            n = len(example["events"])
            for layer, heads in enumerate(example["layers"]):
                for head, weights in enumerate(heads):
                    own = found[(found["layer"] == layer) & (found["head"] == head)]
                    assert own["weight"].tail(n).tolist() == pytest.approx(weights, abs=2e-6)
                    assert own["title"].tail(n).tolist() == [event["title"] for event in example["events"]]

    def test_of_a_model_that_shows_none(self, model):
        with pytest.raises(InputError, match="does not show its attention"):
            model("counts").attention_of(model("counts").log.items[1:3])


class TestActions:
    def test_a_model_of_actions_ranks_no_items(self, told):
        with pytest.raises(InputError, match="predicts actions and ranks no items"):
            told.recommend(told.log.items[1:3])

    def test_it_asks_for_what_it_reads(self, told):
        items, name = told.log.items[1:4], told.log.action_names[0]
        with pytest.raises(InputError, match=f"reads actions; give .*{name}"):
            told.attention_of(items, times=[1, 2, 3])
        found = told.attention_of(items, actions=[name, (), [name]], times=[1, 2, 3])
        assert found.groupby(["layer", "head"]).size().tolist() == [3, 3]
        with pytest.raises(InputError, match="actions: 1 given for a history of 3 events"):
            told.attention_of(items, actions=[name], times=[1, 2, 3])

    def test_a_user_s_own_events_will_do(self, told):
        events = told.events_of(told.log.users[0])
        found = told.attention_of(events["item"], times=events["time"], actions=events["actions"])
        assert found["event"].max() == len(events) - 1


class TestLoading:
    @pytest.fixture
    def copied(self, run, tmp_path):
        return shutil.copytree(run.path, tmp_path / "asked")

    def cell(self, run, variant):
        return run.path / "cells" / run.cells().set_index("variant").loc[variant, "id"]

    def test_weights_that_a_copy_left_out(self, copied):
        run = harness.load_run(copied)
        (self.cell(run, "exact") / "model.safetensors").unlink()
        with pytest.raises(InputError, match=r"has no weights .* left out of this copy"):
            run.model("exact", 0)

    @pytest.mark.parametrize("kind", ["log", "split", "codes"])
    def test_data_that_are_no_longer_those(self, copied, kind):
        for path in copied.glob("cells/*/cell.json"):
            card = json.loads(path.read_text())
            card["fingerprints"][kind] = "0" * 64
            path.write_text(json.dumps(card))
        run = harness.load_run(copied)
        with pytest.raises(InputError, match=f"trained on another {kind} of 'synthetic-sessions"):
            run.model("search", 0)

    def test_the_file_that_changed_is_named(self, tmp_path):
        lines = [f"u{user},i{(user * 7 + step * step) % 11},{step}" for user in range(20) for step in range(6)]
        log = tmp_path / "mine.csv"
        log.write_text("\n".join(["user,item,time", *lines]))
        study = RETRIEVAL.partition("items: {")[0].replace("synthetic-sessions:users=60,items=30", str(log))
        study += "variants: {counts: {model: popularity}}\nmetrics: [ndcg@10]\nprimary: ndcg@10\n"
        (tmp_path / "own.yaml").write_text(study)
        run = harness.run(tmp_path / "own.yaml", out=tmp_path / "out", workers=1, device="cpu", report=False)
        assert len(run.model("counts", 0).recommend(["i0"], 3)) == 3
        log.write_text("\n".join(["user,item,time", *lines[:-1]]))
        with pytest.raises(InputError, match=r"another log of .*\(changed: mine\.csv\)"):
            run.model("counts", 0)

    def test_what_is_not_there(self, run):
        with pytest.raises(InputError, match=r"no variant 'exakt'; did you mean 'exact'\?"):
            run.model("exakt", 0)
        with pytest.raises(InputError, match="no seed '3'; known: 0"):
            run.model("exact", 3)
