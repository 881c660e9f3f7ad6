"""A run folder as it lies on disk: its design, its cells and their files, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from harness.analysis.pairs import declared_pairs
from harness.errors import InputError
from harness.files import read_json
from harness.strict_yaml import load_yaml

if TYPE_CHECKING:
    from harness.analysis.statistics import Correction, Test

__all__ = [
    "CATALOGUES", "LISTS", "LOOKS", "OUTSIDE", "RunFiles", "read_looks", "read_outside", "read_parquet", "remedy",
]  # fmt: skip

LOOKS = "looks.json"
"""Beside a run's design: with how many seeds its verdicts were looked at, a number for each time that was more."""
LISTS = "lists.parquet"
"""In a cell: the best items of each test user."""
CATALOGUES = "catalogues"
"""Beside a run's design: what its data sets' items are."""
OUTSIDE = "outside.json"
"""Beside a run's design: variants and cells whose predictions another system made."""


@dataclass
class RunFiles:
    """One run folder: its design, its cells, and the files of those.

    ``cells`` has one line per cell of the design, finished or not, in the design's order.
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

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The run in folder ``path``.

        Raises:
            InputError: no run folder, a damaged file, a cell that is not the one its folder's name says, or cells of
                one data set made from different logs or splits.
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
        run = cls(path=path, study=study, summary=summary, cells=cells, cards=cards)
        _check_fingerprints(run)
        return run

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
    def test(self) -> Test:
        """Which test over seeds gives the verdicts: a key of ``statistics.TESTS``."""
        return self.study.get("test") or "t"

    @property
    def correction(self) -> Correction:
        """How p are corrected within their family: a key of ``statistics.CORRECTIONS``."""
        return self.study.get("correction") or "holm"

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
        table = read_parquet(self.file(cell, "rows.parquet"), wanted)
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
                raise InputError(f"{path} can't be read ({one_line(error)}); {remedy(cell)}") from None

        return self._keep(("history", cell), read)

    def cost(self, cell: str) -> dict[str, Any]:
        """``cost.json`` of a cell."""
        return self._keep(("cost", cell), lambda: read_json(self.file(cell, "cost.json")))

    def attention(self, cell: str) -> pd.DataFrame | None:
        """``attention.parquet`` of a cell, or None where none was measured."""
        path = self.file(cell, "attention.parquet")
        if not path.exists():
            return None
        return self._keep(("attention", cell), lambda: read_parquet(path, None).to_pandas())

    def noise(self, cell: str) -> dict[tuple[str, str, float], float]:
        """``noise.parquet`` of a cell: (statistic, history, share) -> mean over layers and heads. Empty where the
        experiment was not made."""
        path = self.file(cell, "noise.parquet")

        def read() -> dict[tuple[str, str, float], float]:
            frame = read_parquet(path, ["statistic", "history", "share", "value"]).to_pandas()
            return frame.groupby(["statistic", "history", "share"])["value"].mean().to_dict()

        return self._keep(("noise", cell), read) if path.exists() else {}

    def probe(self, cell: str, name: str) -> pd.DataFrame | None:
        """What a probe found on a cell's model (``NAME.parquet``), or None where it was not asked for."""
        path = self.file(cell, f"{name}.parquet")
        if not path.exists():
            return None
        return self._keep(("probe", cell, name), lambda: read_parquet(path, None).to_pandas())

    def examples(self, cell: str) -> list[dict[str, Any]]:
        """``examples.json`` of a cell: users whose attention was kept as it is; empty where there are none."""
        path = self.file(cell, "examples.json")
        return self._keep(("examples", cell), lambda: read_json(path)) if path.exists() else []

    def decoding(self, cell: str) -> dict[str, Any] | None:
        """``decoding.json`` of a cell, or None where decoding was not audited."""
        path = self.file(cell, "decoding.json")
        return self._keep(("decoding", cell), lambda: read_json(path)) if path.exists() else None

    def _keep(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def _study(path: Path) -> dict[str, Any]:
    try:
        study = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; is {path.parent} the folder of a run?") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no valid YAML ({one_line(error)}); restore it from a copy") from None
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


def _check_fingerprints(run: RunFiles) -> None:
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
        raise InputError(f"{path} does not exist; {remedy(path.parent.name)}") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({one_line(error)}); {remedy(path.parent.name)}") from None


def read_parquet(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        missing = set(columns or ()) - set(_schema(path).names)
        if missing:  # nothing is damaged: another version, or an extension that is not installed here, knows more
            names = ", ".join(sorted(missing))
            raise InputError(f"{path} has no column {names}; use the version of the harness that wrote or asks for it")
        return pq.read_table(path, columns=columns, memory_map=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {remedy(path.parent.name)}") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({one_line(error)}); {remedy(path.parent.name)}") from None


def remedy(cell: str) -> str:
    return f"delete the folder of cell {cell} and run the study again"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
