"""What decides which events a study sees, in which order and how they are split."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from harness.data.actions import parse_rule
from harness.errors import nearest
from harness.registry import REGISTRIES
from harness.settings import Settings

__all__ = ["Columns", "DataConfig"]


class Columns(Settings):
    """Which column of a log plays which part: its name, or its place from 1 on where the file has no header."""

    user: str | int | None = None
    item: str | int | None = None
    time: str | int | None = None
    rating: str | int | None = None
    """Known to action rules as ``rating``, whatever its own name."""


class DataConfig(Settings):
    """The settings under ``data:`` of a study. The defaults are the field's leave-one-out protocol."""

    split: str = "leave-one-out"
    """A registered splitter (`harness list splitters`).
    leave-one-out: each user's last event is the test target, the one before it the validation target.
    temporal: two points in time, the same for all users. within-user: each user's last events.
    given: as the data set's own files of training, validation and test events say."""
    split_options: dict[str, Any] = Field(default_factory=dict)
    """Options of a splitter that has some."""
    valid_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of events between training and test; temporal and within-user only."""
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of events at the end; temporal and within-user only."""
    targets: Literal["last", "first", "all"] = "last"
    """Retrieval: which events of a user's validation or test part are to be recommended, each from all events before
    it: the last one, the first one, or every one. Leave-one-out has one event in each part."""
    max_length: int = Field(default=50, ge=1)
    """The longest history that a model reads, in events."""
    short_users: Literal["error", "drop", "train"] = "error"
    """Users with fewer than three events under leave-one-out: refuse the data, leave these users out (their
    items stay in the catalogue), or use them for training only."""
    duplicates: Literal["error", "first", "keep"] | None = None
    """Rows that repeat another exactly: refuse the data, keep the first, keep all. None: what the data set's
    own entry says, which is "error" unless its repeats are known."""
    ties: Literal["file", "random"] = "file"
    """Events of a user at the same time: in the order of the file, or shuffled once by ``tie_seed``."""
    tie_seed: int = Field(default=0, ge=0)
    min_user_events: int = Field(default=0, ge=0)
    """Drop users with fewer events, together with ``min_item_events`` until nothing more falls (k-core)."""
    min_item_events: int = Field(default=0, ge=0)
    actions: dict[str, str] | None = None
    """Action name -> rule over the log's columns (``{like: "rating >= 4", buy: "action == buy"}``, or a bare
    column of 0 and 1). None: the data set's own rules. Empty: no actions."""

    columns: Columns | None = None
    """What the columns of a log of one's own are called. None: they are recognised by their names."""

    @model_serializer(mode="wrap")
    def _named_where_set(self, handler: Any) -> dict[str, Any]:
        """A setting that came later is named only where it is set: the cells of other studies keep their ids."""
        values = handler(self)
        for name, unset in (("columns", None), ("split_options", {}), ("targets", "last")):
            if getattr(self, name) == unset:
                values.pop(name, None)
        return values

    @field_validator("split")
    @classmethod
    def _known_split(cls, value: str) -> str:
        known = REGISTRIES["splitters"].names()
        if value not in known:
            raise ValueError(f"unknown split '{value}'; {nearest(value, known)}")
        return value

    @field_validator("actions")
    @classmethod
    def _rules_parse(cls, actions: dict[str, str] | None) -> dict[str, str] | None:
        for rule in (actions or {}).values():
            parse_rule(rule)
        return actions

    @model_validator(mode="after")
    def _something_is_left_for_training(self) -> DataConfig:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction add up to 1 or more, which leaves nothing to train on")
        return self
