"""Predictions of any other system, read from a file into the rows of a retrieval cell. Imports no torch.

A file holds, per user, the items that the system ranked: all of the catalogue, or the best of it. Formats, by suffix:

=========================== ===================================================================================
``.csv``, ``.tsv``          with a header: ``user,item,score`` or ``user,item,rank`` (1 is best) in long form, or
``.parquet``                ``user,items``, one list per user, best first (in text: ids with blanks between them)
``.trec``, ``.run``         TREC run, no header: ``user Q0 item rank score tag``; the scores count, not the ranks
=========================== ===================================================================================

Where both ``score`` and ``rank`` stand, the scores count, as in trec_eval. Equal scores rank in one shuffled order of
the catalogue, as everywhere in the harness.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from harness.errors import InputError, nearest, shortened
from harness.metrics.ranking import tie_places
from harness.reading.parquet import FAULTS, read_parquet

__all__ = ["SUFFIXES", "Outside", "Truth", "UnknownItems", "rank_predictions"]

UnknownItems = Literal["refuse", "misses"]

SUFFIXES = (".csv", ".tsv", ".parquet", ".trec", ".run")


@dataclass(frozen=True, eq=False)
class Truth:
    """What a split asks of a phase, in the arrays of an event log: U users, I items, N events, T targets."""

    name: str
    """Of the data set, for messages."""
    phase: str
    """"valid" or "test"."""
    users: np.ndarray
    """(U,) str: raw ids of all users of the log."""
    items: np.ndarray
    """(I + 1,) str: raw ids; items[0] is padding."""
    offsets: np.ndarray
    """(U + 1,) int64: events ``offsets[u]:offsets[u + 1]`` are user u's, in order."""
    item: np.ndarray
    """(N,) int64 in 1..I."""
    who: np.ndarray
    """(T,) int64, ascending: the users who have a target."""
    target: np.ndarray
    """(T,) int64: the event to be recommended to each of them; those before it are the history."""


@dataclass(frozen=True, eq=False)
class Outside:
    """An outside system's rows, and what a reader of its numbers must know, one sentence each."""

    rows: pa.Table
    """As ``rows.parquet`` of a retrieval cell. ``score`` is null where the file has ranks only."""
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Lists:
    """A file in long form, R entries of ids as they stand there."""

    user: pa.Array
    item: pa.Array
    value: np.ndarray
    """(R,) float64: a score, or a rank where ``ranked``."""
    ranked: bool
    named: pa.Array
    """Every user whom the file names, with entries or without."""
    where: Callable[[int], str]
    """Entry -> its place in the file."""


def rank_predictions(path: str | Path, truth: Truth, unknown_items: UnknownItems = "refuse") -> Outside:
    """The rows of the system whose predictions the file ``path`` holds. A rank past the end of a list is null.

    Under ``unknown_items="misses"`` an item that the data do not hold keeps its place in a list, as a recommendation
    that nobody takes; a target of the same score stands behind it.

    Takes time linear in the entries but for one sort, and about 100 bytes an entry.

    Raises:
        InputError: an unreadable or empty file, a missing column, an unknown user, or item where these are refused, an
            item twice for one user, a score that is not finite, ranks that are not 1 to n, a user without predictions.
    """
    lists = _read(path := Path(path))
    user = _codes(path, lists.user, truth.users, f"user of '{truth.name}'", lists.where)
    known = _codes(path, lists.named, truth.users, f"user of '{truth.name}'")
    catalogue, unknown = truth, _unknown(lists, truth) if unknown_items == "misses" else truth.items[:0]
    truth = replace(truth, items=np.concatenate([truth.items, unknown]))
    place = np.r_[tie_places(len(catalogue.items) - 1), np.full(len(unknown), -1)]  # these before the same score
    item = 1 + _codes(path, lists.item, truth.items[1:], f"item of '{truth.name}'", lists.where, UNKNOWN)
    _check_entries(path, truth, lists, user, item)
    _check_everyone(path, truth, known)
    score = -lists.value if lists.ranked else lists.value

    asked = np.full(len(truth.users), -1)
    asked[truth.who] = np.arange(len(truth.who))
    slot = asked[user]  # (R,) index into the targets
    kept = slot >= 0
    slot, item, score = slot[kept], item[kept], score[kept]

    target = truth.item[truth.target]  # (T,)
    own = np.full(len(target), np.nan)
    hit = item == target[slot]
    own[slot[hit]] = score[hit]
    bar = own[slot]
    # NaN, the score of a target that is not listed, compares false.
    before = (score > bar) | ((score == bar) & (place[item - 1] < place[target[slot] - 1]))
    history, pairs = _history(truth)
    seen = _contains(pairs, slot * len(truth.items) + item)
    target_seen = _contains(pairs, np.arange(len(target)) * len(truth.items) + target)

    ranks, lengths = {}, {}
    for name, candidates, ranked in (
        ("all", np.ones_like(seen), ~np.isnan(own)),
        ("unseen", ~seen, ~np.isnan(own) & ~target_seen),
    ):
        ahead = np.bincount(slot[before & candidates], minlength=len(target))
        ranks[f"rank_{name}"] = pa.array(1 + ahead, pa.int32(), mask=~ranked)
        lengths[f"length_{name}"] = pa.array(np.bincount(slot[candidates], minlength=len(target)), pa.int32())
    rows = pa.table(
        {
            "phase": pa.array([truth.phase] * len(target), pa.string()),
            "user": pa.array(truth.users[truth.who].tolist(), pa.string()),
            "target": pa.array(truth.items[target].tolist(), pa.string()),
            **ranks,
            **lengths,
            "history": pa.array(history, pa.int32()),
            "score": pa.array(own, pa.float32(), mask=np.isnan(own) | lists.ranked),
        }
    )
    return Outside(rows, tuple(_notes(catalogue, rows, known, bool(seen.any()), unknown, item)))


UNKNOWN = "ids must be as in the data, or --unknown-items misses counts what the data do not hold as misses"


def _unknown(lists: _Lists, truth: Truth) -> np.ndarray:
    """The items of the lists that the data do not hold, each once."""
    named = lists.item.unique().drop_null()
    return np.array(
        named.filter(pc.invert(pc.is_in(named, value_set=pa.array(truth.items[1:].tolist())))).to_pylist(), str
    )


def _notes(
    truth: Truth, rows: pa.Table, known: np.ndarray, repeats: bool, unknown: np.ndarray, item: np.ndarray
) -> list[str]:
    notes = []
    if len(unknown):
        of = f"{len(unknown)} item{'s' * (len(unknown) != 1)} that the data do not hold"
        count = int((item >= len(truth.items)).sum())
        notes.append(f"{count} predictions of {of}, '{unknown[0]}' for one, count as misses")
    without = len(np.setdiff1d(known, truth.who))
    if without:
        notes.append(f"{without} users of the file have no {truth.phase} target and were left out")
    shortest = {name: pc.min(rows[f"length_{name}"]).as_py() for name in ("all", "unseen")}
    if shortest["unseen"] + pc.max(rows["history"]).as_py() < len(truth.items) - 1:
        notes.append(
            f"lists end early: the shortest holds {shortest['all']} items, {shortest['unseen']} of them unseen; "
            "a cutoff beyond that takes what is missing for a miss"
        )
    if not repeats and pc.sum(rows["history"]).as_py():
        notes.append(
            "no list holds an item of its user's history: the system removed them, so its ranks among all items "
            "are those among unseen ones, and flatter it"
        )
    return notes


def _check_everyone(path: Path, truth: Truth, known: np.ndarray) -> None:
    if len(np.unique(truth.who)) < len(truth.who):
        raise InputError(
            f"{path}: the study ranks every {truth.phase} event of a user, each from the events before it, and a file "
            "has one list per user; set data.targets to first or last"
        )
    missing = np.setdiff1d(truth.who, known)
    if len(missing):
        raise InputError(
            f"{path}: {len(missing)} of {len(truth.who)} users with a {truth.phase} target have no prediction, "
            f"'{truth.users[missing[0]]}' for one; predict for every user"
        )


def _check_entries(path: Path, truth: Truth, lists: _Lists, user: np.ndarray, item: np.ndarray) -> None:
    twice = _first_repeat(user * len(truth.items) + item)
    if twice is not None:
        raise InputError(
            f"{path}, {lists.where(twice)}: item '{truth.items[item[twice]]}' stands twice for user "
            f"'{truth.users[user[twice]]}'; keep one of the two"
        )
    bad = np.flatnonzero(~np.isfinite(lists.value))
    if len(bad):
        what = "rank" if lists.ranked else "score"
        raise InputError(
            f"{path}, {lists.where(bad[0])}: the {what} is missing, NaN or infinite; "
            "give a number, or leave out what was not ranked"
        )
    if lists.ranked:
        length = np.bincount(user, minlength=len(truth.users))
        rank = lists.value
        bad = np.flatnonzero((rank != np.floor(rank)) | (rank < 1) | (rank > length[user]))
        odd = bad[0] if len(bad) else _first_repeat(user * (len(truth.items) + 1) + rank.astype(np.int64))
        if odd is not None:
            raise InputError(
                f"{path}, {lists.where(odd)}: rank {rank[odd]:g} of user '{truth.users[user[odd]]}', who has "
                f"{length[user[odd]]} items; ranks must be 1 to {length[user[odd]]}, each once"
            )


def _first_repeat(keys: np.ndarray) -> int | None:
    """The first entry of (R,) integers whose value stood before."""
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    return int(np.flatnonzero(pd.Series(keys).duplicated())[0]) if len(repeated) else None


def _codes(
    path: Path,
    ids: pa.Array,
    known: np.ndarray,
    kind: str,
    where: Callable[[int], str] | None = None,
    remedy: str = "ids must be as in the data",
) -> np.ndarray:
    """(R,) int64 indices of ``ids`` in ``known``."""
    codes = pc.index_in(ids, value_set=pa.array(known.tolist(), pa.string()))
    if codes.null_count:
        odd = pc.index(codes.is_null(), True).as_py()
        place = f", {where(odd)}" if where else ""
        article = "an" if kind.startswith("item") else "a"
        raise InputError(f"{path}{place}: '{ids[odd].as_py()}' is not {article} {kind}; {remedy}")
    return codes.to_numpy(zero_copy_only=False).astype(np.int64)


def _history(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """(T,) events before each target, and the sorted keys target x (I + 1) + item of those events."""
    begin = truth.offsets[truth.who]
    count = truth.target - begin
    slot = np.repeat(np.arange(len(count)), count)
    event = np.arange(len(slot)) + np.repeat(begin - np.cumsum(count) + count, count)
    return count, np.unique(slot * len(truth.items) + truth.item[event])


def _contains(ordered: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Whether each of (R,) ``keys`` is among the sorted ``ordered``."""
    if not len(ordered):
        return np.zeros(len(keys), dtype=bool)
    place = np.searchsorted(ordered, keys)
    return ordered[np.minimum(place, len(ordered) - 1)] == keys


def _read(path: Path) -> _Lists:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file; name it {', '.join(SUFFIXES)} after what it holds")
    try:
        if path.suffix in (".trec", ".run"):
            lists = _trec(path)
        elif path.suffix == ".parquet":
            lists = _columns(path, read_parquet(path, None, "export it again", {}), first_line=None)
        else:
            lists = _columns(path, _text(path), first_line=2)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (*FAULTS, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} can't be read as {path.suffix[1:]} ({reason}); fix or export it again") from None
    if not len(lists.named):
        raise InputError(f"{path} holds no prediction; export it again")
    return lists


def _text(path: Path) -> pa.Table:
    strings = dict.fromkeys(("user", "item", "items"), pa.string())
    numbers = dict.fromkeys(("score", "rank"), pa.float64())
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ","),
        convert_options=pa_csv.ConvertOptions(column_types=strings | numbers),  # ids stay as they are: "007"
    )


def _columns(path: Path, table: pa.Table, first_line: int | None) -> _Lists:
    names = table.column_names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path} has the column '{shortened(twice, 60)}' twice; export it again with one")
    wide = "items" in names and "item" not in names
    _require(path, names, "user")
    if not wide:
        _require(path, names, "item")
        if "score" not in names and "rank" not in names:
            raise InputError(f"{path} has no column 'score' or 'rank'; {nearest('score', names)}")

    def where(row: int) -> str:
        return f"row {row}, counted from 0" if first_line is None else f"line {row + first_line}"

    user = _strings(table["user"])
    if wide:
        return _exploded(path, user, table["items"].combine_chunks(), where)
    ranked = "score" not in names
    value = table["rank" if ranked else "score"].cast(pa.float64()).to_numpy()
    return _Lists(user, _strings(table["item"]), value, ranked, user.unique(), where)


def _exploded(path: Path, user: pa.Array, items: pa.Array, where: Callable[[int], str]) -> _Lists:
    """Lists of one row per user in long form, ranked by their order."""
    again = _first_repeat(user.dictionary_encode().indices.to_numpy())
    if again is not None:
        raise InputError(f"{path}, {where(again)}: a second list of the same user; keep one of the two")
    if pa.types.is_string(items.type) or pa.types.is_large_string(items.type):
        text = pc.utf8_trim_whitespace(items)
        items = pc.utf8_split_whitespace(pc.if_else(pc.equal(text, ""), None, text))  # of "" it would make [""]
    row = pc.list_parent_indices(items).to_numpy().astype(np.int64)
    length = np.bincount(row, minlength=len(user))
    rank = 1 + np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    item = _strings(pc.list_flatten(items))
    return _Lists(user.take(pa.array(row)), item, rank.astype(float), True, user, lambda entry: where(int(row[entry])))


def _trec(path: Path) -> _Lists:
    names = ["user", "q0", "item", "rank", "score", "tag"]
    types = {"user": str, "item": str, "score": float}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a line of more than six fields
        frame = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            names=names,
            index_col=False,
            dtype=types,
            keep_default_na=False,
            na_values={"score": ["", "nan", "NaN"]},
        )
    user = pa.array(frame["user"], pa.string())
    item = pa.array(frame["item"], pa.string())
    return _Lists(user, item, frame["score"].to_numpy(), False, user.unique(), lambda row: f"line {row + 1}")


def _strings(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Ids as strings, in one array; Parquet may hold them as integers."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.cast(pa.string())


def _require(path: Path, names: list[str], column: str) -> None:
    if column not in names:
        raise InputError(f"{path} has no column '{column}'; {nearest(column, names)}")
