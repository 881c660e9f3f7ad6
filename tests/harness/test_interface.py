from __future__ import annotations

import pytest
import torch

from harness.errors import InputError
from harness.interface import Batch


def make_batch(**parts: torch.Tensor) -> Batch:
    return Batch(
        items=torch.tensor([[4, 5, 0], [1, 2, 3]]), lengths=torch.tensor([2, 3]), users=torch.arange(2), **parts
    )


def test_supervised_positions_are_gathered_row_after_row():
    batch = make_batch(targets=torch.tensor([[5, 6, 0], [2, 3, 4]]), valid=torch.tensor([0, 1, 5]))
    values = torch.arange(12.0).view(2, 3, 2)
    expected = [values[b, t].tolist() for b, t in ((0, 0), (0, 1), (1, 2))]
    assert batch.supervised(values).tolist() == expected
    assert batch.next_items().tolist() == [5, 6, 4]


def test_a_batch_says_what_it_lacks():
    with pytest.raises(AssertionError, match="supervises no position"):
        make_batch().supervised(torch.zeros(2, 3))
    with pytest.raises(AssertionError, match="no targets"):
        make_batch(valid=torch.tensor([0])).next_items()
    with pytest.raises(InputError, match=r"declare them under data\.actions"):
        make_batch().labels()
