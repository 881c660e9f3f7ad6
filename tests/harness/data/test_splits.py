from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.config import DataConfig
from harness.data.log import EventLog, RawLog, build_log, encode
from harness.data.splits import Split, make_split
from harness.errors import InputError

TARGETS = ("last", "first", "all")
LOGS = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=8)
"""The times of each user's events."""
CONFIGS = st.sampled_from(
    [
        DataConfig(short_users="train"),
        DataConfig(short_users="drop"),
        DataConfig(split="temporal"),
        DataConfig(split="temporal", valid_fraction=0.3, test_fraction=0.2),
        DataConfig(split="within-user"),
        DataConfig(split="within-user", valid_fraction=0.3, test_fraction=0.2),
    ]
)


def make_log(times: list[list[int]], with_times: bool = True) -> EventLog:
    user, users = encode(pa.array([f"u{u}" for u, row in enumerate(times) for _ in row]))
    item, items = encode(pa.array([f"i{n}" for n in range(len(user))]))
    time = np.array([t for row in times for t in row]) if with_times else None
    return build_log("made-up", RawLog("made-up", user, users, item, items, time), DataConfig(), rules={})


def split_or_none(times, config):
    """None where the split would leave a part without events."""
    log = make_log(times)
    try:
        return log, make_split(log, config)
    except InputError:
        with pytest.raises(InputError, match="leaves no"):
            make_split(log, config)
        return None


@given(LOGS, CONFIGS)
def test_parts_follow_one_another_and_never_overlap(times, config):
    made = split_or_none(times, config)
    if made is None:
        return
    log, split = made
    bounds = np.stack([log.offsets[:-1], split.train_end, split.valid_end, split.test_end, log.offsets[1:]])
    assert (np.diff(bounds, axis=0) >= 0).all()
    positions = np.concatenate([split.events(phase)[1] for phase in ("train", "valid", "test")])
    assert len(np.unique(positions)) == len(positions)
    if config.short_users != "drop":
        assert len(positions) == log.n_events


@given(LOGS, CONFIGS)
def test_targets_are_the_last_event_of_the_part_and_belong_to_their_user(times, config):
    made = split_or_none(times, config)
    if made is None:
        return
    log, split = made
    owner = np.repeat(np.arange(log.n_users), log.lengths)
    for phase in ("valid", "test"):
        by_user = {}
        for user, position in zip(*split.events(phase), strict=True):
            assert owner[position] == user
            by_user[user] = position
        expected = {u: p for u, p in by_user.items() if p > log.offsets[u]}  # something comes before it
        assert dict(zip(*split.targets(phase), strict=True)) == expected


def test_leave_one_out():
    log = make_log([[1, 2, 3], [5, 6, 7, 8]])
    split = make_split(log, DataConfig())
    assert [part.tolist() for part in split.targets("valid")] == [[0, 1], [1, 5]]
    assert [part.tolist() for part in split.targets("test")] == [[0, 1], [2, 6]]
    assert split.events("train")[1].tolist() == [0, 3, 4]


@given(LOGS)
def test_temporal_split_is_the_same_moment_for_all(times):
    made = split_or_none(times, DataConfig(split="temporal"))
    if made is None:
        return
    log, split = made
    train, valid, test = (log.time[split.events(phase)[1]] for phase in ("train", "valid", "test"))
    later = np.concatenate([valid, test])
    assert train.max() < later.min(initial=10**9)
    assert valid.max(initial=-1) < test.min(initial=10**9)
    # No more than the share asked for comes before each moment, ties at the moment aside.
    assert len(train) <= 0.8 * log.n_events + 1e-6
    assert len(train) + len(valid) <= 0.9 * log.n_events + 1e-6
    assert len(test) + (log.time == test.min()).sum() >= 0.1 * log.n_events


@pytest.mark.parametrize(
    ("length", "parts"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (5, (4, 0, 1)), (10, (8, 1, 1)), (20, (16, 2, 2)), (100, (80, 10, 10))],
)
def test_within_user_parts(length, parts):
    split = make_split(make_log([list(range(length)), list(range(10))]), DataConfig(split="within-user"))
    sizes = [int(np.diff(split.bounds(phase), axis=0)[0, 0]) for phase in ("train", "valid", "test")]
    assert tuple(sizes) == parts


SHORT = [[1, 2, 3], [1, 2], [1]]


def test_short_users_are_refused_by_name_and_number():
    with pytest.raises(InputError, match=r"2 users have fewer than 3 events.*user 'u1' has 2.*data\.short_users"):
        make_split(make_log(SHORT), DataConfig())


def test_short_users_train_or_are_left_out():
    log = make_log(SHORT)
    assert make_split(log, DataConfig(short_users="train")).events("train")[1].tolist() == [0, 3, 4, 5]
    dropped = make_split(log, DataConfig(short_users="drop"))
    assert dropped.events("train")[1].tolist() == [0]
    assert dropped.targets("test")[0].tolist() == [0]


def test_a_temporal_split_needs_times():
    with pytest.raises(InputError, match="needs times"):
        make_split(make_log([[1, 2, 3]], with_times=False), DataConfig(split="temporal"))


def test_a_split_without_a_test_or_training_part_is_refused():
    with pytest.raises(InputError, match="leaves no test event"):
        make_split(make_log([[1], [2]]), DataConfig(split="within-user"))
    with pytest.raises(InputError, match="leaves no training event"):
        make_split(make_log([[1, 1, 1]]), DataConfig(split="temporal"))


def test_the_fingerprint_tells_splits_and_logs_apart():
    times = [list(range(10)), list(range(5, 15))]
    configs = [DataConfig(), DataConfig(split="temporal"), DataConfig(split="within-user")]
    prints = {make_split(make_log(times), config).fingerprint for config in configs}
    prints.add(make_split(make_log(times[::-1]), DataConfig()).fingerprint)
    assert len(prints) == 4
    assert make_split(make_log(times), DataConfig()).fingerprint in prints


@settings(deadline=None)
@given(LOGS, st.sampled_from(["temporal", "within-user"]), st.sampled_from(TARGETS))
def test_targets_of_a_part_by_brute_force(times, kind, targets):
    made = split_or_none(times, DataConfig(split=kind, valid_fraction=0.3, test_fraction=0.3, targets=targets))
    if made is None:
        return
    log, split = made
    for phase in ("valid", "test"):
        first, end = split.bounds(phase)
        expected = []
        for user in range(log.n_users):
            part = list(range(first[user], end[user]))
            part = {"last": part[-1:], "first": part[:1], "all": part}[targets]
            expected += [(user, event) for event in part if event > log.offsets[user]]
        assert list(zip(*(part.tolist() for part in split.targets(phase)), strict=True)) == expected


def test_which_events_are_targets_changes_the_fingerprint_and_the_note():
    log = make_log([[1, 2, 3, 7, 8, 9], [4, 5, 6, 7, 8, 9], [8]])
    splits = {t: make_split(log, DataConfig(split="temporal", test_fraction=0.4, targets=t)) for t in TARGETS}
    assert len({split.fingerprint for split in splits.values()}) == 3
    assert "all with one before them are ranked: 6 of 7" in splits["all"].notes[0]
    assert "the first alone is ranked: 2 of 7" in splits["first"].notes[0]
    assert "targets" not in DataConfig().model_dump()


@given(lengths=st.lists(st.integers(3, 9), min_size=1, max_size=20), size=st.integers(1, 40))
def test_pieces_are_the_events_in_whole_users(lengths, size):
    offsets = np.cumsum([0, *lengths])
    train, valid, test = offsets[1:] - 2, offsets[1:] - 1, offsets[1:]
    split = Split("x", offsets, train, valid, test, "")
    for phase in ("train", "valid"):
        found = list(split.pieces(phase, size))
        joined = [np.concatenate([piece[part] for piece in found]).tolist() for part in (0, 1)]
        assert joined == [part.tolist() for part in split.events(phase)]
        users = [set(piece[0].tolist()) for piece in found]
        assert sum(map(len, users)) == len(set().union(*users))
        assert all(len(piece[0]) < size + max(lengths) for piece in found)
