from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.times import read_times
from harness.errors import InputError


def read(*values, kind=None):
    return read_times(pa.chunked_array([pa.array(values, kind)]), lambda row: f"x.csv: line {row + 2}, column 't'")


MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1))


@given(st.lists(MOMENTS, min_size=1, max_size=5), st.sampled_from(["s", "ms", "us", "ns"]), st.booleans())
def test_every_unit_gives_the_same_seconds(moments, unit, as_text):
    """Against Python's own arithmetic."""
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    seconds = [int(moment.replace(tzinfo=UTC, microsecond=0).timestamp()) for moment in moments]
    numbers = [second * ticks + ticks // 2 for second in seconds]
    time, found, _ = read(*(map(str, numbers) if as_text else numbers))
    assert found == ticks
    assert (time // found).tolist() == seconds
    assert time.dtype == np.int64
    assert time.tolist() == numbers


@given(
    st.lists(MOMENTS, min_size=1, max_size=5),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from(["", "Z", "+02:00"]),
    st.sampled_from(" T"),
)
def test_iso_dates_give_the_moments_that_python_reads(moments, precision, zone, between):
    texts = [moment.isoformat(sep=between, timespec=precision) + zone for moment in moments]
    expected = [datetime.fromisoformat(text).replace(tzinfo=None if zone else UTC) for text in texts]
    if zone:
        expected = [datetime.fromisoformat(text) for text in texts]
    time, ticks, _ = read(*texts)
    assert (time // ticks).tolist() == [int(moment.replace(microsecond=0).timestamp()) for moment in expected]
    assert (time % ticks * 10**6 // ticks).tolist() == [moment.microsecond for moment in expected]


def test_arrows_own_times_and_days():
    assert read(1_700_000_000_123, kind=pa.timestamp("ms"))[:2] == ([1_700_000_000_123], 1000)
    assert read("2024-01-31", "2024-02-01")[0].tolist() == [1_706_659_200, 1_706_745_600]
    assert read(19_000, kind=pa.date32())[0].tolist() == [19_000 * 86_400]


@pytest.mark.parametrize("values", [(3, 1, 2), (0, 5), (1.5, 2.25), (20, 1_000_000)])
def test_counters_are_times_too(values):
    time, ticks, notes = read(*values)
    assert (time.tolist(), ticks, notes) == (list(values), 1, ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("1700000000", "1700000000000"), r"line 2, .*looks like seconds, but '1700000000000' \(line 3\) like milli"),
        (("1700000000000000", "0"), "line 3, .*'0' looks like seconds"),
        (("1700000000", "1700000001", "0"), "line 4, .*would be 1970-01-01, which is implausible"),
        (("1700000000", "99999999999"), "line 3, .*would be 5138-11-16, which is implausible"),
        (("1700000000", "nan"), "line 3, .*'nan' is not finite"),
        (("1700000000", "-inf"), "line 3, .*'-inf' is not finite"),
        (("1700000000", "17000\u20280000"), "line 3, .*is not a number"),
        (("1700000000", "1_7"), "line 3, .*'1_7' is not a number"),
        (("1700000000", ""), "line 3, .*'' is not a number"),
        (("1700000000", "2024-01-01"), "line 3, .*'2024-01-01' is not a number"),
        (("2024-01-01", "1700000000"), "line 3, .*neither a number nor an ISO date"),
        (("2024-01-01", ""), "line 3, .*the time '' is empty"),
        (("2024-01-01", "2024-02-30"), "line 3, .*'2024-02-30' is neither"),
        (("2024-01-01T00:00:00Z", "2024-01-01T00:00:00"), "line 3, .*has no time zone, unlike"),
        (("31.01.2024",), "line 2, .*neither a number nor an ISO date such as 2024-01-31"),
        ((5, -1), "line 3, .*-1 is negative"),
        ((5, None), "line 3, .*the time is missing"),
        ((1.5, float("nan")), "line 3, .*nan is not finite"),
        ((True, False), "line 2, .*of type bool"),
    ],
)
def test_times_that_are_none_are_refused_with_their_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        read(*values)
    assert "\n" not in str(caught.value)
