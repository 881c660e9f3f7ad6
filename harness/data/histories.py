"""Columns that hold histories: some logs repeat in each row the items that came before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.data.log import RawLog
from harness.errors import InputError

__all__ = ["check_histories"]

NAME = re.compile(r"(.*item.*|asin|history.*)_?(list|seq|sequence|ids)|history|hist|items|sequence", re.IGNORECASE)


def check_histories(raw: RawLog, columns: Mapping[str, pa.ChunkedArray], where: Callable[[int], str]) -> None:
    """Takes a history for granted only where each of its items is an event of the same user; notes that it isn't read.

    Rows that stand for whole sequences (RecBole's ``item_id_list``) have items that occur nowhere else: read as one
    event each they would vanish.

    Raises:
        InputError: the history of a row holds an item that is not an event of its user.
    """
    for name, values in columns.items():
        if not NAME.fullmatch(name):
            continue
        parts = pc.utf8_split_whitespace(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
        tokens, rows = parts.flatten(), pc.list_parent_indices(parts).to_numpy()
        item = pd.Index(raw.items).get_indexer(pd.Index(tokens.to_pylist(), dtype=object))
        full = np.array([bool(token) for token in tokens.to_pylist()], dtype=bool)
        item, rows = item[full], rows[full]
        if not len(item) or ((item < 0).all() and "item" not in name.lower()):
            continue
        size = np.int64(len(raw.items))
        events = np.unique(raw.user * size + raw.item)
        missing = (item < 0) | ~np.isin(raw.user[rows].astype(np.int64) * size + item, events)
        if missing.any():
            first = int(np.argmax(missing))
            token = np.array(tokens.to_pylist(), dtype=object)[full][first]
            user = raw.users[raw.user[rows[first]]]
            raise InputError(
                f"{where(int(rows[first]))}, column '{name}': the history holds item '{token}', which is not an event "
                f"of user '{user}' elsewhere; each row must be one event: take the file that lists every event, "
                f"or write a row for each item of the histories"
            )
        raw.notes += (f"column '{name}' repeats the events before a row and is not read",)
