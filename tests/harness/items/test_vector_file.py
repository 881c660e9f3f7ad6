"""Vectors that somebody else made: three forms with the same content, and each way for them not to fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from harness.errors import InputError
from harness.items.config import FileVectors
from harness.items.vector_file import read_vectors

IDS = ["b", "a", "17"]
ROWS = np.array([[1.0, 2], [3, 4], [5, 6.5]], dtype=np.float32)


def write(path: Path, ids: list[str], rows: np.ndarray) -> FileVectors:
    """The file, in the form that the name's ending says."""
    if path.suffix == ".npy":
        np.save(path, rows)
        path.with_suffix(".txt").write_text("\n".join(ids) + "\n")
    elif path.suffix == ".safetensors":
        save_file({"vectors": rows}, path, metadata={"ids": json.dumps(ids)})
    else:
        pq.write_table(pa.table({"item_id": ids, "vector": [row.tolist() for row in rows]}), path)
    return FileVectors(path=str(path))


@pytest.fixture(params=[".npy", ".safetensors", ".parquet"])
def path(request, tmp_path) -> Path:
    return tmp_path / f"vectors{request.param}"


def test_rows_go_to_the_items_of_their_ids(path):
    config = write(path, IDS, ROWS)
    found = read_vectors(["a", "17", "b"], config)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS[[1, 2, 0]])


def test_missing_items_and_strangers(path):
    config = write(path, IDS, ROWS)
    with pytest.raises(
        InputError, match=r"1 of 4 items have no vector \(the first: 'c'\).*set items.encoder.missing: zero"
    ):
        read_vectors(["a", "b", "c", "17"], config)
    lenient = config.model_copy(update={"missing": "zero"})
    np.testing.assert_array_equal(read_vectors(["a", "b", "c", "17"], lenient)[[0, 2]], [[3, 4], [0, 0]])
    with pytest.raises(
        InputError, match=r"1 of its 3 ids are not items of the data \(the first: '17'\).*extra_items: ignore"
    ):
        read_vectors(["a", "b"], config)
    np.testing.assert_array_equal(
        read_vectors(["a", "b"], config.model_copy(update={"extra_items": "ignore"})), ROWS[[1, 0]]
    )
    with pytest.raises(InputError, match="none of its ids is an item of the data, whose ids look like 'x'"):
        read_vectors(["x", "y"], lenient)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(path, value):
    rows = ROWS.copy()
    rows[2, 1] = value
    config = write(path, IDS, rows)
    with pytest.raises(InputError, match="the vector of item '17' holds NaN or infinity"):
        read_vectors(["a", "17", "b"], config)
    read_vectors(["a", "b"], config.model_copy(update={"extra_items": "ignore"}))  # of an item that is not asked for


def test_an_id_twice(path):
    config = write(path, ["b", "a", "b"], ROWS)
    with pytest.raises(InputError, match="the id 'b' occurs more than once"):
        read_vectors(["a", "b"], config)


@pytest.mark.parametrize("rows", [ROWS[:, 0].copy(), ROWS[:, :0].copy(), ROWS > 2, ROWS[None].copy()], ids=str)
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_no_table_of_numbers(tmp_path, suffix, rows):
    config = write(tmp_path / f"vectors{suffix}", IDS, rows)
    with pytest.raises(InputError, match="expected a table of numbers, items x width"):
        read_vectors(["a", "17", "b"], config)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_another_number_of_ids(tmp_path, suffix):
    config = write(tmp_path / f"vectors{suffix}", IDS[:2], ROWS)
    with pytest.raises(InputError, match="has 3 rows, but 2 ids"):
        read_vectors(["a", "b"], config)


def test_where_ids_may_stand(tmp_path):
    """A text file by its name, a tensor of numbers, a column by its name beside columns of numbers."""
    listed = tmp_path / "list"
    listed.write_text("\n".join(IDS), encoding="utf-8-sig")
    for name in ("plain.npy", "plain.safetensors"):
        path = tmp_path / name
        np.save(path, ROWS) if path.suffix == ".npy" else save_file({"vectors": ROWS}, path)
        with pytest.raises(InputError, match=r"items\.encoder\.ids"):
            read_vectors(["a", "17", "b"], FileVectors(path=str(path)))
        found = read_vectors(["a", "17", "b"], FileVectors(path=str(path), ids=str(listed)))
        np.testing.assert_array_equal(found, ROWS[[1, 2, 0]])
    save_file({"vectors": ROWS, "ids": np.array([3, 1, 2])}, tmp_path / "numbers.safetensors")
    found = read_vectors(["1", "2", "3"], FileVectors(path=str(tmp_path / "numbers.safetensors")))
    np.testing.assert_array_equal(found, ROWS[[1, 2, 0]])
    table = pa.table({"x": ROWS[:, 0], "note": ["n"] * 3, "asin": pa.array([3, 1, 2]), "y": ROWS[:, 1]})
    pq.write_table(table, tmp_path / "wide.parquet")
    found = read_vectors(["1", "2", "3"], FileVectors(path=str(tmp_path / "wide.parquet"), ids="asin"))
    np.testing.assert_array_equal(found, ROWS[[1, 2, 0]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item": IDS, "v": [[1.0]] * 3}, "has no column 'item_id' for the ids"),
        ({"item_id": IDS, "v": [[1.0]] * 3, "w": [[1.0]] * 3}, "columns v, w all hold lists"),
        ({"item_id": IDS, "v": ["1"] * 3}, "no column holds lists or numbers"),
        ({"item_id": IDS, "v": [[1.0], [1.0, 2.0], None]}, "its lists are of different lengths"),
        ({"item_id": IDS, "v": [["x"], ["y"], ["z"]]}, "its lists hold something else than numbers"),
        ({"item_id": IDS, "v": [[1.0], [None], [2.0]]}, "NaN or infinity|something else than numbers"),
        ({"item_id": IDS, "v": [1.0, None, 2.0]}, "the vector of item 'a' holds NaN"),
    ],
)
def test_parquet_of_another_shape(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(InputError, match=message) as raised:
        read_vectors(["a", "17", "b"], FileVectors(path=str(tmp_path / "v.parquet")))
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(path):
    config = FileVectors(path=str(path))
    with pytest.raises(InputError, match=r"there is no file .*vectors"):
        read_vectors(["a"], config)
    path.write_bytes(b"nonsense")
    path.with_suffix(".txt").write_text("a\n")
    with pytest.raises(InputError, match="can't be read") as raised:
        read_vectors(["a"], config)
    assert "\n" not in str(raised.value)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "v.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    path.with_suffix(".txt").write_text("a\n")
    with pytest.raises(InputError, match="can't be read as a NumPy array of numbers"):
        read_vectors(["a"], FileVectors(path=str(path)))
    with pytest.raises(InputError, match=r"ends in \.npy, \.safetensors or \.parquet"):
        read_vectors(["a"], FileVectors(path="vectors.pkl"))
