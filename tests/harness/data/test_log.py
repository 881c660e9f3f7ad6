from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.config import DataConfig
from harness.data.log import RawLog, build_log, encode, fingerprint
from harness.errors import InputError

EVENTS = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.sampled_from("pqrstuv"), st.integers(0, 5), st.integers(1, 5)),
    min_size=1,
    max_size=60,
)


def raw_log(events, **more) -> RawLog:
    user, users = encode(pa.array([e[0] for e in events]))
    item, items = encode(pa.array([e[1] for e in events]))
    time = np.array([e[2] for e in events])
    rating = np.array([e[3] for e in events], dtype=float)
    return RawLog(Path("made-up"), user, users, item, items, time, columns={"rating": rating}, **more)


def build(events, rules=None, **config):
    config = {"duplicates": "keep"} | config
    return build_log("made-up", raw_log(events), DataConfig(**config), rules=rules or {})


def as_rows(log) -> list[tuple]:
    """The log's events in its order, with raw ids."""
    user = np.repeat(log.users, log.lengths)
    columns = [user.tolist(), log.items[log.item].tolist(), log.time.tolist()]
    return list(zip(*columns, strict=True))


@given(EVENTS)
def test_events_are_ordered_by_user_time_and_file(events):
    order = list(dict.fromkeys(e[0] for e in events))
    expected = sorted(events, key=lambda e: (order.index(e[0]), e[2]))  # sorted() is stable
    log = build(events)
    assert as_rows(log) == [e[:3] for e in expected]
    assert log.users.tolist() == order
    assert log.items.tolist() == ["", *dict.fromkeys(e[1] for e in events)]


@given(EVENTS)
def test_labels_stay_with_their_events(events):
    order = list(dict.fromkeys(e[0] for e in events))
    expected = [[e[3] >= 4, e[3] == 1] for e in sorted(events, key=lambda e: (order.index(e[0]), e[2]))]
    log = build(events, {"like": "rating >= 4", "one": "rating == 1"})
    assert log.actions.tolist() == expected
    assert log.action_names == ("like", "one")


@given(EVENTS)
def test_tied_marks_events_at_the_time_of_the_one_before(events):
    log = build(events)
    rows = as_rows(log)
    expected = [False] + [a[0] == b[0] and a[2] == b[2] for a, b in itertools.pairwise(rows)]
    assert log.tied.tolist() == expected


@given(EVENTS, st.integers(1, 4), st.integers(1, 4))
def test_k_core_equals_repeated_filtering(events, user_events, item_events):
    left = events
    while True:
        kept = [
            e
            for e in left
            if sum(o[0] == e[0] for o in left) >= user_events and sum(o[1] == e[1] for o in left) >= item_events
        ]
        if kept == left:
            break
        left = kept
    if not left:
        with pytest.raises(InputError, match="no event is left"):
            build(events, min_user_events=user_events, min_item_events=item_events)
        return
    log = build(events, min_user_events=user_events, min_item_events=item_events)
    assert as_rows(log) == as_rows(build(left))
    assert log.fingerprint == build(left).fingerprint
    assert any("were dropped" in note for note in log.notes) == (len(left) < len(events))


@given(EVENTS, st.integers(0, 3))
def test_random_ties_shuffle_only_within_ties(events, seed):
    log, shuffled = build(events), build(events, ties="random", tie_seed=seed)
    assert sorted(as_rows(log)) == sorted(as_rows(shuffled))
    assert [row[::2] for row in as_rows(log)] == [row[::2] for row in as_rows(shuffled)]  # user and time
    assert shuffled.fingerprint == build(events, ties="random", tie_seed=seed).fingerprint


def test_random_ties_depend_on_the_seed():
    events = [("A", f"i{n}", 7, 1) for n in range(30)]
    orders = {tuple(build(events, ties="random", tie_seed=seed).item.tolist()) for seed in range(5)}
    assert len(orders) == 5
    assert tuple(range(1, 31)) not in orders


def test_milliseconds_order_events_within_a_second():
    raw = raw_log([("A", "p", 1999, 1), ("A", "q", 1001, 1), ("A", "r", 1999, 1)])
    raw.ticks = 1000
    log = build_log("made-up", raw, DataConfig(), rules={})
    assert log.items[log.item].tolist() == ["q", "p", "r"]
    assert log.time.tolist() == [1, 1, 1]
    assert log.tied.tolist() == [False, False, True]
    assert log.tie_share == pytest.approx(1 / 3)


def test_without_times_the_file_is_the_order():
    raw = raw_log([("A", "p", 9, 1), ("B", "p", 9, 1), ("A", "q", 1, 1)])
    raw.time = None
    log = build_log("made-up", raw, DataConfig(), rules={})
    assert log.items[log.item].tolist() == ["p", "q", "p"]
    assert log.time is None
    assert log.tie_share is None
    assert "no times" in log.notes[0]


REPEATED = [("A", "p", 1, 5), ("A", "q", 2, 5), ("A", "p", 1, 5), ("A", "p", 1, 4), ("A", "p", 1, 5)]


def test_repeated_rows_are_refused_with_their_lines(tmp_path):
    raw = raw_log(REPEATED)
    raw.path = tmp_path / "log"
    raw.path.write_text("header\n\n" + "row\n" * 5)  # a blank line is not a row, but it counts as a line
    with pytest.raises(InputError, match=r"line 5 repeats line 3 exactly \(2 such rows\).*data\.duplicates"):
        build_log("made-up", raw, DataConfig(), rules={})


def test_repeated_rows_are_kept_or_dropped_on_request():
    assert build(REPEATED, duplicates="keep").n_events == 5
    first = build(REPEATED, duplicates="first")
    assert as_rows(first) == [("A", "p", 1), ("A", "p", 1), ("A", "q", 2)]  # one differs in its rating
    assert first.notes == ("rows that repeat another exactly: 2, dropped",)
    by_data_set = build_log("made-up", raw_log(REPEATED), DataConfig(), rules={}, duplicates="first")
    assert by_data_set.fingerprint == first.fingerprint


def test_a_list_of_items_may_repeat_itself():
    raw = raw_log(REPEATED, rows=False)
    assert build_log("made-up", raw, DataConfig(), rules={}).n_events == 5


def test_an_empty_log_is_refused():
    with pytest.raises(InputError, match="holds no events"):
        build([])


def test_constant_actions_are_said():
    log = build(
        [("A", "p", 1, 5), ("A", "q", 2, 4)], {"like": "rating >= 4", "hate": "rating < 1", "love": "rating == 5"}
    )
    assert [note.split(":")[0] for note in log.notes] == [
        "action 'like' occurs in every event",
        "action 'hate' never occurs",
    ]


def test_configured_actions_replace_those_of_the_data_set():
    events = [("A", "p", 1, 5)]
    assert build(events, {"like": "rating >= 4"}, actions={"five": "rating == 5"}).action_names == ("five",)
    none = build(events, {"like": "rating >= 4"}, actions={})
    assert (none.actions, none.action_names) == (None, ())


def test_item_texts_follow_dense_ids_and_missing_ones_are_empty():
    raw = raw_log([("A", "q", 1, 1), ("A", "p", 2, 1)])
    raw.item_table = pd.DataFrame({"title": ["Pp", "Xx"], "brand": ["", ""]}, index=["p", "x"])
    log = build_log("made-up", raw, DataConfig(), rules={}, text_fields=("brand", "title", "none"))
    assert log.item_table.to_dict() == {"title": {1: "", 2: "Pp"}}
    assert log.text_fields == ("title",)


def test_fingerprint_of_known_bytes():
    """Written out by hand, so that no library has a say in it."""
    expected = hashlib.sha256()
    expected.update(b"str[1]" + (3).to_bytes(8, "little") + b"log")
    expected.update(b"str[2]" + (1).to_bytes(8, "little") + (2).to_bytes(8, "little") + "aé".encode())
    expected.update(b"int[2]" + (5).to_bytes(8, "little") + (-1).to_bytes(8, "little", signed=True))
    expected.update(b"none")
    parts = ("log", np.array(["a", "é"]), np.array([5, -1], dtype=">i4"), None)
    assert fingerprint(*parts) == expected.hexdigest()


@given(EVENTS, EVENTS)
def test_logs_have_the_same_fingerprint_if_and_only_if_they_are_the_same(one, two):
    a, b = build(one), build(two)
    same = as_rows(a) == as_rows(b) and a.users.tolist() == b.users.tolist() and a.items.tolist() == b.items.tolist()
    assert (a.fingerprint == b.fingerprint) == same
    labelled = build(one, {"like": "rating >= 4"})
    assert labelled.fingerprint != a.fingerprint
