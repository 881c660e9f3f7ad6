"""RPG: long semantic IDs, all of whose codes are predicted at once (Hou et al., KDD 2025, arXiv 2506.05781).

FAIR's parent: :class:`harness.models.fair.FAIR` without its three parts. An item enters as the mean of its code
embeddings, GPT-2 reads the sequence, and each level has a head, whose cosines with that level's code embeddings are
the logits.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from harness.interface import Choice, Fidelity, Schema
from harness.models.blocks.transformer import Activation
from harness.models.fair import FAIR, FAIRConfig
from harness.settings import Settings

__all__ = ["RPG", "RPGConfig"]


class RPGConfig(Settings):
    """The defaults are those of the authors' code, but for the temperature: that of its commands for all data sets."""

    dim: int = Field(448, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    inner: int = Field(1024, ge=1)
    activation: Activation = "gelu-tanh"
    norm_eps: float = Field(1e-12, gt=0)
    embedding_dropout: float = Field(0.5, ge=0, lt=1)
    attention_dropout: float = Field(0.5, ge=0, lt=1)
    residual_dropout: float = Field(0.0, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    temperature: float = Field(0.03, gt=0)

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> RPGConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


class RPG(FAIR):
    """Causal GPT-2 over items made of codes; all codes of the next item are predicted at once."""

    Config = RPGConfig
    fidelity = Fidelity(
        paper="Hou et al., Generating Long Semantic IDs in Parallel for Recommendation (RPG), KDD 2025",
        status="reproduction",
        verified=(
            "states, loss and scores equal those of the authors' equations around transformers' GPT2Model to 1e-5, "
            "with the weights copied in",
            "initial weights follow GPT2Model's distributions, the heads' weights are 0 and their biases PyTorch's own",
        ),
        choices=(
            Choice(
                "temperature", "the code's default is 0.07; its commands for all four data sets say 0.03", "verified"
            ),
        ),
        departures=(
            "items are ranked exactly, as in RPG's validation; its test searches a graph of similar items",
            "no end-of-sequence and no padding token: both would stand behind the last event, unseen",
            "a constant learning rate by default; RPG's 10,000 warm-up steps and cosine outlast small data sets",
            "a history longer than the window is cut by training.stride; RPG slides by one event (stride 1) and "
            "supervises the last position of each further window alone",
        ),
    )

    def __init__(self, config: RPGConfig, schema: Schema) -> None:
        parent = FAIRConfig(
            **config.model_dump(),
            attention="softmax",
            granularity="item",
            input_scale="one",
            head_bias_init="uniform",
            noise_weight=0,
            mi_weight=0,
        )
        super().__init__(parent, schema)
