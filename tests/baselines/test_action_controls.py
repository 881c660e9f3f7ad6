"""The controls against what they stand for, computed the long way: one sequence per prediction."""

from __future__ import annotations

import pytest
import torch

from harness.baselines.action_controls import ItemActionSum, ItemOnly, LaggedAction
from harness.interface import Batch, Schema, Task
from harness.models.blocks.ranker import RankerConfig

LENGTH = 6
BACKBONES = [{}, {"backbone": "hstu", "time_bias": True}]


def made(kind: type, options: dict):
    torch.manual_seed(0)
    schema = Schema(n_items=12, n_users=3, max_length=LENGTH + 1, actions=("like", "love"))
    model = kind(RankerConfig(dim=8, layers=2, heads=2, **options), schema).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    lengths = torch.tensor([LENGTH, 1, 4])
    inside = torch.arange(LENGTH) < lengths[:, None]
    items = torch.randint(1, 13, (3, LENGTH)) * inside
    actions = torch.randint(0, 2, (3, LENGTH, 2)).double() * inside[..., None]
    times = torch.randint(0, 1000, (3, LENGTH)).cumsum(1) * inside
    return model, Batch(items, lengths, torch.arange(3), times=times, actions=actions)


def through(model, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, L, A): plain causal layers over one token per event."""
    at = model.places(batch)
    for layer in model.layers:
        tokens = model.causal(layer, tokens, at)
    return model.action_head(model.final_norm(tokens))


@pytest.mark.parametrize("options", BACKBONES)
def test_sum_equals_appending_each_event_with_a_placeholder_to_its_own_history(options):
    model, batch = made(ItemActionSum, options)
    found = model.predict_actions(batch)
    merged = model.item_embedding(batch.items) + model.action_encoder(batch.actions)
    for b, length in enumerate(batch.lengths.tolist()):
        for n in range(length):
            tokens = merged[b : b + 1, : n + 1].clone()
            tokens[0, n] = model.item_embedding(batch.items[b, n]) + model.placeholder
            alone = Batch(
                batch.items[b : b + 1, : n + 1],
                torch.tensor([n + 1]),
                batch.users[:1],
                times=batch.times[b : b + 1, : n + 1],
            )
            torch.testing.assert_close(found[b, n], through(model, tokens, alone)[0, n], atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", BACKBONES)
def test_sum_for_the_next_item_is_a_plain_tower_over_merged_tokens(options):
    model, batch = made(ItemActionSum, options)
    merged = model.item_embedding(batch.items) + model.action_encoder(batch.actions)
    at = model.places(batch)
    for layer in model.layers:
        merged = model.causal(layer, merged, at)
    last = model.final_norm(merged)[torch.arange(3), batch.lengths - 1]
    torch.testing.assert_close(model.score_items(batch), last @ model.item_embedding.weight[1:].T)


@pytest.mark.parametrize("options", BACKBONES)
def test_lagged_tokens_carry_the_action_before(options):
    model, batch = made(LaggedAction, options)
    tokens = model.item_embedding(batch.items).clone()
    for n in range(LENGTH):
        tokens[:, n] += model.start if n == 0 else model.action_encoder(batch.actions[:, n - 1])
    torch.testing.assert_close(model.predict_actions(batch), through(model, tokens, batch))


def test_lagged_action_does_not_claim_retrieval():
    assert LaggedAction.tasks == {Task.ACTION}


def test_item_only_needs_no_actions_to_predict_them():
    model, batch = made(ItemOnly, {})
    blind = Batch(batch.items, batch.lengths, batch.users)
    torch.testing.assert_close(model.predict_actions(blind), model.predict_actions(batch))


def test_sum_maps_give_the_query_its_own_key_on_the_diagonal():
    model, batch = made(ItemActionSum, {})
    for weights in model.attention(batch, Task.ACTION).maps:
        assert weights.shape == (3, 2, LENGTH, LENGTH)
        assert weights.triu(1).abs().max() == 0
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, LENGTH).double())
