"""What YAML from outside may hold, and how it is refused; PyYAML's own reader is what values are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.reading.bounds import YAML_NODES
from harness.reading.yaml_text import read_yaml, yaml_value

TEN = "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, 'a': the key stands here a second time"),
        ("variants:\n  x: {model: a}\n  x: {model: b}", "line 3, 'variants.x': the key stands here a second time"),
        ("seeds: !!int abc", "line 1, 'seeds': 'abc' can't be read as !!int"),
        ("seeds: 100000000000000000000", "'seeds': 100000000000000000000 is beyond 64 bits"),
        ("seeds: " + "9" * 5000, "'seeds': a number of 5,000 characters"),
        ("dropout: .nan", "'dropout': .nan is not a finite number"),
        ("a:\n- " + "[" * 5000, "more than 60 lists and mappings inside each other"),
        ("{" * 5000, "more than 60"),
        ("a: &a [*a]", "'a.0': the alias '*a' names no anchor before it"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n" + TEN, f"more than {YAML_NODES:,} keys and values"),
        ("a: x\x00y", "holds the character U+0000"),
        ("a: 1\nb: \x1b[31m", "line 2: holds the character U+001B"),
        ('a: "\\ud800"', "line 1, 'a'"),
        ('a: "\\x07"', "'a': holds the character U+0007"),
        ("a: !!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system is not known here"),
        ("a: !!binary aGk=", "the tag !!binary is not known here"),
        ("? [1, 2]\n: x", "a key is a list or a mapping"),
        ("a: 1\n---\nb: 2", "line 2: begins a second document"),
        ("a: [1, 2", "is not valid YAML"),
        ("<<: 5", "'<<': '<<' takes a mapping"),
    ],
)
def test_what_cannot_be_is_named_by_line_and_key(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as raised:
        read_yaml(path)
    said = str(raised.value)
    assert message in said
    assert said.startswith(str(path))
    assert len(said) - len(str(path)) < 300


def test_lone_surrogates_and_other_encodings(tmp_path):
    with pytest.raises(InputError, match=r"--set a: holds the character U\+D800"):
        yaml_value("\ud800", "--set a")
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("\ufeffa: é", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": "é"}


def test_what_is_no_file(tmp_path):
    for path, message in ((tmp_path / "none.yaml", "does not exist"), (tmp_path, "is not a file")):
        with pytest.raises(InputError, match=message):
            read_yaml(path)


@pytest.mark.parametrize("text", ["2024-02-30", "2024-01-01", "2001-12-14t21:59:43.10-05:00", "="])
def test_dates_are_texts(text):
    assert yaml_value(text, "x") == text


def test_aliases_are_copies_and_merges_yield():
    found = yaml_value("{a: &x {b: 1, c: [2]}, d: *x, e: {<<: *x, b: 3}}", "x")
    assert found == {"a": {"b": 1, "c": [2]}, "d": {"b": 1, "c": [2]}, "e": {"b": 3, "c": [2]}}
    assert found["a"]["c"] is not found["d"]["c"]


def test_the_designs_that_ship_read_as_before():
    root = Path(__file__).parents[3]
    paths = [*root.glob("studies/*.yaml"), root / "results" / "noise" / "study.yaml"]
    assert len(paths) > 3
    for path in paths:
        assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
letters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"])
documents = st.recursive(
    scalars | st.text(letters), lambda inner: st.lists(inner) | st.dictionaries(st.text(letters), inner), max_leaves=15
)


@given(documents)
@settings(deadline=None, max_examples=40)
def test_any_plain_value_comes_back(value):
    assert yaml_value(yaml.safe_dump(value, allow_unicode=True), "x") == value
