"""JSON, Parquet, CSV and tensors from outside: refused in one line that names the file and the way on."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from harness.errors import InputError
from harness.reading import shapes
from harness.reading.csv_text import read_csv
from harness.reading.json_text import read_json
from harness.reading.parquet import read_parquet
from harness.reading.tensors import read_array, read_metadata, read_tensors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ('{"a": NaN}', "nan is not a finite number|NaN is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": 100000000000000000000}', "beyond 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "beyond 64 bits"),
        ("[" * 200_000, "too many lists and mappings inside each other"),
        ('{"a": "\\ud800"}', r"holds the character U\+D800"),
        ("\x00\x01", "not valid JSON"),
        ('{"a": [1]}', r"'a': .* found \[1\]"),
        ("[1]", "found \\[1\\]"),
    ],
)
def test_json(tmp_path, text, message):
    path = tmp_path / "cost.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as raised:
        read_json(path, shapes.Cost, "delete the folder of cell x")
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).endswith("; delete the folder of cell x")
    assert len(str(raised.value)) - len(str(path)) < 300


def test_a_cells_id_is_no_path(tmp_path):
    path = tmp_path / "outside.json"
    path.write_text(
        json.dumps({"variants": {}, "cells": [{"id": "../../x", "dataset": "d", "variant": "v", "seed": 0}]})
    )
    with pytest.raises(InputError, match=r"'cells.0.id'"):
        read_json(path, shapes.Outside)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a"]}, "has no column rank_all"),
        ({"user": [1], "rank_all": [1.0]}, "column 'user' holds int64, not texts"),
        ({"user": ["a"], "rank_all": ["1"]}, "column 'rank_all' holds string, not numbers"),
        ({"user": [None, "a"], "rank_all": [1.0, 2.0]}, "column 'user' has gaps"),
        ({"user": ["a"], "rank_all": [[1.0]]}, "column 'rank_all' holds list"),
    ],
)
def test_parquet_of_another_shape(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=message):
        read_parquet(tmp_path / "rows.parquet", ["user", "rank_all"], "delete the cell")


def test_parquet_unpacks_dictionaries_and_bounds_what_it_claims(tmp_path):
    pq.write_table(pa.table({"user": pa.array(["a", "b"]).dictionary_encode()}), tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet", ["user"], "x")["user"].type == pa.string()
    table = pa.table({"value": pa.array(np.zeros(30_000_000, np.int8))})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=True, row_group_size=len(table))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match="is damaged"):
        read_parquet(tmp_path / "b.parquet", None, "x")
    twice = pa.table([pa.array([1]), pa.array([2])], names=["value", "value"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns 'value'"):
        read_parquet(tmp_path / "a.parquet", None, "x")


def test_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"x": np.arange(3.0)}, metadata={"state": '{"a": 1}'}))
    assert read_tensors(path, "r", only=["x"])["x"].tolist() == [0, 1, 2]
    assert read_metadata(path, "state", "r") == {"a": 1}
    for call in (
        lambda: read_tensors(path, "r", only=["y"]),
        lambda: read_metadata(path, "other", "r"),
        lambda: read_metadata(path, "state", "r", shapes.Cost | None) and read_metadata(path, "state", "r", list),
    ):
        with pytest.raises(InputError, match=r"is damaged .*; r$"):
            call()
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="is damaged"):
        read_tensors(path, "r")


def test_arrays_claim_no_more_than_they_hold_and_are_no_pickles(tmp_path):
    path = tmp_path / "a.npy"
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="it claims the shape"):
        read_array(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"allow_pickle|claims"):
        read_array(path)
    np.save(path, np.eye(2))
    assert (read_array(path) == np.eye(2)).all()


def test_csv(tmp_path):
    for text in ("", "a,b\n1,2,3\n4\n", "\x00"):
        (tmp_path / "a.csv").write_text(text)
        try:
            read_csv(tmp_path / "a.csv", "write it again")
        except InputError as error:
            assert str(error).endswith("write it again")  # noqa: PT017 (some of these are read)
    with pytest.raises(InputError, match="does not exist"):
        read_csv(tmp_path / "none.csv", "x")
