from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.items.config import ResidualVAE
from harness.items.kmeans import k_means
from harness.items.rqvae import RQVAE, _revive, _start_codebooks, fit_rqvae, sinkhorn

SMALL = ResidualVAE(levels=3, size=6, hidden=(12,), latent=4, beta=0.3, epochs=5, batch_size=64)


@pytest.fixture
def model() -> RQVAE:
    torch.manual_seed(0)
    return RQVAE(8, SMALL).double()


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(20, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(model: RQVAE, vectors: torch.Tensor):
    """The paper's equations, one item at a time."""
    reconstruction = codebook = commitment = 0.0
    codes = []
    for x in vectors:
        residual = z = model.encoder(x)
        total, row = torch.zeros_like(z), []
        for book in model.codebooks:
            code = int(((residual - book) ** 2).sum(1).argmin())
            e = book[code]
            codebook = codebook + ((residual.detach() - e) ** 2).sum()
            commitment = commitment + ((residual - e.detach()) ** 2).sum()
            total, residual = total + e, residual - e.detach()
            row.append(code)
        passed = z + (total - z).detach()
        reconstruction = reconstruction + ((x - model.decoder(passed)) ** 2).sum()
        codes.append(row)
    n = len(vectors)
    return reconstruction / n, codebook / n, SMALL.beta * commitment / n, codes


def test_losses_and_their_gradients_are_the_formula(model, vectors):
    terms, codes = model.losses(vectors)
    *expected, expected_codes = by_hand(model, vectors)
    assert codes.tolist() == expected_codes
    for (name, found), value in zip(terms.items(), expected, strict=True):
        torch.testing.assert_close(found, value, msg=name)
        parameters = list(model.parameters())
        ours = torch.autograd.grad(found, parameters, retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)


def test_straight_through(model, vectors):
    """The encoder's output gets exactly the gradient that the decoder gives its input, the codebook none."""
    codes, _ = model.encode(vectors)
    decoded_from = sum(book[codes[:, level]] for level, book in enumerate(model.codebooks)).detach().requires_grad_()
    loss = (vectors - model.decoder(decoded_from)).square().sum(1).mean()
    (expected,) = torch.autograd.grad(loss, decoded_from)

    caught = []
    model.encoder.register_forward_hook(lambda module, inputs, output: caught.append(output))
    terms, _ = model.losses(vectors)
    found, books = torch.autograd.grad(terms["reconstruction"], [caught[0], model.codebooks], allow_unused=True)
    torch.testing.assert_close(found, expected)
    assert books is None


def test_gradient_of_commitment_against_finite_differences(model, vectors):
    """With the codes held (they don't change for small steps) the term is smooth in the encoder's bias."""
    bias = model.encoder[-1].bias
    (found,) = torch.autograd.grad(model.losses(vectors)[0]["commitment"], bias)
    step = 1e-6
    for place in range(len(bias)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[place] += sign * step
                values.append(float(model.losses(vectors)[0]["commitment"]))
                bias[place] -= sign * step
        assert found[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-7)


def test_encode_and_decode_agree_with_the_equations(model, vectors):
    codes, residual = model.encode(vectors)
    latent = model.encoder(vectors)
    for level in range(2):
        latent = latent - model.codebooks[level][codes[:, level]]
    torch.testing.assert_close(residual, latent)
    total = sum(model.codebooks[level][codes[:, level]] for level in range(3))
    torch.testing.assert_close(model.decode(codes), model.decoder(total))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(2, 12), st.sampled_from([0.2, 1.0, 5.0]), st.integers(0, 10_000))
def test_sinkhorn_marginals(rows, columns, epsilon, seed):
    distances = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) * 100
    plan = sinkhorn(distances, epsilon, 500)
    torch.testing.assert_close(plan.sum(1), torch.full((rows,), 1 / rows, dtype=torch.float64), atol=1e-10, rtol=0)
    even = torch.full((columns,), 1 / columns, dtype=torch.float64)
    torch.testing.assert_close(plan.sum(0), even, atol=1e-5, rtol=0)


def test_sinkhorn_of_small_epsilon_is_the_cheapest_assignment():
    """As many rows as columns: the entropic plan tends to the permutation of least cost."""
    from scipy.optimize import linear_sum_assignment

    distances = torch.rand(6, 6, generator=torch.Generator().manual_seed(4))
    plan = sinkhorn(distances, 1e-3, 5_000)
    assert plan.argmax(1).tolist() == linear_sum_assignment(distances.numpy())[1].tolist()


def test_sinkhorn_balances_the_last_level_in_training_alone(vectors):
    torch.manual_seed(0)
    model = RQVAE(8, SMALL.model_copy(update={"sinkhorn": 0.05, "size": 4})).double()
    with torch.no_grad():
        model.codebooks[2, 0] = 0
        model.codebooks[2, 1:] = 50  # far from everything: nobody's nearest code
    _, codes = model.losses(vectors)
    nearest, _ = model.encode(vectors)
    assert codes[:, 2].unique().numel() > 1
    assert nearest[:, 2].unique().tolist() == [0]
    torch.testing.assert_close(codes[:, :2], nearest[:, :2])


def test_codebooks_start_from_k_means_of_every_item(model, vectors):
    model = model.float()
    data = torch.randn(100, 8, generator=torch.Generator().manual_seed(2))
    _start_codebooks(model, data, seed=7)
    latent = model.encoder(data).detach().numpy()
    np.testing.assert_allclose(model.codebooks[0].detach(), k_means(latent, 6, iterations=25, seed=7), atol=1e-5)
    codes, _ = model.encode(data)
    assert all(len(np.unique(codes[:, level])) == 6 for level in range(3))


def test_dead_codes_come_back_to_life(model, vectors):
    model = model.float()
    with torch.no_grad():
        model.codebooks[0, 2:] = 1e3
        model.codebooks[1, 5] = 1e3
    codes, _ = model.encode(vectors.float())
    used = torch.zeros(3, 6, dtype=torch.bool).scatter_(1, codes.T, True)
    before = model.codebooks.detach().clone()
    _revive(model, vectors.float(), used)
    torch.testing.assert_close(model.codebooks[used], before[used])
    latent = model.encoder(vectors.float())
    for code in torch.nonzero(~used[0]).flatten():
        assert ((latent - model.codebooks[0, code]).abs().sum(1) < 1e-5).any()


def test_training_uses_the_codebooks_and_lowers_the_loss(clouds):
    scaled = ((clouds - clouds.mean(0)) / clouds.std()).astype(np.float32)
    said = []
    losses = []
    for epochs in (1, 60):
        config = ResidualVAE(size=16, hidden=(32,), latent=8, epochs=epochs, batch_size=128, learning_rate=3e-3)
        model = fit_rqvae(scaled, config, seed=0, progress=said.append)
        with torch.no_grad():
            losses.append(float(sum(model.losses(torch.from_numpy(scaled))[0].values())))
    assert losses[1] < 0.5 * losses[0]
    codes, _ = model.encode(torch.from_numpy(scaled))
    assert all(len(codes[:, level].unique()) >= 0.8 * 16 for level in range(3))
    assert said[-1].startswith("rqvae: epoch 60 of 60, loss ")


def test_training_leaves_the_global_generator_alone(clouds):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit_rqvae(clouds[:64], SMALL, seed=0)
    torch.testing.assert_close(torch.rand(3), expected)
