"""Metrics of predicted action probabilities, from the rows of one phase. Imports no torch.

Every metric takes (E,) arrays of labels in {0, 1} and probabilities of one action. A value that is not defined, as a
normalized entropy where the action never or always occurs, is None and never NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from harness.errors import InputError, nearest

__all__ = ["FAMILIES", "auc", "bce", "check_metric", "ece", "gauc", "higher_is_better", "ne", "per_user", "summarise"]

FAMILIES = {
    "bce": "binary cross-entropy in nats, the evaluation loss",
    "ne": "normalized entropy: BCE over that of always predicting the mean label (He et al. 2014)",
    "auc": "area under the ROC curve over all events",
    "gauc": "area under the ROC curve per user, the mean weighted by events (Zhu et al. 2017)",
    "ece": "expected calibration error over 15 equal-width bins (Naeini et al. 2015)",
}
MEAN = "mean"
SMALLEST = float(np.finfo(np.float32).eps)
"""Probabilities are kept this far from 0 and 1: in float32 a sigmoid reaches both."""


def check_metric(name: str) -> str:
    """``name`` in its canonical spelling: ``ne``, or ``ne/like`` for one action. Raises InputError if unknown."""
    metric, slash, action = name.strip().partition("/")
    if metric.lower() not in FAMILIES:
        raise InputError(f"unknown metric '{name}'; {nearest(metric, FAMILIES)}")
    return metric.lower() + slash + action


def higher_is_better(metric: str) -> bool:
    """Whether more of ``metric`` (also as in ``auc/like``) is better."""
    return check_metric(metric).partition("/")[0] in ("auc", "gauc")


def bce(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Mean of -y ln p - (1 - y) ln(1 - p); None without events."""
    if not len(label):
        return None
    return float(_losses(label, probability).mean())


def ne(label: np.ndarray, probability: np.ndarray) -> float | None:
    """BCE divided by the entropy of the mean label; None where the action never or always occurs."""
    if not _both_classes(label):
        return None
    return bce(label, probability) / _entropy(float(np.mean(label)))


def auc(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Probability that an event with the action is scored above one without, ties counting half."""
    if not _both_classes(label):
        return None
    positive = np.asarray(label) > 0
    n, n_positive = len(positive), int(positive.sum())
    above = rankdata(probability)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (n - n_positive)))


def gauc(label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> float | None:
    """AUC of each user, averaged with the users' events as weights. Users with one class alone are left out."""
    value, _, _ = _per_user(label, probability, user)
    return value


def ece(label: np.ndarray, probability: np.ndarray, bins: int = 15) -> float | None:
    """Mean over events of |mean probability - mean label| of the event's bin; None without events."""
    if not len(label):
        return None
    p = np.asarray(probability, dtype=np.float64)
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    gap = np.bincount(index, p - np.asarray(label, dtype=np.float64), minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def summarise(rows: Any) -> dict[str, dict[str, float | None]]:
    """All metrics per action, in the order of the rows, and under ``mean`` their average over actions.

    An action whose value is undefined is left out of that metric's average; it is None where all are.
    Each action has besides ``gauc_users`` and ``gauc_skipped``, the users that GAUC takes in and leaves out.

    Args:
        rows: a table with the columns ``user``, ``action``, ``label`` and ``probability``: a pyarrow table, a data
            frame, or a mapping to arrays.
    """
    frame = _frame(rows)
    users = pd.factorize(frame["user"])[0]
    code, names = pd.factorize(frame["action"])
    label, probability = frame["label"].to_numpy(), frame["probability"].to_numpy(dtype=np.float64)
    if not np.isin(label, (0, 1)).all():
        raise InputError("the column 'label' of the action rows holds values besides 0 and 1; evaluate the cell again")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InputError("the column 'probability' of the action rows leaves [0, 1]; evaluate the cell again")
    found: dict[str, dict[str, float | None]] = {}
    for number, name in enumerate(names):
        chosen = code == number
        y, p, of = label[chosen], probability[chosen], users[chosen]
        value, used, skipped = _per_user(y, p, of)
        found[str(name)] = {
            "bce": bce(y, p),
            "ne": ne(y, p),
            "auc": auc(y, p),
            "gauc": value,
            "ece": ece(y, p),
            "gauc_users": used,
            "gauc_skipped": skipped,
        }
    return {MEAN: {metric: _mean([group[metric] for group in found.values()]) for metric in FAMILIES}, **found}


def per_user(metric: str, rows: Any) -> np.ndarray | None:
    """(U,) values whose mean is the metric, one per user in the order of the rows; None where it is no mean over users.

    A metric D = sum(w_u x_u) / W, with a weight and a mean of each user, is written as the mean of
    D + U / W * w_u * (x_u - D), whose spread over users is that of the ratio (its linearisation). The entropy that a
    normalized entropy divides by is taken as known. ``rows``: as for :func:`summarise`.
    """
    family, _, action = check_metric(metric).partition("/")
    if family not in ("bce", "ne", "gauc"):
        return None
    frame = _frame(rows)
    users, ids = pd.factorize(frame["user"])
    names = [action] if action else list(dict.fromkeys(frame["action"]))
    found = []
    for name in names:
        chosen = (frame["action"] == name).to_numpy()
        y, p, of = frame["label"].to_numpy()[chosen], frame["probability"].to_numpy(float)[chosen], users[chosen]
        if family == "gauc":
            value, weight = _user_aucs(y, p, of, len(ids))
        else:
            weight = np.bincount(of, minlength=len(ids)).astype(float)
            value = np.bincount(of, _losses(y, p), minlength=len(ids)) / np.maximum(weight, 1)
        if family == "ne":
            if not _both_classes(y):
                continue
            value = value / _entropy(float(np.mean(y)))
        if weight.sum():
            mean = np.average(value, weights=weight)
            found.append(mean + len(ids) / weight.sum() * weight * (value - mean))
    return np.mean(found, axis=0) if found else None


def _frame(rows: Any) -> pd.DataFrame:
    columns = ["user", "action", "label", "probability"]
    if hasattr(rows, "to_pandas"):
        return rows.select(columns).to_pandas()
    return pd.DataFrame({name: np.asarray(rows[name]) for name in columns})


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _both_classes(label: np.ndarray) -> bool:
    positives = int(np.count_nonzero(label))
    return 0 < positives < len(label)


def _losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(probability, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    return -np.where(np.asarray(label) > 0, np.log(p), np.log1p(-p))


def _entropy(rate: float) -> float:
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))


def _per_user(label: np.ndarray, probability: np.ndarray, user: np.ndarray) -> tuple[float | None, int, int]:
    """GAUC, the users it takes in and those it leaves out."""
    if not len(label):
        return None, 0, 0
    ids, user = np.unique(user, return_inverse=True)
    value, weight = _user_aucs(label, probability, user, len(ids))
    used = int(np.count_nonzero(weight))
    return float(np.average(value, weights=weight)) if used else None, used, len(ids) - used


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
