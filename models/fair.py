"""FAIR: generative recommendation with focused attention (Xiao et al., arXiv 2512.11254).

Rebuilt from the published description: what the paper's accessible text leaves open is an option, listed with its
default and reason in ``FAIR.fidelity``.

Shapes: B sequences, L events, m codes per item, V supervised positions, N items, K the largest codebook, H heads,
d width, T tokens (L item tokens, or L * m code tokens).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import AttentionMaps, Batch, Choice, Fidelity, Needs, Recommender, Schema, Task
from harness.models.blocks.attention import SelfAttention, evaluation_mode, event_positions
from harness.models.blocks.auxiliary_losses import NoiseForm, info_nce, layers_noise_loss, noise_loss
from harness.models.blocks.code_heads import code_cross_entropy, level_rows, level_states
from harness.models.blocks.dropout import Dropout
from harness.models.blocks.focused_attention import FocusedAttention, FocusLambda, LambdaPer, Normalisation
from harness.models.blocks.transformer import Activation, Transformer, init_weights
from harness.models.blocks.trie import beam_search
from harness.settings import Settings

__all__ = ["FAIR", "FAIRConfig"]


class FAIRConfig(Settings):
    """A weight of 0 switches its loss off, and spares what only that loss needs."""

    # Backbone
    dim: int = Field(448, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    inner: int = Field(1024, ge=1)
    activation: Activation = "gelu-tanh"
    norm_eps: float = Field(1e-12, gt=0)
    """Of the layer norms."""
    embedding_dropout: float = Field(0.5, ge=0, lt=1)
    attention_dropout: float = Field(0.5, ge=0, lt=1)
    """On the map that multiplies V, so after the subtraction."""
    residual_dropout: float = Field(0.0, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    input_scale: Literal["one", "sqrt-dim"] = "sqrt-dim"
    """What the code embeddings are multiplied by before the positions are added: 1 or sqrt(dim)."""
    attention_bias: bool = True
    """Biases in the maps to Q, K and V and in the one out of the attention."""
    granularity: Literal["item", "code"] = "item"
    """item: one token per item, the mean of its code embeddings; code: one token per code, the next item being
    predicted from the last code of each item."""

    # Focused attention
    attention: Literal["focused", "softmax"] = "focused"
    normalisation: Normalisation = "rmsnorm"
    """rmsnorm: of each head's A V, times 1 - lambda_init; signed-l1: A divided by the sum of |A| of its row."""
    norm_gain: bool = True
    """A learnable gain behind rmsnorm, one per feature, the same for all heads of a layer."""
    head_norm_eps: float = Field(1e-5, gt=0)
    """Of rmsnorm and of signed-l1."""
    focus_lambda: FocusLambda = "learnable"
    """learnable: A1 - lambda A2, the Differential Transformer's reparametrisation; fixed: lambda is ``lambda_value``;
    two-scalars: lambda1 A1 - lambda2 A2, both learnable, starting at 1 and lambda_init."""
    lambda_per: LambdaPer = "layer"
    """What has a learnable lambda of its own; layer: the heads of a layer share it."""
    lambda_value: float = 1.0
    """0 is the control without the second map: softmax attention, with the head norm and all parameters kept."""
    matched: bool = False
    """Halve the width of Q and K to dim / heads / 2, V keeping dim / heads: both pairs together have the parameters of
    one plain pair. This is the published Differential Transformer's layer of as many heads; that paper compares it
    with a plain one of twice the heads."""

    # Multi-token prediction
    temperature: float = Field(0.03, gt=0)
    tied: bool = True
    """The logits are cosines with the code embeddings of the input; otherwise with a table of their own."""
    head_bias_init: Literal["uniform", "zero"] = "uniform"
    """uniform: PyTorch's own for a linear map, U(-1/sqrt(dim), 1/sqrt(dim)); zero: each head starts as the identity."""

    # Noise robustness
    noise_weight: float = Field(1.0, ge=0)
    noise_form: NoiseForm = "attention-kl"
    noise_unit: Literal["item", "code"] = "code"
    """What is corrupted as one: an item with all of its codes, or each code on its own."""
    noise_mask: float = Field(0.1, ge=0, le=1)
    """Probability that a unit becomes the mask token."""
    noise_replace: float = Field(0.1, ge=0, le=1)
    """Probability that a unit is replaced: an item by a random item, a code by a random code of the same level."""
    noise_margin: float = Field(0.5, ge=0)
    """delta of the triplet form."""

    # Mutual information
    mi_weight: float = Field(0.05, ge=0)
    mi_temperature: float = Field(0.07, gt=0)
    mi_negatives: int = Field(256, ge=0)
    """How many of the batch's targets, drawn anew for each batch, every position is contrasted with; 0 = all."""

    @model_validator(mode="after")
    def _consistent(self) -> FAIRConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        if self.matched and self.dim // self.heads % 2:
            raise ValueError(f"matched halves dim / heads, so {self.dim} / {self.heads} must be even")
        if self.noise_mask + self.noise_replace > 1:
            raise ValueError("noise_mask and noise_replace must not exceed 1 together")
        return self


class FAIR(Recommender[FAIRConfig]):
    """Causal Transformer over items made of codes; all codes of the next item are predicted at once."""

    Config: ClassVar[type[Settings]] = FAIRConfig
    tasks = frozenset({Task.RETRIEVAL})
    needs = Needs(codes=True)
    fidelity = Fidelity(
        paper="Xiao et al., FAIR, arXiv 2512.11254, 2025",
        status="reconstruction",
        verified=(
            "two independent sets of Q and K, attention score = difference of both softmax maps",
            "a noise-robustness objective over stochastic perturbations and a mutual-information objective",
            "lambda's reparametrisation, lambda_init and the norm of each head as in Ye et al. (arXiv 2410.05258)",
            "code embeddings, prediction heads and cosine logits as in the code of RPG (Hou et al., KDD 2025)",
        ),
        choices=(
            Choice("granularity", "RPG's lineage and cost; the paper's length argument also fits one token per code"),
            Choice(
                "input_scale",
                "an item's vector, a mean over its codes, then outweighs its position, and users' states "
                "resemble each other less in the first epochs; RPG has no factor",
            ),
            Choice("normalisation", "Differential Transformer's; 'normalise the result' also fits signed-l1"),
            Choice("norm_gain", "Differential Transformer's code", "verified"),
            Choice("head_norm_eps", "Differential Transformer's code", "verified"),
            Choice("focus_lambda", "Differential Transformer's; how FAIR sets lambda is not known"),
            Choice("lambda_per", "Differential Transformer's code", "verified"),
            Choice("lambda_value", "the plain difference; each row of A then sums to 0"),
            Choice(
                "matched",
                "the abstract adds a second Q and K and does not speak of narrower heads, which the "
                "Differential Transformer has",
            ),
            Choice("attention_bias", "RPG's GPT-2 has biases; the Differential Transformer's code has none"),
            Choice("attention_dropout", "RPG's rate; falls once on A after the subtraction, so training computes maps"),
            Choice(
                "noise_form",
                "the abstract speaks of stable attention patterns; 'representation' is the word of a summary",
                "inferred",
            ),
            Choice("noise_unit", "the corrupted sequence is one of codes"),
            Choice("noise_mask", "perturbation rates are not known"),
            Choice("noise_replace", "perturbation rates are not known"),
            Choice("noise_margin", "usual for cosine distances"),
            Choice(
                "noise_weight",
                "not known; 3 to 19 % of the prediction loss' gradient in the first epochs on MovieLens 100K",
            ),
            Choice(
                "mi_weight",
                "not known; 11 to 14 % of the prediction loss' gradient in the first epochs on MovieLens 100K",
            ),
            Choice("mi_temperature", "usual for InfoNCE"),
            Choice("mi_negatives", "other targets of the batch, as many as rows of RPG's batch; memory stays linear"),
            Choice("temperature", "RPG's best for all four data sets", "inferred"),
            Choice("tied", "RPG's; a tied table draws predictions towards the codes that were just read"),
            Choice(
                "head_bias_init", "RPG's: PyTorch's own, GPT-2's initialisation does not reach the heads", "verified"
            ),
            Choice("dim", "RPG's width; FAIR's optimum is not known"),
            Choice("layers", "RPG's"),
            Choice("heads", "RPG's"),
            Choice("inner", "RPG's"),
            Choice("activation", "RPG's gelu_new"),
            Choice("norm_eps", "RPG's"),
            Choice("init_std", "RPG's"),
            Choice("embedding_dropout", "RPG's"),
            Choice("residual_dropout", "RPG's"),
        ),
        departures=(
            "items are ranked exactly, by the mean log-probability of their codes over the whole catalogue; "
            "RPG tests with a graph search",
            "learned positions, layer norms and GPT-2's feed-forward network, as in RPG; the Differential Transformer "
            "has rotary positions, RMSNorm and SwiGLU",
            "no end-of-sequence and no padding token: both would stand behind the last event, unseen",
            "a constant learning rate by default; RPG's 10,000 warm-up steps and cosine outlast small data sets",
        ),
    )
    training_defaults: ClassVar[dict[str, Any]] = {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "batch_size": 256,
        "clip_norm": 1.0,
        "schedule": "constant",
        "warmup_steps": 0,
    }

    codes: Tensor
    tokens: Tensor
    level_rows: Tensor
    level_bias: Tensor | None
    level_sizes: Tensor
    level_first: Tensor

    def __init__(self, config: FAIRConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        if schema.codes is None:
            raise InputError(f"{type(self).__name__} needs the items' codes; add an 'items' section to the study")
        c = config
        self.levels = len(schema.code_sizes)
        sizes = torch.tensor(schema.code_sizes)
        first_rows = sizes.cumsum(0) - sizes  # (m,): where each level's block of the table begins
        self.mask_token = int(sizes.sum())
        self.table = nn.Embedding(self.mask_token + 1, c.dim)  # the codes of level 0, of level 1, ..., the mask token
        self.output_table = None if c.tied else nn.Embedding(self.mask_token, c.dim)
        self.tokens_per_event = self.levels if c.granularity == "code" else 1
        self.positions = nn.Embedding(schema.max_length * self.tokens_per_event, c.dim)
        self.input_dropout = Dropout(c.embedding_dropout)
        self.transformer = Transformer(
            self._attention_layer,
            c.layers,
            c.dim,
            c.inner,
            activation=c.activation,
            dropout=c.residual_dropout,
            norm="pre",
            norm_eps=c.norm_eps,
        )
        self.heads = nn.Linear(c.dim, self.levels * c.dim)
        self.in_batch = ("noise", "mi") if c.noise_form == "triplet" else ("mi",)
        init_weights(self, c.init_std)
        self.transformer.scale_residual_branches(c.init_std)
        nn.init.zeros_(self.heads.weight)
        if c.head_bias_init == "uniform":
            nn.init.uniform_(self.heads.bias, -(c.dim**-0.5), c.dim**-0.5)

        rows, bias = level_rows(sizes)
        self.register_buffer("codes", schema.codes, persistent=False)  # (N + 1, m)
        self.register_buffer("tokens", schema.codes + first_rows, persistent=False)  # (N + 1, m): rows of the table
        self.register_buffer("level_rows", rows, persistent=False)  # (m, K): rows of the table
        self.register_buffer("level_bias", bias, persistent=False)
        self.register_buffer("level_sizes", sizes, persistent=False)
        self.register_buffer("level_first", first_rows, persistent=False)

    def _attention_layer(self, layer: int) -> FocusedAttention | SelfAttention:
        c = self.config
        if c.attention == "focused":
            return FocusedAttention(
                c.dim,
                c.heads,
                layer,
                dropout=c.attention_dropout,
                bias=c.attention_bias,
                matched=c.matched,
                normalisation=c.normalisation,
                norm_gain=c.norm_gain,
                norm_eps=c.head_norm_eps,
                focus_lambda=c.focus_lambda,
                lambda_per=c.lambda_per,
                lambda_value=c.lambda_value,
            )
        return SelfAttention(c.dim, c.heads, c.attention_dropout, bias=c.attention_bias)

    # The network

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the table (B, L, m) -> input of the Transformer (B, T, d)."""
        if self.config.granularity == "code":
            x = self.table(tokens.flatten(1))  # (B, L * m, d)
        else:
            x = self.item_vectors(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])  # (B, L, d)
        if self.config.input_scale == "sqrt-dim":
            x = x * math.sqrt(self.config.dim)
        return self.input_dropout(x + self.positions.weight[: x.shape[1]])

    def item_vectors(self, tokens: Tensor) -> Tensor:
        """Rows of the table (n, m) -> their means (n, d)."""
        return F.embedding_bag(tokens, self.table.weight, mode="mean")

    def encode(self, tokens: Tensor, capture: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Rows of the table (B, L, m) -> the state after each event (B, L, d), and the maps (B, H, T, T)."""
        states, maps = self.transformer(self.embed(tokens), capture)  # (B, T, d)
        return states[:, self.tokens_per_event - 1 :: self.tokens_per_event], maps

    def code_logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """cos(g_k(h), E_kj) / tau with g_k(h) = h + SiLU(W_k h + b_k): hidden (n, d) -> (m, n, K).

        ``table`` is :meth:`code_table`, made once for many calls.
        """
        states = level_states(hidden, self.heads.weight, self.heads.bias)  # (n, m, d)
        logits = torch.bmm(F.normalize(states, dim=-1).transpose(0, 1), table)  # (m, n, K)
        return logits if self.level_bias is None else logits + self.level_bias

    def code_table(self) -> Tensor:
        """(m, d, K): every level's code embeddings, of length 1 / tau."""
        table = (self.output_table or self.table).weight
        table = F.normalize(table, dim=-1) / self.config.temperature
        return table[self.level_rows].transpose(1, 2)

    # Training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        tokens = self.tokens[batch.items]  # (B, L, m)
        compare_maps = c.noise_weight > 0 and c.noise_form.startswith("attention")
        if c.noise_weight > 0:  # one pass over the clean and the noisy sequences, which do not see each other
            tokens = torch.cat([tokens, self.corrupt(tokens)])  # (2B, L, m)
        states, maps = self.encode(tokens, capture=compare_maps)
        if c.noise_weight > 0:
            states, noisy_states = states.chunk(2)
        hidden = batch.supervised(states)  # (V, d)
        targets = batch.next_items()  # (V,)

        terms = {"mtp": self.code_loss(hidden, self.codes[targets])}
        if c.noise_weight > 0:
            if compare_maps:
                pairs = ([self.supervised_rows(half, batch) for half in layer.chunk(2)] for layer in maps)
                noise = layers_noise_loss(pairs, c.noise_form)
            else:
                noise = noise_loss(hidden, batch.supervised(noisy_states), c.noise_form, c.noise_margin)
            terms["noise"] = c.noise_weight * noise
        if c.mi_weight > 0:
            vectors = self.item_vectors(self.tokens[targets])  # (V, d)
            terms["mi"] = c.mi_weight * info_nce(hidden, vectors, targets, c.mi_temperature, c.mi_negatives)
        return terms

    def code_loss(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Mean cross-entropy over positions and levels: hidden (V, d), codes (V, m)."""
        return code_cross_entropy(hidden, self.heads.weight, self.heads.bias, self.code_table(), codes, self.level_bias)

    def corrupt(self, tokens: Tensor) -> Tensor:
        """Rows of the table (B, L, m) with units masked or replaced at random."""
        c = self.config
        units = (*tokens.shape[:2], 1 if c.noise_unit == "item" else self.levels)
        draw = torch.rand(units, device=tokens.device)
        if c.noise_unit == "item":
            items = torch.randint(1, self.schema.n_items + 1, tokens.shape[:2], device=tokens.device)
            others = self.tokens[items]  # (B, L, m)
        else:
            within = torch.rand(units, device=tokens.device) * self.level_sizes
            others = torch.minimum(within.long(), self.level_sizes - 1) + self.level_first
        corrupted = torch.where(draw < c.noise_mask + c.noise_replace, others, tokens)
        return torch.where(draw < c.noise_mask, self.mask_token, corrupted)

    def supervised_rows(self, maps: Tensor, batch: Batch) -> Tensor:
        """(B, H, T, T) -> (V, H, T): what the last token of each supervised event attends to."""
        step = self.tokens_per_event
        return batch.supervised(maps[:, :, step - 1 :: step].transpose(1, 2))

    # Answers

    def user_states(self, batch: Batch) -> Tensor:
        """(B, d): the state after each sequence's last event."""
        states, _ = self.encode(self.tokens[batch.items])
        return states.flatten(0, 1).index_select(0, batch.last())

    def code_log_probs(self, batch: Batch) -> Tensor:
        """(m, B, K): the log-probability of each code of the item after each sequence's last event."""
        return F.log_softmax(self.code_logits(self.user_states(batch), self.code_table()).float(), dim=-1)

    def score_items(self, batch: Batch) -> Tensor:
        """(B, N): the mean over levels of the log-probability of the item's code. Needs B * (N + m * K) floats."""
        log_probs = self.code_log_probs(batch)
        width = log_probs.shape[2]
        rows = self.codes[1:] + torch.arange(self.levels, device=log_probs.device) * width  # (N, m)
        return F.embedding_bag(rows, log_probs.transpose(1, 2).flatten(0, 1), mode="mean").T  # (B, N)

    @torch.no_grad()
    def generate(self, batch: Batch, beams: int, constrained: bool = True) -> tuple[Tensor, Tensor]:
        """The best codes (B, W, m), of items alone or of any combination, and their scores (B, W), best first.

        Levels are independent given the history, so both searches are exact. Scores are those of ``score_items``.
        """
        if constrained:
            codes, owner = self.codes[1:].unique(dim=0, return_inverse=True)  # (C, m), (N,)
            items = torch.arange(len(owner), device=owner.device)
            lowest = items.new_full((len(codes),), len(owner)).scatter_reduce(0, owner, items, "amin").sort().values
            scores, best = self.score_items(batch)[:, lowest].sort(dim=1, descending=True, stable=True)  # (B, C)
            return self.codes[1 + lowest[best[:, :beams]]], scores[:, :beams]
        log_probs = self.code_log_probs(batch)

        def step(state: None, level: int, parents: Tensor | None, _: Tensor | None) -> tuple[Tensor, None]:
            width = 1 if parents is None else parents.shape[1]
            size = self.schema.code_sizes[level]
            return log_probs[level, :, None, :size].expand(-1, width, -1), state  # (B, W, size)

        found = beam_search(step, None, self.schema.code_sizes, beams)
        return found.codes, found.scores / self.levels

    def attention(self, batch: Batch, task: Task) -> AttentionMaps:
        """The signed maps A that multiply V: after the subtraction, and after signed-l1 where that is on."""
        with evaluation_mode(self):
            _, maps = self.encode(self.tokens[batch.items], capture=True)
        events = event_positions(batch).repeat_interleave(self.tokens_per_event, dim=1)  # (B, T)
        return AttentionMaps(maps=maps, query_event=events, key_event=events)
