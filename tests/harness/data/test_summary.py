from __future__ import annotations

import json

import pytest

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.data.summary import describe

LINES = (
    "user_id:token\titem_id:token\tstars:float\ttimestamp:float",
    "u\ta\t5\t0",
    "u\tb\t1\t86400",
    "u\ta\t4\t172800",
    "v\ta\t2\t5",
    "v\tb\t3\t7",
    "v\tc\t4\t8",
    "v\td\t4\t8",
)


def test_a_small_log_by_hand(atomic):
    config = DataConfig(actions={"like": "stars >= 4"})
    inter = atomic(*LINES)
    atomic("item_id:token\ttitle:token_seq", "a\tA", "b\t", name="toy.item")
    log = load(str(inter), config)
    found = describe(log, make_split(log, config))
    assert json.loads(json.dumps(found)) == found
    assert (found["users"], found["items"], found["events"]) == (2, 4, 7)
    assert found["sparsity"] == pytest.approx(1 - 6 / 8)  # u has a twice
    assert found["length"] == {"min": 3, "median": 3.5, "mean": 3.5, "max": 4}
    assert found["time"] == {"first": "1970-01-01T00:00:00+00:00", "last": "1970-01-03T00:00:00+00:00"}
    assert found["ties"] == {"events": pytest.approx(1 / 7), "test_targets": 0.5}
    assert found["actions"] == {"like": pytest.approx(4 / 7)}
    assert found["items_without_text"] == 3
    assert found["split"]["train"] == {"events": 3, "users": 2}
    assert found["split"]["test"] == {"events": 2, "users": 2, "targets": 2, "targets_unseen_in_training": 1}
    assert found["published"] is None
    assert set(found["fingerprints"]) == {"files", "log", "split"}


def test_what_is_not_known_is_none(atomic):
    inter = atomic("user_id:token\titem_id:token", "u\ta", "u\tb", "u\tc")
    log = load(str(inter), DataConfig())
    found = describe(log, make_split(log, DataConfig()))
    assert found["time"] is None
    assert found["ties"] == {"events": None, "test_targets": None}
    assert found["actions"] == {}
    assert found["items_without_text"] is None


def test_published_counts_and_differences(real_data):
    for name, differences in (("amazon-beauty", {}), ("kuairand", {"events": (41_828, 41_712)})):
        log = load(name, DataConfig(), real_data)
        found = describe(log, make_split(log, DataConfig()))
        assert found["differences"] == differences
        assert found["published"]["users"] == found["users"]
    log = load("amazon-beauty", DataConfig(), real_data)
    assert describe(log, make_split(log, DataConfig()))["ties"]["test_targets"] == pytest.approx(0.4346, abs=1e-4)
