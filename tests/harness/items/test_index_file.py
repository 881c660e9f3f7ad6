from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.items.config import FileCodes
from harness.items.index_file import read_index, write_index

ITEMS = ["", "1", "2", "3"]
CODES = {"0": ["<a_5>", "<b_0>"], "1": ["<a_5>", "<b_255>"], "2": ["<a_0>", "<b_7>"]}


def written(folder: Path, content: object) -> str:
    path = folder / "some.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 26), st.integers(1, 20), st.sampled_from([-1, 0, 1]), st.integers(0, 1000))
def test_round_trip(tmp_path_factory, levels, number, offset, seed):
    codes = np.random.default_rng(seed).integers(0, 256, (number + 1, levels))
    items = ["", *(str(item) for item in range(5, 5 + number))]
    path = tmp_path_factory.mktemp("index") / "round.index.json"
    write_index(path, items, codes, offset)
    np.testing.assert_array_equal(read_index(items, FileCodes(path=str(path), offset=offset)), codes[1:])


def test_writes_the_fields_form_and_keeps_any_id(tmp_path):
    path = tmp_path / "out.index.json"
    write_index(path, ["", 'B00"Ü', "x"], np.array([[0, 0], [183, 70], [1, 2]]))
    assert json.loads(path.read_text(encoding="utf-8")) == {'B00"Ü': ["<a_183>", "<b_70>"], "x": ["<a_1>", "<b_2>"]}
    with pytest.raises(InputError, match="whole numbers"):
        write_index(path, ["", "x"], np.zeros((2, 2), dtype=int), offset=1)
    with pytest.raises(InputError, match="27 levels are too many"):
        write_index(path, ["", "x"], np.zeros((2, 27), dtype=int))


def test_codes_follow_the_order_of_the_items(tmp_path):
    path = written(tmp_path, CODES)
    found = read_index(["", "3", "1", "2"], FileCodes(path=path, offset=1))
    assert found.tolist() == [[0, 7], [5, 0], [5, 255]]


def test_an_item_that_stands_twice_is_refused(tmp_path):
    path = written(tmp_path, '{"0": ["<a_1>"], "1": ["<a_2>"], "0": ["<a_3>"]}')
    with pytest.raises(InputError, match="the key '0' stands there twice"):
        read_index(ITEMS[:3], FileCodes(path=path, offset=1))


@pytest.mark.parametrize(
    ("items", "options", "part"),
    [
        (ITEMS, {}, "set items.quantiser.offset: 1"),
        (["", "0", "1", "2"], {"offset": 1}, "set items.quantiser.offset: 0"),
        ([*ITEMS, "4"], {"offset": 1}, "1 of 4 items have no codes (the first: '4')"),
        (ITEMS[:3], {"offset": 1}, "1 of its 3 keys are not items of the data (the first: '2')"),
        (["", "B01", "B02"], {}, "another catalogue"),
        (["", "B01", "B02"], {"offset": 1}, "whole numbers"),
        (ITEMS, {"offset": 1, "size": 100}, "<b_255> lies outside 0..99"),
    ],
)
def test_a_file_of_another_catalogue(tmp_path, items, options, part):
    with pytest.raises(InputError) as raised:
        read_index(items, FileCodes(path=written(tmp_path, CODES), **options))
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_extra_keys_can_be_allowed(tmp_path):
    config = FileCodes(path=written(tmp_path, CODES), offset=1, extra_items="ignore")
    assert read_index(ITEMS[:3], config).tolist() == [[5, 0], [5, 255]]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([1, 2], "another kind of file"),
        ({}, "another kind of file"),
        ('{"1": ["<a_', "not valid JSON"),
        ({"1": ["<a_1>"], "2": ["<a_1>", "<b_1>"], "3": ["<a_1>"]}, "key '2': expected a list of 1 tokens"),
        ({"1": ["<b_1>"], "2": ["<a_1>"], "3": ["<a_1>"]}, "key '1': expected a token such as <a_12>"),
        ({"1": ["<a_1>"], "2": [17], "3": ["<a_1>"]}, "key '2': expected a token such as <a_12>, found 17"),
        ({"1": [], "2": [], "3": []}, "one or more tokens"),
        ({"1": "<a_1>", "2": "<a_1>", "3": "<a_1>"}, "one or more tokens"),
    ],
)
def test_damaged_files(tmp_path, content, part):
    with pytest.raises(InputError, match=part):
        read_index(ITEMS, FileCodes(path=written(tmp_path, content)))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_index(ITEMS, FileCodes(path=str(tmp_path / "none.index.json")))


@pytest.mark.parametrize(("name", "number", "first"), [("Beauty", 12_101, 1), ("Scientific", 4_344, 0)])
def test_published_files(real, name, number, first):
    items = ["", *(str(item) for item in range(first, first + number))]
    files = sorted(real("semantic_ids", name).glob("*.index.json"))
    assert files
    for path in files:
        raw = json.loads(path.read_text())
        codes = read_index(items, FileCodes(path=str(path), offset=first))
        assert codes.shape == (number, 4)
        assert codes.max() <= 255
        for key in ("0", "17", str(number - 1)):
            assert [f"<{letter}_{code}>" for letter, code in zip("abcd", codes[int(key)], strict=True)] == raw[key]
        with pytest.raises(InputError, match=f"set items.quantiser.offset: {first}"):
            read_index(items, FileCodes(path=str(path), offset=1 - first))
        with pytest.raises(InputError, match="another catalogue"):
            read_index(["", *map(str, range(first, first + 500))], FileCodes(path=str(path), offset=first))
