"""Attention statistics and example users against loops, on a model whose attention is written down."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from harness.baselines.interleaved import Interleaved
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.files import digest
from harness.interface import Batch, Task
from harness.probes.attention import attention_statistics
from harness.probes.examples import EVENTS, attention_examples
from harness.probes.relevance import Relevance
from harness.tasks.action import ActionPrediction


@pytest.fixture(scope="module")
def histories(data):
    windows = data.histories("test")
    return [
        (data.log.item[s:e].tolist(), int(data.log.item[e]))
        for s, e in zip(windows.start, windows.end, strict=True)
    ]  # fmt: skip


def weights(model, layer, head, items):
    """(L, 2) weights on the tokens of each event."""
    item = torch.tensor(items).double()
    return np.stack([model.weight(layer, head, item, t).numpy() for t in (0, 1)], 1)


def test_statistics_against_loops(data, waves, histories):
    table = attention_statistics(waves, data).to_pandas()
    relevance = Relevance(data.log, data.split)
    found = table.set_index(["layer", "head", "statistic", "bin"])["value"]
    users = table.set_index(["layer", "head", "statistic", "bin"])["users"]
    for layer in range(waves.layers):
        for head in range(waves.heads):
            expected, seen = {}, {}

            def add(name, place, value, expected=expected):
                expected[name, place] = expected.get((name, place), 0) + value

            for items, target in histories:
                row = weights(waves, layer, head, items)
                share = np.abs(row) / np.abs(row).sum()
                for place in range(len(items)):
                    back = len(items) - 1 - place
                    seen[back] = seen.get(back, 0) + 1
                    add("recency", back, row[place].sum())
                    add("recency_abs", back, share[place].sum())
                entropy = -(share * np.log(share)).sum()
                add("entropy", -1, entropy)
                add("entropy_relative", -1, entropy / np.log(share.size))
                add("negative", -1, share[row < 0].sum())
                add("sum", -1, row.sum())
                near = relevance.cosine(np.array(items), np.full(len(items), target))
                order = np.argsort(near, kind="stable")
                for name, part in (("relevance", row), ("relevance_abs", share)):
                    spread = np.repeat(part.sum(1)[order] / 10, 10)  # laid out on 10 n cells, an event on ten of them
                    for value in np.unique(near):  # equal relevance shares its stretch
                        cells = np.repeat(near[order] == value, 10)
                        spread[cells] = spread[cells].mean()
                    for bin_, mass in enumerate(spread.reshape(10, -1).sum(1)):
                        add(name, bin_, mass)
            for (name, place), total in expected.items():
                count = seen[place] if name.startswith("recency") else len(histories)
                assert users[layer, head, name, place] == count
                assert found[layer, head, name, place] == pytest.approx(total / count, abs=1e-9), (name, place)


@pytest.fixture
def labelled():
    """Users with fewer and with more events than the window has, several of them in the test part."""
    config = DataConfig(split="within-user")
    log = load("synthetic-clusters:users=12,items=20,length=30", config)
    return ActionPrediction(log, make_split(log, config), max_length=8, metrics=["bce"])


@pytest.fixture
def interleaved(labelled):
    torch.manual_seed(0)
    return Interleaved(Interleaved.Config(dim=16, layers=1, heads=2), labelled.schema()).eval()


def test_actions_are_looked_at_once_per_user_where_the_last_one_is_predicted(labelled, interleaved):
    table = attention_statistics(interleaved, labelled).to_pandas()
    _, last = labelled.split.bounds("test")
    assert set(table["users"]) == {len(last)}
    recency = table[(table["statistic"] == "recency") & (table["head"] == 1)].set_index("bin")["value"]
    expected = np.zeros(8)
    for end in last:  # one user at a time, cut right after the item whose action is asked for
        items, actions = torch.from_numpy(labelled.log.item[end - 8 : end]), labelled.log.actions[end - 8 : end]
        batch = Batch(items[None], torch.tensor([8]), torch.zeros(1, dtype=torch.long))
        batch.actions = torch.from_numpy(actions)[None].float()
        seen = interleaved.attention(batch, Task.ACTION).maps[0][0, 1]
        row = seen[14, :15].detach().double()  # the last item's token
        assert row.sum() == pytest.approx(1)
        by_event = np.append(row.numpy(), 0).reshape(8, 2).sum(1)
        expected += by_event[::-1] / len(last)
    assert recency.to_numpy() == pytest.approx(expected, abs=1e-6)


def test_attention_behind_an_action_does_not_hang_on_it(labelled, interleaved):
    before = attention_statistics(interleaved, labelled)
    _, last = labelled.split.bounds("test")
    labelled.sequences.actions[torch.from_numpy(last - 1)] ^= 1
    assert attention_statistics(interleaved, labelled).equals(before)
    labelled.sequences.actions[torch.from_numpy(last - 2)] ^= 1
    assert not attention_statistics(interleaved, labelled).equals(before)


def test_uniform_attention_has_relative_entropy_one_though_the_own_action_is_hidden(labelled, interleaved):
    with torch.no_grad():
        for layer in interleaved.layers:
            layer.projection.weight.zero_()  # all scores are equal
    table = attention_statistics(interleaved, labelled).to_pandas()
    found = table[table["statistic"] == "entropy_relative"]["value"]
    assert found.to_numpy() == pytest.approx(1)


def test_deciles_hold_all_of_the_weight(data, waves):
    table = attention_statistics(waves, data).to_pandas()
    by_head = table.groupby(["statistic", "layer", "head"])["value"].sum()
    assert by_head["relevance_abs"].to_numpy() == pytest.approx(1)
    assert by_head["relevance"].to_numpy() == pytest.approx(by_head["sum"].to_numpy())


def test_examples_are_the_last_events_of_users_chosen_by_hash(data, waves, histories):
    windows = data.histories("test")
    found = attention_examples(waves, data)
    assert json.loads(json.dumps(found)) == found
    longest = [row for row, (items, _) in enumerate(histories) if len(items) == 7]  # the window's length
    expected = sorted(longest, key=lambda row: digest(str(data.log.users[windows.user[row]])))[:3]
    assert [e["user"] for e in found] == [data.log.users[windows.user[row]] for row in expected]
    for example, row in zip(found, expected, strict=True):
        items, target = histories[row]
        assert [e["item"] for e in example["events"]] == data.log.items[items].tolist()
        assert [e["title"] for e in example["events"]] == data.log.item_table.loc[items, "title"].tolist()
        assert example["target"]["item"] == data.log.items[target]
        for layer, heads in enumerate(example["layers"]):
            for head, values in enumerate(heads):
                assert values == pytest.approx(weights(waves, layer, head, items).sum(1), abs=1e-6)


def test_examples_of_long_histories_keep_the_rest_as_a_sum(make_data, waves):
    data = make_data("synthetic-sessions:users=40,items=30,length=40", max_length=40)
    for example in attention_examples(waves, data):
        user = data.log.users.tolist().index(example["user"])
        items = data.log.item[data.log.offsets[user] : data.log.offsets[user + 1] - 1]
        assert len(example["events"]) == EVENTS
        assert example["earlier"] == len(items) - EVENTS
        row = weights(waves, 1, 2, items.tolist()).sum(1)
        assert example["layers"][1][2] == pytest.approx(row[-EVENTS:], abs=1e-6)
        assert example["rest"][1][2] == pytest.approx(row[:-EVENTS].sum(), abs=1e-5)
