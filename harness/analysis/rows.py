"""A run folder as data: every number derived from the rows of its cells.

Nothing here trusts ``metrics.json``: a metric is computed from ``rows.parquet`` each time, columns are read only
when they are needed, and what was read stays in memory (about 300 kB per cell of 75,000 users).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.crossed import Replicate, by_seed, paired
from harness.analysis.run_files import CATALOGUES, LISTS, RunFiles, read_outside, remedy
from harness.errors import InputError, nearest, shortened
from harness.metrics import Evidence, Labels, find, lower_is_better
from harness.metrics import label as metric_label
from harness.reading.parquet import read_parquet, read_schema
from harness.tasks.lists import catalogue_name, unpack

__all__ = ["CANDIDATES", "Run", "by_user", "load_run", "lower_is_better", "metric_label", "read_outside"]

CANDIDATES = {
    "unseen": "items of the user's history are removed from the candidates",
    "all": "the whole catalogue is ranked, items of the user's history may be recommended again",
}
"""The two protocols of a ranking, in words."""


@dataclass
class Run(RunFiles):
    """A run folder, and every number derived from the rows of its cells."""

    _evidence: tuple[tuple[str, ...], Evidence] = field(default=((), Evidence({})), repr=False)

    def users(self, cell: str, phase: str = "test") -> pa.ChunkedArray:
        """(U,) ids of a cell's users, in the order of its rows."""
        return self.rows(cell, ["user"], phase)["user"]

    def ranks(self, cell: str, phase: str = "test", candidates: str | None = None) -> np.ndarray:
        """(U,) float32 ranks of the targets, NaN where a target was not ranked."""
        candidates = self._known_candidates(candidates)

        def read() -> np.ndarray:
            column = self.rows(cell, [f"rank_{candidates}"], phase)[f"rank_{candidates}"]
            ranks = column.cast(pa.float32()).to_numpy()
            if (ranks < 1).any() or np.isinf(ranks).any():
                path = self.file(cell, "rows.parquet")
                raise InputError(f"{path} is damaged (a rank_{candidates} below 1); {remedy(cell)}")
            return ranks

        return self._keep(("ranks", cell, phase, candidates), read)

    def lists(self, cell: str, candidates: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(U, 50) int32 best items of each test user and (U, 50) float32 scores; 0 and NaN where a list is shorter.

        Raises:
            InputError: the cell keeps none, as one that was made before lists were kept.
        """
        path = self.file(cell, LISTS)
        if not path.exists():
            raise InputError(
                f"cell {cell} of {self.path} keeps no lists of items; `harness evaluate` makes them from its weights"
            )
        table = read_parquet(path, ["items", "seen", "scores"], remedy(cell))
        try:
            items, scores = unpack(table, self._known_candidates(candidates))
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(f"{path} is damaged ({shortened(str(error))}); {remedy(cell)}") from None
        if len(items) != len(self.ranks(cell, candidates=candidates)):
            raise InputError(f"{path} is damaged (it has other users than the rows); {remedy(cell)}")
        return items, scores

    def catalogue(self, cell: str, columns: Sequence[str]) -> pa.Table:
        """Columns of the items of the cell's data set, item 1 first: ``item``, ``count``, ``vector``."""
        prints = self.cards[cell]["fingerprints"]
        path = self.path / CATALOGUES / catalogue_name(prints["log"], prints["split"])
        anew = f"delete it, and `harness evaluate {self.path}` makes it again"
        if not path.exists() or set(columns) - set(read_schema(path, anew).names):
            wanted = " and ".join(columns)
            raise InputError(f"{path} with {wanted} of each item is not there; `harness evaluate {self.path}` makes it")
        return read_parquet(path, list(columns), anew)

    def evidence(self, cell: str, phase: str = "test", candidates: str | None = None) -> Evidence:
        """What the metrics of a cell are computed from; only the last cell's stays in memory."""
        candidates = self._known_candidates(candidates)
        key = (cell, phase, candidates)
        if self._evidence[0] != key:
            parts: dict[str, Callable[[], Any]] = {}
            if self.task == "action":
                parts["label"] = lambda: self._labels(cell, phase)
            else:
                parts["rank"] = lambda: self.ranks(cell, phase, candidates)
            if self.task == "retrieval" and phase == "test":
                parts["list"] = lambda: self.lists(cell, candidates)[0]
                parts["popularity"] = lambda: np.r_[0, self.catalogue(cell, ["count"])["count"].to_numpy()]
                parts["vectors"] = lambda: self._vectors(cell)
            self._evidence = key, Evidence(parts)
        return self._evidence[1]

    def row_values(
        self, cell: str, metric: str, phase: str = "test", candidates: str | None = None
    ) -> np.ndarray | None:
        """(R,) float64 values whose mean is the metric, NaN for those that don't count: one per target, and for
        actions one per user. None where it is no such mean (AUC, coverage)."""
        key = ("row values", cell, metric, phase, self._known_candidates(candidates))

        def measure() -> np.ndarray | None:
            return find(metric).users(self.evidence(cell, phase, candidates))

        # Values from ranks are quicker made again than kept.
        return measure() if find(metric).needs == {"rank"} else self._keep(key, measure)

    def user_values(
        self, cell: str, metric: str, phase: str = "test", candidates: str | None = None
    ) -> np.ndarray | None:
        """(U,) float64 values, one per user, whose mean is the metric (see :func:`by_user`), NaN for users that don't
        count; None where it is not a mean over users."""
        values = self.row_values(cell, metric, phase, candidates)
        owner = self.owners(cell, phase)
        return values if values is None or owner is None else by_user(values, owner)

    def owners(self, cell: str, phase: str = "test") -> np.ndarray | None:
        """(R,) whose each target is, numbered from 0 in the order of the rows; None where each user has one, and for
        actions."""

        def find_out() -> np.ndarray | None:
            found = self.users(cell, phase).combine_chunks().dictionary_encode()
            return found.indices.to_numpy() if len(found.dictionary) < len(found) else None

        return self._keep(("owners", cell, phase), find_out) if self.task == "retrieval" else None

    def metric(self, cell: str, metric: str, phase: str = "test", candidates: str | None = None) -> float:
        """One metric of one cell, from its rows. NaN where it is undefined."""
        key = ("metric", cell, metric, phase, self._known_candidates(candidates))
        return self._keep(key, lambda: find(metric).value(self.evidence(cell, phase, candidates)))

    def metric_table(
        self, metrics: Iterable[str] | str | None = None, phase: str = "test", candidates: str | None = None
    ) -> pd.DataFrame:
        """Means of each finished cell: index (dataset, variant, seed) in the design's order, a column per metric. Where
        codes are drawn several times, the index has a fourth level ``draw``."""
        metrics = [metrics] if isinstance(metrics, str) else list(metrics or self.metrics)
        done = self.finished
        index = pd.MultiIndex.from_frame(done[["dataset", "variant", "seed", *(["draw"] if self.draws_codes else [])]])
        values = {m: [self.metric(cell, m, phase, candidates) for cell in done["id"]] for m in metrics}
        return pd.DataFrame(values, index=index, columns=metrics, dtype=float)

    def actions(self, dataset: str | None = None) -> list[str]:
        """The actions that are predicted on a data set, or on any, in the order of the rows."""
        found: dict[str, None] = {}
        for name in self.datasets if dataset is None else [dataset]:
            for cell in self.ids(name)[:1]:
                found |= dict.fromkeys(self.rows(cell, ["action"])["action"].unique().to_pylist())
        return list(found)

    def gauc_users(self, cell: str) -> dict[str, int]:
        """Action -> how many test users GAUC takes in: those with events of both classes."""
        from harness.metrics.action import users_of_gauc

        return self._keep(("gauc users", cell), lambda: users_of_gauc(self.evidence(cell).labels))

    def by_seed(self, dataset: str, variant: str, metric: str, **options: Any) -> dict[int, float]:
        """Seed -> value of a metric, of the finished cells; the mean where a seed has several draws of the codes."""
        return by_seed(self.by_replicate(dataset, variant, metric, **options))

    def by_replicate(self, dataset: str, variant: str, metric: str, **options: Any) -> dict[Replicate, float]:
        """Seed and draw of the codes -> value of a metric, of the finished cells."""
        cells = zip(self.replicates(dataset, variant), self.ids(dataset, variant), strict=True)
        return {replicate: self.metric(cell, metric, **options) for replicate, cell in cells}

    def differences(
        self, dataset: str, arm: str, than: str, metric: str, phase: str = "test", candidates: str | None = None
    ) -> np.ndarray:
        """(U, S) per-user differences arm - than, over the seeds that both have; (0, 0) where there are none, or the
        metric is not a mean over users. Where codes are drawn C times, (U, S C), the draws of a seed side by side.

        Raises:
            InputError: the two were not evaluated on the same users in the same order.
        """
        ours = dict(zip(self.replicates(dataset, arm), self.ids(dataset, arm), strict=True))
        theirs = dict(zip(self.replicates(dataset, than), self.ids(dataset, than), strict=True))
        replicates = paired(ours, theirs, self.draws(dataset, arm), self.draws(dataset, than))[0]
        pairs = [(ours[one], theirs[other]) for one, other in replicates]
        self.check_same_users([cell for pair in pairs for cell in pair], phase)
        columns: list[np.ndarray] = []
        for pair in pairs:
            a, b = (self.row_values(cell, metric, phase, candidates) for cell in pair)
            if a is None or b is None:
                return np.empty((0, 0))
            columns.append(a - b)
        if not columns:
            return np.empty((0, 0))
        found = np.stack(columns, axis=1)
        defined = ~np.isnan(found).any(1)  # not for those for whom the metric is undefined in one of the cells
        owner = self.owners(pairs[0][0], phase)
        return found[defined] if owner is None else by_user(found[defined], owner[defined])

    def check_same_users(self, cells: Iterable[str], phase: str = "test") -> None:
        """Raises :class:`InputError` unless all cells hold the same users and targets, or items, in one order."""
        first = None
        for cell in dict.fromkeys(cells):
            digest = self._keep(("users", cell, phase), partial(self._user_digest, cell, phase))
            first = first or (cell, digest)
            if digest != first[1]:
                raise InputError(
                    f"cells {first[0]} and {cell} of {self.path} were evaluated on different users or targets; "
                    "they can't be compared: run both on one split"
                )

    # -- inside -------------------------------------------------------------------------------------------------

    def _user_digest(self, cell: str, phase: str) -> bytes:
        columns = ["user", "target" if self.task == "retrieval" else "item"]
        return _hash_strings(*self.rows(cell, columns, phase).combine_chunks().columns)

    def _labels(self, cell: str, phase: str) -> Labels:
        from harness.metrics.action import labels_of

        try:
            return labels_of(self.rows(cell, ["user", "action", "label", "probability"], phase))
        except InputError as error:
            raise InputError(f"{self.file(cell, 'rows.parquet')}: {error}") from None

    def _vectors(self, cell: str) -> np.ndarray:
        column = self.catalogue(cell, ["vector"])["vector"].combine_chunks()
        found = column.flatten().to_numpy().reshape(len(column), -1)
        return np.concatenate([np.zeros((1, found.shape[1]), np.float32), found])

    def _known_candidates(self, candidates: str | None) -> str:
        candidates = candidates or self.candidates
        if candidates not in CANDIDATES:
            raise InputError(f"unknown candidates '{candidates}'; {nearest(candidates, CANDIDATES)}")
        return candidates


def by_user(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(U,) or (U, S) values of users from (R,) or (R, S) values of their targets, whose mean is that of all targets.

    Each target counts once, so that a user's weight is the number of their targets, and the mean over targets is a
    ratio of two sums over users. Its linearisation is what is returned: the mean, and how much the user's targets move
    it. Its standard error is then the cluster-robust one. NaN targets do not count; a user without others is NaN.
    """
    _, place = np.unique(owner, return_inverse=True)
    there = ~np.isnan(values if values.ndim == 1 else values.sum(1))
    count = np.bincount(place[there], minlength=place.max(initial=-1) + 1).astype(float)
    count[count == 0] = np.nan
    sums = np.zeros((len(count), *values.shape[1:]))
    if not there.any():
        return sums + np.nan
    np.add.at(sums, place[there], values[there])
    mean = values[there].mean(axis=0)
    each = count if values.ndim == 1 else count[:, None]
    return mean + (sums - mean * each) * np.isfinite(count).sum() / there.sum()


def load_run(path: str | Path) -> Run:
    """The run in folder ``path``; raises as :meth:`RunFiles.load` does."""
    return Run.load(path)


def _hash_strings(*columns: pa.ChunkedArray) -> bytes:
    """SHA-256 over string columns: their lengths and their bytes."""
    import hashlib

    state = hashlib.sha256()
    for column in columns:
        values = column.cast(pa.large_string())
        state.update(np.ascontiguousarray(pc.binary_length(values).to_numpy()).tobytes())
        for chunk in values.chunks:
            offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            state.update(memoryview(chunk.buffers()[2] or b"")[offsets[0] : offsets[-1]])
    return state.digest()
