"""The audit of a decoder whose answers are written down, worked out by hand; and of TIGER, against its own scores."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
import torch

from harness.baselines.tiger import TIGER, TIGERConfig
from harness.errors import InputError
from harness.interface import Batch, Schema
from harness.probes import decoding
from harness.probes.decoding import CodeDecoder, audit

CODES = [(0, 0), (0, 1), (1, 1), (1, 1), (2, 0)]  # items 3 and 4 share theirs


def users(targets, start=0):
    n = len(targets)
    batch = Batch(torch.ones(n, 3, dtype=torch.int64), torch.full((n,), 3), torch.arange(start, start + n))
    return batch, torch.tensor(targets)


class Written(torch.nn.Module):
    """Answers what was written down for each user."""

    def __init__(self, free, constrained, exact=None):
        super().__init__()
        codes = torch.tensor([(0, 0), *CODES])
        self.schema = Schema(len(CODES), len(free), 3, codes=codes, code_sizes=(3, 2))
        self.lists = {False: free, True: constrained}
        self.exact = torch.zeros(len(free), len(CODES)) if exact is None else torch.tensor(exact)

    def generate(self, batch, beams, constrained):
        assert not self.training
        rows = [self.lists[constrained][user][:beams] for user in batch.users.tolist()]
        return torch.tensor(rows), torch.arange(0.0, -len(rows[0]), -1).expand(len(rows), -1)

    def score_items(self, batch):
        return self.exact[batch.users]


FREE = [[(2, 1), (1, 1), (0, 0)], [(0, 0), (0, 1), (2, 0)]]
CONSTRAINED = [[(1, 1), (0, 0), (2, 0)], [(0, 0), (0, 1), (2, 0)]]


def test_hypotheses_without_an_item_are_counted():
    free = audit(Written(FREE, CONSTRAINED), [users([4, 5])], beams=3, cutoffs=(1, 3))["free"]
    assert free["invalid"] == pytest.approx(1 / 6)
    assert free["invalid@1"] == free["any_invalid"] == 0.5
    assert free["short@1"] == free["short@3"] == 0.0  # user 0: items 3, 4 and 1 remain
    assert free["recall@1"] == 0.0
    assert free["recall@3"] == 1.0


def test_lists_that_invalid_codes_shorten_are_counted():
    free = audit(Written([[(2, 1), (2, 0)]], [[(2, 0), (0, 0)]]), [users([5])], beams=2, cutoffs=(1, 2))["free"]
    assert (free["short@1"], free["short@2"]) == (0.0, 1.0)


def test_a_hit_of_codes_is_no_hit_of_the_item():
    """Item 4 shares its codes with item 3, which stands before it."""
    found = audit(Written(FREE, CONSTRAINED), [users([4, 2])], beams=3, cutoffs=(1, 2))["constrained"]
    assert (found["code_recall@1"], found["recall@1"]) == (0.5, 0.0)
    assert (found["code_recall@2"], found["recall@2"]) == (1.0, 1.0)
    assert found["prefix_recall@1/1"] == 1.0  # (0, 0) agrees with (0, 1) in the first code


def test_the_catalogue_is_described():
    found = audit(Written(FREE, CONSTRAINED), [users([1, 1])], beams=3, cutoffs=(1,))["catalogue"]
    assert found == {"items": 5, "levels": 2, "different_codes": 4, "colliding_items": 2, "largest_collision": 2}


def test_the_beam_is_compared_with_the_scores_of_the_first_users():
    exact = [[-1.0, -9.0, 0.0, 0.0, -2.5], [-1.0, 0.0, -9.0, -9.0, -2.0]]
    model = Written(FREE, CONSTRAINED, exact)
    found = audit(model, [users([3]), users([2], start=1)], beams=3, cutoffs=(1, 2))["exact"]
    assert found["users"] == 2
    assert found["overlap@1"] == found["same@1"] == 0.5  # user 1's best item is 2 and the beam shows 1
    assert (found["overlap@2"], found["same@2"]) == (1.0, 0.5)
    assert (found["recall_beam@1"], found["recall_exact@1"]) == (0.5, 1.0)
    assert found["score_difference"] == 1.0
    one = audit(model, [users([3]), users([2], start=1)], beams=3, cutoffs=(1,), exact_users=1)
    assert one["users"] == 2
    assert (one["exact"]["users"], one["exact"]["same@1"]) == (1, 1.0)
    none = audit(model, [users([3, 2])], beams=3, cutoffs=(1,), exact_users=0)
    assert none["exact"] == {"users": 0, "score_difference": None}


def test_unfilled_places_are_no_hypotheses():
    class Short(Written):
        def generate(self, batch, beams, constrained):
            codes, scores = super().generate(batch, beams, constrained)
            return codes, scores.index_fill(1, torch.tensor([2]), -torch.inf)

    found = audit(Short(FREE, CONSTRAINED), [users([1, 5])], beams=3, cutoffs=(3,))
    assert found["free"]["invalid"] == 0.25
    assert found["constrained"]["recall@3"] == 0.5  # item 5 stood in the place that is not filled


def test_wrong_requests_are_refused():
    model = Written(FREE, CONSTRAINED)
    with pytest.raises(InputError, match="needs as many beams, not 3"):
        audit(model, [users([1, 2])], beams=3)
    with pytest.raises(InputError, match="no user to audit"):
        audit(model, [], beams=10)


class Asking(Written):
    """Answers the first codes of the catalogue, and notes the histories that it was asked about."""

    def __init__(self, **options):
        torch.nn.Module.__init__(self)
        codes = torch.stack([torch.arange(31) // 6, torch.arange(31) % 6], 1)
        self.schema = Schema(30, 40, 7, codes=codes, code_sizes=(6, 6))
        self.config = Namespace(**options)
        self.histories = {}

    def generate(self, batch, beams, constrained):
        assert beams == getattr(self.config, "beams", 20)
        for user, items, length in zip(batch.users.tolist(), batch.items, batch.lengths, strict=True):
            self.histories[user] = items[:length].tolist()
        return self.schema.codes[1 : 1 + beams].expand(len(batch.items), -1, -1), torch.zeros(len(batch.items), beams)

    def score_items(self, batch):
        return torch.zeros(len(batch.items), 30)


def test_a_trained_model_is_audited_on_histories_that_hang_on_the_data_alone(data, monkeypatch):
    monkeypatch.setattr(decoding, "USERS", 20)
    wide, narrow = Asking(), Asking(beams=8)
    found, of_narrow = decoding.audit_model(wide, data), decoding.audit_model(narrow, data)
    assert wide.histories == narrow.histories
    assert len(wide.histories) == found["users"] == of_narrow["users"] == 20
    assert "recall@10" in found["constrained"]
    assert "recall@10" not in of_narrow["constrained"]
    windows = data.histories("test")
    asked = windows.take(np.flatnonzero(np.isin(windows.user, list(wide.histories))))
    for user, start, end in zip(asked.user, asked.start, asked.end, strict=True):
        assert wide.histories[user] == data.log.item[start:end].tolist()
    assert found["constrained"]["recall@5"] == pytest.approx((data.log.item[asked.end] <= 5).mean())


def test_tiger_is_audited():
    torch.manual_seed(0)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    codes = torch.cat([torch.zeros(1, 2, dtype=torch.int64), every[torch.randperm(20)[:15]]])
    schema = Schema(15, 6, 5, codes=codes, code_sizes=(4, 5))
    config = TIGERConfig(dim=16, heads=2, head_dim=8, feed_forward=16, encoder_layers=1, decoder_layers=1, beams=3)
    model = TIGER(config, schema).train()
    batch = Batch(torch.randint(1, 16, (6, 5)), torch.tensor([1, 2, 3, 4, 5, 5]), torch.arange(6))
    target = torch.randint(1, 16, (6,))
    assert isinstance(model, CodeDecoder)
    found = audit(model, [(batch, target)], beams=20, cutoffs=(1, 10))
    assert model.training is True
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    # A beam that covers all codes: every one of the 5 combinations without an item turns up, and nothing is missed.
    assert found["free"]["invalid"] == pytest.approx(5 / 20)
    assert found["exact"]["same@10"] == 1.0
    assert found["exact"]["score_difference"] < 1e-5
    order = model.eval().score_items(batch).argsort(dim=1, descending=True) + 1
    recall = (order[:, :10] == target[:, None]).any(1).double().mean()
    assert found["constrained"]["recall@10"] == found["free"]["recall@10"] == pytest.approx(recall.item())
    assert found["constrained"]["code_recall@10"] == found["constrained"]["recall@10"]
