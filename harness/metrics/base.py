"""What a metric is, what it is given, and how a name such as ``ndcg@10`` or ``ne/like`` becomes one."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from harness.errors import InputError, nearest
from harness.registry import REGISTRIES

__all__ = ["Evidence", "Labels", "Metric", "Need", "check_metric", "find", "label", "lower_is_better"]

Need = Literal["rank", "list", "popularity", "vectors", "label"]
"""What a metric can ask for. ``rank`` and ``label`` are there in every phase, the others for the test part alone."""


@dataclass(frozen=True)
class Labels:
    """The predicted actions of one phase, an entry per event and action. E entries, U users."""

    user: np.ndarray
    """(E,) number of the user, 0..users-1, in the order of the rows."""
    users: int
    action: np.ndarray
    """(E,) number of the action."""
    actions: tuple[str, ...]
    label: np.ndarray
    """(E,) 0 or 1."""
    probability: np.ndarray
    """(E,) float64 in [0, 1]."""

    def of(self, action: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, probabilities and users of one action.

        Raises:
            InputError: there is no such action.
        """
        if action not in self.actions:
            raise InputError(f"there is no action '{action}'; {nearest(action, self.actions)}")
        chosen = self.action == self.actions.index(action)
        return self.label[chosen], self.probability[chosen], self.user[chosen]


class Evidence:
    """What one cell left of one phase, under one protocol. Each part is read when a metric first asks for it.

    U test users, I items (numbered from 1; 0 is not an item), K places of a list, d dimensions.
    """

    def __init__(self, parts: Mapping[str, Callable[[], Any]]) -> None:
        self._parts = parts
        self._read: dict[str, Any] = {}

    def _part(self, name: str) -> Any:
        if name not in self._read:
            if name not in self._parts:
                raise InputError(f"there is no '{name}' to compute this metric from")
            self._read[name] = self._parts[name]()
        return self._read[name]

    @property
    def ranks(self) -> np.ndarray:
        """(U,) 1-based rank of each user's target, NaN where it was not ranked."""
        return self._part("rank")

    @property
    def lists(self) -> np.ndarray:
        """(U, K) int32: each user's best items, best first; 0 where the list is shorter. K is at least 50."""
        return self._part("list")

    @property
    def popularity(self) -> np.ndarray:
        """(I + 1,) int64: events of each item in the training part; entry 0 belongs to no item."""
        return self._part("popularity")

    @property
    def vectors(self) -> np.ndarray:
        """(I + 1, d) float32: co-occurrence vectors of the training part, of length 1 or, for unseen items, 0."""
        return self._part("vectors")

    @property
    def labels(self) -> Labels:
        """The actions that were predicted."""
        return self._part("label")


Cutoff = Literal["required", "optional", "none"]


class Metric(ABC):
    """One metric, as a study names it: a registered family, with a cutoff or an action where it takes one.

    A metric gives a value per user (:meth:`per_user`), whose mean is its value, or a value of all users at once
    (:meth:`value`), or both. A value of NaN for a user is handled as ``undefined`` declares.
    """

    title: ClassVar[str]
    """As tables print it: ``NDCG``."""
    meaning: ClassVar[str]
    """One line for ``harness list metrics``."""
    task: ClassVar[Literal["retrieval", "action"]]
    needs: ClassVar[frozenset[Need]]
    higher_is_better: ClassVar[bool] = True
    cutoff: ClassVar[Cutoff] = "none"
    """Whether a name says how many places of the list count, as in ``ndcg@10``."""
    undefined: ClassVar[Literal["skip", "zero"]] = "skip"
    """What a user without a value does: ``skip`` leaves the user out of the mean, ``zero`` counts as 0."""

    def __init__(self, name: str, k: int | None = None, action: str | None = None) -> None:
        self.name = name
        self.k = k
        self.action = action

    @property
    def label(self) -> str:
        """``NDCG@10``, ``NE (like)``."""
        return self.title + (f"@{self.k}" if self.k else "") + (f" ({self.action})" if self.action else "")

    @property
    def in_validation(self) -> bool:
        """Whether the metric can be computed in every phase, so that training can follow it."""
        return self.needs <= {"rank", "label"}

    @abstractmethod
    def per_user(self, evidence: Evidence) -> np.ndarray | None:
        """(U,) values whose mean is the metric, NaN where a user has none; None where it is not a mean over users."""

    def users(self, evidence: Evidence) -> np.ndarray | None:
        """:meth:`per_user` with ``undefined`` applied: NaN is left only for users that do not count."""
        values = self.per_user(evidence)
        if values is None or self.undefined == "skip":
            return values
        return np.nan_to_num(values, nan=0.0)

    def value(self, evidence: Evidence) -> float:
        """The metric over all users; NaN where it is undefined."""
        values = self.users(evidence)
        if values is None:
            raise NotImplementedError(f"{type(self).__name__} answers neither per_user nor value")
        defined = values if not np.isnan(values).any() else values[~np.isnan(values)]
        return float(np.mean(defined)) if len(defined) else float("nan")


@functools.lru_cache(maxsize=256)
def find(name: str) -> Metric:
    """The metric that ``name`` stands for: ``ndcg@10``, ``mrr``, ``ne``, ``ne/like``.

    Raises:
        InputError: no such metric, or a cutoff or an action that is missing or too much.
    """
    metrics = REGISTRIES["metrics"]
    body, slash, action = name.strip().partition("/")
    match = re.fullmatch(r"([\w-]+)(?:@([1-9]\d{0,3}))?", body.strip().lower())
    family, cutoff = match.groups() if match else (body, None)
    known = metrics.names()
    if match is None or family not in known:
        raise InputError(f"unknown metric '{name}'; {nearest(family, known)}, written as in 'ndcg@10'")
    kind: type[Metric] = metrics.load(family)
    if not (isinstance(kind, type) and issubclass(kind, Metric)):
        raise InputError(f"metric '{family}' ({known[family]}) is not a subclass of harness.metrics.Metric")
    if cutoff is None and kind.cutoff == "required":
        raise InputError(f"metric '{name}' needs a cutoff, as in '{family}@10'")
    if cutoff is not None and kind.cutoff == "none":
        raise InputError(f"metric '{family}' takes no cutoff; write '{family}'")
    if slash and kind.task != "action":
        raise InputError(f"metric '{family}' is not one of actions; write '{body}'")
    canonical = (family if cutoff is None else f"{family}@{cutoff}") + slash + action
    return kind(canonical, int(cutoff) if cutoff else None, action or None)


def check_metric(name: str, task: str) -> str:
    """``name`` in its canonical spelling (``ndcg@10``). Raises InputError for one that ``task`` does not have."""
    metric = find(name)
    if metric.task != task:
        raise InputError(f"metric '{name}' belongs to the task '{metric.task}', and this is '{task}'")
    return metric.name


def lower_is_better(name: str) -> bool:
    """True for losses and for what counts as harm, as in ``bce`` or ``ne/like``."""
    return not find(name).higher_is_better


def label(name: str) -> str:
    """A metric as it is printed: ``NDCG@10``, ``NE (like)``; its own name where no metric is registered under it."""
    try:
        return find(name).label
    except InputError:
        return name
