from __future__ import annotations

import re

import numpy as np
import pytest

from harness.items.codes import ItemCodes
from harness.items.quality import code_quality
from harness.items.report import codes_markdown, example_items

LEVELS = np.array([[0, 1], [0, 1], [0, 3], [2, 2], [1, 0]])


@pytest.fixture
def codes() -> ItemCodes:
    quality = code_quality(LEVELS, (4, 4))
    quality |= {"quantiser": "rqvae", "fit_on": "train", "fitted_on": 4, "error": 0.25, "cosine": 0.9}
    quality |= {"residual": True, "moved": 0.2, "collision_level": True, "warnings": ["they are too few"]}
    full = np.column_stack([LEVELS, [0, 1, 0, 0, 0]])
    return ItemCodes(np.concatenate([[[0, 0, 0]], full]), (4, 4, 256), quality)


def test_markdown_says_what_the_codes_are(codes):
    ids, texts = ["", *"vwxyz"], ["", "a|b", "second", "third", "fourth", "fifth " * 40]
    text = codes_markdown(codes, ids, title="goods", texts=texts, examples=[1, 5], neighbours=2)
    assert "**Warning:** they are too few." in text
    assert "25.0% of the variance is lost" in text
    assert "| 1 | 4 | 3 | 75.0% |" in text
    assert "| 2 | 4 | 4 | 100.0% |" in text
    assert "Different tuples: 80.0% of the items; alone with theirs: 60.0%." in text
    assert "| 2 | 1 |" in text
    first, second = text.split("## Nearest by code to item ")[1:]
    assert first.startswith("v\n")
    assert "a\\|b" in first
    assert [line.split("|")[1].strip() for line in first.splitlines() if re.match(r"\| [v-z] \|", line)] == list("vwx")
    assert "| w | 0 1 1 | 2 of 2 | second |" in first
    assert "| x | 0 3 0 | 1 of 2 | third |" in first
    assert " ..." in second
    assert "fifth " * 30 not in second


def test_a_number_that_was_not_measured_is_absent(codes):
    for key in ("fit_on", "fitted_on", "error", "cosine", "moved"):
        del codes.quality[key]
    text = codes_markdown(codes, ["", *"vwxyz"], title="goods")
    assert "variance" not in text
    assert "nearest last code" not in text
    assert "Nearest by code" not in text


def test_examples_run_from_frequent_to_rare():
    counts = np.array([99, 5, 1, 9, 3, 7])
    assert example_items(counts, 3) == [3, 1, 2]
    assert example_items(counts, 50) == [3, 5, 1, 4, 2]
