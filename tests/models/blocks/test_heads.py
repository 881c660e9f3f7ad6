from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from harness.models.blocks import heads
from harness.models.blocks.heads import (
    corrected_softmax,
    linear_cross_entropy,
    rows_per_piece,
    sampled_scores,
    sampled_softmax,
)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_cross_entropy_in_pieces_equals_the_whole(monkeypatch, rows):
    monkeypatch.setattr(heads, "rows_per_piece", lambda *_: rows)
    torch.manual_seed(0)
    hidden, table = torch.randn(10, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets = torch.randint(0, 7, (10,))
    whole = F.cross_entropy(hidden @ table.T, targets)
    pieces = linear_cross_entropy(hidden, table, targets)
    torch.testing.assert_close(pieces, whole)
    for ours, theirs in zip(
        torch.autograd.grad(pieces, [hidden, table]), torch.autograd.grad(whole, [hidden, table]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("classes", "samples"), [(20, 5), (400, 2)], ids=["score all", "gather"])
@pytest.mark.parametrize("rows", [3, 1000])
def test_sampled_scores_equal_a_loop(monkeypatch, classes, samples, rows):
    monkeypatch.setattr(heads, "rows_per_piece", lambda *_: rows)
    torch.manual_seed(0)
    hidden, table = torch.randn(10, 4, requires_grad=True), torch.randn(classes, 4, requires_grad=True)
    picks = torch.randint(0, classes, (10, samples))
    loop = torch.stack([torch.stack([hidden[v].dot(table[c]) for c in picks[v]]) for v in range(10)])
    scores = sampled_scores(hidden, table, picks)
    torch.testing.assert_close(scores, loop)
    for ours, theirs in zip(
        torch.autograd.grad(scores.square().sum(), [hidden, table]),
        torch.autograd.grad(loop.square().sum(), [hidden, table]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_sampled_softmax_of_all_classes_is_the_full_one():
    torch.manual_seed(0)
    hidden, table = torch.randn(10, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets = torch.randint(0, 7, (10,))
    every = torch.stack([torch.randperm(7) for _ in range(10)])
    sampled, full = sampled_softmax(hidden, table, targets, every), F.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(sampled, full)
    for ours, theirs in zip(
        torch.autograd.grad(sampled, [hidden, table]), torch.autograd.grad(full, [hidden, table]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_sampled_softmax_counts_each_draw_but_none_of_the_target():
    torch.manual_seed(0)
    hidden, table = torch.randn(1, 4), torch.randn(7, 4)
    score = (table @ hidden[0]).exp()
    found = sampled_softmax(hidden, table, torch.tensor([2]), torch.tensor([[5, 2, 5, 0]]))
    torch.testing.assert_close(found, -(score[2] / (score[2] + 2 * score[5] + score[0])).log())


@pytest.mark.parametrize("rows", [3, 1000])
def test_corrected_softmax_of_every_class_drawn_uniformly_is_the_full_one(monkeypatch, rows):
    monkeypatch.setattr(heads, "rows_per_piece", lambda *_: rows)
    torch.manual_seed(0)
    hidden, table = torch.randn(10, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets = torch.randint(0, 7, (10,))
    found = corrected_softmax(hidden, table, targets, torch.randperm(7), torch.full((7,), -math.log(7)))
    full = F.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(found, full)
    for ours, theirs in zip(
        torch.autograd.grad(found, [hidden, table]), torch.autograd.grad(full, [hidden, table]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_corrected_softmax_estimates_the_sum_of_the_full_one_without_bias():
    """Over all pairs of draws, each with its probability, for probabilities that are far from uniform."""
    torch.manual_seed(0)
    hidden, table, target = torch.randn(1, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64), 3
    q = torch.tensor([0.4, 0.05, 0.25, 0.2, 0.1], dtype=torch.float64)
    score = table @ hidden[0]
    expected = 0.0
    for pair in itertools.product(range(5), repeat=2):
        drawn = torch.tensor(pair)
        loss = corrected_softmax(hidden, table, torch.tensor([target]), drawn, q[drawn].log())
        expected += float(q[drawn].prod() * (loss + score[target].float()).exp())
    assert expected == pytest.approx(float(score.exp().sum()), rel=1e-5)


def test_the_corrected_gradient_approaches_the_full_one_as_negatives_grow():
    torch.manual_seed(0)
    table, hidden = torch.randn(50, 4), torch.randn(1, 4, requires_grad=True)
    target, q = torch.tensor([7]), torch.rand(50).softmax(0)
    (full,) = torch.autograd.grad(F.cross_entropy(hidden @ table.T, target), hidden)

    def bias(negatives: int, repeats: int) -> float:
        total = torch.zeros_like(hidden)
        for _ in range(repeats):
            drawn = torch.multinomial(q, negatives, replacement=True)
            total += torch.autograd.grad(corrected_softmax(hidden, table, target, drawn, q[drawn].log()), hidden)[0]
        return float((total / repeats - full).norm())

    few, many = bias(2, 500), bias(100, 100)
    assert many < 0.1 * float(full.norm()) < few


def test_pieces_fit_the_cache_on_a_cpu_and_are_one_elsewhere():
    assert rows_per_piece(5000, 2048, torch.device("cpu")) * 2048 * 4 <= 2 * 2**20
    assert rows_per_piece(5000, 10**9, torch.device("cpu")) == 64
    assert rows_per_piece(5000, 2048, torch.device("cuda")) == 5000
