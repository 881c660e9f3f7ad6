"""PPMI against counting pairs of events one by one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.cooccurrence import ppmi


def make(histories: list[list[int]], n_items: int, held_out: int = 0):
    offsets = np.cumsum([0, *map(len, histories)])
    item = np.array([item for history in histories for item in history], dtype=np.int64)
    log = SimpleNamespace(items=np.arange(n_items + 1).astype(str), item=item, offsets=offsets)
    return log, SimpleNamespace(train_end=np.maximum(offsets[1:] - held_out, offsets[:-1]))


def by_hand(log, split, context: int, window: int | None) -> np.ndarray:
    n = len(log.items)
    count = np.zeros((n, n))
    for start, end in zip(log.offsets[:-1], split.train_end, strict=True):
        events = log.item[start:end].tolist()[-context:]
        pairs = {
            (one, other)
            for a, one in enumerate(events)
            for b, other in enumerate(events)
            if one != other and (window is None or abs(a - b) <= window)
        }
        for one, other in pairs:
            count[one, other] += 1
    total = count.sum(1)
    found = np.zeros((n, n))
    for one, other in zip(*np.nonzero(count), strict=True):
        found[one, other] = max(0, np.log(count[one, other] * total.sum() / (total[one] * total[other])))
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norm, out=np.zeros((n, n)), where=norm > 0)


histories = st.lists(st.lists(st.integers(1, 7), max_size=9), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(histories, st.integers(1, 10), st.one_of(st.none(), st.integers(1, 10)), st.integers(0, 2))
def test_rows_against_counting(histories, context, window, held_out):
    data = make(histories, 7, held_out)
    found = ppmi(*data, context, window).toarray()
    assert found == pytest.approx(by_hand(*data, context, window), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(histories)
def test_a_window_as_wide_as_the_history_is_none(histories):
    data = make(histories, 7)
    assert ppmi(*data, window=9).toarray() == pytest.approx(ppmi(*data).toarray(), abs=1e-12)
