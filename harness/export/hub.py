"""A trained model as a folder in the form of the Hugging Face Hub, and the way back.

=================== =============================================================================================
README.md           the model card
config.json         how the model is built and what it was trained on, see :class:`Exported`
model.safetensors   its weights
items.parquet       a row per item, item 1 first: ``item`` (id), ``title``, ``count`` (training events), ``codes``
=================== =============================================================================================

No event and no user of the data is in it, and nothing that could be run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from harness.api import Run
from harness.data.log import EventLog
from harness.data.splits import Split
from harness.errors import InputError
from harness.export.card import model_card, plain_name
from harness.export.tables import outside_of
from harness.files import read_json, write_json, write_text, writing
from harness.interface import Schema
from harness.reading.parquet import read_parquet
from harness.registry import load_model as load_class
from harness.resolve import usable_device
from harness.settings import Settings, parse
from harness.study.run_cell import load_weights
from harness.tasks.action import ActionPrediction
from harness.tasks.lists import write_table
from harness.tasks.retrieval import Retrieval
from harness.trained import TrainedModel

__all__ = ["CONFIG", "Exported", "is_exported", "load_model", "write_hub"]

CONFIG, WEIGHTS, ITEMS, CARD = "config.json", "model.safetensors", "items.parquet", "README.md"


class Shape(Settings):
    """What a :class:`harness.interface.Schema` holds besides what ``items.parquet`` does."""

    n_items: int
    n_users: int
    max_length: int
    actions: tuple[str, ...]
    action_counts: tuple[int, ...] | None
    code_sizes: tuple[int, ...]


class Exported(Settings):
    """``config.json``."""

    library_name: Literal["harness"] = "harness"
    format: Literal[1] = 1
    model: str
    """Registered name."""
    task: Literal["retrieval", "action"]
    dataset: str
    variant: str
    seed: int
    config: dict[str, Any]
    """The model's own settings."""
    shape: Shape
    trained_with: dict[str, Any]
    """The other settings, fingerprints of the data and versions, for the record: keys of the cell's ``cell.json``."""


RECORD = ("id", "training", "data", "items", "budget", "selection", "outcome", "fingerprints", "versions", "git")


def write_hub(
    run: Run,
    to: Path,
    variant: str,
    seed: int = 0,
    dataset: str | None = None,
    *,
    licence: str | None = None,
    data_root: Path | None = None,
) -> list[Path]:
    """Writes the folder ``to``, whole or not at all, and returns its files. The cell's data are read again, for titles.

    ``licence``: of the weights, an identifier of the Hub such as ``mit``; without one the card says "other".

    Raises:
        InputError: the cell, its weights or its data are not there; ``to`` is there or can't be written; a model that
            needs the training events themselves.
    """
    outside_of(run, to)
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"--to {to} is there; choose another folder, or delete it")
    model = run.model(variant, seed, dataset, data_root=data_root)
    dataset = dataset or run.data.datasets[0]  # a run of several was refused without one
    cells = run.cells().set_index(["dataset", "variant", "seed"])
    cell = str(cells.loc[(dataset, variant, seed), "id"])
    card = run.data.cards[cell]
    schema = model.model.schema
    exported = Exported(
        **{key: card[key] for key in ("model", "task", "seed", "config")},
        dataset=plain_name(card["dataset"]),
        variant=variant,
        shape=Shape(
            n_items=schema.n_items,
            n_users=schema.n_users,
            max_length=schema.max_length,
            actions=schema.actions,
            action_counts=None if schema.action_counts is None else tuple(schema.action_counts.tolist()),
            code_sizes=schema.code_sizes,
        ),
        trained_with={key: card.get(key) for key in RECORD},
    )
    with _whole_folder(to) as aside:
        write_json(aside / CONFIG, exported.model_dump(mode="json"))
        write_table(aside / ITEMS, _items(model, schema))
        shutil.copyfile(run.data.file(cell, WEIGHTS), aside / WEIGHTS)
        _check_whole(aside, exported.model)
        write_text(aside / CARD, model_card(run.data, cell, type(model.model), to.name, licence))
    return sorted(to.iterdir())


def _check_whole(folder: Path, name: str) -> None:
    """Raises InputError where what was written can't be loaded, and so is not to be given away."""
    try:
        load_model(folder)
    except InputError as error:
        raise InputError(
            f"model '{name}' can't be exported: it needs more of the training events than an export holds ({error})"
        ) from None


def is_exported(folder: Path) -> bool:
    """Whether a folder looks like one that :func:`write_hub` wrote."""
    return (folder / CONFIG).is_file() and (folder / ITEMS).is_file()


def load_model(folder: str | Path, device: str = "cpu") -> TrainedModel:
    """The model in a folder that ``harness export hub`` wrote, also one that was downloaded from the Hub.

    It answers as that of the run did, but knows no users. Code is taken from the installed package alone.

    Raises:
        InputError: no such folder, a damaged file, a model that is not installed or does not fit the weights.
    """
    folder = Path(folder)
    if not is_exported(folder):
        raise InputError(f"{folder} holds no exported model ({CONFIG} and {ITEMS}); make one with `harness export hub`")
    exported = parse(Exported, read_json(folder / CONFIG), str(folder / CONFIG))
    items, shape = _read_items(folder / ITEMS, exported.shape), exported.shape
    counts = np.r_[0, items["count"].to_numpy(np.int64)]
    device = usable_device(device)
    schema = Schema(
        n_items=shape.n_items,
        n_users=shape.n_users,
        max_length=shape.max_length,
        actions=shape.actions,
        codes=_codes(items, shape, folder / ITEMS, device),
        code_sizes=shape.code_sizes,
        item_counts=torch.from_numpy(counts).to(device),
        action_counts=None if shape.action_counts is None else torch.tensor(shape.action_counts).to(device),
    )
    kind = load_class(exported.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(exported.seed)
        model = kind(parse(kind.Config, exported.config, f"{folder / CONFIG}, config"), schema).to(device)
    load_weights(model, folder / WEIGHTS)
    task = Retrieval if exported.task == "retrieval" else ActionPrediction
    log, split = _catalogue_alone(exported, items)
    data = task(log, split, max_length=shape.max_length, metrics=[], device=device)
    return TrainedModel(f"{exported.dataset} / {exported.variant} / seed {exported.seed}", model.eval(), data)


def _items(model: TrainedModel, schema: Schema) -> pa.Table:
    log = model.log
    titles = [""] * log.n_items
    if log.item_table is not None and log.text_fields:
        titles = log.item_table[log.text_fields[0]].reindex(range(1, log.n_items + 1), fill_value="").tolist()
    columns: dict[str, Any] = {
        "item": pa.array(log.items[1:].tolist(), pa.string()),
        "title": pa.array(titles, pa.string()),
        "count": pa.array((schema.item_counts if schema.item_counts is not None else torch.zeros(0))[1:].cpu().numpy()),
    }
    if schema.codes is not None:
        columns["codes"] = pa.array(schema.codes[1:].cpu().tolist(), pa.list_(pa.int64()))
    return pa.table(columns)


def _read_items(path: Path, shape: Shape) -> pd.DataFrame:
    items = read_parquet(path, None, "restore it from a copy").to_pandas()
    wanted = {"item", "title", "count", *(("codes",) if shape.code_sizes else ())}
    if wanted - set(items) or len(items) != shape.n_items or not items["item"].is_unique:
        raise InputError(
            f"{path}: expected {shape.n_items} different items with the columns {', '.join(sorted(wanted))}; is it of "
            "the same export as the files beside it? restore it from a copy"
        )
    return items


def _codes(items: pd.DataFrame, shape: Shape, path: Path, device: str) -> torch.Tensor | None:
    """(I + 1, m) codes, row 0 of padding; None of a model without codes."""
    if not shape.code_sizes:
        return None
    levels = len(shape.code_sizes)
    if not items["codes"].map(len).eq(levels).all():
        raise InputError(f"{path}: expected {levels} codes of each item; restore it from a copy")
    codes = np.vstack([np.zeros((1, levels), np.int64), *items["codes"]])
    if (codes < 0).any() or (codes >= np.array(shape.code_sizes)).any():
        raise InputError(f"{path}: a code lies outside its level's size; restore it from a copy")
    return torch.from_numpy(codes).to(device)


def _catalogue_alone(exported: Exported, items: pd.DataFrame) -> tuple[EventLog, Split]:
    """A log of these items and actions, without users and events."""
    nothing = np.zeros(0, np.int64)
    table = pd.DataFrame({"title": items["title"].tolist()}, index=range(1, len(items) + 1))
    log = EventLog(
        name=exported.dataset,
        users=np.array([], str),
        items=np.array(["", *items["item"]]),
        offsets=np.zeros(1, np.int64),
        item=nothing,
        time=None,
        tied=None,
        actions=None,
        action_names=exported.shape.actions,
        item_table=table,
        text_fields=("title",),
        files={},
        fingerprint=str(exported.trained_with.get("fingerprints", {}).get("log", "")),
    )
    return log, Split("none", log.offsets, nothing, nothing, nothing, "")


@contextmanager
def _whole_folder(to: Path) -> Iterator[Path]:
    """Yields a folder beside ``to`` to write into; it becomes ``to`` if all went well."""
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
        try:
            yield aside
            aside.chmod(0o755)
            os.replace(aside, to)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
