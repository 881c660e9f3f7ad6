"""Transitions: what followed the last items of a history in the training part. It is counted, not trained, and yet
beats many a trained model on sparse data: the floor of the sequential models.

The graph and its weights are ours, after the transition graph of TGH (arXiv 2605.07125), which adds features of items.
Shapes: B sequences, N items, E training events.
"""

from __future__ import annotations

import warnings

import torch
from pydantic import Field, model_validator
from torch import Tensor

from harness.errors import InputError
from harness.interface import Batch, Choice, Fidelity, Recommender, Schema, Task
from harness.settings import Settings

__all__ = ["Transitions", "TransitionsConfig", "transition_graph"]

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # of a product of sparse matrices


class TransitionsConfig(Settings):
    """Weights of the graph's edges, and of what a history asks of it."""

    forward: float = Field(1.0, ge=0)
    """Weight of a pair of neighbours, from the earlier item to the later."""
    backward: float = Field(0.5, ge=0)
    """The same, from the later item to the earlier."""
    two_steps: float = Field(0.3, ge=0)
    """From an item to the one after the next."""
    previous: float = Field(0.5, ge=0)
    """Weight of the last item but one, where the last has 1."""
    further: float = Field(0.1, ge=0)
    """Weight of what the graph leads to in one more step."""
    popularity: float = Field(1e-4, ge=0)
    """Weight of an item's share of the training events, which ranks what the graph does not reach."""

    @model_validator(mode="after")
    def _has_edges(self) -> TransitionsConfig:
        if not self.forward + self.backward + self.two_steps:
            raise ValueError("forward, backward and two_steps are all 0, so the graph has no edge; raise one of them")
        return self


class Transitions(Recommender[TransitionsConfig]):
    """score = r + further * r G + popularity * p, where r is the last item's row of the graph G plus ``previous``
    times that of the one before, and p the items' shares of the training events. It has no parameters."""

    Config = TransitionsConfig
    tasks = frozenset({Task.RETRIEVAL})
    fidelity = Fidelity(
        paper="item-to-item transitions counted in the training part: the floor of the sequential models; the idea is "
        "that of TGH, arXiv 2605.07125",
        status="control",
        choices=tuple(
            Choice(option, "chosen by hand, the same for every data set")
            for option in ("forward", "backward", "two_steps", "previous", "further", "popularity")
        ),
        departures=("TGH's features of items are left out",),
    )

    graph: Tensor
    shares: Tensor

    def __init__(self, config: TransitionsConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        if schema.train_events is None or schema.item_counts is None:
            raise InputError("transitions: the data give no training events")
        graph = transition_graph(config, *schema.train_events(), schema.n_items)
        shares = schema.item_counts / schema.item_counts.sum()  # (N + 1,)
        self.register_buffer("graph", graph, persistent=False)  # (N + 1, N + 1), sparse
        self.register_buffer("shares", shares, persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def score_items(self, batch: Batch) -> Tensor:
        users = torch.arange(len(batch.items), device=batch.items.device)
        last = batch.items[users, batch.lengths - 1]  # (B,)
        before = batch.items[users, (batch.lengths - 2).clamp(min=0)]
        weights = self.config.previous * (batch.lengths > 1)
        history = torch.sparse_coo_tensor(
            torch.stack([users.repeat(2), torch.cat([last, before])]),
            torch.cat([torch.ones_like(weights), weights]),
            (len(users), len(self.shares)),
            check_invariants=False,
        )  # (B, N + 1)
        reached = torch.sparse.mm(history, self.graph)
        scores = (reached + self.config.further * torch.sparse.mm(reached, self.graph)).to_dense()
        return (scores + self.config.popularity * self.shares)[:, 1:]


def transition_graph(config: TransitionsConfig, items: Tensor, users: Tensor, n_items: int) -> Tensor:
    """(n_items + 1, n_items + 1) sparse float32: weighted counts of who follows whom. Each row with an edge sums to 1.

    Args:
        items: (E,) int64, user after user, oldest first.
        users: (E,) int64, whose event each is.
    """
    size = (n_items + 1, n_items + 1)
    next_to = torch.stack([items[:-1], items[1:]])[:, users[:-1] == users[1:]]  # (2, pairs)
    two_apart = torch.stack([items[:-2], items[2:]])[:, users[:-2] == users[2:]]
    kinds = [(next_to, config.forward), (next_to.flip(0), config.backward), (two_apart, config.two_steps)]
    edges = torch.cat([pairs for pairs, weight in kinds if weight], dim=1)
    weights = torch.cat([torch.full_like(pairs[0], weight, dtype=torch.float64) for pairs, weight in kinds if weight])
    graph = torch.sparse_coo_tensor(edges, weights, size, check_invariants=False).coalesce()
    source, counts = graph.indices()[0], graph.values()
    total = torch.zeros(n_items + 1, dtype=torch.float64, device=items.device).index_add_(0, source, counts)
    scaled = (counts / total[source]).to(torch.float32)
    return torch.sparse_coo_tensor(graph.indices(), scaled, size, is_coalesced=True, check_invariants=False)
