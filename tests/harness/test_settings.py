"""Strict settings, and files that appear whole."""

from __future__ import annotations

import errno
import os

import pytest
from pydantic import Field

from harness.errors import InputError, nearest
from harness.files import digest, read_json, whole_file, write_json, writing
from harness.settings import Settings, from_pairs, parse


class Inner(Settings):
    rate: float = 0.1


class Outer(Settings):
    name: str
    inner: Inner = Inner()
    count: int = Field(1, ge=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "cuont": 2}, "unknown key 'cuont'; did you mean 'count'"),
        ({"name": "a", "inner": {"rat": 2}}, "unknown key 'inner.rat'; did you mean 'rate'"),
        ({}, "'name' is missing"),
        ({"name": "a", "count": 0}, "greater than or equal to 1"),
        ({"name": "a", "inner": {"rate": float("nan")}}, "finite"),
        ([1], "expected keys and values"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(values, message):
    with pytest.raises(InputError, match=message) as error:
        parse(Outer, values, "here")
    assert str(error.value).startswith("here: ")
    assert "\n" not in str(error.value)


def test_pairs_of_a_command_line_reach_nested_settings():
    found = from_pairs(Outer, ["name=x", "inner.rate=0.5"], "here")
    assert (found.name, found.inner.rate) == ("x", 0.5)
    with pytest.raises(InputError, match="key=value"):
        from_pairs(Outer, ["name"], "here")


def test_nearest_suggests_or_lists():
    assert nearest("sasrek", ["sasrec", "fair"]) == "did you mean 'sasrec'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail_half_way() -> None:
        with whole_file(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_file_that_is_no_json_is_told(tmp_path):
    path = tmp_path / "value.json"
    path.write_text('{"a": ')
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(path)


def test_a_full_disk_is_told():
    with pytest.raises(InputError, match="the disk is full"), writing("there"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_digest_does_not_hang_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1.5, "ü"]}) == digest({"b": [1.5, "ü"], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
