"""The one model interface: what every recommender is given and what it must answer.

Item ids are dense: 1..n_items are items, 0 is padding. Sequences are right-padded, oldest event
first, so that position ``t`` means the same in every batch and a causal model needs no padding mask.
Shapes: B sequences, L positions, A actions, m code levels, H heads, Q queries, K keys.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from harness.errors import InputError
from harness.settings import Settings

__all__ = [
    "AttentionMaps",
    "Batch",
    "Choice",
    "ConfigT",
    "Fidelity",
    "Needs",
    "Ranking",
    "Recommender",
    "Schema",
    "Task",
]

NO_ACTIONS = "this model needs action labels and the data set has none; declare them under data.actions"

ConfigT = TypeVar("ConfigT", bound=Settings)
"""A model's own settings, the type of its ``config``."""


class Task(StrEnum):
    """What is predicted. The two are never mixed in one table."""

    RETRIEVAL = "retrieval"
    """Rank the whole catalogue for the next item; the last event's own action is visible."""
    ACTION = "action"
    """Given the item of an event, predict its action, which is not visible to its own prediction."""


@dataclass(frozen=True)
class Needs:
    """What a model must be given. A study that can't give it is refused before any training."""

    codes: bool = False
    """Semantic IDs of every item, in ``Schema.codes``."""
    unique_codes: bool = False
    """No two items with the same codes (a collision level is appended where they would be)."""
    actions: bool = False
    """Action labels, in ``Batch.actions``."""
    times: bool = False
    """Event times, in ``Batch.times``."""
    rows: Literal["positions", "prefixes"] = "positions"
    """Training rows: a sequence with a target at every position, or a prefix with its one next item."""


@dataclass(frozen=True)
class Choice:
    """One decision that the paper leaves open: the option that stands for it, its default and the reason."""

    option: str
    reason: str
    source: Literal["verified", "second-hand", "recalled", "assumption", "inferred"] = "assumption"


@dataclass(frozen=True)
class Fidelity:
    """How close a model is to its publication, printed wherever its name stands in a table of claims."""

    paper: str
    """Authors, title, venue or arXiv number."""
    status: Literal["original", "reproduction", "reconstruction", "control"]
    """Original: authors' own code. Reproduction: built from the full text or the authors' code.
    Reconstruction: built from a published description with gaps. Control: ours, to compare with."""
    verified: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    departures: tuple[str, ...] = ()
    """Where we knowingly differ from the publication or its code."""


@dataclass(frozen=True)
class Schema:
    """The catalogue that a model is built for."""

    n_items: int
    n_users: int
    max_length: int
    """The longest sequence that a batch may hold, in events."""
    actions: tuple[str, ...] = ()
    codes: Tensor | None = None
    """(n_items + 1, m) int64; row 0 belongs to padding and is all zero. Level k has values 0..code_sizes[k]-1."""
    code_sizes: tuple[int, ...] = ()
    item_counts: Tensor | None = None
    """(n_items + 1,) int64: events of each item in the training part."""
    action_counts: Tensor | None = None
    """(A,) int64: events of the training part with each action."""
    train_events: Callable[[], tuple[Tensor, Tensor]] | None = None
    """What gives the training part, for models that are made of it: (E,) int64 items, user after user, each user's
    oldest first, and (E,) int64 whose events these are, ascending. Most need neither, and there may be many."""


@dataclass
class Batch:
    """Right-padded sequences of events. Absent parts are None."""

    items: Tensor
    """(B, L) int64, 0 = padding."""
    lengths: Tensor
    """(B,) int64, at least 1."""
    users: Tensor
    """(B,) int64, dense user index from 0."""
    targets: Tensor | None = None
    """(B, L) int64: the item after each position; 0 where it is unknown or not supervised (retrieval)."""
    valid: Tensor | None = None
    """(V,) int64: flat indices b * L + t of the supervised positions, ascending. Given by the batch so
    that no model derives a shape from values."""
    times: Tensor | None = None
    """(B, L) int64 seconds; 0 where padded."""
    actions: Tensor | None = None
    """(B, L, A) float32 in {0, 1}: the actions of each event; 0 where padded."""
    replaced: Tensor | None = None
    """(B, L) bool: events that an experiment injected (the noise study)."""
    share: float = 1.0
    """Of the supervised positions of the whole batch, the part that is here: less than 1 where several processes train
    on one batch. The trainer weighs the losses by it."""

    def to(self, device: torch.device | str) -> Batch:
        def move(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return Batch(**{f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def last(self) -> Tensor:
        """(B,) flat indices b * L + t of each sequence's last event."""
        rows = torch.arange(self.items.shape[0], device=self.items.device)
        return rows * self.items.shape[1] + self.lengths - 1

    def positions(self) -> Tensor:
        """(V,) :attr:`valid` of a batch that has it."""
        assert self.valid is not None, "this batch supervises no position"
        return self.valid

    def supervised(self, values: Tensor) -> Tensor:
        """values (B, L, ...) at the supervised positions: (V, ...)."""
        return values.flatten(0, 1).index_select(0, self.positions())

    def next_items(self) -> Tensor:
        """(V,) int64: the items after the supervised positions."""
        assert self.targets is not None, "this batch has no targets"
        return self.supervised(self.targets)

    def labels(self) -> Tensor:
        """(B, L, A) :attr:`actions`; raises InputError where the data have none."""
        if self.actions is None:
            raise InputError(NO_ACTIONS)
        return self.actions


@dataclass
class Ranking:
    """The first items of a ranking, best first."""

    items: Tensor
    """(B, k) int64; 0 where the list is shorter than k."""
    scores: Tensor
    """(B, k) float32; -inf where the list is shorter than k."""
    complete: bool
    """True where the items are the best k of the whole catalogue under the model's own score. False for a
    search that may miss items: an item outside the list then has an unknown rank."""


@dataclass
class AttentionMaps:
    """What each layer attended to. Capturing it changes nothing in what the model computes."""

    maps: list[Tensor]
    """Per layer (B, H, Q, K): the weights that multiply the values; they may be negative."""
    query_event: Tensor
    """(B, Q) int64: the event (position in ``Batch.items``) of each query token; -1 for a token that predicts nothing
    in the task at hand, and for one that belongs to no event."""
    key_event: Tensor
    """(B, K) int64: the event of each key token, -1 for none."""


class Recommender(nn.Module, ABC, Generic[ConfigT]):
    """A model of the harness, as in ``class GRU(Recommender[GRUConfig])``.

    Subclasses set the class variables, take ``(config, schema)`` and answer the methods of their tasks.
    A model without parameters is not trained, and its ``losses`` not asked for.
    The training step (``losses``) has no ``.item()``, no Python branch on tensor values and no shape that
    depends on values. All randomness comes from torch's global generator, which the trainer seeds.
    """

    Config: ClassVar[type[Settings]]
    tasks: ClassVar[frozenset[Task]]
    needs: ClassVar[Needs] = Needs()
    fidelity: ClassVar[Fidelity]
    training_defaults: ClassVar[dict[str, Any]] = {}
    """The model's own defaults for ``harness.training_config.TrainingConfig`` (learning rate, batch size, ...)."""
    in_batch: tuple[str, ...] = ()
    """Loss terms that compare the positions of a batch with each other (negatives that are other positions' targets,
    say). Where several processes train one cell, each compares those of its own part."""
    exact: bool = True
    """True where ``score_items`` answers. False: the model only searches, through ``rank_items``."""

    def __init__(self, config: ConfigT, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.schema = schema

    @classmethod
    def needs_with(cls, config: ConfigT) -> Needs:
        """What the model must be given under these settings."""
        return cls.needs

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar loss terms with their weights applied; the trainer adds them up.

        The first is the main loss, always there: the gradients of the others are measured against its own.
        """

    def score_items(self, batch: Batch) -> Tensor:
        """(B, n_items): the score of item i + 1 in column i, as the event after each sequence's last."""
        raise NotImplementedError(f"{type(self).__name__} does not score the whole catalogue")

    def rank_items(self, batch: Batch, k: int) -> Ranking:
        """The best ``k`` items after each sequence's last event; equal scores by item id."""
        scores, order = self.score_items(batch).sort(dim=-1, descending=True, stable=True)
        return Ranking(items=order[:, :k] + 1, scores=scores[:, :k], complete=True)

    def predict_actions(self, batch: Batch) -> Tensor:
        """(B, L, A) logits of each event's actions, given the events before it and its item."""
        raise NotImplementedError(f"{type(self).__name__} does not predict actions")

    def attention(self, batch: Batch, task: Task) -> AttentionMaps:
        """The attention of every layer behind what ``task`` asks of this batch, computed as in evaluation mode."""
        raise NotImplementedError(f"{type(self).__name__} does not show its attention")

    def user_states(self, batch: Batch) -> Tensor:
        """(B, d): the state after each sequence's last event, from which its next item is scored.

        Of a model that answers, the trainer watches whether the states of different users collapse into one.
        """
        raise NotImplementedError(f"{type(self).__name__} does not show its users' states")
