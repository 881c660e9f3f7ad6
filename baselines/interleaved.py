"""Interleaved generative recommender: items and actions take turns in one sequence of 2N tokens.

Zhai et al., "Actions Speak Louder than Words", ICML 2024 (arXiv 2402.17152), section 2.2 (ranking):
x = (i_0, a_0, i_1, a_1, ...), and the output at the position of an item predicts its action, which stands behind
it and is hidden by the causal mask. For the next item the output is read at the action, so that it is visible.

As well tuned as the models it is compared with: one stack-and-flatten to interleave, the same fused kernel, and a
last layer that computes only what is read (keys and values of all tokens, the rest for one token per event).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.interface import AttentionMaps, Batch, Choice, Fidelity
from harness.models.blocks.causal_union import Part
from harness.models.blocks.places import Places, places
from harness.models.blocks.ranker import Cache, Ranker, RankerConfig, Weights

__all__ = ["Interleaved", "InterleavedConfig"]


class InterleavedConfig(RankerConfig):
    """Options of the interleaved sequence, beside those of every arm."""

    positions: Literal["token", "event"] = "token"
    """event: an item and its action share one position."""
    last_layer: Literal["read", "all"] = "read"
    """read: the last layer's queries and feed-forward only for the tokens that are read; the result is the same."""


class Interleaved(Ranker[InterleavedConfig]):
    """Causal layers over the 2L tokens i_0, a_0, i_1, a_1, ...; an event's state (B, L, d) is that of one token.

    Action prediction reads the item's token, which does not see the action behind it. The next item is predicted from
    the action's token. Zhai et al., ICML 2024, section 2.2.
    """

    Config = InterleavedConfig
    tokens_per_event = 2
    fidelity = Fidelity(
        paper="Zhai et al., Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative "
        "Recommendations, ICML 2024, arXiv 2402.17152",
        status="reconstruction",
        verified=(
            "interleaving and where outputs are read",
            "hstu: the layer's equations, initialisation, epsilon 1e-6 and division by the longest sequence, from the "
            "authors' research code",
        ),
        choices=(
            Choice("backbone", "pre-norm, RoPE and softmax as in Feed SR (arXiv 2602.12354)", "inferred"),
            Choice("positions", "each token counts in the published sequence", "inferred"),
            Choice("attention_scale", "hstu: the code divides by the model's longest sequence", "verified"),
            Choice("action_dropout", "as items have it, equally in all arms"),
            Choice("head", "not published for this comparison"),
        ),
        departures=(
            "item and action embeddings enter as they are, without an MLP each, as in the other arms",
            "hstu: time bias from the query's own time, where the code takes the next event's",
            "hstu: inputs not multiplied by sqrt(d), and no learned absolute positions beside the relative ones",
            "hstu: the research code's layer; Meta's ranker has affine norms, biases, SiLU on the gate alone and "
            "1/sqrt(d)",
            "the final norm is an RMSNorm",
        ),
    )

    def states(self, batch: Batch, own_action: bool, record: Weights | None = None) -> Tensor:
        x, at = self._tokens(batch)  # (B, 2L, d)
        read = int(own_action)
        if not own_action:
            x, at = x[:, :-1], at.upto(x.shape[1] - 1)  # nobody attends to the last action
        trimmed = self.config.last_layer == "read" and record is None
        for layer in self.layers[: -1 if trimmed else None]:
            x = self.causal(layer, x, at, record)
        if not trimmed:
            return self.final_norm(x[:, read::2])  # (B, L, d)
        layer = self.layers[-1]
        normed, reads = layer.norm(x), at.every(read, 2)
        query, gate = layer.queries(normed[:, read::2], reads)  # (B, H, L, D)
        key, value = layer.keys(normed, at)  # (B, H, 2L, D)
        parts = [
            Part(key[:, :, 0::2], value[:, :, 0::2], False),
            Part(key[:, :, 1::2], value[:, :, 1::2], not own_action),
        ]
        attended = layer.attend(query, reads, parts, [at.every(0, 2), at.every(1, 2)])
        return self.final_norm(layer.finish(x[:, read::2], attended, gate))

    def candidate_states(self, batch: Batch, candidates: Tensor) -> Tensor:
        x, at = self._tokens(batch)
        cache: Cache = []
        for layer in self.layers:
            x = self.causal(layer, x, at, cache=cache)
        position = batch.lengths * (2 if self.config.positions == "token" else 1)
        there = self.candidate_places(batch, position, candidates)
        new = self.dropout(self.item_embedding(candidates))  # (B, K, d)
        return self.beside(new, there, cache, at, self.seen(batch, per_event=2))

    def attention_maps(self, batch: Batch, own_action: bool) -> AttentionMaps:
        """2L tokens; those of event n stand at 2n (item), which predicts actions, and 2n + 1 (action)."""
        record: Weights = []
        self.states(batch, True, record)  # the causal mask alone hides an action, so both tasks have the same maps
        events = torch.arange(batch.items.shape[1], device=batch.items.device).repeat_interleave(2)
        events = events.expand(len(batch.items), -1)  # (B, 2L)
        action = torch.arange(events.shape[1], device=events.device) % 2 == 1
        predicts = events if own_action else events.masked_fill(action, -1)
        return AttentionMaps([weights for (weights,) in record], predicts, events)

    def _tokens(self, batch: Batch) -> tuple[Tensor, Places]:
        """i_0, a_0, i_1, a_1, ...: (B, 2L, d), and their places."""
        items, actions = self.dropout(self.item_embedding(batch.items)), self.action_encoder(batch.labels())
        x = torch.stack((items, actions), 2).flatten(1, 2)  # (B, L, 2, d) -> (B, 2L, d)
        position = torch.arange(x.shape[1], device=x.device)
        if self.config.positions == "event":
            position = position // 2
        time = None if batch.times is None else batch.times.repeat_interleave(2, 1)  # (B, 2L)
        return x, places(position, time, self.config.dim // self.config.heads)
