"""What a run keeps of a data set's items, so that metrics of lists need no data set: ids, popularity, vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.data.cooccurrence import ppmi
from harness.data.log import EventLog
from harness.data.splits import Split
from harness.items.encoders import main_axes
from harness.reading.parquet import read_schema
from harness.tasks.lists import catalogue_name, write_table

__all__ = ["catalogue", "keep_catalogue"]

DIM = 32
"""Of the vectors that diversity is measured with."""


def keep_catalogue(folder: Path, log: EventLog, split: Split, *, vectors: bool) -> None:
    """Writes the catalogue of a split into ``folder`` unless it is there with all that is asked for."""
    path = folder / catalogue_name(log.fingerprint, split.fingerprint)
    if path.exists() and (not vectors or "vector" in read_schema(path, "delete it").names):
        return
    write_table(path, catalogue(log, split, vectors=vectors))


def catalogue(log: EventLog, split: Split, *, vectors: bool) -> pa.Table:
    """A row per item, item 1 first: its id, its ``count`` of training events and, if asked for, its ``vector``.

    Vectors are rows of co-occurrence (PPMI, Bullinaria & Levy 2007) on their first 32 axes, scaled to length 1; zero
    for an item without companions in the training part.
    """
    n = len(log.items) - 1
    count = sum(np.bincount(log.item[events], minlength=n + 1)[1:] for _, events in split.pieces("train"))
    made = pa.table({"item": pa.array(log.items[1:].tolist(), pa.string()), "count": pa.array(count, pa.int64())})
    if not vectors:
        return made
    rows = ppmi(log, split)[1:, 1:]
    dim = min(DIM, int((np.diff(rows.indptr) > 0).sum()) - 1)
    found = main_axes(rows, rows, dim, seed=0) if dim > 0 else np.zeros((n, 1))
    flat = pa.array(found.astype(np.float32).ravel(), pa.float32())
    return made.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, found.shape[1]))
