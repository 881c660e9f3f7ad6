"""What the decoding benchmark counts."""

from __future__ import annotations

import torch

from benchmarks.decoding import launches
from benchmarks.hugging_face import invented
from harness.baselines.tiger import TIGER, TIGERConfig


def test_views_launch_nothing_and_everything_else_does():
    x = torch.ones(2, 3)
    assert launches(lambda: x.view(3, 2).transpose(0, 1)[0]) == 0
    assert launches(lambda: (x.view(6) + 1).mul_(2).sum().item()) == 4  # the number is copied to the host


def test_our_launches_do_not_grow_with_the_batch():
    counts = []
    for users in (2, 16):
        schema, batch = invented(40, users, 5)
        model = TIGER(TIGERConfig(dim=8, heads=2, head_dim=4, feed_forward=8), schema).eval()
        counts.append(launches(lambda model=model, batch=batch: model.generate(batch, 4)))
    assert counts[0] == counts[1] > 100
