"""The forms that are timed answer the same attention, but the plain one. Their times are asserted nowhere."""

from __future__ import annotations

import torch

from benchmarks import mixing


def test_every_form_runs_forward_and_backward_on_the_same_numbers(monkeypatch):
    sums = []
    gradient = torch.autograd.grad

    def noted(output, drawn):
        sums.append((output.item(), gradient(output, drawn)[0]))

    monkeypatch.setattr(torch.autograd, "grad", noted)
    for call in mixing.forms(dim=8, heads=2, length=6, events=12).values():
        call()
    plain, merged, masked = sums
    torch.testing.assert_close(merged, masked, rtol=1e-4, atol=1e-5)
    assert not torch.isclose(torch.tensor(plain[0]), torch.tensor(merged[0]))


def test_both_exact_forms_are_compared_with_the_plain_call():
    found = mixing.compare(dim=8, heads=2, length=6, events=12, repeats=1)
    assert [comparison.what for comparison in found] == ["merged", "masked"]
