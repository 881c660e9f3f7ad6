"""Attention statistics and example users against loops, on a model whose attention is written down."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from harness.files import digest
from harness.tasks.attention import attention_statistics
from harness.tasks.examples import EVENTS, attention_examples
from harness.tasks.relevance import Relevance


@pytest.fixture(scope="module")
def histories(data):
    windows = data.windows("test")
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


def test_deciles_hold_all_of_the_weight(data, waves):
    table = attention_statistics(waves, data).to_pandas()
    by_head = table.groupby(["statistic", "layer", "head"])["value"].sum()
    assert by_head["relevance_abs"].to_numpy() == pytest.approx(1)
    assert by_head["relevance"].to_numpy() == pytest.approx(by_head["sum"].to_numpy())


def test_examples_are_the_last_events_of_users_chosen_by_hash(data, waves, histories):
    windows = data.windows("test")
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
