"""The lists that a cell keeps: the best items for each test target, as numbers of the catalogue. Imports no torch.

One list serves both protocols. It holds, best first, the first :data:`KEPT` items of the whole catalogue and then what
is still missing to the first :data:`KEPT` items that the user's history does not hold; ``seen`` marks those it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import InputError
from harness.files import digest, whole_file
from harness.metrics.lists import KEPT

__all__ = ["catalogue_name", "pack", "unpack", "write_table"]


def pack(users: Sequence[str], items: np.ndarray, seen: np.ndarray, scores: np.ndarray) -> pa.Table:
    """A row per user from (U, W) arrays: items (0 = none, only at the end), marks and scores."""
    there = items > 0
    offsets = pa.array(np.r_[0, np.cumsum(there.sum(1))], pa.int32())

    def column(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array(values[there], kind))

    return pa.table(
        {
            "user": pa.array(users, pa.string()),
            "items": column(items, pa.int32()),
            "seen": column(seen, pa.bool_()),
            "scores": column(scores, pa.float32()),
        }
    )


def unpack(table: pa.Table, candidates: str, k: int = KEPT) -> tuple[np.ndarray, np.ndarray]:
    """(U, k) items and (U, k) scores under a protocol ("all" or "unseen"); 0 and NaN where a list is shorter.

    Raises:
        InputError: the table is not one that :func:`pack` made.
    """
    table = table.combine_chunks()
    try:
        whole = [table[name] for name in ("items", "seen", "scores")]
        if not len(table):
            return np.zeros((0, k), np.int32), np.full((0, k), np.nan, np.float32)
        columns = [column.chunk(0) for column in whole]
        counts = np.diff(columns[0].offsets.to_numpy())
        item, seen, score = (column.flatten().to_numpy(zero_copy_only=False) for column in columns)
    except (KeyError, AttributeError, pa.ArrowException) as error:
        raise InputError(f"the lists of items are damaged ({error})") from None
    row = np.repeat(np.arange(len(table)), counts)
    if candidates == "unseen":
        fresh = ~seen.astype(bool)
        item, score, row = item[fresh], score[fresh], row[fresh]
    place = np.arange(len(row)) - np.searchsorted(row, row)  # rows ascend: how far into its own
    inside = place < k
    items, scores = np.zeros((len(table), k), np.int32), np.full((len(table), k), np.nan, np.float32)
    items[row[inside], place[inside]] = item[inside]
    scores[row[inside], place[inside]] = score[inside]
    return items, scores


def catalogue_name(log: str, split: str) -> str:
    """Name of the file that describes the catalogue of a data set under a split, from their fingerprints."""
    return f"{digest([log, split])[:16]}.parquet"


def write_table(path: Path, table: pa.Table) -> None:
    """Parquet, compressed. Floats hardly repeat, so a dictionary of them costs more than it saves; split by bytes they
    are a third smaller."""

    def value_type(kind: pa.DataType) -> pa.DataType:
        return kind.value_type if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else kind

    floats = [f.name for f in table.schema if pa.types.is_floating(value_type(f.type))]
    nested = {f.name: f"{f.name}.list.element" for f in table.schema if value_type(f.type) is not f.type}
    others = [nested.get(name, name) for name in table.column_names if name not in floats]
    with whole_file(path) as aside:
        pq.write_table(
            table,
            aside,
            compression="zstd",
            use_dictionary=others,
            use_byte_stream_split=[nested.get(name, name) for name in floats],
        )
