"""TIGER: a T5 that reads the codes of a user's items and writes the codes of the next one.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023 (arXiv 2305.05065), over the
Transformer of Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", JMLR 2020. Shapes: B sequences, L events, T events read, m code levels, S encoder tokens,
P supervised positions (one a row with prefixes), W beams, H heads, V vocabulary, C codes of a level, D ``dim``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import Batch, Choice, Fidelity, Needs, Ranking, Recommender, Schema, Task
from harness.models.blocks.t5 import Positions, Stack
from harness.models.blocks.trie import Beams, Trie, beam_search, score_catalogue
from harness.settings import Settings

__all__ = ["SIZES", "TIGER", "TIGERConfig"]

SIZES: dict[str, dict[str, Any]] = {"published": {}, "wide": {"dim": 384, "embedding_dim": 128}}
"""Options of the two sizes that the paper's numbers allow: "input dim 128" gives 4.8M parameters, a model as
wide as its heads (6 x 64) over embeddings of 128 gives the 13M that the paper names."""

START = 0  # token that starts the decoder; also stands where the encoder's input is padded, as in T5


class TIGERConfig(Settings):
    """The sizes are the paper's, its "input dim 128" read as the width of the model; user tokens are off by default."""

    dim: int = Field(128, ge=1)
    """Width of the Transformer."""
    embedding_dim: int | None = Field(None, ge=1)
    """Width of the token embeddings, projected to ``dim``; None: ``dim``, without a projection."""
    encoder_layers: int = Field(4, ge=1)
    decoder_layers: int = Field(4, ge=1)
    heads: int = Field(6, ge=1)
    head_dim: int = Field(64, ge=1)
    feed_forward: int = Field(1024, ge=1)
    dropout: float = Field(0.15, ge=0, lt=1)
    max_items: int = Field(20, ge=1)
    """The last events that are read; of a causal encoder the last ones that each event sees in a layer."""
    encoder: Literal["bidirectional", "causal"] = "bidirectional"
    """What an event of the history sees: the whole history, as in T5, so that each prefix needs a pass of its own; or
    itself and the events before it, so that one pass trains on every position of a sequence."""
    user_buckets: int = Field(0, ge=0)
    """User tokens, shared by users whose index is equal modulo this number; 0: no user token."""
    separator: bool = False
    """A separator token after the codes of each item."""
    softmax: Literal["vocabulary", "level"] = "vocabulary"
    """Over which tokens a code's probability is normalised: all, as in T5, or the codes of its level."""
    beams: int = Field(50, ge=1)
    """Beam width; at least the longest cutoff, and more where the history is removed from the ranking."""
    decoding: Literal["beam", "exact"] = "beam"
    """Beam search, or the scores of the whole catalogue (a check: it costs a decoder pass per item)."""


class Decoding(NamedTuple):
    """What the decoder keeps of a batch between two levels."""

    memory: list[tuple[Tensor, Tensor]]
    """Per layer the encoder's keys and values (B, H, S, Dh), once per user."""
    mask: Tensor
    """(B, 1, 1, S) 0 at the tokens that are read and -inf elsewhere."""
    past: list[Tensor]
    """Per earlier level the self-attention's keys and values, layer after layer (B, W or 1, 2 * layers, H * Dh)."""


class TIGER(Recommender[TIGERConfig]):
    """Encoder-decoder Transformer (T5) from the codes of the last events (B, S) to the m codes of the next item.

    It is trained on prefixes, each with its one next item; with ``encoder: causal`` on all positions of a sequence in
    one pass, the position t reading what the encoder makes of the events up to t. A beam search over the trie of the
    items' codes ranks the items, W beams per user; ``decoding: exact`` scores the whole catalogue instead.
    """

    Config = TIGERConfig
    tasks = frozenset({Task.RETRIEVAL})
    needs = Needs(codes=True, unique_codes=True, rows="prefixes")
    exact = False
    training_defaults: ClassVar[dict[str, Any]] = {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "batch_size": 256,
    }
    fidelity = Fidelity(
        paper="Rajput et al., Recommender Systems with Generative Retrieval (TIGER), NeurIPS 2023, arXiv 2305.05065",
        status="reconstruction",
        verified=(
            "the Transformer is T5's: the forward pass equals another implementation with the same weights",
            "a separate block of the vocabulary for each code level",
            "the last 20 items; every prefix of a training sequence is a sample (public reproductions)",
        ),
        choices=(
            Choice("dim", "'input dim 128' read as the model's width: 4.8M parameters", "second-hand"),
            Choice(
                "embedding_dim", "128 with dim 384 is the other reading: the 13M parameters of the paper", "inferred"
            ),
            Choice(
                "user_buckets",
                "2000 in the paper; a public ablation does best without",
                "second-hand",
            ),
            Choice("dropout", "as GRID's reproduction; 0.1 in readings of the paper", "second-hand"),
            Choice("separator", "some reproductions separate the items; the paper does not say", "second-hand"),
            Choice("softmax", "over the whole vocabulary, as in T5"),
            Choice("beams", "the width is not stated; wide enough to remove the history from the list"),
        ),
        departures=(
            "Adam at 1e-3 with a weight decay of 1e-4 (GRID's reproduction, which accumulates 16 batches a step): the "
            "paper's rate of 0.01 with inverse square root decay, taken literally, does badly in public reproductions",
            "codes are whatever the study's quantiser makes: residual k-means (items.quantiser.kind: rkmeans with "
            "last_level: distinct) is recommended, as good as the best RQ-VAE found and far cheaper",
            "beams follow the codes of items alone (a trie), so no hypothesis is invalid",
            "of an embedding narrower than the model, the projected table is also the output layer",
            "encoder: causal (not the default) hides later events from each event of the history, so that one pass "
            "trains on all positions of a sequence; T5's encoder sees the whole history, one pass a prefix",
        ),
    )

    tokens: Tensor
    future: Tensor

    def __init__(self, config: TIGERConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        if schema.codes is None:
            raise InputError("TIGER needs the items' codes; add an 'items' section to the study")
        self.exact = config.decoding == "exact"
        self.trie = Trie(schema.codes, schema.code_sizes)
        self.levels = len(schema.code_sizes)
        self.tokens_per_event = self.levels + config.separator
        self.causal = config.encoder == "causal"
        self.max_items = min(config.max_items, schema.max_length)

        # Vocabulary: the start token, the codes level by level, the separator, the users.
        offsets = [1 + sum(schema.code_sizes[:level]) for level in range(self.levels)]
        self.blocks = [slice(first, first + size) for first, size in zip(offsets, schema.code_sizes, strict=True)]
        self.separator = 1 + sum(schema.code_sizes)
        self.first_user = self.separator + config.separator
        tokens = schema.codes.cpu() + torch.tensor(offsets)  # (n_items + 1, m)
        tokens[0] = START
        self.register_buffer("tokens", tokens, persistent=False)

        width = config.embedding_dim or config.dim
        self.embedding = nn.Embedding(self.first_user + config.user_buckets, width)
        self.projection = nn.Linear(width, config.dim, bias=False) if config.embedding_dim else None
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=width**-0.5)
        # A causal encoder keeps the whole sequence and hides what is out of reach, so that each event's view, and with
        # it what it becomes, is the same in a pass over all positions as in one over the history alone.
        self.read = schema.max_length if self.causal else self.max_items
        length = self.read * self.tokens_per_event + (config.user_buckets > 0)
        self.encoder = Stack(config, config.encoder_layers, length, decoder=False)
        self.decoder = Stack(config, config.decoder_layers, self.levels, decoder=True)
        future = torch.full((self.levels, self.levels), -torch.inf).triu(1)
        self.register_buffer("future", future, persistent=False)

    @classmethod
    def needs_with(cls, config: TIGERConfig) -> Needs:
        return dataclasses.replace(cls.needs, rows="prefixes" if config.encoder == "bidirectional" else "positions")

    def table(self) -> Tensor:
        """(V, D) the tokens' embeddings, which are the output layer's weights too."""
        return self.embedding.weight if self.projection is None else self.projection(self.embedding.weight)

    def encoder_input(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens (B, S) of the last events and the mask (B, 1, 1, S) of their padding, 0 or -inf."""
        items, lengths = batch.items, batch.lengths
        if items.shape[1] > self.read:
            first = (lengths - self.read).clamp(min=0)
            window = first.unsqueeze(1) + torch.arange(self.read, device=items.device)
            items = items.gather(1, window)  # (B, T)
        tokens = self.tokens[items]  # (B, T, m)
        if self.config.separator:
            tokens = F.pad(tokens, (0, 1), value=self.separator)  # (B, T, m + 1)
        used = lengths * tokens.shape[2]
        tokens = tokens.flatten(1)  # (B, S)
        if self.config.user_buckets:
            user = self.first_user + batch.users % self.config.user_buckets
            tokens, used = torch.cat([user.unsqueeze(1), tokens], dim=1), used + 1
        padded = torch.arange(tokens.shape[1], device=tokens.device) >= used.unsqueeze(1)  # (B, S)
        mask = torch.zeros_like(padded, dtype=self.embedding.weight.dtype).masked_fill(padded, -torch.inf)
        return tokens, mask[:, None, None]

    def encode(self, batch: Batch, table: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's output (B, S, D) and the mask (B, 1, 1, S) of what the event after the last one sees of it."""
        tokens, mask = self.encoder_input(batch)
        bias = self.encoder.bias(tokens.shape[1])  # (1, H, S, S), one for all layers
        if not self.causal:
            return self.encoder(F.embedding(tokens, table), bias + mask), mask
        event = self.token_events(tokens.shape[1])  # (S,)
        memory = self.encoder(F.embedding(tokens, table), bias + self.visible(event, event))
        last = batch.lengths.unsqueeze(1) - 1  # (B, 1)
        return memory, self.visible(last, event)

    def token_events(self, tokens: int) -> Tensor:
        """(S,) the event of each token of the encoder; -1 for the user's."""
        places = torch.arange(tokens, device=self.tokens.device) - int(self.config.user_buckets > 0)
        return places.div(self.tokens_per_event, rounding_mode="floor")

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        """Events (..., Q) and (S,) -> (..., 1, Q, S): 0 where the query's event may see the key's, else -inf.

        Visible are the user and the last ``max_items`` events. Padding stands behind the last event.
        """
        back = query.unsqueeze(-1) - key  # (..., Q, S)
        hidden = (back < 0) | ((back >= self.max_items) & (key >= 0))
        mask = torch.zeros_like(hidden, dtype=self.embedding.weight.dtype).masked_fill(hidden, -torch.inf)
        return mask.unsqueeze(-3)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the next item's codes, given the codes before them (mean over codes)."""
        target = self.tokens[batch.next_items()]  # (P, m)
        table = self.table()
        memory, mask = self.encode(batch, table)
        positions = None
        if self.causal:
            positions = Positions(batch.positions(), *batch.items.shape)
            event = torch.arange(batch.items.shape[1], device=batch.items.device).repeat_interleave(self.levels)
            mask = self.visible(event, self.token_events(memory.shape[1]))  # (1, L * m, S)
        given = F.pad(target[:, :-1], (1, 0), value=START)
        bias = self.decoder.bias(self.levels) + self.future
        hidden = self.decoder(F.embedding(given, table), bias, memory, mask, positions)  # (P, m, D)
        if self.config.softmax == "vocabulary":
            return {"codes": F.cross_entropy(self.logits(hidden, table).flatten(0, 1), target.flatten())}
        terms = [
            F.cross_entropy(self.logits(hidden[:, level], table[block]), target[:, level] - block.start)
            for level, block in enumerate(self.blocks)
        ]
        return {"codes": torch.stack(terms).mean()}

    def logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """(..., V): T5 scales a tied output layer by the inverse root of the width."""
        return F.linear(hidden * self.config.dim**-0.5, table)

    def start(self, batch: Batch) -> Decoding:
        """The encoder's work for a batch, before the first level is decoded."""
        memory, mask = self.encode(batch, self.table())
        return Decoding([layer.memory(memory) for layer in self.decoder.layers], mask, [])

    def step(
        self, state: Decoding, level: int, parents: Tensor | None, codes: Tensor | None
    ) -> tuple[Tensor, Decoding]:
        """One level of the decoder, see :data:`harness.models.blocks.trie.Step`."""
        table = self.table()
        if codes is None:
            tokens = torch.full((state.mask.shape[0], 1), START, device=state.mask.device)
        else:
            tokens = codes + self.blocks[level - 1].start  # (B, W)
        past = [] if parents is None else [_follow(position, parents) for position in state.past]
        bias = self.decoder.bias(level + 1)[0, :, -1]  # (H, level + 1)
        x = F.embedding(tokens, table)  # (B, W, D)
        own: list[Tensor] = []
        for depth, layer in enumerate(self.decoder.layers):
            positions = [(p[:, :, 2 * depth], p[:, :, 2 * depth + 1]) for p in past]
            x, keys_values = layer.step(x, positions, bias, state.memory[depth], state.mask)
            own += keys_values
        hidden = self.decoder.norm(x)
        block = self.blocks[level]
        if self.config.softmax == "level":
            log_probs = self.logits(hidden, table[block]).float().log_softmax(dim=-1)  # (B, W, C)
        else:
            logits = self.logits(hidden, table).float()
            log_probs = logits[..., block] - logits.logsumexp(dim=-1, keepdim=True)  # (B, W, C)
        return log_probs, state._replace(past=[*past, torch.stack(own, dim=2)])

    @torch.no_grad()
    def generate(self, batch: Batch, beams: int, constrained: bool = True) -> Beams:
        """The code sequences that a beam search finds, of items alone or (``constrained=False``) of any codes."""
        trie = self.trie if constrained else None
        parts = [
            beam_search(self.step, self.start(part), self.schema.code_sizes, beams, trie)
            for part in _parts(batch, self._beams_at_once() // beams)
        ]
        codes, scores, items = zip(*parts, strict=True)
        return Beams(torch.cat(codes), torch.cat(scores), torch.cat(items) if constrained else None)

    @torch.no_grad()
    def score_items(self, batch: Batch) -> Tensor:
        limit = self._beams_at_once()
        parts = _parts(batch, limit // 64)
        return torch.cat([score_catalogue(self.step, self.start(p), self.trie, limit) for p in parts])

    def _beams_at_once(self) -> int:
        """Beams of all users that are in work together: what stays in the caches of a CPU's cores, or fills a GPU."""
        return 2**10 * torch.get_num_threads() if self.embedding.weight.device.type == "cpu" else 2**15

    def rank_items(self, batch: Batch, k: int) -> Ranking:
        if self.exact:
            return super().rank_items(batch, k)
        found = self.generate(batch, self.config.beams)
        assert found.items is not None, "a constrained search finds items"
        shown = min(k, found.items.shape[1])
        missing = min(k, self.schema.n_items) - shown
        return Ranking(
            items=F.pad(found.items[:, :shown], (0, missing)),
            scores=F.pad(found.scores[:, :shown], (0, missing), value=-torch.inf),
            complete=self.config.beams >= self.schema.n_items,
        )


def _parts(batch: Batch, rows: int) -> Iterator[Batch]:
    """The histories of a batch, ``rows`` (at least one) at a time."""
    rows = max(1, rows)
    for first in range(0, len(batch.items), rows):
        part = slice(first, first + rows)
        yield Batch(items=batch.items[part], lengths=batch.lengths[part], users=batch.users[part])


def _follow(position: Tensor, parents: Tensor) -> Tensor:
    """The rows (B, W) of an earlier level's keys and values (B, W', ...) that the beams continue."""
    if position.shape[1] == 1:  # one row for all beams: it stays shared
        return position
    batch, width = position.shape[:2]
    rows = parents + width * torch.arange(batch, device=parents.device).unsqueeze(1)  # (B, W)
    return position.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)
