"""A run folder as it lies on disk: its design, its cells and their files, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.pairs import declared_pairs
from harness.errors import InputError, shortened
from harness.reading import shapes
from harness.reading.bounds import DESIGN_NODES
from harness.reading.csv_text import read_csv
from harness.reading.json_text import check_shape, read_json
from harness.reading.parquet import NOISE, ROWS, read_parquet, read_schema
from harness.reading.yaml_text import read_yaml

if TYPE_CHECKING:
    from harness.analysis.statistics import Correction, Test

__all__ = [
    "CATALOGUES", "LISTS", "LOOKS", "OUTSIDE", "RunFiles", "read_looks", "read_outside", "remedy",
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
    Columns of ``cells``: ``id``, ``dataset``, ``variant``, ``seed``, ``draw`` (of the item codes),
    ``state`` ("finished", "failed", "missing"), ``model``, ``task``, ``best_epoch``, ``epochs``, ``stopped``, ``log``,
    ``split``, ``codes``, ``harness``.
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
        summary = read_json(path / "summary.json", shapes.Summary) if (path / "summary.json").exists() else {}
        lines, cards = [], {}
        for entry in study["cells"]:
            line = {key: entry[key] for key in ("id", "dataset", "variant", "seed")} | {"draw": entry.get("draw", 0)}
            folder = path / "cells" / line["id"]
            if folder.is_dir():
                card = cards[line["id"]] = read_json(folder / "cell.json", shapes.Card, remedy(line["id"]))
                lines.append(line | {"state": "finished"} | _card_columns(card, line, folder))
            else:
                lines.append(line | {"state": "failed" if (path / "failed" / line["id"]).is_dir() else "missing"})
        if not cards:
            raise InputError(f"{path} has no finished cell yet; run the study first")
        columns = ["id", "dataset", "variant", "seed", "draw", "state", "model", "task", "best_epoch", "epochs"]
        cells = pd.DataFrame(lines, columns=[*columns, "stopped", "log", "split", "codes", "harness"])
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
        return " ".join(str(entry.get("label") or variant).split())

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

    def replicates(self, dataset: str, variant: str) -> list[tuple[int, int]]:
        """Seed and draw of the codes of the finished cells, in the order of :meth:`ids`."""
        chosen = self.finished
        chosen = chosen[(chosen["dataset"] == dataset) & (chosen["variant"] == variant)]
        return list(zip(chosen["seed"], chosen["draw"], strict=True))

    def draws(self, dataset: str, variant: str) -> list[int]:
        """The draws of the codes that a variant is to be trained with, finished or not; one if it has no codes."""
        return sorted(set(self._drawn.get((dataset, variant), ())))

    @property
    def draws_codes(self) -> bool:
        """Whether some variant is trained with several draws of the item codes."""
        return bool(self.cells["draw"].nunique() > 1)

    @cached_property
    def _drawn(self) -> dict[tuple[str, str], list[int]]:
        found: dict[tuple[str, str], list[int]] = {}
        for dataset, variant, draw in self.cells[["dataset", "variant", "draw"]].itertuples(index=False):
            found.setdefault((dataset, variant), []).append(int(draw))
        return found

    # -- files of a cell ----------------------------------------------------------------------------------------

    def file(self, cell: str, name: str) -> Path:
        return self.path / "cells" / cell / name

    def rows(self, cell: str, columns: Iterable[str] | None = None, phase: str | None = "test") -> pa.Table:
        """Rows of a cell: the named columns only, of one phase only (None: of both)."""
        wanted = None if columns is None else [*dict.fromkeys([*columns, "phase"])]
        table = read_parquet(self.file(cell, "rows.parquet"), wanted, remedy(cell), ROWS)
        if phase is not None:
            table = table.filter(pc.equal(table["phase"], phase))
            if not len(table) and phase == "test":  # an outside system predicts no other
                raise InputError(
                    f"{self.file(cell, 'rows.parquet')} is damaged (no rows of phase {phase}); {remedy(cell)}"
                )
        return table if columns is None else table.select(list(columns))

    def has_column(self, cell: str, column: str) -> bool:
        """Whether a cell's rows have a column; those of earlier versions lack some."""
        names = self._keep(
            ("columns", cell), lambda: set(read_schema(self.file(cell, "rows.parquet"), remedy(cell)).names)
        )
        return column in names

    def history(self, cell: str) -> pd.DataFrame:
        """``history.csv`` of a cell: one line per epoch."""
        path = self.file(cell, "history.csv")

        return self._keep(("history", cell), lambda: _history(path, remedy(cell)))

    def cost(self, cell: str) -> dict[str, Any]:
        """``cost.json`` of a cell."""
        return self._keep(("cost", cell), lambda: read_json(self.file(cell, "cost.json"), shapes.Cost, remedy(cell)))

    def attention(self, cell: str) -> pd.DataFrame | None:
        """``attention.parquet`` of a cell, or None where none was measured."""
        path = self.file(cell, "attention.parquet")
        if not path.exists():
            return None
        return self._keep(("attention", cell), lambda: _attention(path, remedy(cell)))

    def noise(self, cell: str) -> dict[tuple[str, str, float], float]:
        """``noise.parquet`` of a cell: (statistic, history, share) -> mean over layers and heads. Empty where the
        experiment was not made."""
        path = self.file(cell, "noise.parquet")

        def read() -> dict[tuple[str, str, float], float]:
            frame = read_parquet(path, ["statistic", "history", "share", "value"], remedy(cell), NOISE).to_pandas()
            return frame.groupby(["statistic", "history", "share"])["value"].mean().to_dict()

        return self._keep(("noise", cell), read) if path.exists() else {}

    def probe(self, cell: str, name: str) -> pd.DataFrame | None:
        """What a probe found on a cell's model (``NAME.parquet``), or None where it was not asked for."""
        path = self.file(cell, f"{name}.parquet")
        if not path.exists():
            return None
        return self._keep(("probe", cell, name), lambda: read_parquet(path, None, remedy(cell), {}).to_pandas())

    def examples(self, cell: str) -> list[dict[str, Any]]:
        """``examples.json`` of a cell: users whose attention was kept as it is; empty where there are none."""
        path = self.file(cell, "examples.json")
        return self._keep(("examples", cell), lambda: _examples(path, remedy(cell))) if path.exists() else []

    def decoding(self, cell: str) -> dict[str, Any] | None:
        """``decoding.json`` of a cell, or None where decoding was not audited."""
        path = self.file(cell, "decoding.json")
        found = self._keep(
            ("decoding", cell), lambda: read_json(path, shapes.Decoding, remedy(cell)) if path.exists() else None
        )
        return found

    def _keep(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def _study(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path} does not exist; is {path.parent} the folder of a run?")
    study = read_yaml(path, "restore it from a copy", DESIGN_NODES)
    missing = [key for key in ("study", "task", "metrics", "cells") if not (isinstance(study, dict) and study.get(key))]
    if missing:
        raise InputError(f"{path} lacks '{missing[0]}'; it is not a resolved study of a run")
    check_shape(study, shapes.Design, path, "restore it from a copy")
    return study


def read_outside(run: Path, own: Iterable[str]) -> dict[str, Any]:
    """The variants and cells that :mod:`harness.study.score` added to a run whose own variants are ``own``.

    Raises:
        InputError: the file is damaged, or one of its variants has the name of one of ``own``.
    """
    path = run / OUTSIDE
    if not path.exists():
        return {"variants": {}, "cells": []}
    outside = read_json(path, shapes.Outside, "restore it from a copy")
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
    found = read_json(path, shapes.Looks, "restore it from a copy") if path.exists() else []
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
    for key in ("id", "dataset", "seed", "draw"):  # a variant may have been renamed since
        value = line[key]
        if card.get(key, 0 if key == "draw" else None) != value:
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


def _history(path: Path, remedy: str) -> pd.DataFrame:
    """``history.csv``: a line per epoch, all its columns numbers, of which some may be missing."""
    found = read_csv(path, remedy)
    if "epoch" not in found.columns:
        raise InputError(f"{path} is damaged (no column 'epoch'); {remedy}")
    for column in found.columns:
        if found[column].dtype.kind not in "iufb" and found[column].notna().any():
            raise InputError(
                f"{path} is damaged (column '{shortened(str(column), 60)}' holds more than numbers); {remedy}"
            )
    return found


def _attention(path: Path, remedy: str) -> pd.DataFrame:
    found = read_parquet(path, None, remedy)
    missing = {"layer", "head", "statistic", "bin", "value"} - set(found.column_names)
    if missing:
        raise InputError(f"{path} is damaged (no column '{min(missing)}'); {remedy}")
    return found.to_pandas()


def _examples(path: Path, remedy: str) -> list[dict[str, Any]]:
    found = read_json(path, shapes.Examples, remedy)
    for example in found:
        rows = [head for layer in example["layers"] for head in layer]
        if any(len(row) != len(example["events"]) for row in rows) or not rows:
            raise InputError(f"{path} is damaged (weights on other events than it lists); {remedy}")
        if [len(layer) for layer in example["layers"]] != [len(layer) for layer in example["rest"]]:
            raise InputError(f"{path} is damaged ('rest' has other heads than 'layers'); {remedy}")
    return found


def remedy(cell: str) -> str:
    return f"delete the folder of cell {cell} and run the study again"
