"""Times of events, as numbers since 1970 in any unit or as ISO dates."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import InputError

__all__ = ["read_times"]

UNITS = ((1e11, 1, "seconds"), (1e14, 10**3, "milliseconds"), (1e17, 10**6, "microseconds"))
"""Times below the limit are in this unit: 1e11 seconds are the year 5138, 1e11 milliseconds 1973, and so on."""
NANOSECONDS = (10**9, "nanoseconds")
EARLY, DATED, LATE = 10**7, 10**8, 4_102_444_800
"""Seconds: April 1970, March 1973 and the year 2100."""
ARROW_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)


def read_times(values: pa.ChunkedArray, where: Callable[[int], str]) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """(N,) int64 (float64 where there are fractions), how many of them make a second, and a note on what was guessed.

    ``values`` are numbers, texts or Arrow's own times; ``where`` names the place of a row, for messages.

    Raises:
        InputError: a value that is not a time, is negative or not finite; values in several units; among dates one
            that can't be (1970, as where a time is missing, or after 2100). The message names the line.
    """
    kind = values.type
    if values.null_count:
        row = int(np.argmax(pc.is_null(values).to_numpy(zero_copy_only=False)))
        raise InputError(f"{where(row)}: the time is missing; fill it in or drop the row")
    if pa.types.is_date(kind):
        return values.cast(pa.timestamp("s")).cast(pa.int64()).to_numpy(), 1, ()
    if pa.types.is_timestamp(kind):
        return values.cast(pa.int64()).to_numpy(), ARROW_UNITS[kind.unit], ()
    if pa.types.is_integer(kind):
        time = values.cast(pa.int64()).to_numpy()
    elif pa.types.is_floating(kind):
        time = values.cast(pa.float64()).to_numpy()
    else:
        if pa.types.is_dictionary(kind):
            values = values.cast(kind.value_type)
        if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
            raise InputError(f"{where(0)}: the times are of type {kind}; write numbers or ISO dates")
        values = pc.ascii_trim_whitespace(values)
        if len(values) and not NUMBER.fullmatch(values[0].as_py()):
            return (*_iso(values, where), ())
        time = _numbers(values, where)
    return _in_units(time, values, where)


def _numbers(values: pa.ChunkedArray, where: Callable[[int], str]) -> np.ndarray:
    for kind in (pa.int64(), pa.float64()):
        try:
            return values.cast(kind).to_numpy()
        except pa.ArrowInvalid:
            continue
    # The first that Arrow refuses: one end of the rows before it is known to pass, the other not to.
    passes, fails = 0, len(values)
    while fails - passes > 1:
        middle = (passes + fails) // 2
        try:
            values.slice(0, middle).cast(pa.float64())
            passes = middle
        except pa.ArrowInvalid:
            fails = middle
    text = values[passes].as_py()
    kind = "is not finite" if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity") else "is not a number"
    raise InputError(f"{where(passes)}: {text[:40]!r} {kind}; fix it or drop the line")


def _in_units(
    time: np.ndarray, values: pa.ChunkedArray, where: Callable[[int], str]
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    if time.dtype.kind == "f":
        bad = ~np.isfinite(time)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"{where(row)}: {_shown(values[row])} is not finite; fix it or drop the line")
        if np.abs(time).max(initial=0) < 2**53 and (whole := time.astype(np.int64), (whole == time).all())[1]:
            time = whole
    if not len(time):
        return time, 1, ()
    low, high = int(np.argmin(time)), int(np.argmax(time))
    if time[low] < 0:
        raise InputError(
            f"{where(low)}: {_shown(values[low])} is negative, which a time can't be; fix it or drop the line"
        )
    (ticks, unit), (least, other) = _unit(time[high]), _unit(time[low])
    if ticks != least:
        raise InputError(
            f"{where(low)}: the time {_shown(values[low])} looks like {other}, but {_shown(values[high])} "
            f"({_place(where(high))}) like {unit}; write all times in one unit, or drop the line if its time is missing"
        )
    seconds = ticks if float(np.median(time)) >= DATED * ticks else None
    if seconds:
        for row, off in ((low, time[low] < EARLY * ticks), (high, time[high] > LATE * ticks)):
            if off:
                date = datetime.fromtimestamp(min(int(time[row]) // ticks, 253_000_000_000), UTC).date()
                raise InputError(
                    f"{where(row)}: the time {_shown(values[row])} would be {date}, which is implausible beside the "
                    "others; fix it, or drop the line if its time is missing"
                )
    note = f"times are taken as 1/{ticks} of a second ({unit}), which their size suggests"
    return time, ticks, (note,) if ticks > 1 else ()


def _unit(moment: float) -> tuple[int, str]:
    return next(((ticks, unit) for limit, ticks, unit in UNITS if moment < limit), NANOSECONDS)


def _iso(values: pa.ChunkedArray, where: Callable[[int], str]) -> tuple[np.ndarray, int]:
    # A time with a zone and one without can't be compared, so all have one or none has.
    for zone in (None, "UTC"):
        for unit in ("s", "us", "ns"):
            try:
                return values.cast(pa.timestamp(unit, zone)).cast(pa.int64()).to_numpy(), ARROW_UNITS[unit]
            except pa.ArrowInvalid:
                continue
    texts = values.to_pylist()
    zoned = _zoned(texts[0])
    for row, text in enumerate(texts):
        if _zoned(text) is None:
            what = (
                "is empty"
                if not text
                else "is neither a number nor an ISO date such as 2024-01-31 or 2024-01-31T08:30:00"
            )
            raise InputError(f"{where(row)}: the time {text!r} {what}; rewrite it or drop the line")
        if _zoned(text) != zoned:
            raise InputError(
                f"{where(row)}: the time {text!r} has {'a' if not zoned else 'no'} time zone, unlike the lines before; "
                "write all times alike"
            )
    raise InputError(f"{where(0)}: times such as {texts[0]!r} can't be read; write them as 2024-01-31T08:30:00")


def _zoned(text: str) -> bool | None:
    """Whether an ISO date names its zone; None where it is not an ISO date."""
    for zone in (None, "UTC"):
        for unit in ("s", "us", "ns"):
            try:
                pa.array([text]).cast(pa.timestamp(unit, zone))
                return zone is not None
            except pa.ArrowInvalid:
                continue
    return None


def _shown(value: pa.Scalar) -> str:
    return repr(value.as_py())


def _place(where: str) -> str:
    """The part of a place after the file's path."""
    return where.rsplit(": ", 1)[-1].split(",", maxsplit=1)[0]
