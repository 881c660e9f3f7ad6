from __future__ import annotations

import numpy as np
import pytest

from harness.data.actions import apply_rules, parse_rule
from harness.data.config import DataConfig
from harness.errors import InputError
from harness.settings import parse

COLUMNS = {
    "rating": np.array([1.0, 4.0, 5.0]),
    "flag": np.array([0.0, 1.0, 1.0]),
    "kind": np.array(["view", "buy", "view"]),
    "year": np.array(["1999", "2000", "2001"]),
}


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ("rating >= 4", [0, 1, 1]),
        ("rating>4", [0, 0, 1]),
        ("rating <= 4", [1, 1, 0]),
        ("rating < 4.5", [1, 1, 0]),
        ("rating == 5", [0, 0, 1]),
        ("rating != 5", [1, 1, 0]),
        ("flag", [0, 1, 1]),
        ("kind == view", [1, 0, 1]),
        ("kind != view", [0, 1, 0]),
        ("kind == 7", [0, 0, 0]),
        ("year >= 2000", [0, 1, 1]),
    ],
)
def test_a_rule_labels_each_event(rule, labels):
    assert apply_rules({"a": rule}, COLUMNS, "log")[:, 0].tolist() == labels


def test_labels_stand_in_the_order_of_the_rules():
    labels = apply_rules({"b": "flag", "a": "rating == 1"}, COLUMNS, "log")
    assert labels.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("text", ["", "rating >=", ">= 4", "rating => 4", "a b == 3", "rating >= four", "f(x)"])
def test_what_is_no_rule_is_refused_with_the_settings(text):
    with pytest.raises(ValueError, match=r"not a rule|needs a number"):
        parse_rule(text)
    with pytest.raises(InputError, match=r"^study\.yaml, data: 'actions'"):
        parse(DataConfig, {"actions": {"a": text}}, "study.yaml, data")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("ratng >= 4", "did you mean 'rating'"),
        ("rating", "holds 4.0, not 0 or 1"),
        ("kind", "holds view, not 0 or 1"),
        ("kind >= 4", "holds words such as 'view'"),
    ],
)
def test_a_rule_that_does_not_fit_the_log_is_refused(rule, message):
    columns = COLUMNS | {"rating": np.array([4.0, 1.0])}
    with pytest.raises(InputError, match=message) as caught:
        apply_rules({"a": rule}, columns, "log")
    assert "\n" not in str(caught.value)
