"""Windows and batches against loops over users."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from harness.data.batches import Sequences, Windows, all_positions, dealt, prefixes, training_windows
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.interface import Task

LENGTHS = st.lists(st.integers(0, 25), min_size=1, max_size=12)


def _bounds(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    end = np.cumsum(lengths)
    return end - lengths, end


@given(LENGTHS, st.integers(1, 10), st.integers(1, 10), st.booleans())
def test_every_event_is_supervised_exactly_once(lengths, max_length, stride, random):
    begin, end = _bounds(lengths)
    rng = np.random.default_rng(0) if random else None
    w = all_positions(begin, begin, end, max_length=max_length, stride=min(stride, max_length), rng=rng)
    supervised = [e for s, f in zip(w.supervised, w.end, strict=True) for e in range(s, f)]
    assert sorted(supervised) == list(range(sum(lengths)))
    assert (w.length <= max_length).all()
    assert (w.start >= begin[w.user]).all()
    assert (w.end <= end[w.user]).all()


@given(LENGTHS, st.integers(1, 10))
def test_windows_read_as_far_back_as_allowed(lengths, max_length):
    begin, end = _bounds(lengths)
    w = all_positions(begin, begin, end, max_length=max_length, stride=1, rng=None)
    np.testing.assert_array_equal(w.start, np.maximum(begin[w.user], w.end - max_length))


@given(LENGTHS, st.integers(1, 10), st.one_of(st.none(), st.floats(0.05, 1)), st.integers(1, 30))
def test_prefixes_are_all_or_a_sample_without_replacement(lengths, max_length, share, epoch):
    begin, end = _bounds(lengths)
    w = prefixes(begin, end, max_length=max_length, share=share, seed=1, epoch=epoch)
    assert len(set(w.supervised)) == len(w)
    assert abs(len(w) - (share or 1) * sum(lengths)) <= 1
    np.testing.assert_array_equal(w.end, w.supervised + 1)
    np.testing.assert_array_equal(w.user, np.searchsorted(end, w.supervised, side="right"))
    np.testing.assert_array_equal(w.start, np.maximum(begin[w.user], w.end - max_length))


@given(st.integers(0, 200), st.integers(1, 12), st.integers(0, 3))
def test_a_share_of_one_in_k_deals_every_row_once_in_k_epochs(n, k, deck):
    epochs = [dealt(n, 1 / k, seed=5, epoch=k * deck + turn) for turn in range(1, k + 1)]
    np.testing.assert_array_equal(np.sort(np.concatenate(epochs)), np.arange(n))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])  # 0.3: a tenth of each deck is left over; 0.7: one epoch a deck
def test_dealt_prefixes_are_uniform_over_positions_and_history_lengths(share):
    """Chi-squared against an equal share of every prefix: by its place in the history and by its user's length.

    The sample of an epoch has no repetitions, which narrows the counts, so that the bound on the statistic is safe;
    an equal number per user (few prefixes of long histories) exceeds it fifty times over.
    """
    lengths = np.random.default_rng(0).geometric(0.12, 400)
    begin, end = _bounds(lengths)
    firsts = [dealt(sum(lengths), share, 3, epoch) for epoch in range(1, 22, int(1 / share))]  # of each deck
    user = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(sum(lengths)) - begin[user]
    for value in (position, lengths[user]):
        group = np.digitize(value, [2, 4, 8, 16, 32])
        expected = np.bincount(group) * sum(map(len, firsts)) / sum(lengths)
        found = sum(np.bincount(group[rows], minlength=len(expected)) for rows in firsts)
        assert chisquare(found, expected).pvalue > 0.001
    windows = prefixes(begin, end, max_length=9, share=share, seed=3, epoch=1)
    np.testing.assert_array_equal(windows.supervised, firsts[0])


def test_shuffled_decks_differ_between_seeds_and_decks():
    drawn = [dealt(100, 0.5, seed, epoch).tolist() for seed in (0, 1) for epoch in (1, 2, 3)]
    assert len({tuple(rows) for rows in drawn}) == 6


@pytest.fixture(scope="module")
def log():
    return load("synthetic-sessions:users=40,items=20,length=15", DataConfig())


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("rows", ["positions", "prefixes"])
def test_batches_hold_what_a_loop_over_events_finds(log, task, rows):
    split = make_split(log, DataConfig())
    sequences = Sequences(log)
    windows = training_windows(log, split, task, rows=rows, max_length=6, rng=np.random.default_rng(0))
    found = []
    for batch, taken in sequences.batches(windows, sequences.groups(windows, 7), task, supervise=True):
        width = batch.items.shape[1]
        for flat in batch.valid.tolist():
            b, t = divmod(flat, width)
            event = windows.start[taken[b]] + t
            found.append(int(event))
            assert batch.items[b, t] == log.item[event]
            assert batch.users[b] == windows.user[taken[b]]
            assert t < batch.lengths[b]
            if task is Task.RETRIEVAL:
                assert batch.targets[b, t] == log.item[event + 1]
                assert event + 1 < split.train_end[batch.users[b]]  # no target from validation or test
        assert (batch.items[torch.arange(width) >= batch.lengths[:, None]] == 0).all()
        if task is Task.RETRIEVAL:
            assert int((batch.targets > 0).sum()) == len(batch.valid)
    last = split.train_end - (task is Task.RETRIEVAL)
    expected = [e for u in range(len(log.users)) for e in range(log.offsets[u], last[u])]
    assert sorted(found) == expected


def test_shuffled_groups_hold_each_row_once_and_differ_between_epochs(log):
    split = make_split(log, DataConfig())
    windows = training_windows(
        log, split, Task.RETRIEVAL, rows="positions", max_length=50, rng=np.random.default_rng(0)
    )
    sequences = Sequences(log)
    one, two = (np.concatenate(sequences.groups(windows, 8, np.random.default_rng([0, e]))) for e in (1, 2))
    assert sorted(one) == sorted(two) == list(range(len(windows)))
    assert (one != two).any()


def test_a_history_batch_holds_no_target(log):
    windows = Windows(*(np.array([v]) for v in (0, log.offsets[0], log.offsets[1] - 1, log.offsets[1] - 2)))
    batch = Sequences(log).batch(windows, Task.RETRIEVAL, supervise=False)
    assert batch.targets is None
    assert batch.valid is None
    assert batch.items.flatten()[batch.last()].tolist() == [log.item[log.offsets[1] - 2]]
