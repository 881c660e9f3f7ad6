from __future__ import annotations

import pytest
import torch

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.interface import AttentionMaps, Ranking, Recommender
from harness.settings import Settings
from harness.tasks.retrieval import Retrieval


class Waves(Recommender):
    """Scores and signed attention are written-down functions of the items; two tokens per event, two layers.

    A first key belongs to no event. ``users`` says that the histories don't matter where it should not.
    """

    Config = Settings
    tokens_per_event = 2
    layers, heads = 2, 3

    def losses(self, batch):
        return {}

    def score_items(self, batch):
        catalogue = torch.arange(1, self.schema.n_items + 1)
        place = torch.arange(1, batch.items.shape[1] + 1) * (batch.items > 0)
        wave = torch.sin((batch.items * place).sum(1)[:, None] * 0.37 + catalogue * 1.3)
        return (wave * 5).round()  # many items tie

    @staticmethod
    def weight(layer, head, item, token):
        """Of the token of an item (0 or 1) for any query after it."""
        return torch.sin(item * 0.7 * (head + 1) + layer + 0.4 * token)

    def attention(self, batch, task):
        items = batch.items.repeat_interleave(2, 1).double()  # (B, 2L)
        token = (torch.arange(items.shape[1]) % 2).double()
        event = torch.arange(batch.items.shape[1]).repeat_interleave(2).expand(len(items), -1)
        causal = torch.ones(items.shape[1], items.shape[1]).tril()
        maps = []
        for layer in range(self.layers):
            row = torch.stack([self.weight(layer, h, items, token) for h in range(self.heads)], 1)  # (B, H, 2L)
            square = row[:, :, None] * causal
            maps.append(torch.cat([torch.full((*square.shape[:3], 1), 9.0), square], -1))
        return AttentionMaps(maps, event, torch.cat([torch.full((len(items), 1), -1), event], 1))


class Searching(Waves):
    """Lists of a search: short, of different lengths, empty now and then."""

    exact = False

    def rank_items(self, batch, k):
        whole = super().rank_items(batch, min(k, 14))
        items, scores = whole.items.clone(), whole.scores.clone()
        items[batch.users % 3 == 0, 6:] = 0
        items[batch.users % 7 == 0] = 0
        return Ranking(items, scores.masked_fill(items == 0, -torch.inf), complete=False)


@pytest.fixture(scope="session")
def make_data():
    def make(name="synthetic-sessions:users=40,items=30,length=20", max_length=7, **options):
        log = load(name, DataConfig(**options))
        return Retrieval(log, make_split(log, DataConfig(**options)), max_length=max_length, metrics=["ndcg@10", "mrr"])

    return make


@pytest.fixture(scope="session")
def data(make_data):
    return make_data()


@pytest.fixture
def waves(data):
    return Waves(Settings(), data.schema())


@pytest.fixture
def searching(data):
    return Searching(Settings(), data.schema())
