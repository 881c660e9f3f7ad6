"""Ready vectors of items: NumPy, safetensors or Parquet files, matched by the data's own item ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from harness.errors import InputError, in_one_line, shortened
from harness.items.config import FileVectors
from harness.reading.bounds import JSON_BYTES, read_bytes
from harness.reading.json_text import parse_json
from harness.reading.tensors import FAULTS, read_array

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_vectors", "vector_files"]


def vector_files(config: FileVectors, where: str = "items.encoder") -> list[Path]:
    """The files that decide the vectors: that of the vectors, and that of the ids where there is one.

    Raises:
        InputError: one of them does not exist, or the file of vectors is of another kind.
    """
    path = Path(config.path)
    if path.suffix not in {".npy", ".safetensors", ".parquet"}:
        raise InputError(f"{where}.path {path}: expected a file that ends in .npy, .safetensors or .parquet")
    files = [path]
    if path.suffix != ".parquet" and config.ids is not None:
        files.append(Path(config.ids))
    elif path.suffix == ".npy":
        files.append(path.with_suffix(".txt"))
    for file in files:
        if not file.is_file():
            remedy = (
                "give an existing file" if file == path else f"write one id a line into it, or name it in {where}.ids"
            )
            raise InputError(f"{where}: there is no file {file}; {remedy}")
    return files


def read_vectors(items: Sequence[str], config: FileVectors, where: str = "items.encoder") -> np.ndarray:
    """(I, d) float32 vectors of ``items`` (I), in that order.

    Raises:
        InputError: the file can't be read, has no ids, ids that occur twice, vectors of another shape or with values
            that are not finite, no vector for an item (unless ``missing`` is zero), or ids that are not items of the
            data (unless ``extra_items`` is ignore).
    """
    path, *listed = vector_files(config, where)
    where_file = f"{where}.path {path}"
    read = {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}[path.suffix]
    vectors, ids = read(path, config, where)  # (n, d), (n) or None
    if listed:
        ids = _lines(listed[0], where)
    if ids is None:
        raise InputError(
            f"{where_file} does not say whose vectors these are; store a JSON list as 'ids' in its metadata, or name a "
            f"text file with one id a line in {where}.ids"
        )
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or 0 in vectors.shape:
        raise InputError(
            f"{where_file}: expected a table of numbers, items x width; found {vectors.dtype} of shape {vectors.shape}"
        )
    if len(ids) != len(vectors):
        raise InputError(f"{where_file} has {len(vectors)} rows, but {len(ids)} ids; give each row one id")
    rows = {item: row for row, item in enumerate(ids)}
    if len(rows) < len(ids):
        twice = next(item for row, item in enumerate(ids) if rows[item] != row)
        raise InputError(f"{where_file}: the id '{twice}' occurs more than once; keep one row of it")
    missing = [item for item in items if item not in rows]
    if len(missing) == len(items):
        raise InputError(
            f"{where_file}: none of its ids is an item of the data, whose ids look like '{items[0]}', and the file's "
            f"like '{ids[0]}'; give the file of this catalogue"
        )
    if missing and config.missing == "error":
        raise InputError(
            f"{where_file}: {len(missing)} of {len(items)} items have no vector (the first: '{missing[0]}'); add them, "
            f"or set {where}.missing: zero"
        )
    extra = rows.keys() - set(items)
    if extra and config.extra_items == "error":
        raise InputError(
            f"{where_file}: {len(extra)} of its {len(ids)} ids are not items of the data (the first: '{min(extra)}'); "
            f"if it is the right file, set {where}.extra_items: ignore"
        )
    found = np.zeros((len(items), vectors.shape[1]), dtype=np.float32)
    for place, item in enumerate(items):
        if item in rows:
            found[place] = vectors[rows[item]]
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{where_file}: the vector of item '{items[int(finite.argmin())]}' holds NaN or infinity; replace it, or "
            f"leave the item out and set {where}.missing: zero"
        )
    return found


def _lines(path: Path, where: str) -> list[str]:
    try:
        return read_bytes(path, JSON_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}.ids {path} can't be read as UTF-8 text ({error})") from None
    except InputError as error:
        raise InputError(f"{where}.ids {error}") from None


def _npy(path: Path, config: FileVectors, where: str) -> tuple[np.ndarray, None]:
    try:
        return read_array(path), None
    except ValueError as error:
        reason = shortened(in_one_line(error))
        raise InputError(f"{where}.path {path} can't be read as a NumPy array of numbers ({reason})") from None


def _safetensors(path: Path, config: FileVectors, where: str) -> tuple[np.ndarray, list[str] | None]:
    try:
        with safe_open(path, framework="numpy") as file:
            names, listed = set(file.keys()), (file.metadata() or {}).get("ids")
            if "vectors" not in names:
                raise InputError(f"{where}.path {path} has no tensor 'vectors', but: {', '.join(sorted(names))}")
            vectors = file.get_tensor("vectors")
            numbers = file.get_tensor("ids") if "ids" in names else None
    except FAULTS as error:
        reason = shortened(in_one_line(error))
        raise InputError(f"{where}.path {path} can't be read ({reason}); store float32 as safetensors") from None
    if numbers is not None:
        return vectors, [str(number) for number in numbers.ravel().tolist()]
    if listed is None:
        return vectors, None
    try:
        ids = parse_json(listed)
    except ValueError:
        ids = None
    if not isinstance(ids, list):
        raise InputError(f"{where}.path {path}: 'ids' in its metadata is not a JSON list; write one id for each row")
    return vectors, [str(item) for item in ids]


def _parquet(path: Path, config: FileVectors, where: str) -> tuple[np.ndarray, list[str]]:
    import pyarrow as pa

    from harness.reading.parquet import read_parquet

    try:
        table = read_parquet(path, None, "give another", {})
    except InputError as error:
        raise InputError(f"{where}.path can't be read: {error}") from None
    key = config.ids or "item_id"
    if key not in table.column_names:
        raise InputError(
            f"{where}.path {path} has no column '{key}' for the ids; name it in {where}.ids: "
            f"{', '.join(table.column_names[:9])}"
        )
    ids = [str(item) for item in table[key].to_pylist()]
    rest = table.drop_columns([key])
    lists = [field.name for field in rest.schema if _is_list(field.type)]
    if len(lists) > 1:
        raise InputError(f"{where}.path {path}: columns {', '.join(lists)} all hold lists; keep the one of the vectors")
    if lists:
        return _rows(rest[lists[0]], f"{where}.path {path}: column '{lists[0]}'"), ids
    numbers = [
        field.name for field in rest.schema if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]
    if not numbers:
        raise InputError(f"{where}.path {path}: beside '{key}' no column holds lists or numbers; add the vectors")
    return np.column_stack([rest[name].to_numpy().astype(np.float32) for name in numbers]), ids


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _rows(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """A column of lists as (n, d) float32."""
    rows = column.to_pylist()
    widths = {len(row) if row is not None else 0 for row in rows}
    if len(widths) != 1:
        raise InputError(f"{where}: its lists are of different lengths ({sorted(widths)[:5]}); give each the same")
    try:
        found = np.array(rows, dtype=np.float32)
        if found.ndim != 2:
            raise ValueError
        return found
    except (TypeError, ValueError):
        raise InputError(f"{where}: its lists hold something else than numbers; store lists of floats") from None
