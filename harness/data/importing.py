"""Bringing a log of one's own into the data root, as Parquet, where it is a data set by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from harness.data.config import Columns
from harness.data.datasets import Counts, dataset_names
from harness.data.log import RawLog
from harness.data.own import NOTES, PARTS, find_own, read_own
from harness.errors import InputError
from harness.files import as_file_name, whole_file

__all__ = ["Imported", "import_log"]

UNITS = {1: "s", 10**3: "ms", 10**6: "us", 10**9: "ns"}


@dataclass(frozen=True)
class Imported:
    """What lies in the data root now."""

    name: str
    folder: Path
    counts: Counts
    parts: dict[str, int] | None
    """Events of each part, where the source has a split of its own."""
    files: dict[str, str]
    """Name -> SHA-256 of what was read."""
    columns: tuple[str, ...]
    """What action rules can be made of."""
    texts: tuple[str, ...]
    """What describes an item."""
    notes: tuple[str, ...]


def import_log(
    source: Path, root: Path, columns: Columns | None = None, items: Path | None = None, name: str | None = None
) -> Imported:
    """Reads ``source``, a file or a folder, and writes it to ``root/name`` in the order of its rows.

    Raises:
        InputError: a source that can't be read, a name that is taken or can't be one of a folder.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist; give a file or a folder of events")
    files = find_own(str(source), root)
    assert files is not None, "the path exists"
    if items is not None:
        if not items.is_file():
            raise InputError(f"{items} does not exist; give the file that describes the items, or leave --items out")
        files = replace(files, items=items)
    name = as_file_name(files.name) if name is None else name
    if name in dataset_names():
        raise InputError(f"'{name}' is the name of a known data set; choose another one with --name")
    if not name or name != as_file_name(name) or name in (".", ".."):
        raise InputError(f"'{name}' can't be a data set's name: letters, digits, '.', '_' and '-' alone; choose --name")
    folder = root / name
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another name with --name, or remove the folder")
    raw = read_own(files, columns)
    _write(raw, folder / f"{name}.parquet")
    return Imported(
        name=name,
        folder=folder,
        counts=Counts(len(raw.users), len(raw.items), len(raw.item)),
        parts=None if raw.part is None else dict(zip(PARTS, np.bincount(raw.part, minlength=3).tolist(), strict=True)),
        files=raw.files,
        columns=tuple(raw.columns),
        texts=() if raw.item_table is None else tuple(raw.item_table.columns),
        notes=raw.notes,
    )


def _write(raw: RawLog, path: Path) -> None:
    """``path`` (of a split of its own, a file for each part), and beside it the texts of the items."""
    columns: dict[str, pa.Array] = {
        "user_id": pa.DictionaryArray.from_arrays(raw.user.astype(np.int32), pa.array(raw.users.tolist(), pa.string())),
        "item_id": pa.DictionaryArray.from_arrays(raw.item.astype(np.int32), pa.array(raw.items.tolist(), pa.string())),
    }
    if raw.time is not None:
        whole = raw.time.dtype.kind == "i"
        columns["timestamp"] = pa.array(raw.time, pa.timestamp(UNITS[raw.ticks]) if whole else pa.float64())
    for name, values in raw.columns.items():
        if name in columns:
            raise InputError(f"{raw.path}: the column '{name}' is not the one that was taken for it; rename it")
        columns[name] = pa.array(values) if values.dtype.kind == "f" else pa.array(values.tolist(), pa.string())
    # Notes tell of the source's columns and of what was guessed, which later readers can't see any more.
    table = pa.table(columns).replace_schema_metadata({NOTES: "\n".join(raw.notes).encode()})
    files = {path: table}
    if raw.part is not None:
        rows = [table.filter(pa.array(raw.part == which)) for which in range(len(PARTS))]
        files = {path.with_name(f"{path.stem}.{part}.parquet"): rows[n] for n, part in enumerate(PARTS)}
    if raw.item_table is not None:
        texts = raw.item_table.astype(str).rename_axis("item_id").reset_index()
        files[path.with_name(f"{path.stem}.items.parquet")] = pa.Table.from_pandas(texts, preserve_index=False)
    for target, content in files.items():
        with whole_file(target) as aside:
            parquet.write_table(content, aside)
