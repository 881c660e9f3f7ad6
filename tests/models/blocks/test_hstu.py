from __future__ import annotations

import math

import pytest
import torch

from models.blocks.hstu import RelativeBias
from models.blocks.places import places, rotate


def test_bias_looks_up_distance_and_time_bucket():
    torch.manual_seed(0)
    bias = RelativeBias(distances=6, time=True)
    time = torch.tensor([[0, 1, 2, 100, 10**9], [5, 5, 6, 7, 8]])
    at = places(torch.arange(5), time, 4)
    found = bias(at, at)
    assert found.shape == (2, 1, 5, 5)
    for b in range(2):
        for r in range(5):
            for c in range(r + 1):
                bucket = min(128, math.floor(math.log(max(1, abs(int(time[b, r] - time[b, c])))) / 0.301))
                assert found[b, 0, r, c] == bias.position[r - c, 0] + bias.time[bucket, 0]
    assert bias.own() == bias.position[0] + bias.time[0]


def test_bias_without_times_is_shared_by_the_batch():
    bias = RelativeBias(distances=4, time=False)
    at = places(torch.arange(4), None, 4)
    assert bias(at, at).shape == (4, 4)


@pytest.mark.parametrize("shift", [1, 17])
def test_rotated_products_depend_on_the_distance_alone(shift):
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 6, 2, 8)
    near, far = (places(torch.arange(6) + offset, None, 8) for offset in (0, shift))

    def products(at):
        return torch.einsum("bqhd,bkhd->bhqk", rotate(query, at), rotate(key, at))

    torch.testing.assert_close(products(near), products(far), atol=1e-4, rtol=0)
    torch.testing.assert_close(rotate(query, near).norm(dim=-1), query.norm(dim=-1))
