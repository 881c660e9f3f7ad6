"""Metrics of predicted action probabilities. Imports no torch.

Each is computed per action, from (E,) arrays of labels in {0, 1} and probabilities; without an action in its name
(``ne/like``) it is the mean over the actions where it is defined. A value that is not defined, as a normalized entropy
where the action never or always occurs, is NaN.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from harness.errors import InputError
from harness.metrics.base import Evidence, Labels, Metric, find

__all__ = [
    "AUC",
    "BCE",
    "ECE",
    "FAMILIES",
    "GAUC",
    "MEAN",
    "NE",
    "ActionMetric",
    "labels_of",
    "summarise",
    "users_of_gauc",
]

FAMILIES = ("bce", "ne", "auc", "gauc", "ece")
"""What a cell's summary holds of every action."""
MEAN = "mean"
SMALLEST = float(np.finfo(np.float32).eps)
"""Probabilities are kept this far from 0 and 1: in float32 a sigmoid reaches both."""
NAN = float("nan")


class ActionMetric(Metric):
    """A metric of one action, or its mean over actions."""

    task = "action"
    needs = frozenset({"label"})

    @abstractmethod
    def of_action(self, label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float:
        """The value for the (E,) events of one action; NaN where it is undefined."""

    def parts(
        self, label: np.ndarray, probability: np.ndarray, user: np.ndarray, users: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """(U,) value and weight of each user whose weighted mean is the metric; None where it is no such mean."""
        return None

    def value(self, evidence: Evidence) -> float:
        names = [self.action] if self.action else evidence.labels.actions
        found = [self.of_action(*evidence.labels.of(name)) for name in names]
        defined = [value for value in found if not np.isnan(value)]
        return float(np.mean(defined)) if defined else NAN

    def per_user(self, evidence: Evidence) -> np.ndarray | None:
        """A metric D = sum(w_u x_u) / W, with a weight and a mean of each user, is written as the mean of
        D + U / W * w_u * (x_u - D), whose spread over users is that of the ratio (its linearisation). The entropy that
        a normalized entropy divides by is taken as known."""
        labels, found = evidence.labels, []
        for name in [self.action] if self.action else labels.actions:
            parts = self.parts(*labels.of(name), labels.users)
            if parts is None:
                continue
            value, weight = parts
            if weight.sum():
                mean = np.average(value, weights=weight)
                found.append(mean + labels.users / weight.sum() * weight * (value - mean))
        return np.mean(found, axis=0) if found else None


class BCE(ActionMetric):
    title = "BCE"
    meaning = "binary cross-entropy in nats, the evaluation loss"
    higher_is_better = False

    def of_action(self, label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float:
        return float(_losses(label, probability).mean()) if len(label) else NAN

    def parts(
        self, label: np.ndarray, probability: np.ndarray, user: np.ndarray, users: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        weight = np.bincount(user, minlength=users).astype(float)
        return np.bincount(user, _losses(label, probability), minlength=users) / np.maximum(weight, 1), weight


class NE(BCE):
    title = "NE"
    meaning = "normalized entropy: BCE over that of always predicting the mean label (He et al. 2014)"

    def of_action(self, label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float:
        if not _both_classes(label):
            return NAN
        return super().of_action(label, probability, user) / _entropy(float(np.mean(label)))

    def parts(
        self, label: np.ndarray, probability: np.ndarray, user: np.ndarray, users: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if not _both_classes(label):
            return None
        value, weight = super().parts(label, probability, user, users) or (np.empty(0), np.empty(0))
        return value / _entropy(float(np.mean(label))), weight


class AUC(ActionMetric):
    title = "AUC"
    meaning = "area under the ROC curve over all events"

    def of_action(self, label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float:
        """Probability that an event with the action is scored above one without, ties counting half."""
        if not _both_classes(label):
            return NAN
        positive = np.asarray(label) > 0
        n, n_positive = len(positive), int(positive.sum())
        above = rankdata(probability)[positive].sum() - n_positive * (n_positive + 1) / 2
        return float(above / (n_positive * (n - n_positive)))


class GAUC(ActionMetric):
    title = "GAUC"
    meaning = "area under the ROC curve per user, the mean weighted by events (Zhu et al. 2017)"

    def of_action(self, label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float:
        """AUC of each user, averaged with the users' events as weights. Users with one class alone are left out."""
        if not len(label):
            return NAN
        ids, user = np.unique(user, return_inverse=True)
        value, weight = _user_aucs(label, probability, user, len(ids))
        return float(np.average(value, weights=weight)) if weight.any() else NAN

    def parts(
        self, label: np.ndarray, probability: np.ndarray, user: np.ndarray, users: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        return _user_aucs(label, probability, user, users)


class ECE(ActionMetric):
    title = "ECE"
    meaning = "expected calibration error over 15 equal-width bins (Naeini et al. 2015)"
    higher_is_better = False

    def of_action(self, label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float:
        """Mean over events of |mean probability - mean label| of the event's bin."""
        if not len(label):
            return NAN
        bins, p = 15, np.asarray(probability, dtype=np.float64)
        index = np.minimum((p * bins).astype(np.int64), bins - 1)
        gap = np.bincount(index, p - np.asarray(label, dtype=np.float64), minlength=bins)
        return float(np.abs(gap).sum() / len(p))


def labels_of(rows: Any) -> Labels:
    """Rows of action prediction as arrays.

    Args:
        rows: a table with the columns ``user``, ``action``, ``label`` and ``probability``: a pyarrow table, a data
            frame, or a mapping to arrays.

    Raises:
        InputError: a label besides 0 and 1, or a probability outside [0, 1].
    """
    columns = ["user", "action", "label", "probability"]
    frame = rows.select(columns).to_pandas() if hasattr(rows, "to_pandas") else rows
    label, probability = np.asarray(frame["label"]), np.asarray(frame["probability"], dtype=np.float64)
    if not np.isin(label, (0, 1)).all():
        raise InputError("the column 'label' of the action rows holds values besides 0 and 1; evaluate the cell again")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InputError("the column 'probability' of the action rows leaves [0, 1]; evaluate the cell again")
    user, ids = pd.factorize(np.asarray(frame["user"]))
    action, names = pd.factorize(np.asarray(frame["action"]))
    return Labels(user, len(ids), action, tuple(map(str, names)), label, probability)


def summarise(labels: Labels, metrics: tuple[str, ...] = FAMILIES) -> dict[str, dict[str, float | None]]:
    """The metrics per action, in the order of the rows, and under ``mean`` their average over actions.

    An undefined value is None. Each action has besides ``gauc_users`` and ``gauc_skipped``, the users that GAUC takes
    in and leaves out.
    """
    evidence = Evidence({"label": lambda: labels})
    found: dict[str, dict[str, float | None]] = {MEAN: {name: _defined(find(name).value(evidence)) for name in metrics}}
    used = users_of_gauc(labels)
    for action in labels.actions:
        values: dict[str, float | None] = {name: _defined(find(f"{name}/{action}").value(evidence)) for name in metrics}
        there = len(np.unique(labels.of(action)[2]))
        found[action] = {**values, "gauc_users": used[action], "gauc_skipped": there - used[action]}
    return found


def users_of_gauc(labels: Labels) -> dict[str, int]:
    """Action -> how many users GAUC takes in: those with events of both classes."""
    return {action: int(np.count_nonzero(_user_aucs(*labels.of(action), labels.users)[1])) for action in labels.actions}


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _both_classes(label: np.ndarray) -> bool:
    positives = int(np.count_nonzero(label))
    return 0 < positives < len(label)


def _losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(probability, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    return -np.where(np.asarray(label) > 0, np.log(p), np.log1p(-p))


def _entropy(rate: float) -> float:
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))


def _user_aucs(
    label: np.ndarray, probability: np.ndarray, user: np.ndarray, users: int
) -> tuple[np.ndarray, np.ndarray]:
    """(U,) AUC of each user and its weight, the user's events; both 0 for a user with one class alone.

    ``user``: numbers from 0. One sort, no loop over users.
    """
    order = np.lexsort((probability, user))
    user, score, positive = user[order], np.asarray(probability)[order], np.asarray(label)[order] > 0
    events = np.bincount(user, minlength=users)
    positives = np.bincount(user, positive, minlength=users)
    # Mean rank of each run of equal scores within a user, counted from 1 at the user's first event.
    first = np.r_[True, (user[1:] != user[:-1]) | (score[1:] != score[:-1])]
    begin = np.flatnonzero(first)
    end = np.r_[begin[1:], len(user)]
    rank = ((begin + end + 1) / 2)[np.cumsum(first) - 1] - (np.cumsum(events) - events)[user]
    above = np.bincount(user, rank * positive, minlength=users) - positives * (positives + 1) / 2
    pairs = positives * (events - positives)
    used = pairs > 0
    return np.divide(above, pairs, out=np.zeros(users), where=used), np.where(used, events, 0)
