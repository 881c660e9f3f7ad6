"""The probes that ship, as studies ask for them: ``attention``, ``noise`` and ``decoding``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from harness.probes.base import Findings, Probe
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.interface import Recommender
    from harness.tasks.base import TaskData

__all__ = ["Attention", "Decoding", "Noise", "NoiseOptions"]


class Attention(Probe):
    meaning = "where the attention of a test history's last event goes: recency, relevance, entropy, negative weights"

    def applies(self, model: Recommender) -> bool:
        from harness.probes.attention import shows_attention

        return shows_attention(model)

    def measure(self, model: Recommender, data: TaskData, options: Settings) -> Findings:
        from harness.probes.attention import attention_statistics
        from harness.probes.examples import attention_examples
        from harness.tasks.retrieval import Retrieval

        found: dict[str, Any] = {"attention.parquet": attention_statistics(model, data)}
        if isinstance(data, Retrieval):
            found["examples.json"] = attention_examples(model, data)
        return found


class NoiseOptions(Settings):
    """The noise experiment: random items are put into the test histories (:mod:`harness.probes.noise`)."""

    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    """Of what a model reads, how much is injected; 0, the undisturbed history, is always among them."""
    seed: int = Field(0, ge=0)
    """Draws items and places, the same for every variant and seed of the study."""

    @field_validator("shares")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= share < 1 for share in value):
            raise ValueError("shares of injected events lie from 0 to below 1, as in [0, 0.1, 0.3]")
        return tuple(sorted({0.0, *value}))


class Noise(Probe):
    meaning = "what random items in the test histories do to ranks, lists and attention"
    Options = NoiseOptions
    tasks = frozenset({"retrieval"})

    def measure(self, model: Recommender, data: TaskData, options: NoiseOptions) -> Findings:
        from harness.probes.noise import noise_statistics
        from harness.tasks.retrieval import Retrieval

        assert isinstance(data, Retrieval), "see `tasks`"
        return {"noise.parquet": noise_statistics(model, data, options.shares, options.seed)}


class Decoding(Probe):
    meaning = "free, constrained and exact decoding compared: invalid codes, collisions, what the beam misses"
    tasks = frozenset({"retrieval"})

    def applies(self, model: Recommender) -> bool:
        from harness.probes.decoding import CodeDecoder

        return isinstance(model, CodeDecoder)

    def measure(self, model: Recommender, data: TaskData, options: Settings) -> Findings:
        from harness.probes.decoding import audit_model
        from harness.tasks.retrieval import Retrieval

        assert isinstance(data, Retrieval), "see `tasks`"
        return {"decoding.json": audit_model(model, data)}
