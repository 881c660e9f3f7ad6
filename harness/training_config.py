"""How long and how a cell is trained. Imports no torch, so that a study file is checked in no time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.settings import Settings

__all__ = ["Budget", "TrainingConfig"]


class Budget(Settings):
    """How long a cell may train: the same for every variant of a study."""

    epochs: int = Field(40, ge=1)
    patience: int | None = Field(None, ge=1)
    """Stop at the first validation so many epochs or more after the best one; null: use the whole budget."""
    eval_every: int = Field(1, ge=1)
    """Epochs between two validations."""

    @model_validator(mode="after")
    def _patience_sees_a_validation(self) -> Budget:
        if self.patience is not None and self.patience < self.eval_every:
            raise ValueError(f"patience ({self.patience}) is shorter than eval_every ({self.eval_every}); raise it")
        return self


class TrainingConfig(Settings):
    """How a cell is optimised. A model states its own defaults in ``Recommender.training_defaults``."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    batch_size: int = Field(256, ge=1, description="windows in a batch")
    clip_norm: float | None = Field(None, gt=0, description="bound on the gradient's norm")
    schedule: Literal["constant", "linear", "cosine", "inverse-sqrt"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    stride: int | None = Field(None, ge=1, description="events between two windows; None: the sequence length")
    prefixes: float | None = Field(None, gt=0, le=1, description="share of all prefixes drawn for an epoch; None: all")
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
