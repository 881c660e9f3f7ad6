from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.special import kl_div

from harness.models.blocks import auxiliary_losses
from harness.models.blocks.auxiliary_losses import KL_FLOOR, info_nce, map_noise_loss, noise_loss


def test_representation_loss_equals_a_loop_and_fixes_the_clean_side():
    torch.manual_seed(0)
    clean, noisy = torch.randn(2, 5, 3)
    clean.requires_grad_()
    noisy.requires_grad_()
    terms = [1 - clean[i].dot(noisy[i]) / clean[i].norm() / noisy[i].norm() for i in range(5)]
    loss = noise_loss(clean, noisy, "representation", 0.5)
    torch.testing.assert_close(loss, sum(terms) / 5)
    loss.backward()
    assert clean.grad is None
    assert noisy.grad.abs().max() > 0


def test_triplet_loss_equals_a_loop(monkeypatch):
    torch.manual_seed(0)
    clean, noisy = torch.randn(2, 5, 3)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([2]))

    def distance(a, b):
        return 1 - a.dot(b) / a.norm() / b.norm()

    terms = [
        max(0.0, (0.5 + distance(clean[i], noisy[i]) - distance(clean[i], clean[(i + 2) % 5])).item()) for i in range(5)
    ]
    assert any(term > 0 for term in terms)
    assert noise_loss(clean, noisy, "triplet", 0.5).item() == pytest.approx(sum(terms) / 5, rel=1e-5)


def test_the_triplets_negative_is_another_position():
    clean = torch.eye(6)
    for seed in range(20):
        torch.manual_seed(seed)
        assert noise_loss(clean, clean, "triplet", 0.5).item() == pytest.approx(0.0)  # 0.5 + 0 - 1 < 0
    assert noise_loss(clean[:1], clean[:1], "triplet", 0.5).item() == pytest.approx(0.5)  # nothing else is there


def test_attention_map_losses_equal_a_loop():
    torch.manual_seed(0)
    clean, noisy = torch.randn(2, 4, 2, 5)  # (V, H, T) each
    squares = []
    for v, h in itertools.product(range(4), range(2)):
        squares.append(sum((clean[v, h, s] - noisy[v, h, s]).item() ** 2 for s in range(5)))
    assert map_noise_loss(clean, noisy, "attention-mse").item() == pytest.approx(sum(squares) / 8, rel=1e-5)
    divergence = kl_div(*(rows.abs().numpy() + KL_FLOOR for rows in (clean, noisy))).sum()
    assert map_noise_loss(clean, noisy, "attention-kl").item() == pytest.approx(divergence / 8, rel=1e-5)
    assert map_noise_loss(clean, clean, "attention-kl").item() == pytest.approx(0, abs=1e-6)


def test_attention_kl_of_softmax_rows_is_the_usual_divergence(monkeypatch):
    monkeypatch.setattr(auxiliary_losses, "KL_FLOOR", 0.0)
    torch.manual_seed(0)
    clean, noisy = torch.randn(2, 4, 2, 5).softmax(dim=-1)
    expected = F.kl_div(noisy.log(), clean, reduction="sum") / 8
    torch.testing.assert_close(map_noise_loss(clean, noisy, "attention-kl"), expected)


@pytest.mark.parametrize("form", ["attention-mse", "attention-kl"])
def test_attention_map_losses_take_no_notice_of_tokens_that_cannot_be_seen(form):
    torch.manual_seed(0)
    clean, noisy = torch.randn(2, 4, 2, 5)
    more = [F.pad(rows, (0, 7)) for rows in (clean, noisy)]
    torch.testing.assert_close(map_noise_loss(*more, form), map_noise_loss(clean, noisy, form))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-8, 0.0])
@pytest.mark.parametrize("form", ["attention-mse", "attention-kl"])
def test_attention_map_losses_have_bounded_gradients_where_weights_vanish(form, scale):
    """A row of a plain difference is tiny at the start and 0 at the first token."""
    clean = torch.tensor([[[0.7, -0.7, 0.0]]]) * scale
    noisy = (torch.tensor([[[0.0, -1e-9, 0.0]]]) * scale).requires_grad_()
    map_noise_loss(clean, noisy, form).backward()
    assert noisy.grad.isfinite().all()
    assert noisy.grad.abs().max() <= 2 * 0.7 * scale / KL_FLOOR


# Mutual information


def test_info_nce_equals_a_loop_over_the_other_targets():
    torch.manual_seed(0)
    hidden, vectors = torch.randn(6, 4), torch.randn(20, 4)
    targets = torch.tensor([3, 8, 3, 9, 8, 11])
    terms = []
    for i in range(6):

        def similarity(j: int, i: int = i) -> float:
            z = vectors[targets[j]]
            return math.exp((hidden[i].dot(z) / hidden[i].norm() / z.norm()).item() / 0.3)

        negatives = sum(similarity(j) for j in range(6) if targets[j] != targets[i])
        terms.append(-math.log(similarity(i) / (similarity(i) + negatives)))
    loss = info_nce(hidden, vectors[targets], targets, 0.3, negatives=0)
    assert loss.item() == pytest.approx(sum(terms) / 6, rel=1e-5)
    # a pool as large as the batch is the batch, in another order
    assert info_nce(hidden, vectors[targets], targets, 0.3, negatives=99).item() == pytest.approx(loss.item(), rel=1e-5)


def test_info_nce_draws_the_stated_number_of_negatives():
    hidden, vectors = torch.zeros(50, 4), torch.randn(50, 4)  # no preference: every similarity is 0
    distinct = torch.arange(1, 51)
    for seed in range(5):
        torch.manual_seed(seed)
        loss = info_nce(hidden, vectors, distinct, 0.1, negatives=10).item()
        # ten drawn: a position that was drawn itself has nine others
        assert loss == pytest.approx((40 * math.log(11) + 10 * math.log(10)) / 50, rel=1e-5)
    same = torch.ones(50, dtype=torch.int64)
    assert info_nce(hidden, vectors, same, 0.1, negatives=0).item() == pytest.approx(0)
