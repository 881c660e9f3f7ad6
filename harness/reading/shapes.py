"""What the JSON files of a run hold: what is read of them, and no more, for newer versions may write more."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

__all__ = [
    "Beside", "Card", "CheckpointState", "Cost", "Decoding", "Design", "Digests", "Examples", "Failure", "Ledger",
    "Looks", "Measurements", "Metrics", "Outside", "Progress", "Summary", "Trials", "WorkerSign",
]  # fmt: skip

Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Whole = Annotated[int, Field(strict=True)]
Text = Annotated[str, StringConstraints(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Id = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A cell's id, which is also a folder's name: it leads nowhere else."""
Values = dict[str, Any]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Listed(_Shape):
    """A cell of a run, or of a search, which has no seed there."""

    id: Id
    dataset: Text
    variant: Text
    seed: Count | None = None
    draw: Count = 0


class _Entry(_Listed):
    seed: Count


class _VariantEntry(_Shape):
    model: Text | None = None
    label: Text | None = None
    set: Values | None = None


class _Choice(_Shape):
    option: Text
    reason: Text
    source: Text


class _Fidelity(_Shape):
    paper: Text
    status: Text
    verified: list[Text]
    choices: list[_Choice]
    departures: list[Text]


class Design(_Shape):
    """``study.yaml`` of a run, as far as the analysis reads it."""

    study: Text
    title: Text | None = None
    question: Text | None = None
    task: Literal["retrieval", "action"]
    metrics: list[Text] = Field(min_length=1)
    primary: Text | None = None
    candidates: Literal["all", "unseen"] | None = None
    control: Text | None = None
    references: list[Text] | None = None
    contrasts: Literal["all-pairs"] | list[Annotated[list[Text], Field(min_length=2, max_length=2)]] | None = None
    variants: dict[Text, _VariantEntry | None] | None = None
    datasets: dict[Text, Values | None] | list[Text] | None = None
    tables: dict[Text, dict[Text, list[Text]] | None] | None = None
    tuned: dict[Text, dict[Text, Values | None] | None] | None = None
    test: Literal["t", "exact", "wilcoxon", "pooled"] | None = None
    correction: Literal["holm", "benjamini-hochberg"] | None = None
    looks: Annotated[int, Field(strict=True, ge=1)] | None = None
    equivalence_margin: Number | Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)? ?%$")] | None = None
    cells: list[_Entry] = Field(min_length=1)
    fidelity: dict[Text, _Fidelity | None] | None = None
    budget: Values | None = None
    data: Values | None = None
    noise: Values | None = None
    run: Text | None = None
    queue: Text | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        known = self.variants
        pairs = self.contrasts if isinstance(self.contrasts, list) else []
        named = [
            *([self.control] if self.control else []),
            *(self.references or ()),
            *(n for pair in pairs for n in pair),
        ]
        named += [cell.variant for cell in self.cells]
        unknown = [] if known is None else [name for name in named if name not in known]
        if unknown:
            raise ValueError(f"'{unknown[0]}' is not among its variants")
        cells = [(cell.dataset, cell.variant, cell.seed, cell.draw) for cell in self.cells]
        if len(set(cells)) < len(cells) or len({cell.id for cell in self.cells}) < len(cells):
            raise ValueError("a cell stands there twice")
        return self


class Beside(_Shape):
    """What stands in ``study.yaml`` of a run beside the study itself; an efficiency study has none of it."""

    run: Text | None = None
    queue: Text | None = None
    started_in: Text | None = None
    cells: list[_Listed] = Field(default_factory=list)
    fidelity: Values | None = None


class _Fingerprints(_Shape):
    files: dict[str, Text] = Field(default_factory=dict)
    log: Text
    split: Text
    codes: Text | None = None


class _Outcome(_Shape):
    best_epoch: Count | None
    epochs: Count | None
    stopped: Text | None
    validation: Number | None = None

    @model_validator(mode="after")
    def _trained(self) -> Self:
        if self.epochs and self.best_epoch is None:
            raise ValueError("no 'best_epoch', though epochs were trained")
        return self


class _Git(_Shape):
    commit: Text
    dirty: bool | None = None


class _Hardware(_Shape):
    cpu: Text
    cores: Count
    threads: Count
    memory_bytes: Number | None = None
    device: Text | None = None


class _Epochs(_Shape):
    epochs: Count


class Card(_Shape):
    """``cell.json``."""

    id: Id
    task: Text
    dataset: Text
    model: Text
    seed: Count
    draw: Count = 0
    study: Text | None = None
    variant: Text | None = None
    fingerprints: _Fingerprints
    outcome: _Outcome
    versions: dict[str, Text | None] = Field(default_factory=dict)
    git: _Git | None = None
    hardware: _Hardware | None = None
    notes: list[Text] = Field(default_factory=list)
    config: Values | None = None
    training: Values | None = None
    data: Values | None = None
    items: Values | None = None
    budget: _Epochs | None = None
    measured: dict[str, Values] = Field(default_factory=dict)
    probes: dict[str, Values] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _trained_here(self) -> Self:
        needed = {"config": self.config, "training": self.training, "data": self.data, "budget": self.budget}
        missing = [key for key, value in needed.items() if value is None]
        if missing and (self.config is not None or self.outcome.epochs):
            raise ValueError(f"'{missing[0]}' is missing")
        return self


def _whole_cost(cost: dict[str, float | None]) -> dict[str, float | None]:
    """Of training all is known, or nothing, as of another system's cell."""
    missing = [
        key for key in ("data_seconds", "train_seconds", "evaluation_seconds", "epochs") if cost.get(key) is None
    ]
    if cost and missing:
        raise ValueError(f"'{missing[0]}' is missing")
    return cost


Cost = Annotated[dict[str, Number | None], AfterValidator(_whole_cost)]
"""``cost.json``."""
Metrics = dict[str, dict[str, dict[str, Number | None]]]
Looks = list[Annotated[int, Field(strict=True, gt=0)]]
Digests = dict[str, dict[str, Text] | Text]


class CheckpointState(_Shape):
    """What a checkpoint says in its metadata of the epochs so far."""

    made_with: Text
    history: list[dict[str, Number | None]]


class Failure(_Shape):
    id: Id | None = None
    dataset: Text | None = None
    variant: Text | None = None
    seed: Count | None = None
    reason: Text


class Progress(_Shape):
    epoch: Count
    part: Number = 0
    epochs: Annotated[int, Field(strict=True, gt=0)]
    value: Number | None
    epoch_seconds: Number | None = None
    host: Text | None = None
    started: Any = None


class WorkerSign(_Shape):
    worker: Text


class Summary(_Shape):
    study: Text | None = None
    run: Text | None = None
    title: Text | None = None
    command: Text | None = None
    cells: list[Values] = Field(default_factory=list)
    versions: dict[str, Text | None] = Field(default_factory=dict)
    git: Values | None = None


class Outside(_Shape):
    """``outside.json``."""

    variants: dict[Text, _VariantEntry]
    cells: list[_Entry]


class _Space(_Shape):
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    choices: list[Any] | None = None
    closed: list[Text] = Field(default_factory=list)


class _Trial(_Shape):
    number: Count
    state: Literal["complete", "pruned", "failed"]
    value: Number | None
    epochs: Count | None = None
    seconds: Number | None = None
    params: Values
    drawn: Literal["own", "random", "tpe"] | None = None
    curve: list[Annotated[list[Number | None], Field(min_length=2, max_length=2)]] = Field(default_factory=list)


class _Cap(_Shape):
    trials: Count | None = None
    epochs: Count | None = None
    seconds: Number | None = None
    first_pruning: Count | None = None


class _Search(_Shape):
    dataset: Text
    variant: Text
    space: dict[str, _Space]
    cap: _Cap | None = None
    best: Values | None = None
    trials: list[_Trial]


Ledger = list[_Search]
Trials = list[_Trial]


class _Event(_Shape):
    item: Text
    title: Text | None = None


class _Example(_Shape):
    user: Text
    target: _Event
    events: list[_Event]
    earlier: Count
    layers: list[list[list[Number]]]
    rest: list[list[Number]]


Examples = list[_Example]


class _Catalogue(_Shape):
    colliding_items: Count
    items: Annotated[int, Field(strict=True, ge=1)]
    levels: Annotated[int, Field(strict=True, ge=1)]


class Decoding(_Shape):
    """``decoding.json``."""

    beams: Count
    users: Count
    catalogue: _Catalogue
    constrained: dict[str, Number | None] = Field(min_length=1)
    free: dict[str, Number | None]
    exact: dict[str, Number | None]

    @model_validator(mode="after")
    def _recall(self) -> Self:
        if not any(re.fullmatch(r"recall@[1-9]\d{0,4}", name) for name in self.constrained):
            raise ValueError("no recall under 'constrained'")
        if self.exact.get("users") is None:
            raise ValueError("no number of users under 'exact'")
        return self


class _Measurement(_Shape):
    variant: Text
    dim: Count
    length: Count
    batch: Count
    events: Count
    tokens: Count
    parameters: Count
    flops: Number | None
    peak_memory_bytes: Number | None
    turns: list[dict[str, Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]]] = Field(min_length=1)


class _SpeedStudy(_Shape):
    study: Text
    title: Text
    question: Text
    control: Text
    variants: dict[Text, _VariantEntry]
    dims: list[Count] = Field(min_length=1)
    lengths: list[Count] = Field(min_length=1)
    events: Count
    repeats: Count


class Measurements(_Shape):
    """``efficiency.json``."""

    study: _SpeedStudy
    measurements: list[_Measurement] = Field(min_length=1)
    command: Text
    versions: dict[str, Text | None] = Field(default_factory=dict)
    hardware: _Hardware | None = None
    git: _Git | None = None
