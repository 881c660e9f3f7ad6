"""Small made-up logs with a known truth. The same seed gives the same log on every machine and numpy version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from harness.data.log import RawLog
from harness.errors import InputError, nearest
from harness.settings import Settings, parse

__all__ = ["ACTIONS", "SYNTHETIC", "ClustersConfig", "SessionsConfig", "clusters", "sessions", "synthetic_log"]

DAY = 86_400


class ClustersConfig(Settings):
    """Parameters of ``synthetic-clusters``."""

    users: int = Field(default=2000, ge=1)
    items: int = Field(default=400, ge=1)
    clusters: int = Field(default=20, ge=1)
    length: int = Field(default=64, ge=1)
    """Events of every user."""
    noise: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that an action is turned round."""
    seed: int = Field(default=0, ge=0)


class SessionsConfig(Settings):
    """Parameters of ``synthetic-sessions``."""

    users: int = Field(default=300, ge=1)
    items: int = Field(default=120, ge=1)
    groups: int = Field(default=12, ge=1)
    length: int = Field(default=12, ge=3)
    """The longest sequence; lengths are uniform from 3 on."""
    order: float = Field(default=0.8, ge=0, le=1)
    """Probability that the item after this one in its group comes next, rather than any item."""
    seed: int = Field(default=0, ge=0)


class _Stream:
    """Random numbers out of a bit generator's raw stream, which numpy guarantees not to change."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def below(self, bound: int, shape: tuple[int, ...] | int) -> np.ndarray:
        """int64 in 0..bound-1."""
        return (self._bits.random_raw(shape) % np.uint64(bound)).astype(np.int64)

    def uniform(self, shape: tuple[int, ...] | int) -> np.ndarray:
        """float64 in [0, 1)."""
        return (self._bits.random_raw(shape) >> np.uint64(11)) * 2.0**-53


def clusters(config: ClustersConfig, path: Path) -> RawLog:
    """Items belong to latent clusters, a user has a sign for each cluster, and the action of an event is the
    user's sign for the cluster of its item.

    Items are drawn uniformly, signs are fair and independent coins. So without the user's past actions on
    items of the same cluster nothing is known about an action (loss ln 2), and with one of them everything
    (loss 0): only pooling past actions by similarity of their items can win. The clusters stand in the item
    table for analysis; they are not text.
    """
    stream = _Stream(config.seed)
    cluster = stream.below(config.clusters, config.items)  # (I,)
    sign = stream.below(2, (config.users, config.clusters))
    item = stream.below(config.items, (config.users, config.length))
    turned = stream.uniform((config.users, config.length)) < config.noise
    positive = sign[np.arange(config.users)[:, None], cluster[item]].astype(bool) ^ turned  # (U, L)
    raw = _raw(path, np.repeat(np.arange(config.users), config.length), item.ravel(), config.items)
    raw.columns = {"positive": positive.ravel().astype(np.float64)}
    raw.item_table = pd.DataFrame({"cluster": [str(c) for c in cluster]}, index=_ids("i", config.items))
    return raw


def sessions(config: SessionsConfig, path: Path) -> RawLog:
    """Items stand on rings, one ring per group; the next event mostly takes the next item of the ring. Texts name
    the group. A user rates 5 or 2, by a taste for each group that holds nine times out of ten."""
    stream = _Stream(config.seed)
    group = np.arange(config.items) % config.groups
    after = np.empty(config.items, dtype=np.int64)
    for g in range(min(config.groups, config.items)):
        members = np.flatnonzero(group == g)
        after[members] = np.roll(members, -1)
    item = np.empty((config.users, config.length), dtype=np.int64)
    item[:, 0] = stream.below(config.items, config.users)
    for t in range(1, config.length):
        follows = stream.uniform(config.users) < config.order
        item[:, t] = np.where(follows, after[item[:, t - 1]], stream.below(config.items, config.users))
    lengths = 3 + stream.below(config.length - 2, config.users)
    taste = stream.below(2, (config.users, config.groups)).astype(bool)
    likes = taste[np.arange(config.users)[:, None], group[item]] ^ (stream.uniform(item.shape) < 0.1)
    inside = np.arange(config.length) < lengths[:, None]
    raw = _raw(path, np.repeat(np.arange(config.users), lengths), item[inside], config.items)
    raw.columns = {"rating": np.where(likes[inside], 5.0, 2.0)}
    titles = [f"group{g} shade{i % 7} model{i}" for i, g in enumerate(group)]
    raw.item_table = pd.DataFrame({"title": titles}, index=_ids("i", config.items))
    return raw


SYNTHETIC: dict[str, tuple[str, type[Settings], Callable[..., RawLog]]] = {
    "synthetic-clusters": (
        "Latent clusters: only pooling past actions by item similarity predicts",
        ClustersConfig,
        clusters,
    ),
    "synthetic-sessions": (
        "Items on rings with texts and ratings: a quick test of either task",
        SessionsConfig,
        sessions,
    ),
}
"""Name -> title, parameters, generator."""
ACTIONS: dict[str, dict[str, str]] = {
    "synthetic-clusters": {"positive": "positive"},
    "synthetic-sessions": {"like": "rating >= 4"},
}


def synthetic_log(name: str) -> RawLog:
    """The log that ``synthetic-clusters:users=200,seed=1`` or the like stands for.

    Raises:
        InputError: an unknown name, a parameter that it does not have or a value out of range.
    """
    kind, _, parameters = name.partition(":")
    if kind not in SYNTHETIC:
        raise InputError(f"unknown synthetic data set '{kind}'; {nearest(kind, SYNTHETIC)}")
    values = {}
    for part in filter(None, parameters.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"data set '{name}': '{part}' is not of the form KEY=VALUE; write {kind}:users=100,seed=1")
        values[key.strip()] = value.strip()
    _, settings, generate = SYNTHETIC[kind]
    return generate(parse(settings, values, f"data set '{name}'"), Path(name))


def _ids(prefix: str, count: int) -> np.ndarray:
    return np.array([f"{prefix}{i}" for i in range(count)])


def _raw(path: Path, user: np.ndarray, item: np.ndarray, n_items: int) -> RawLog:
    """One event a day. Items that never occur are not part of the log."""
    first = np.concatenate([[True], user[1:] != user[:-1]])
    start = np.maximum.accumulate(np.where(first, np.arange(len(user)), 0))
    codes, seen = pd.factorize(item)
    return RawLog(
        path=path,
        user=user,
        users=_ids("u", int(user[-1]) + 1),
        item=codes.astype(np.int64),
        items=_ids("i", n_items)[seen],
        time=(np.arange(len(user)) - start) * DAY,
    )
