"""What a study of task "efficiency" declares: a measurement of speed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.errors import nearest
from harness.settings import Settings
from harness.study.design import NAME, Variant, checked_names

__all__ = ["EFFICIENCY", "EfficiencyStudy"]

EFFICIENCY = "efficiency"
"""The task of studies that measure speed."""


class EfficiencyStudy(Settings):
    """The design of a measurement of speed: variants x widths x lengths on invented sequences, all in one run."""

    study: str = Field(pattern=NAME)
    title: str = ""
    question: str = ""
    task: Literal["efficiency"]
    control: str
    """The variant whose step is the unit of the relative times."""
    common: dict[str, Any] = Field(default_factory=dict)
    """Set on every variant, before its own ``set``; keys of the models' own ``Config`` only."""
    variants: dict[str, Variant] = Field(min_length=1)
    lengths: tuple[int, ...] = Field(min_length=1)
    """Events of a sequence."""
    dims: tuple[int, ...] = Field(min_length=1)
    """Widths: the key ``dim`` of every model."""
    events: int = Field(4096, ge=1)
    """Events of a batch, whatever the length; a batch has at least one sequence."""
    repeats: int = Field(5, ge=1)
    """Turns in which every variant is measured once, after one that does not count."""
    items: int = Field(10_000, ge=1)
    """Size of the invented catalogue."""
    actions: int = Field(3, ge=1)
    """Kinds of actions of an event."""

    @field_validator("lengths", "dims", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("lengths", "dims")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1 or len(set(value)) != len(value):
            raise ValueError("give different whole numbers from 1 on, as in [64, 128]")
        return tuple(sorted(value))

    @field_validator("variants")
    @classmethod
    def _variant_names(cls, value: dict[str, Variant]) -> dict[str, Variant]:
        return checked_names(value)

    @model_validator(mode="after")
    def _consistent(self) -> EfficiencyStudy:
        if self.control not in self.variants:
            raise ValueError(f"control '{self.control}' is not a variant; {nearest(self.control, self.variants)}")
        if any("dim" in given for given in (self.common, *(variant.set for variant in self.variants.values()))):
            raise ValueError("'dim' is what 'dims' lists; leave it out of 'common' and 'set'")
        return self

    def label(self, variant: str) -> str:
        return self.variants[variant].label or variant
