"""Evaluate trained models again, from their kept weights: new rows, lists, metrics and probes, without training.

A cell keeps its id, its weights, its history and its cost. Each of its files is replaced by one rename, ``cell.json``
last, so that an evaluation that was cut off leaves a cell that can be read, and the same command goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.run_files import CATALOGUES, LISTS
from harness.errors import InputError
from harness.files import refuse_links, write_json, writing
from harness.interface import Recommender
from harness.metrics import find
from harness.provenance import git_state, hardware, versions
from harness.reading.parquet import read_parquet
from harness.settings import Settings, parse
from harness.study.catalogue import keep_catalogue
from harness.study.cells import FORMAT, Cell, Inputs, make_cells
from harness.study.design import Study
from harness.study.folder import CELL_REMEDY, RunFolder
from harness.study.run_cell import build_model, load_weights, task_data, write_evidence, write_findings
from harness.tasks.base import TaskData

DONE, UP_TO_DATE = "done", "up to date"

__all__ = ["Evaluated", "evaluate_run", "with_changes"]


@dataclass(frozen=True)
class Evaluated:
    """What became of one cell: ``done``, ``up to date`` or why it was left as it is."""

    cell: str
    name: str
    outcome: str
    left: bool = False
    """Whether the cell could not be evaluated."""


def with_changes(study: Study, metrics: Sequence[str], probes: Sequence[str]) -> Study:
    """The design with further metrics and probes, which decide nothing of the training.

    Raises:
        InputError: an unknown metric or probe, or one of another task.
    """
    raw = study.model_dump(mode="json")
    raw["metrics"] = [*dict.fromkeys([*raw["metrics"], *metrics])]
    raw["probes"] = {**{name: {} for name in probes if name not in study.measured}, **raw["probes"]}
    return parse(Study, raw, "evaluate")


def evaluate_run(
    folder: RunFolder,
    study: Study,
    inputs: Inputs,
    *,
    again: bool = False,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Evaluated]:
    """Evaluates the finished cells of a run that lack something ``study`` asks for; with ``again``, all of them.

    ``study`` is the run's own design, perhaps with further metrics and probes (:func:`with_changes`).

    Raises:
        InputError: the folder holds no run, its data can't be read, or it can't be written.
    """
    refuse_links(folder.path)
    design, extra = folder.read_design()
    cells = {(c.dataset, c.arm.variant, c.seed, c.draw): c for c in make_cells(design, inputs)}
    found = []
    for entry in extra.get("cells", []):
        if not folder.is_finished(entry["id"]):
            continue
        cell = cells.get((entry["dataset"], entry["variant"], entry["seed"], entry.get("draw", 0)))
        name = cell.name if cell else f"{entry['dataset']} / {entry['variant']} / seed {entry['seed']}"
        outcome = _evaluate(folder, study, entry["id"], cell, inputs, again, device)
        found.append(Evaluated(entry["id"], name, outcome, left=outcome not in (DONE, UP_TO_DATE)))
        say(f"  {outcome}  {name}")
    return found


def _evaluate(
    folder: RunFolder, study: Study, cell_id: str, cell: Cell | None, inputs: Inputs, again: bool, device: str
) -> str:
    path = folder.cell(cell_id)
    card = folder.card(cell_id)
    probes = {name: options for name, options in study.measured.items() if again or _unmeasured(card, name, options)}
    ranked = study.task == "retrieval"
    needs = {need for name in study.metrics for need in find(name).needs}
    log, split = inputs.split(cell.dataset, cell.arm.data) if cell else (None, None)
    same = log is not None and split is not None and _prints(card) == (log.fingerprint, split.fingerprint)
    if log is not None and split is not None and same and needs & {"popularity", "vectors"}:
        keep_catalogue(folder.path / CATALOGUES, log, split, vectors="vectors" in needs)
    if not (again or probes or (ranked and not (path / LISTS).exists())):
        return UP_TO_DATE
    if cell is None or not same:
        return "left: it was made from other data than those found here"
    if _settings(card) != _settings(cell.identity):
        return "left: the settings of the design are not those it was trained with"
    data = task_data(study, cell, inputs, device)
    model = build_model(cell, data, inputs)
    weights = path / "model.safetensors"
    if weights.exists():
        load_weights(model, weights)
    elif any(p.requires_grad for p in model.parameters()):
        return "left: its weights are not there; copy model.safetensors back, or delete the cell to train it again"
    with folder.lock(cell_id) as mine:
        if not mine:
            return "left: a worker holds it"
        _replace(folder, study, cell_id, card, probes, model, data)
    shutil.rmtree(folder.running(cell_id), ignore_errors=True)
    return DONE


def _replace(
    folder: RunFolder,
    study: Study,
    cell_id: str,
    card: dict[str, Any],
    probes: Mapping[str, Settings],
    model: Recommender,
    data: TaskData,
) -> None:
    """Makes the files anew beside the cell, then moves each into it."""
    path, staged = folder.cell(cell_id), folder.running(cell_id) / "evaluated"
    with writing(staged):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    write_evidence(staged, folder, study, model, data)
    write_findings(staged, probes, model, data)
    measured = card.get("measured", {}) | {name: options.model_dump(mode="json") for name, options in probes.items()}
    evaluated = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(str(data.device)),
        "users_with_another_rank": _moved(path, staged) if study.task == "retrieval" else None,
    }
    write_json(staged / "cell.json", card | {"format": FORMAT, "measured": measured, "evaluated": evaluated})
    with writing(path):
        for file in sorted(staged.iterdir(), key=lambda file: file.name == "cell.json"):
            os.replace(file, path / file.name)


def _moved(path: Path, staged: Path) -> int:
    """How many targets have another rank than before: 0 on the machine and with the versions that trained the cell."""
    before, after = (
        read_parquet(folder / "rows.parquet", ["rank_all"], CELL_REMEDY)["rank_all"].to_pandas().to_numpy(float)
        for folder in (path, staged)
    )
    if len(before) != len(after):
        raise InputError(f"{path} holds rows of other users than the data found here; delete it to train it again")
    return int((~((before == after) | (np.isnan(before) & np.isnan(after)))).sum())


def _unmeasured(card: dict[str, Any], name: str, options: Settings) -> bool:
    """Whether a cell lacks what a probe finds with these options."""
    key = {"decoding": "decoding_audit"}.get(name, name)
    dumped = options.model_dump(mode="json")
    known = card.get("measured", {}).get(name)
    if known is None:
        known = card.get("probes", {}).get(name)
    if known is None and key in card and card[key]:
        known = {} if card[key] is True else card[key]
    return known != dumped


def _prints(card: dict[str, Any]) -> tuple[str, str]:
    return card["fingerprints"]["log"], card["fingerprints"]["split"]


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """What a trained model was built from."""
    return {key: values.get(key) for key in ("model", "config", "data", "items", "seed", "draw")}
