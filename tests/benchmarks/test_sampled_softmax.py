"""Both sides of the benchmark of the sampled softmax, on a small catalogue. Its times are asserted nowhere."""

from __future__ import annotations

import pytest

from benchmarks import sampled_softmax


@pytest.mark.parametrize("side", sampled_softmax.SIDES)
def test_each_side_makes_its_steps_and_fills_its_row(side):
    found = sampled_softmax.measure(side, items=200, negatives=8, rows=2, repeats=1)
    assert (found["rows"] > 0) is (side == "sampled")
    assert min(found["gradient"], found["update"], found["bytes"]) > 0
    cells = sampled_softmax.row(200, side, found).strip("| ").split(" | ")
    assert cells[:2] == ["200", side]
    assert len(cells) == 7
