"""A log of events as flat arrays: each user's events contiguous, in a stable chronological order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.data.actions import apply_rules
from harness.data.config import DataConfig
from harness.data.tables import line_of_row
from harness.errors import InputError

__all__ = ["EventLog", "RawLog", "build_log", "encode", "fingerprint"]


@dataclass(frozen=True, eq=False)
class EventLog:
    """U users, I items, N events, A actions. Event ``e`` of user ``u`` lies in ``offsets[u]:offsets[u + 1]``."""

    name: str
    users: np.ndarray
    """(U,) str: raw ids, in order of first appearance in the file."""
    items: np.ndarray
    """(I + 1,) str: raw ids, in order of first appearance in the file; items[0] is "" (padding)."""
    offsets: np.ndarray
    """(U + 1,) int64."""
    item: np.ndarray
    """(N,) int64 in 1..I."""
    time: np.ndarray | None
    """(N,) int64 seconds, or None where the source has no times."""
    tied: np.ndarray | None
    """(N,) bool: the event has the time of the user's event before it, at the source's resolution (which may
    be finer than seconds). None where the source has no times."""
    actions: np.ndarray | None
    """(N, A) uint8 in {0, 1}."""
    action_names: tuple[str, ...]
    item_table: pd.DataFrame | None
    """Index 1..I, every column a string; "" where the source says nothing about an item."""
    text_fields: tuple[str, ...]
    """The columns of ``item_table`` that describe an item, most telling first."""
    files: dict[str, str]
    """File name -> SHA-256 of what was read."""
    fingerprint: str
    """SHA-256 of ids, order, times and actions; independent of machine and library versions."""
    part: np.ndarray | None = None
    """(N,) int8 in {0, 1, 2}: training, validation and test, as the source's own files say; None where they don't."""
    notes: tuple[str, ...] = ()
    """What was done to the data and what a reader of its results must know, one sentence each."""

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items) - 1

    @property
    def n_events(self) -> int:
        return len(self.item)

    @property
    def lengths(self) -> np.ndarray:
        """(U,) int64: events of each user."""
        return np.diff(self.offsets)

    @property
    def tie_share(self) -> float | None:
        """Share of events at the same time as the user's event before."""
        return None if self.tied is None else float(self.tied.mean())


@dataclass
class RawLog:
    """What a reader found: N events in the order of the file, ids as dense codes in order of first appearance."""

    path: Path
    """The file of events, for messages."""
    user: np.ndarray
    """(N,) integers into ``users``."""
    users: np.ndarray
    item: np.ndarray
    """(N,) integers into ``items``."""
    items: np.ndarray
    time: np.ndarray | None = None
    """(N,) int64 or float64, ``ticks`` to the second."""
    ticks: int = 1
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    """(N,) float64 or str: what else the log holds, for action rules."""
    item_table: pd.DataFrame | None = None
    """Index: raw item id; columns of strings."""
    rows: bool = True
    """One event a line, so that an exact repeat is suspicious. In a list of items a repeat is a repeat."""
    header: bool = True
    """Whether a header line stands above the events."""
    part: np.ndarray | None = None
    """(N,) int8: 0, 1 and 2 for events out of a file of training, validation and test events."""
    locate: Callable[[int], str] | None = None
    """Row -> its place in ``path``, for messages, where the rows are not simply lines."""
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dropped: int = 0
    """Rows that the reader left out; the publishers count them."""


def encode(values: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int32 codes and the (V,) str ids they stand for, in order of first appearance."""
    if isinstance(values, pa.ChunkedArray):
        if pa.types.is_dictionary(values.type):
            values = values.unify_dictionaries()  # chunk after chunk, so that first appearance stays the order
        values = values.combine_chunks()
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    codes, ids = coded.indices.to_numpy().astype(np.int32), np.array(coded.dictionary.to_pylist(), dtype=str)
    if len(codes) and not _by_appearance(codes, ids):  # a dictionary that came with the file, such as sorted categories
        codes, seen = pd.factorize(codes)
        codes, ids = codes.astype(np.int32), ids[seen]
    return codes, ids


def fingerprint(*parts: str | np.ndarray | None) -> str:
    """SHA-256 over strings, arrays of strings and arrays of integers: utf-8 and little-endian int64 with their
    lengths in front, hence the same on every machine and for every library version."""
    sha = hashlib.sha256()
    for part in parts:
        if part is None:
            sha.update(b"none")
        elif isinstance(part, np.ndarray) and part.dtype.kind in "iub":
            sha.update(f"int{list(part.shape)}".encode())
            sha.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        else:
            encoded = [text.encode() for text in ([part] if isinstance(part, str) else part.tolist())]
            sha.update(f"str[{len(encoded)}]".encode())
            sha.update(np.array([len(text) for text in encoded], dtype="<i8").tobytes())
            sha.update(b"".join(encoded))
    return sha.hexdigest()


def build_log(
    name: str,
    raw: RawLog,
    config: DataConfig,
    *,
    rules: Mapping[str, str],
    duplicates: str = "error",
    text_fields: tuple[str, ...] = (),
) -> EventLog:
    """Filters, orders and labels the events of ``raw``.

    Users' events are sorted by time with a stable sort, so that events at the same time keep the order of the
    file; without times the order of the file is the order. ``rules`` and ``duplicates`` are the data set's own,
    used where ``config`` names none.

    Raises:
        InputError: no event, repeated rows (unless allowed), nothing left after filtering, a rule that does not
            fit the columns, descriptions of none of the items, an event in two parts of a given split.
    """
    if len(raw.item) == 0:
        raise InputError(f"{raw.path} holds no events; restore it from its source")
    notes = list(raw.notes)
    if config.split == "given":
        _check_overlap(raw)
    kept, user, item, users, items = _arranged(raw, config, duplicates, notes)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    part = None if raw.part is None else raw.part[kept]
    time = tied = None
    if raw.time is not None:
        time, tied = _times(raw.time[kept], raw.ticks, user)
    else:
        notes.append("the source has no times: the order of the file is taken as the order of events")
    if config.ties == "random":
        notes.append(f"events of a user at the same time were shuffled once with seed {config.tie_seed}")
    del user

    rules = rules if config.actions is None else config.actions
    actions = _actions(raw, kept, rules, notes) if rules else None

    items = np.concatenate([[""], items])
    _check_described(raw, items, notes)
    table, text_fields = _item_table(raw.item_table, items, text_fields)
    return EventLog(
        name=name,
        users=users,
        items=items,
        offsets=offsets,
        item=item,
        time=time,
        tied=tied,
        actions=actions,
        action_names=tuple(rules),
        item_table=table,
        text_fields=text_fields,
        part=part,
        files=dict(raw.files),
        fingerprint=fingerprint("log 1", users, items, offsets, item, time, np.array(list(rules), dtype=str), actions),
        notes=tuple(notes),
    )


def _arranged(
    raw: RawLog, config: DataConfig, duplicates: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows that are left, in their final order: (N,) rows of ``raw``, (N,) users from 0, (N,) items from 1, and
    the (U,) and (I,) ids of these."""
    order = _order(raw.user, raw.time, raw.part, config)
    kept = _core(raw, _without_repeats(raw, order, config.duplicates or duplicates, notes), config, notes)
    if len(kept) == len(raw.item) and _by_appearance(raw.user, raw.users) and _by_appearance(raw.item, raw.items):
        user, item, users, items = raw.user, raw.item, raw.users, raw.items
        kept = order
    else:
        user, seen = pd.factorize(raw.user[kept])
        users = raw.users[seen]
        item, seen = pd.factorize(raw.item[kept])
        items = raw.items[seen]
        time, part = (None if values is None else values[kept] for values in (raw.time, raw.part))
        order = _order(user, time, part, config)
        kept = kept[order]
    return kept, user[order], item[order].astype(np.int64) + 1, users, items


def _times(ticks: np.ndarray, to_a_second: int, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 seconds, and (N,) bool: whether an event has the time of the user's event before it."""
    seconds = np.floor_divide(ticks, to_a_second) if to_a_second > 1 else np.floor(ticks)
    tied = np.zeros(len(ticks), dtype=bool)
    tied[1:] = (ticks[1:] == ticks[:-1]) & (user[1:] == user[:-1])
    return seconds.astype(np.int64), tied


def _without_repeats(raw: RawLog, order: np.ndarray, rule: str, notes: list[str]) -> np.ndarray:
    """Indices of the rows to keep, ascending. ``order`` is by user and time."""
    everything = np.arange(len(raw.item), dtype=np.int32 if len(raw.item) < 2**31 else np.int64)
    if not raw.rows:
        return everything
    # Most rows differ in user, item and time; the other columns are compared only where these three agree.
    suspects = everything
    if raw.time is not None:
        user, time = raw.user[order], raw.time[order]
        same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
        del user, time
        suspects = np.sort(order[np.append(same, False) | np.append(False, same)])
    frame = pd.DataFrame({"user": raw.user[suspects], "item": raw.item[suspects]}, index=suspects)
    if raw.time is not None:
        frame["time"] = raw.time[suspects]
    frame = frame[frame.duplicated(keep=False)]
    suspects = frame.index.to_numpy()
    if len(suspects) == 0:
        return everything
    full = frame.assign(**{f"column {k}": v[suspects] for k, v in raw.columns.items()})
    repeats = suspects[full.duplicated().to_numpy()]
    if len(repeats) == 0:
        return everything
    if rule == "error":
        same = full[(full == full.loc[repeats[0]]).all(axis=1)].index[0]
        raise InputError(
            f"{raw.path}: {_place(raw, repeats[0])} repeats {_place(raw, same)} exactly "
            f"({len(repeats)} such rows); remove them, or set data.duplicates to 'first' or 'keep'"
        )
    if rule == "keep":
        notes.append(f"rows that repeat another exactly: {len(repeats)}, all kept")
        return everything
    notes.append(f"rows that repeat another exactly: {len(repeats)}, dropped")
    return np.setdiff1d(everything, repeats, assume_unique=True)


def _place(raw: RawLog, row: int) -> str:
    if raw.locate is not None:
        return raw.locate(int(row))
    return f"line {line_of_row(raw.path, row) if raw.header else int(row) + 1}"


def _check_overlap(raw: RawLog) -> None:
    """Refuses an event that two of the source's own parts hold, and a part that is missing."""
    if raw.part is None:
        raise InputError(
            f"{raw.path}: the data set has no files of training, validation and test events, which data.split 'given' "
            "needs; choose another data.split"
        )
    frame = pd.DataFrame({"user": raw.user, "item": raw.item, **({} if raw.time is None else {"time": raw.time})})
    frame = frame[frame.duplicated(keep=False)]
    frame = frame.assign(part=raw.part[frame.index])
    shared = frame.groupby([name for name in frame.columns if name != "part"])["part"].transform("nunique") > 1
    if shared.any():
        row, event = frame.index[shared][0], frame[shared].iloc[0]
        twin = frame[(frame.drop(columns="part") == event.drop("part")).all(axis=1) & (frame["part"] != event["part"])]
        raise InputError(
            f"{raw.path}: {_place(raw, twin.index[0])} holds the same event as {_place(raw, row)}: the parts "
            f"overlap ({int(shared.sum())} such rows); take it out of one of them, or choose another data.split"
        )


def _check_described(raw: RawLog, items: np.ndarray, notes: list[str]) -> None:
    """Refuses descriptions of other items than the log's, as where one file writes 5 and the other 005."""
    if raw.item_table is None or not len(raw.item_table):
        return
    described = int(pd.Index(items[1:]).isin(raw.item_table.index).sum())
    if described == 0:
        raise InputError(
            f"{raw.path}: no item of its events is among the {len(raw.item_table)} that are described: events have "
            f"ids such as {_examples(items[1:])}, descriptions such as {_examples(raw.item_table.index)}; write them "
            "alike"
        )
    if described < (len(items) - 1) / 2:
        notes.append(f"only {described} of {len(items) - 1} items are described")


def _examples(ids: np.ndarray | pd.Index) -> str:
    return ", ".join(repr(str(name)) for name in ids[:3])


def _core(raw: RawLog, kept: np.ndarray, config: DataConfig, notes: list[str]) -> np.ndarray:
    """Drops users and items with too few events until none is left."""
    before = len(kept)
    while True:
        users = np.bincount(raw.user[kept], minlength=len(raw.users)) >= config.min_user_events
        items = np.bincount(raw.item[kept], minlength=len(raw.items)) >= config.min_item_events
        enough = users[raw.user[kept]] & items[raw.item[kept]]
        if enough.all():
            break
        kept = kept[enough]
    if len(kept) == 0:
        raise InputError(
            f"{raw.path}: no event is left with data.min_user_events={config.min_user_events} and "
            f"data.min_item_events={config.min_item_events}; lower them"
        )
    if len(kept) < before:
        notes.append(
            f"{before - len(kept)} events were dropped: users with fewer than {config.min_user_events} events and "
            f"items with fewer than {config.min_item_events}, until none was left"
        )
    return kept


def _by_appearance(codes: np.ndarray, ids: np.ndarray) -> bool:
    """Whether the codes count up in order of first appearance, and none of the ids is left out."""
    highest = np.maximum.accumulate(codes)
    return bool(highest[0] == 0 and highest[-1] == len(ids) - 1 and (np.diff(highest) <= 1).all())


def _order(user: np.ndarray, time: np.ndarray | None, part: np.ndarray | None, config: DataConfig) -> np.ndarray:
    """(N,) stable order by user, then time, then the file (or a seeded shuffle, within a part of a given split)."""
    if config.ties == "random" and time is not None:
        # The raw stream of a bit generator is guaranteed not to change between numpy versions.
        shuffle = np.random.PCG64(config.tie_seed).random_raw(len(user))
        given = [part] if part is not None and config.split == "given" else []
        return np.lexsort([shuffle, *given, time, user])
    if time is None:
        return np.argsort(user, kind="stable")
    if time.dtype.kind == "i":
        first = int(time.min())
        span = int(time.max()) - first + 1
        if span * (int(user.max()) + 1) < 2**63:  # one key sorts in a third of the time of two
            return np.argsort(user.astype(np.int64) * span + (time - first), kind="stable")
    return np.lexsort([time, user])


def _actions(raw: RawLog, kept: np.ndarray, rules: Mapping[str, str], notes: list[str]) -> np.ndarray:
    """(N, A) uint8, with a note on each action that is constant."""
    actions = apply_rules(rules, {key: values[kept] for key, values in raw.columns.items()}, str(raw.path))
    for name, rate in zip(rules, actions.mean(axis=0), strict=True):
        if rate in (0, 1):
            often = "never occurs" if rate == 0 else "occurs in every event"
            notes.append(f"action '{name}' {often}: its normalized entropy and AUC are undefined")
    return actions


def _item_table(
    table: pd.DataFrame | None, items: np.ndarray, text_fields: tuple[str, ...]
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """The rows of the log's items by dense id, without columns that are empty for all of them."""
    if table is None:
        return None, ()
    table = table.reindex(items[1:]).set_axis(range(1, len(items)))
    table = table.where(table.notna(), "")
    table = table.loc[:, [column for column in table.columns if (table[column] != "").any()]]
    return table, tuple(name for name in text_fields if name in table.columns)
