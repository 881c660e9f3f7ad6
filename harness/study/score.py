"""Predictions of an outside system as a cell, so that they stand in the same tables and tests as our own.

Such a cell has the files of any other, but no training: its history is empty and its cost is unknown. It becomes a run
of its own, or a variant beside those of an earlier run, whose design stays as it was: ``outside.json`` there names it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.analysis.predictions import Outside, Truth, UnknownItems, rank_predictions
from harness.analysis.rows import load_run
from harness.analysis.run_files import OUTSIDE, read_outside
from harness.data.config import DataConfig
from harness.data.log import EventLog
from harness.data.splits import Evaluated, Split
from harness.data.targets import known_of
from harness.errors import InputError, nearest
from harness.files import digest, file_digest, refuse_links, whole_file, write_json, write_text, writing
from harness.metrics.ranking import per_user
from harness.provenance import git_state, versions
from harness.settings import from_pairs, parse
from harness.study.cells import FORMAT, SALT, Inputs, make_arm
from harness.study.design import Study, Variant, checked_names
from harness.study.folder import RunFolder

__all__ = ["METRICS", "MODEL", "Scored", "add_to_run", "design_of", "score_alone", "truth_of"]

MODEL = "outside"
"""What stands for the model in the record of such a cell."""
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr")
"""What is reported where no study says it; the primary one is ``ndcg@10``."""
PROTOCOLS = ("all", "unseen")


@dataclass(frozen=True)
class Scored:
    """Where the cell lies, its test metrics by protocol, and what a reader of them must know."""

    cell: Path
    metrics: dict[str, dict[str, float]]
    notes: tuple[str, ...]


def design_of(study: Study | None, dataset: str, variant: str, seed: int, settings: list[str]) -> Study:
    """The design of a run whose only variant is an outside system: as ``study`` says, or from ``key=value`` settings.

    Raises:
        InputError: the study is of another task or has no such data set, or a setting can't be used.
    """
    if study is None:
        data, metrics = from_pairs(DataConfig, settings, "data"), METRICS
        rules: dict[str, Any] = {"metrics": metrics, "primary": "ndcg@10"}
    else:
        _check_study(study, dataset)
        data = make_arm(study, dataset, next(iter(study.variants))).data
        rules = {"metrics": study.metrics, "primary": study.primary, "candidates": study.candidates}
    design = {
        "study": MODEL,
        "title": f"Predictions of {variant}",
        "datasets": [dataset],
        "seeds": [seed],
        "data": data,
    }
    return parse(Study, design | rules | {"variants": {variant: {"model": MODEL}}}, f"predictions of '{variant}'")


def score_alone(
    predictions: Path,
    study: Study,
    folder: RunFolder,
    inputs: Inputs,
    command: str,
    unknown_items: UnknownItems = "refuse",
) -> Scored:
    """A run of its own for the one cell of ``study``, whose only variant is the outside system.

    ``command`` is what a reader of the report gives to have the run again.

    Raises:
        InputError: see :func:`harness.analysis.predictions.rank_predictions`; or the folder holds a run already.
    """
    refuse_links(folder.path)
    if folder.design.exists():
        raise InputError(
            f"{folder.path} holds a run already; choose another --name, or add the predictions to that run with "
            "--study and --variant"
        )
    ((dataset, variant, seed),) = ((d, v, s) for d in study.datasets for v in study.variants for s in study.seeds)
    log, split = inputs.split(dataset, study.data)
    ranked = _ranked(predictions, log, split, unknown_items)
    scored, entry = _write(folder, study, dataset, variant, seed, predictions, log, split, ranked)
    folder.write_design(study, {"run": folder.path.name, "cells": [entry]})
    listed = [{**entry, "status": "finished"}]
    folder.write_summary({"study": study.study, "run": folder.path.name, "command": command, "cells": listed})
    return scored


def add_to_run(
    predictions: Path,
    folder: RunFolder,
    dataset: str,
    variant: str,
    seed: int,
    label: str | None,
    inputs: Inputs,
    command: str,
    unknown_items: UnknownItems = "refuse",
) -> Scored:
    """A variant beside those of the run in ``folder``, or another seed of one that was added before.

    ``command`` is what a reader gives to have the cell again.

    Raises:
        InputError: see :func:`harness.analysis.predictions.rank_predictions`; ``variant`` can't name one; the run is
            of another task, has no such data set or seed, was made from other data, or has such a variant or cell
            already.
    """
    refuse_links(folder.path)
    study, _ = folder.read_design()
    run = load_run(folder.path)
    _check_study(study, dataset)
    added = Variant(model=MODEL, label=label)
    try:
        checked_names({variant: added})
    except ValueError as error:
        raise InputError(f"--variant: {error}") from None
    if variant in study.variants:
        raise InputError(f"'{variant}' is a variant of the study itself; give the predictions another --variant")
    if seed not in study.seeds:
        known = ", ".join(map(str, study.seeds))
        raise InputError(f"seed {seed} is none of the run's seeds ({known}), so nothing could be paired with it")
    path = folder.path / OUTSIDE
    outside = read_outside(folder.path, study.variants)
    for cell in outside["cells"]:
        if (cell["dataset"], cell["variant"], cell["seed"]) == (dataset, variant, seed):
            raise InputError(f"{path} has predictions of '{variant}' for seed {seed}; give another --variant or --seed")
    log, split = inputs.split(dataset, make_arm(study, dataset, next(iter(study.variants))).data)
    theirs = run.finished[run.finished["dataset"] == dataset]
    if len(theirs) and (theirs["log"].iloc[0], theirs["split"].iloc[0]) != (log.fingerprint, split.fingerprint):
        raise InputError(f"{folder.path} was made from another copy of '{dataset}' than the one found here")
    ranked = _ranked(predictions, log, split, unknown_items)
    scored, entry = _write(folder, study, dataset, variant, seed, predictions, log, split, ranked)
    if label is not None or variant not in outside["variants"]:
        outside["variants"][variant] = added.model_dump(mode="json")
    names = list(outside["variants"])
    outside["cells"] = sorted(
        [*outside["cells"], entry | {"command": command}],
        key=lambda cell: (names.index(cell["variant"]), cell["dataset"], cell["seed"]),
    )
    write_json(path, outside)
    return scored


def _check_study(study: Study, dataset: str) -> None:
    if study.task != "retrieval":
        raise InputError(f"study '{study.study}' predicts actions, and predictions from a file are rankings")
    if dataset not in study.datasets:
        raise InputError(f"study '{study.study}' has no data set '{dataset}'; {nearest(dataset, study.datasets)}")


def truth_of(log: EventLog, split: Split, phase: Evaluated = "test") -> Truth:
    """What the split asks of a phase."""
    users, targets = split.targets(phase)
    return Truth(log.name, phase, log.users, log.items, log.offsets, log.item, users, targets)


def _ranked(predictions: Path, log: EventLog, split: Split, unknown_items: UnknownItems) -> Outside:
    """Rows like those of a trained cell."""
    truth = truth_of(log, split)
    ranked = rank_predictions(predictions, truth, unknown_items)
    rows = ranked.rows
    for name, counts in known_of(log, split, truth.target).items():
        rows = rows.add_column(rows.column_names.index("score"), name, pa.array(counts, pa.int32()))
    return replace(ranked, rows=rows)


def _write(
    folder: RunFolder,
    study: Study,
    dataset: str,
    variant: str,
    seed: int,
    predictions: Path,
    log: EventLog,
    split: Split,
    ranked: Outside,
) -> tuple[Scored, dict[str, Any]]:
    """Publishes the cell; returns it with its entry in a design."""
    identity = {
        "format": SALT,
        "task": study.task,
        "dataset": dataset,
        "model": MODEL,
        "variant": variant,
        "seed": seed,
        "fingerprints": {
            "files": dict(sorted(log.files.items())),
            "log": log.fingerprint,
            "split": split.fingerprint,
            "codes": None,
            "predictions": file_digest(predictions),
        },
    }
    cell = digest(identity)[:16]
    metrics = _metrics(ranked.rows, study.metrics)
    record = {
        **identity,
        "format": FORMAT,
        "id": cell,
        "study": study.study,
        "source": predictions.name,
        "notes": list(ranked.notes),
        "outcome": {"best_epoch": None, "epochs": None, "stopped": None, "validation": None},
        "versions": versions(),
        "git": git_state(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    staged = folder.running(cell) / "staged"
    with writing(staged):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    with whole_file(staged / "rows.parquet") as aside:
        pq.write_table(ranked.rows, aside, compression="zstd")
    write_text(staged / "history.csv", "epoch\n")
    write_json(staged / "cost.json", {})
    write_json(staged / "metrics.json", {"test": metrics})
    write_json(staged / "cell.json", record)
    with writing(folder.cell(cell)):
        shutil.rmtree(folder.cell(cell), ignore_errors=True)  # left behind by a scoring that was cut off
    folder.publish(cell, staged)
    return (
        Scored(folder.cell(cell), metrics, ranked.notes),
        {"id": cell, "dataset": dataset, "variant": variant, "seed": seed},
    )


def _metrics(rows: pa.Table, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    ranks = {p: rows[f"rank_{p}"].to_numpy(zero_copy_only=False).astype(float) for p in PROTOCOLS}
    return {p: {name: float(np.mean(per_user(name, ranks[p]))) for name in names} for p in PROTOCOLS}
