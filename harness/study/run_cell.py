"""Run one cell: train, evaluate, and leave its directory whole or not at all."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import save

from harness.analysis.run_files import CATALOGUES, LISTS
from harness.errors import InputError, in_one_line, shortened
from harness.files import digest, read_json, whole_file, write_json, writing
from harness.interface import Recommender, Task
from harness.metrics import find
from harness.probes import find_probe
from harness.provenance import git_state, hardware, versions
from harness.reading import shapes
from harness.reading.csv_text import read_csv
from harness.reading.tensors import read_tensors
from harness.settings import Settings
from harness.study.catalogue import keep_catalogue
from harness.study.cells import FORMAT, MEASURED, Cell, Inputs
from harness.study.design import Study
from harness.study.folder import CELL_REMEDY, RunFolder
from harness.study.ranks import ALONE, Ranks
from harness.study.tracking import Tracking
from harness.tasks.base import Predictions, TaskData
from harness.tasks.lists import write_table
from harness.training import CHECKPOINT, LAST_STATE, Fitted, fit, keep_last_state

__all__ = ["run_cell", "task_data"]


def task_data(study: Study, cell: Cell, inputs: Inputs, device: str) -> TaskData:
    """The cell's data seen through the study's task."""
    log, split = inputs.split(cell.dataset, cell.arm.data)
    options: dict[str, Any] = {
        "max_length": cell.arm.data.max_length,
        "metrics": list(study.metrics),
        "device": device,
    }
    if Task(study.task) is Task.RETRIEVAL:
        from harness.tasks.retrieval import Retrieval

        return Retrieval(log, split, candidates=study.candidates, **options)
    from harness.tasks.action import ActionPrediction

    return ActionPrediction(log, split, **options)


def build_model(cell: Cell, data: TaskData, inputs: Inputs) -> Recommender:
    """The cell's model with the weights that its seed gives it."""
    codes = inputs.codes(cell.dataset, cell.arm, cell.draw)
    schema = data.schema(codes.codes, codes.sizes) if codes else data.schema()
    torch.manual_seed(cell.seed)
    return cell.arm.model(cell.arm.config, schema).to(data.device)


def run_cell(
    study: Study,
    cell: Cell,
    inputs: Inputs,
    folder: RunFolder,
    *,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    on_step: Callable[[float], None] = lambda part: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """Trains the cell, from its last checkpoint if there is one, and publishes its directory. ``ranks`` train with it.

    A cell that differs from a finished one only in what is measured takes the weights of that one. The caller
    holds the cell's lock. Returns the validation value of the epoch that was chosen.

    Raises:
        CellFailed: a loss or score is not finite.
        Interrupted: ``should_stop`` said so.
        InputError: the folder can't be written, or a checkpoint can't be read.
    """
    started = datetime.now(UTC)
    data = task_data(study, cell, inputs, device)
    model = build_model(cell, data, inputs)
    twin = folder.trained_alike(cell.identity, MEASURED)
    staged = folder.running(cell.id) / "staged"
    if twin is not None or not any(p.requires_grad for p in model.parameters()):
        ranks = ALONE
    with Tracking(study.tracked, cell, folder.path, on_epoch) as tracking:
        if twin is not None:
            fitted = _fitted_before(twin, model)
        else:
            with ranks.together(cell.id):
                hooks: dict[str, Callable[..., Any]] = {
                    "on_epoch": tracking.epoch,
                    "on_step": on_step,
                    "should_stop": should_stop,
                }
                fitted = train(study, cell, folder, model, data, str(data.device), ranks.size, **hooks)
        with writing(staged):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
        summaries = write_evidence(staged, folder, study, model, data, fitted.validation)
        tracking.end(summaries["test"])
    write_history(staged / "history.csv", fitted.history)
    write_json(staged / "cost.json", fitted.cost)
    write_findings(staged, study.measured, model, data)
    _write_weights(staged / "model.safetensors", model, cell)
    last = folder.running(cell.id) / CHECKPOINT if twin is None else twin / LAST_STATE
    if study.keep_last_state and last.exists():  # a model without parameters has none
        keep_last_state(last, staged / LAST_STATE, cell.id)
    value = data.value(summaries["valid"], study.primary)
    record = _record(study, cell, fitted, value, started, device) | _origin(folder, fitted, twin)
    if ranks.size > 1:
        compared = [term for term in model.in_batch if any(f"loss/{term}" in row for row in fitted.history)]
        record["processes"] = {"count": ranks.size, "compared_within_a_part": compared}
    write_json(staged / "cell.json", record | ({"trackers_given_up": tracking.failures} if tracking.failures else {}))
    folder.publish(cell.id, staged)
    return value


def train(
    study: Study,
    cell: Cell,
    folder: RunFolder,
    model: Recommender,
    data: TaskData,
    device: str,
    processes: int = 1,
    **hooks: Callable[..., Any],
) -> Fitted:
    """The cell's training, in this process or in this one of several. ``device`` is that of the first, ``hooks`` those
    of :func:`harness.training.fit`."""
    return fit(
        model,
        data,
        training=cell.arm.training,
        budget=study.budget,
        primary=study.primary,
        seed=cell.seed,
        folder=folder.running(cell.id),
        made_with=made_with(device, torch.get_num_threads(), processes),
        **hooks,
    )


def _origin(folder: RunFolder, fitted: Fitted, twin: Path | None) -> dict[str, Any]:
    """The cells that a cell owes its training to, or a part of it, for its record."""
    if twin is not None:
        trained = folder.card(twin.name)
        return {"weights_of": {key: trained[key] for key in ("id", "git", "versions", "hardware", "finished")}}
    return {"continued_from": fitted.origin} if fitted.origin else {}


def made_with(device: str, threads: int, processes: int = 1) -> str:
    """Names the code, versions and hardware that the bits of a training depend on."""
    return digest([versions(), git_state(), threads, device, *([processes] if processes > 1 else [])])


def write_evidence(
    staged: Path,
    folder: RunFolder,
    study: Study,
    model: Recommender,
    data: TaskData,
    validation: Predictions | None = None,
) -> dict[str, dict[str, Any]]:
    """What a trained model predicts: rows, lists and a summary in ``staged``, and the catalogue of its run; returns the
    summary by phase. ``validation``: what it predicted of that part, where this is known already."""
    found = {"valid": validation or data.predict(model, "valid"), "test": data.predict(model, "test", lists=True)}
    summaries = {phase: data.summarise(predicted.rows) for phase, predicted in found.items()}
    write_json(staged / "metrics.json", summaries)
    write_table(staged / "rows.parquet", pa.concat_tables(predicted.rows for predicted in found.values()))
    if found["test"].lists is not None:
        write_table(staged / LISTS, found["test"].lists)
        wanted = any("vectors" in find(name).needs for name in study.metrics)
        keep_catalogue(folder.path / CATALOGUES, data.log, data.split, vectors=wanted)
    return summaries


def _record(study: Study, cell: Cell, fitted: Fitted, value: float, started: datetime, device: str) -> dict[str, Any]:
    outcome = {"best_epoch": fitted.best_epoch, "epochs": fitted.epochs, "stopped": fitted.stopped}
    return {
        **cell.identity,
        "format": FORMAT,
        "id": cell.id,
        "study": study.study,
        "variant": cell.arm.variant,
        "outcome": {**outcome, "validation": value},
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(device),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """One line per epoch; a value that was not measured in an epoch stays empty."""
    names = list(dict.fromkeys(["epoch", *(name for row in history for name in row)]))
    with whole_file(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def write_findings(staged: Path, measured: Mapping[str, Settings], model: Recommender, data: TaskData) -> None:
    """What probes find on a trained model, each where the model allows it."""
    for name, options in measured.items():
        probe = find_probe(name)
        if not probe.applies(model):
            continue
        found = probe.measure(model, data, options)
        for file, content in ({f"{name}.parquet": found} if isinstance(found, pa.Table) else found).items():
            if isinstance(content, pa.Table):
                write_table(staged / file, content)
            else:
                write_json(staged / file, content)


def _write_weights(path: Path, model: Recommender, cell: Cell) -> None:
    # Tied weights share memory, which the format refuses: each name gets its own copy.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as aside:
        aside.write_bytes(save(tensors, metadata={"cell": cell.id, "config": json.dumps(cell.identity["config"])}))


def load_weights(model: Recommender, path: Path) -> None:
    """Puts a finished cell's weights into ``model``. Raises InputError where they don't fit."""
    remedy = "delete it to train the cell again"
    try:
        model.load_state_dict(read_tensors(path, remedy, "pt"))
    except RuntimeError as error:
        raise InputError(f"{path} can't be loaded ({shortened(in_one_line(error), 200)}); {remedy}") from None


def _fitted_before(cell: Path, model: Recommender) -> Fitted:
    """The training of a finished cell, its weights put into ``model``."""
    load_weights(model, cell / "model.safetensors")
    outcome = read_json(cell / "cell.json", shapes.Card, CELL_REMEDY)["outcome"]
    lines = read_csv(cell / "history.csv", CELL_REMEDY, dtype=str, keep_default_na=False).to_dict("records")
    history = [{str(name): value for name, value in line.items()} for line in lines]
    cost = read_json(cell / "cost.json", shapes.Cost, CELL_REMEDY)
    return Fitted(outcome["best_epoch"], outcome["epochs"], outcome["stopped"], history, cost)
