"""A run folder as data: its design, its cells, and every number derived from the rows of those cells.

Nothing here trusts ``metrics.json``: a metric is computed from ``rows.parquet`` each time, columns are read only
when they are needed, and what was read stays in memory (about 300 kB per cell of 75,000 users).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from harness.errors import InputError, nearest
from harness.files import read_json
from harness.metrics import Evidence, Labels, find, lower_is_better
from harness.metrics import label as metric_label
from harness.tasks.lists import catalogue_name, unpack

__all__ = [
    "ALL_PAIRS", "CANDIDATES", "CATALOGUES", "LISTS", "LOOKS", "OUTSIDE", "Run", "declared_pairs", "load_run",
    "lower_is_better", "metric_label", "read_looks", "read_outside",
]  # fmt: skip

CANDIDATES = {
    "unseen": "items of the user's history are removed from the candidates",
    "all": "the whole catalogue is ranked, items of the user's history may be recommended again",
}
"""The two protocols of a ranking, in words."""

LOOKS = "looks.json"
"""Beside a run's design: with how many seeds its verdicts were looked at, a number for each time that was more."""
LISTS = "lists.parquet"
"""In a cell: the best items of each test user."""
CATALOGUES = "catalogues"
"""Beside a run's design: what its data sets' items are."""
OUTSIDE = "outside.json"
"""Beside a run's design: variants and cells whose predictions another system made."""

ALL_PAIRS = "all-pairs"
"""What a study's ``contrasts`` say instead of a list: every two variants that are no references."""


def declared_pairs(
    variants: Iterable[str],
    control: str | None,
    references: Sequence[str] = (),
    contrasts: str | Sequence[Sequence[str]] = (),
) -> list[tuple[str, str]]:
    """The pairs (arm, than) that a study compares: each variant with the control, then the contrasts.

    A pair stands once, in the control's direction where it has one. References are in none of the control's pairs.
    """
    contenders = [variant for variant in variants if variant not in references]
    pairs = [(arm, control) for arm in contenders if arm != control] if control is not None else []
    listed = [(b, a) for a, b in combinations(contenders, 2)] if contrasts == ALL_PAIRS else contrasts
    for arm, than in listed:
        if (arm, than) not in pairs and (than, arm) not in pairs:
            pairs.append((arm, than))
    return pairs


@dataclass
class Run:
    """One run folder. ``cells`` has one line per cell of the design, finished or not, in the design's order.

    Columns of ``cells``: ``id``, ``dataset``, ``variant``, ``seed``, ``state`` ("finished", "failed", "missing"),
    ``model``, ``task``, ``best_epoch``, ``epochs``, ``stopped``, ``log``, ``split``, ``codes``, ``harness``.
    """

    path: Path
    study: dict[str, Any]
    summary: dict[str, Any]
    cells: pd.DataFrame
    cards: dict[str, dict[str, Any]]
    """``cell.json`` of each finished cell, by id."""
    _cache: dict[tuple, Any] = field(default_factory=dict, repr=False)
    _evidence: tuple[tuple, Evidence] = field(default=((), Evidence({})), repr=False)

    # -- the design ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return str(self.study["study"])

    @property
    def task(self) -> str:
        return str(self.study["task"])

    @property
    def metrics(self) -> list[str]:
        return list(self.study["metrics"])

    @property
    def primary(self) -> str:
        return str(self.study.get("primary") or self.metrics[0])

    @property
    def candidates(self) -> str:
        return str(self.study.get("candidates") or "unseen")

    @property
    def control(self) -> str | None:
        """The variant that the others are compared with; None where the study names none."""
        return self.study.get("control")

    @property
    def contenders(self) -> list[str]:
        """All variants but the study's ``references``, which the control is not compared with."""
        return [v for v in self.variants if v not in (self.study.get("references") or ())]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs (arm, than) that are compared on each data set; with the data sets, the declared family."""
        study = self.study
        return declared_pairs(
            self.variants, self.control, study.get("references") or (), study.get("contrasts") or ()
        )  # fmt: skip

    @property
    def bases(self) -> dict[str, str]:
        """Variant -> what it is first compared with: the control, or the only variant that its contrasts name."""
        found: dict[str, list[str]] = {}
        for arm, than in self.pairs:
            found.setdefault(arm, []).append(than)
        return {
            arm: self.control if self.control in thans else thans[0]
            for arm, thans in found.items()
            if len(thans) == 1 or self.control in thans
        }

    @property
    def test(self) -> str:
        """Which test over seeds gives the verdicts: a key of ``statistics.TESTS``."""
        return str(self.study.get("test") or "t")

    @property
    def correction(self) -> str:
        """How p are corrected within their family: a key of ``statistics.CORRECTIONS``."""
        return str(self.study.get("correction") or "holm")

    @property
    def looks(self) -> list[int]:
        """With how many seeds the verdicts were looked at so far, ascending."""
        return read_looks(self.path)

    @property
    def variants(self) -> list[str]:
        return list(self.cells["variant"].unique())

    @property
    def datasets(self) -> list[str]:
        return list(self.cells["dataset"].unique())

    @property
    def finished(self) -> pd.DataFrame:
        return self.cells[self.cells["state"] == "finished"]

    def label(self, variant: str) -> str:
        """The printed name of a variant."""
        entry = (self.study.get("variants") or {}).get(variant) or {}
        return str(entry.get("label") or variant)

    def ids(self, dataset: str | None = None, variant: str | None = None) -> list[str]:
        """Ids of the finished cells, by seed."""
        chosen = self.finished
        for column, value in (("dataset", dataset), ("variant", variant)):
            if value is not None:
                chosen = chosen[chosen[column] == value]
        return list(chosen["id"])

    def seeds(self, dataset: str, variant: str) -> list[int]:
        chosen = self.finished
        return list(chosen[(chosen["dataset"] == dataset) & (chosen["variant"] == variant)]["seed"])

    # -- files of a cell ----------------------------------------------------------------------------------------

    def file(self, cell: str, name: str) -> Path:
        return self.path / "cells" / cell / name

    def rows(self, cell: str, columns: Iterable[str] | None = None, phase: str | None = "test") -> pa.Table:
        """Rows of a cell: the named columns only, of one phase only (None: of both)."""
        wanted = None if columns is None else [*dict.fromkeys([*columns, "phase"])]
        table = _parquet(self.file(cell, "rows.parquet"), wanted)
        if phase is not None:
            table = table.filter(pc.equal(table["phase"], phase))
        return table if columns is None else table.select(list(columns))

    def has_column(self, cell: str, column: str) -> bool:
        """Whether a cell's rows have a column; those of earlier versions lack some."""
        names = self._keep(("columns", cell), lambda: set(_schema(self.file(cell, "rows.parquet")).names))
        return column in names

    def history(self, cell: str) -> pd.DataFrame:
        """``history.csv`` of a cell: one line per epoch."""
        path = self.file(cell, "history.csv")

        def read() -> pd.DataFrame:
            try:
                return pd.read_csv(path)
            except (OSError, ValueError) as error:
                raise InputError(f"{path} can't be read ({_line(error)}); {_mend(cell)}") from None

        return self._keep(("history", cell), read)

    def cost(self, cell: str) -> dict[str, Any]:
        """``cost.json`` of a cell."""
        return self._keep(("cost", cell), lambda: read_json(self.file(cell, "cost.json")))

    def attention(self, cell: str) -> pd.DataFrame | None:
        """``attention.parquet`` of a cell, or None where none was measured."""
        path = self.file(cell, "attention.parquet")
        if not path.exists():
            return None
        return self._keep(("attention", cell), lambda: _parquet(path, None).to_pandas())

    def noise(self, cell: str) -> dict[tuple[str, str, float], float]:
        """``noise.parquet`` of a cell: (statistic, history, share) -> mean over layers and heads. Empty where the
        experiment was not made."""
        path = self.file(cell, "noise.parquet")

        def read() -> dict[tuple[str, str, float], float]:
            frame = _parquet(path, ["statistic", "history", "share", "value"]).to_pandas()
            return frame.groupby(["statistic", "history", "share"])["value"].mean().to_dict()

        return self._keep(("noise", cell), read) if path.exists() else {}

    def probe(self, cell: str, name: str) -> pd.DataFrame | None:
        """What a probe found on a cell's model (``NAME.parquet``), or None where it was not asked for."""
        path = self.file(cell, f"{name}.parquet")
        return self._keep(("probe", cell, name), lambda: _parquet(path, None).to_pandas()) if path.exists() else None

    def examples(self, cell: str) -> list[dict[str, Any]]:
        """``examples.json`` of a cell: users whose attention was kept as it is; empty where there are none."""
        path = self.file(cell, "examples.json")
        return self._keep(("examples", cell), lambda: read_json(path)) if path.exists() else []

    def decoding(self, cell: str) -> dict[str, Any] | None:
        """``decoding.json`` of a cell, or None where decoding was not audited."""
        path = self.file(cell, "decoding.json")
        return self._keep(("decoding", cell), lambda: read_json(path)) if path.exists() else None

    # -- numbers from rows --------------------------------------------------------------------------------------

    def users(self, cell: str, phase: str = "test") -> pa.ChunkedArray:
        """(U,) ids of a cell's users, in the order of its rows."""
        return self.rows(cell, ["user"], phase)["user"]

    def ranks(self, cell: str, phase: str = "test", candidates: str | None = None) -> np.ndarray:
        """(U,) float32 ranks of the targets, NaN where a target was not ranked."""
        candidates = self._known_candidates(candidates)

        def read() -> np.ndarray:
            column = self.rows(cell, [f"rank_{candidates}"], phase)[f"rank_{candidates}"]
            ranks = column.cast(pa.float32()).to_numpy()
            if (ranks < 1).any():
                path = self.file(cell, "rows.parquet")
                raise InputError(f"{path} is damaged (a rank_{candidates} below 1); {_mend(cell)}")
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
        items, scores = unpack(_parquet(path, ["items", "seen", "scores"]), self._known_candidates(candidates))
        if len(items) != len(self.ranks(cell, candidates=candidates)):
            raise InputError(f"{path} is damaged (it has other users than the rows); {_mend(cell)}")
        return items, scores

    def catalogue(self, cell: str, columns: Sequence[str]) -> pa.Table:
        """Columns of the items of the cell's data set, item 1 first: ``item``, ``count``, ``vector``."""
        prints = self.cards[cell]["fingerprints"]
        path = self.path / CATALOGUES / catalogue_name(prints["log"], prints["split"])
        if not path.exists() or set(columns) - set(pq.read_schema(path).names):
            wanted = " and ".join(columns)
            raise InputError(f"{path} with {wanted} of each item is not there; `harness evaluate {self.path}` makes it")
        return _parquet(path, list(columns))

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

    def user_values(
        self, cell: str, metric: str, phase: str = "test", candidates: str | None = None
    ) -> np.ndarray | None:
        """(U,) float64 values, one per user, whose mean is the metric, NaN for users that don't count; None where it
        is no mean over users (AUC, coverage)."""
        key = ("user values", cell, metric, phase, self._known_candidates(candidates))

        def measure() -> np.ndarray | None:
            return find(metric).users(self.evidence(cell, phase, candidates))

        # Values from ranks are quicker made again than kept.
        return measure() if find(metric).needs == {"rank"} else self._keep(key, measure)

    def metric(self, cell: str, metric: str, phase: str = "test", candidates: str | None = None) -> float:
        """One metric of one cell, from its rows. NaN where it is undefined."""
        key = ("metric", cell, metric, phase, self._known_candidates(candidates))
        return self._keep(key, lambda: find(metric).value(self.evidence(cell, phase, candidates)))

    def metric_table(
        self, metrics: Iterable[str] | str | None = None, phase: str = "test", candidates: str | None = None
    ) -> pd.DataFrame:
        """Means of each finished cell: index (dataset, variant, seed) in the design's order, a column per metric."""
        metrics = [metrics] if isinstance(metrics, str) else list(metrics or self.metrics)
        done = self.finished
        index = pd.MultiIndex.from_frame(done[["dataset", "variant", "seed"]])
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
        """Seed -> value of a metric, of the finished cells."""
        cells = zip(self.seeds(dataset, variant), self.ids(dataset, variant), strict=True)
        return {seed: self.metric(cell, metric, **options) for seed, cell in cells}

    def differences(
        self, dataset: str, arm: str, than: str, metric: str, phase: str = "test", candidates: str | None = None
    ) -> np.ndarray:
        """(U, S) per-user differences arm - than, over the seeds that both have; (0, 0) where there are none, or the
        metric is no mean over users.

        Raises:
            InputError: the two were not evaluated on the same users in the same order.
        """
        ours = dict(zip(self.seeds(dataset, arm), self.ids(dataset, arm), strict=True))
        theirs = dict(zip(self.seeds(dataset, than), self.ids(dataset, than), strict=True))
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        self.check_same_users([cell for pair in pairs for cell in pair], phase)
        values = [[self.user_values(cell, metric, phase, candidates) for cell in pair] for pair in pairs]
        if not pairs or any(found is None for pair in values for found in pair):
            return np.empty((0, 0))
        found = np.stack([a - b for a, b in values], axis=1)
        return found[~np.isnan(found).any(1)]  # users for whom the metric is undefined in one of the cells

    def check_same_users(self, cells: Iterable[str], phase: str = "test") -> None:
        """Raises :class:`InputError` unless all cells hold the same users and targets, or items, in one order."""
        first = None
        for cell in dict.fromkeys(cells):
            digest = self._keep(("users", cell, phase), lambda cell=cell: self._user_digest(cell, phase))
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

    def _keep(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def load_run(path: str | Path) -> Run:
    """The run in folder ``path``.

    Raises:
        InputError: no run folder, a damaged file, a cell that is not the one its folder's name says, or cells of one
            data set made from different logs or splits.
    """
    path = Path(path)
    study = _with_outside(_study(path / "study.yaml"), path)
    summary = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    lines, cards = [], {}
    for entry in study["cells"]:
        line = {key: entry[key] for key in ("id", "dataset", "variant", "seed")}
        folder = path / "cells" / line["id"]
        if folder.is_dir():
            card = cards[line["id"]] = read_json(folder / "cell.json")
            lines.append(line | {"state": "finished"} | _card_columns(card, line, folder))
        else:
            lines.append(line | {"state": "failed" if (path / "failed" / line["id"]).is_dir() else "missing"})
    if not cards:
        raise InputError(f"{path} has no finished cell yet; run the study first")
    columns = ["id", "dataset", "variant", "seed", "state", "model", "task", "best_epoch", "epochs", "stopped"]
    cells = pd.DataFrame(lines, columns=[*columns, "log", "split", "codes", "harness"])
    run = Run(path=path, study=study, summary=summary, cells=cells, cards=cards)
    _check_fingerprints(run)
    return run


def _study(path: Path) -> dict[str, Any]:
    try:
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; is {path.parent} the folder of a run?") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no valid YAML ({_line(error)}); restore it from a copy") from None
    missing = [key for key in ("study", "task", "metrics", "cells") if not (isinstance(study, dict) and study.get(key))]
    if missing:
        raise InputError(f"{path} lacks '{missing[0]}'; it is no resolved study of a run")
    return study


def read_outside(run: Path, own: Iterable[str]) -> dict[str, Any]:
    """The variants and cells that :mod:`harness.study.score` added to a run whose own variants are ``own``.

    Raises:
        InputError: the file is damaged, or one of its variants has the name of one of ``own``.
    """
    path = run / OUTSIDE
    if not path.exists():
        return {"variants": {}, "cells": []}
    outside = read_json(path)
    if not isinstance(outside, dict) or {"variants", "cells"} - set(outside):
        raise InputError(f"{path} lacks 'variants' or 'cells'; restore it from a copy")
    both = [variant for variant in outside["variants"] if variant in own]
    if both:
        raise InputError(f"{path}: '{both[0]}' is a variant of the study too; rename one of the two")
    return outside


def read_looks(run: Path) -> list[int]:
    """The looks that were noted in a run's folder; none in one without a report.

    Raises:
        InputError: the file is damaged.
    """
    path = run / LOOKS
    found = read_json(path) if path.exists() else []
    if not isinstance(found, list) or not all(type(seeds) is int and seeds > 0 for seeds in found):
        raise InputError(f"{path} is no list of numbers of seeds; restore it from a copy")
    return sorted(set(found))


def _with_outside(study: dict[str, Any], run: Path) -> dict[str, Any]:
    """The design with the variants that were added to its run; they stand in every table."""
    own = study.get("variants") or {}
    outside = read_outside(run, own)
    if not outside["variants"]:
        return study
    chosen = {name: dict(choice or {}) for name, choice in (study.get("tables") or {}).items()}
    for choice in chosen.values():
        if choice.get("rows"):
            choice["rows"] = [*choice["rows"], *outside["variants"]]
    added = {"variants": {**own, **outside["variants"]}, "cells": [*study["cells"], *outside["cells"]]}
    return study | added | {"tables": chosen}


def _card_columns(card: dict[str, Any], line: dict[str, Any], folder: Path) -> dict[str, Any]:
    for key in ("id", "dataset", "seed"):  # a variant may have been renamed since
        value = line[key]
        if card.get(key) != value:
            raise InputError(
                f"{folder / 'cell.json'}: '{key}' is {card.get(key)!r} where the design says {value!r}; "
                "delete that cell and run the study again"
            )
    prints, outcome = card.get("fingerprints", {}), card.get("outcome", {})
    return {
        "model": card.get("model"),
        "task": card.get("task"),
        **{key: outcome.get(key) for key in ("best_epoch", "epochs", "stopped")},
        **{key: prints.get(key) for key in ("log", "split", "codes")},
        "harness": card.get("versions", {}).get("harness"),
    }


def _check_fingerprints(run: Run) -> None:
    for dataset, cells in run.finished.groupby("dataset", sort=False):
        for kind in ("log", "split"):
            odd = cells[cells[kind] != cells[kind].iloc[0]]
            if len(odd):
                raise InputError(
                    f"{run.path}: cells {cells['id'].iloc[0]} and {odd['id'].iloc[0]} of data set '{dataset}' come "
                    f"from different {kind}s, so they can't stand in one table; delete the older ones and run again"
                )
    odd = run.finished[run.finished["task"] != run.task]
    if len(odd):
        raise InputError(f"{run.path}: cell {odd['id'].iloc[0]} is of another task than the study's '{run.task}'")


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {_mend(path.parent.name)}") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({_line(error)}); {_mend(path.parent.name)}") from None


def _parquet(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        missing = set(columns or ()) - set(_schema(path).names)
        if missing:  # nothing is damaged: another version, or an extension that is not installed here, knows more
            names = ", ".join(sorted(missing))
            raise InputError(f"{path} has no column {names}; use the version of the harness that wrote or asks for it")
        return pq.read_table(path, columns=columns, memory_map=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {_mend(path.parent.name)}") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({_line(error)}); {_mend(path.parent.name)}") from None


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


def _mend(cell: str) -> str:
    return f"delete the folder of cell {cell} and run the study again"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
