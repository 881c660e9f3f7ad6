"""AttnLFA against loops written from its equations, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from harness.errors import InputError
from harness.interface import Batch, Schema
from harness.models.attn_lfa import AttnLFA, AttnLFAConfig
from harness.settings import parse

LENGTH = 6
OPTIONS = [
    {"pooling": pooling, "similarity": similarity, "kernel": kernel, "fusion": fusion, "action_scale": scale}
    for pooling, similarity, kernel, fusion, scale in itertools.product(
        ("after-last", "reuse-last-weights"),
        ("hidden", "embedding"),
        ("softmax", "silu"),
        ("concat", "sum", "gate", "action-only"),
        (True, False),
    )
    if pooling == "after-last" or (similarity, kernel) == ("hidden", "softmax")
]


def made(options: dict) -> tuple[AttnLFA, Batch]:
    torch.manual_seed(0)
    schema = Schema(n_items=12, n_users=3, max_length=LENGTH + 1, actions=("like", "love"))
    model = AttnLFA(AttnLFAConfig(dim=8, layers=2, heads=2, **options), schema).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    lengths = torch.tensor([LENGTH, 1, 4])
    inside = torch.arange(LENGTH) < lengths[:, None]
    items = torch.randint(1, 13, (3, LENGTH)) * inside
    actions = torch.randint(0, 2, (3, LENGTH, 2)).double() * inside[..., None]
    return model, Batch(items, lengths, torch.arange(3), actions=actions)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_logits_equal_loops(options, reference):
    model, batch = made(options)
    config, rms = model.config, reference.rms

    def logits_of(embedded: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        x = embedded
        for layer in model.layers:
            before, x = x, reference.item_layer(model, layer, x)
        hidden = rms(x, model.final_norm)
        value = rms(encoded, model.action_norm) @ model.value.weight.T
        if config.pooling == "reuse-last-weights":
            query, key, _ = (rms(before, layer.norm) @ layer.projection.weight.T).chunk(3, -1)
        else:
            source = hidden if config.similarity == "hidden" else rms(embedded, model.similarity_norm)
            query, key = (source @ model.query_key.weight.T).chunk(2, -1)
        pooled = torch.zeros_like(x)
        for n in range(len(x)):
            for h, head in enumerate(reference.heads(model)):
                if config.kernel == "silu":
                    for m in range(n):
                        similarity = reference.score(query, key, n, m, head)
                        pooled[n, head] += F.silu(similarity) / model.schema.max_length * value[m, head]
                    continue
                if config.pooling == "reuse-last-weights":
                    weight = reference.softmax_weights(query, key, n, head, last=n)[:n]
                else:
                    null_key, null_value = model.null[0, h], model.null[1, h]
                    first, *weight = reference.softmax_weights(query, key, n, head, last=n - 1, null=null_key)
                    pooled[n, head] += first * null_value
                for m in range(n):
                    pooled[n, head] += weight[m] * value[m, head]
        z = rms(pooled @ model.out.weight.T, model.pooled_norm)
        if config.fusion == "gate":
            share = torch.sigmoid(model.gate(torch.cat((hidden, z), -1)))
            return model.action_head(share * hidden + (1 - share) * z)
        states = {"concat": torch.cat((hidden, z), -1), "sum": hidden + z, "action-only": z}
        return model.action_head(states[config.fusion])

    for found, expected in reference.each_sequence(model, batch, logits_of):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_pooling_depends_on_the_item_at_hand_even_without_its_state():
    model, batch = made({"fusion": "action-only"})
    other = Batch(batch.items.clone(), batch.lengths, batch.users, actions=batch.actions)
    other.items[0, 4] = batch.items[0, 4] % 12 + 1
    assert not torch.allclose(model.predict_actions(batch)[0, 4], model.predict_actions(other)[0, 4])


def test_first_event_pools_the_null_value_alone():
    model, batch = made({"fusion": "action-only", "head": "linear"})
    z = F.rms_norm(model.null[1].flatten() @ model.out.weight.T, (8,), model.pooled_norm.weight, 1e-6)
    expected = model.action_head(z).expand(3, -1)
    torch.testing.assert_close(model.predict_actions(batch)[:, 0], expected, atol=1e-10, rtol=0)


def test_options_without_effect_are_refused():
    with pytest.raises(InputError, match="leave similarity and kernel out"):
        parse(AttnLFAConfig, {"pooling": "reuse-last-weights", "kernel": "silu"}, "variant 'x'")
