"""Speed and memory: the measurements of ``harness run`` of an efficiency study, their tables and sentences.

All numbers are derived from the seconds of every turn. A relative time is the median over turns of the ratio to the
control of the same turn, so that a machine that slows down for a while slows both sides of a ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.provenance import count
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.errors import InputError
from harness.reading import shapes
from harness.reading.bounds import DESIGN_NODES
from harness.reading.json_text import read_json
from harness.reading.yaml_text import read_yaml

__all__ = ["MEASUREMENTS", "PARTS", "Efficiency", "efficiency_tables", "is_efficiency", "load_efficiency", "sentences"]

MEASUREMENTS = "efficiency.json"
PARTS = ("embedding", "backbone", "head", "optimizer")
"""Of a training step; the head's is with the loss."""


@dataclass(frozen=True)
class Efficiency:
    """A finished measurement."""

    path: Path
    """Folder of the run."""
    record: dict[str, Any]
    """``efficiency.json`` as it is."""
    frame: pd.DataFrame
    """One row per width, length and variant: ``variant``, ``arm`` (its label), ``dim``, ``length``, ``batch``,
    ``step_seconds``, ``PART_seconds`` (medians over turns), ``relative``, ``relative_lowest``, ``relative_highest``
    (to the control), ``relative_PART`` (the part's share of the control's step), ``events_per_second``,
    ``tokens_per_second``, ``flops``, ``parameters`` and ``peak_memory_bytes``."""

    @property
    def study(self) -> dict[str, Any]:
        return self.record["study"]

    @property
    def control(self) -> str:
        return self.label(self.study["control"])

    @property
    def variants(self) -> list[str]:
        """In the design's order, which the keys of the record have lost."""
        return list(dict.fromkeys(self.frame["variant"]))

    def steps(self, variant: str, dim: int, length: int) -> np.ndarray:
        """(T,) seconds of a training step, one per turn."""
        (turns,) = (
            entry["turns"]
            for entry in self.record["measurements"]
            if (entry["variant"], entry["dim"], entry["length"]) == (variant, dim, length)
        )
        return np.array([turn["step"] for turn in turns])

    def label(self, variant: str) -> str:
        return self.study["variants"][variant].get("label") or variant


def is_efficiency(run_dir: str | Path) -> bool:
    """Whether the run in ``run_dir`` measured speed."""
    try:
        study = read_yaml(Path(run_dir) / "study.yaml", nodes=DESIGN_NODES)
    except InputError:
        return False  # load_run words it
    return isinstance(study, dict) and study.get("task") == "efficiency"


def load_efficiency(run_dir: str | Path) -> Efficiency:
    """The measurement in folder ``run_dir``.

    Raises:
        InputError: it is missing or damaged.
    """
    path = Path(run_dir) / MEASUREMENTS
    if not path.exists():
        raise InputError(f"{path.parent} holds no {MEASUREMENTS} yet; run the study first")
    record = read_json(path, shapes.Measurements, "restore it from a copy, or measure again")
    try:
        return Efficiency(path.parent, record, _frame(record))
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is damaged ({problem}); restore it from a copy, or measure again") from None


def _frame(record: dict[str, Any]) -> pd.DataFrame:
    study, rows = record["study"], []
    turns = {(entry["dim"], entry["length"], entry["variant"]): entry["turns"] for entry in record["measurements"]}
    for entry in record["measurements"]:
        own = entry["turns"]
        control = turns[entry["dim"], entry["length"], study["control"]]
        ratios = [turn["step"] / other["step"] for turn, other in zip(own, control, strict=True)]
        wholes = [sum(turn[part] for part in PARTS) for turn in control]
        seconds = median(turn["step"] for turn in own)
        rows.append(
            {
                "variant": entry["variant"],
                "arm": study["variants"][entry["variant"]].get("label") or entry["variant"],
                **{key: entry[key] for key in ("dim", "length", "batch", "parameters", "flops", "peak_memory_bytes")},
                "step_seconds": seconds,
                **{f"{part}_seconds": median(turn[part] for turn in own) for part in PARTS},
                "relative": median(ratios),
                "relative_lowest": min(ratios),
                "relative_highest": max(ratios),
                **{
                    f"relative_{part}": median(turn[part] / whole for turn, whole in zip(own, wholes, strict=True))
                    for part in PARTS
                },
                "events_per_second": entry["events"] / seconds,
                "tokens_per_second": entry["tokens"] / seconds,
            }
        )
    return pd.DataFrame(rows)


_COLUMNS: tuple[tuple[str, str, str, float, int], ...] = (
    ("step_seconds", "Step", "Milliseconds", 1e-3, 1),
    ("backbone_seconds", "Backbone", "Milliseconds", 1e-3, 1),
    ("head_seconds", "Head", "Milliseconds", 1e-3, 1),
    ("relative", "Median", "Relative step", 1, 2),
    ("relative_lowest", "Lowest", "Relative step", 1, 2),
    ("relative_highest", "Highest", "Relative step", 1, 2),
    ("events_per_second", "Events", "Thousands per s", 1e3, 1),
    ("tokens_per_second", "Tokens", "Thousands per s", 1e3, 1),
    ("flops", "GFLOPs", "", 1e9, 2),
    ("peak_memory_bytes", "Peak MiB", "", 2**20, 1),
)
"""Key, title, group, unit that is printed, decimals."""


def efficiency_tables(found: Efficiency) -> list[Table]:
    """The relative step times side by side, then everything that was measured, a table per width."""
    dims = found.study["dims"]
    return [
        _relative_times(found),
        *(_everything(found, dim, f"efficiency-{dim}" if len(dims) > 1 else "efficiency") for dim in dims),
    ]


def _everything(found: Efficiency, dim: int, name: str) -> Table:
    lines = [
        Line(
            row["variant"],
            row["arm"],
            tuple(Entry(fixed(row[key] / unit, digits), float(row[key])) for key, _, _, unit, digits in _COLUMNS),
            group=count(row["length"], "event"),
        )
        for row in found.frame[found.frame["dim"] == dim].to_dict("records")
    ]
    return Table(
        name=name,
        caption=f"What a training step of width {dim} costs, by sequence length.",
        corner="Variant",
        columns=tuple(Column(key, title, group) for key, title, group, _, _ in _COLUMNS),
        lines=tuple(lines),
        notes=(
            f"Relative step: to {found.control}, median and extremes of the ratios within a turn. Backbone and head "
            "(with the loss) are timed in steps of their own; the rest is embeddings and optimizer. GFLOPs: of the "
            "matrix products and attention kernels that ran, forward and backward. Peak MiB: what a step adds to the "
            "model and its optimizer.",
            *_provenance(found),
        ),
        block="Length",
    )


def _relative_times(found: Efficiency) -> Table:
    settings = list(found.frame[["dim", "length"]].drop_duplicates().itertuples(index=False, name=None))
    cell = found.frame.set_index(["variant", "dim", "length"])["relative"]
    lines = [
        Line(
            variant,
            found.label(variant),
            tuple(Entry(fixed(cell[variant, *at], 2), float(cell[variant, *at])) for at in settings),
        )
        for variant in found.variants
    ]
    return Table(
        name="training-time",
        caption=f"Time of a training step relative to {found.control} (median of the ratios within a turn; lower is "
        "faster).",
        corner="Variant",
        columns=tuple(Column(f"{dim}/{length}", f"{length:,}", f"Width {dim}, length") for dim, length in settings),
        lines=tuple(lines),
        notes=_provenance(found),
    )


def _provenance(found: Efficiency) -> tuple[str, ...]:
    study, hardware, versions = found.study, found.record["hardware"], found.record["versions"]
    common = "".join(f", {key} {value}" for key, value in study["common"].items())
    device = "" if hardware["device"] == "cpu" else f"{hardware['device']}; "
    return (
        f"{count(study['repeats'], 'turn')}, each starting with another variant; {study['events']:,} events in a "
        f"batch, {study['items']:,} items, {count(study['actions'], 'action')}{common}.",
        f"{device}{hardware['cpu']}, {count(hardware['threads'], 'thread')}. Study {study['study']}, harness "
        f"{versions['harness']}, torch {versions['torch']}.",
    )


def sentences(found: Efficiency) -> list[str]:
    """One per width and variant: its step, FLOPs and memory relative to the control's, over all lengths."""
    said = []
    for dim, rows in found.frame.groupby("dim", sort=False):
        table = rows.set_index(["variant", "length"])
        control = table.loc[found.study["control"]]
        for variant in found.variants:
            if variant == found.study["control"]:
                continue
            own = table.loc[variant]
            flops, memory = (own[key] / control[key].where(control[key] > 0) for key in ("flops", "peak_memory_bytes"))
            said.append(
                f"At width {dim}, a training step of {found.label(variant)} takes {_range(own['relative'])} times as "
                f"long as one of {found.control} ({_lengths(own.index)}), with {_range(flops)} times its FLOPs and "
                f"{_range(memory)} times its memory."
            )
    return said


def _range(values: pd.Series) -> str:
    low, high = fixed(values.min(), 2), fixed(values.max(), 2)
    return low if low == high else f"{low} to {high}"


def _lengths(lengths: pd.Index) -> str:
    return f"length {lengths[0]:,}" if len(lengths) == 1 else f"lengths {lengths.min():,} to {lengths.max():,}"
