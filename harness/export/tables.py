"""Lists and predictions of a run's cells as CSV or Parquet, in the data's own ids."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from harness.api import Candidates, Phase, Run
from harness.errors import InputError
from harness.files import whole_file
from harness.metrics.lists import KEPT

__all__ = ["outside_of", "write_predictions", "write_top_k"]

SUFFIXES = {".csv": ",", ".tsv": "\t", ".parquet": ""}


def write_top_k(
    run: Run,
    to: Path,
    k: int = 10,
    *,
    variant: str | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    candidates: Candidates | None = None,
) -> int:
    """Writes the best ``k`` items of each test user: ``dataset``, ``variant``, ``seed`` (and ``draw`` of the codes,
    where there are several), ``user``, ``rank`` (from 1), ``item`` and ``score``; returns how many rows. Each of
    variant, seed and data set that is None stands for all.

    ``candidates``: the protocol, by default the study's. `harness score` reads the file of one cell back.

    Raises:
        InputError: a place that can't be written to, more items than a cell keeps, a run that ranks no items, or a
            cell that is not there or keeps no lists.
    """
    _check_place(run, to)
    if not 1 <= k <= KEPT:
        raise InputError(f"-k {k}: a cell keeps the best {KEPT} items of each user; ask for 1 to {KEPT}")
    if run.task != "retrieval":
        raise InputError(f"{run.path} predicts actions and ranks no items; take `harness export predictions`")
    frame = run.lists(variant, seed, dataset, candidates)
    frame["items"], frame["scores"] = frame["items"].str[:k], frame["scores"].str[:k]
    frame = frame[frame["items"].str.len() > 0].explode(["items", "scores"], ignore_index=True)
    cell = [name for name in ("dataset", "variant", "seed", "draw", "user") if name in frame]
    frame["rank"] = frame.groupby(cell, sort=False).cumcount() + 1
    frame = frame.rename(columns={"items": "item", "scores": "score"}).astype({"score": "float32"})
    return _write(frame[[*cell, "rank", "item", "score"]], to)


def write_predictions(
    run: Run,
    to: Path,
    *,
    phase: Phase = "test",
    variant: str | None = None,
    seed: int | None = None,
    dataset: str | None = None,
) -> int:
    """Writes the rows of the cells, led by ``dataset``, ``variant`` and ``seed``; returns how many. Per user the target
    and its rank under both protocols (retrieval), or per event and action label and probability.

    Raises:
        InputError: a place that can't be written to, or a cell that is not there.
    """
    _check_place(run, to)
    return _write(run.rows(variant, seed, dataset, phase), to)


def outside_of(run: Run, to: Path) -> None:
    """Raises InputError where ``to`` lies within the run's folder, whose content is the run's alone."""
    if to.resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"--to {to} lies inside the run {run.path}; choose a place outside of it")


def _check_place(run: Run, to: Path) -> None:
    if to.suffix not in SUFFIXES:
        raise InputError(f"--to {to}: name the file {', '.join(SUFFIXES)} after what it is to be")
    outside_of(run, to)


def _write(frame: pd.DataFrame, to: Path) -> int:
    with whole_file(to) as aside:
        if to.suffix == ".parquet":
            frame.to_parquet(aside, index=False)
        else:
            frame.to_csv(aside, index=False, sep=SUFFIXES[to.suffix])
    return len(frame)
