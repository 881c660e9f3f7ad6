"""RecBole's sequential models under this harness' interface: ``recbole:SASRec``, ``recbole:GRU4Rec``, ...

Only RecBole's model classes are used (Zhao et al., CIKM 2021 and 2022; version 1.2.1): not its data sets, data
loaders, configuration, trainer or checkpoints, none of which runs on current packages. Everything that stands in
for them is in this file:

- importing ``recbole.quick_start`` needs an old Ray and ``pkg_resources``: it is not imported, nor is any Ray;
- RecBole's utilities import tensorboard, texttable, colorlog and colorama at the top, for functions that are not
  used here: where one is not installed, an empty module takes its place during the import (:func:`import_recbole`);
- ``recbole.config.Config`` and the constructor of ``Interaction`` from lists touch ``np.float_`` and ``np.float``,
  which NumPy 2 has no more: a plain mapping takes the place of the one, tensors are given to the other;
- RecBole's metrics, which the harness is tested against, use ``np.float``: it is there for them inside
  :func:`numpy_float` alone;
- the settings of each model come from RecBole's own YAML files, where YAML reads ``1e-12`` as text;
- weights are saved by the harness, as tensors alone.

RecBole trains on prefixes, each with its one next item, padded on the right to the full length. Item ids are the
same here and there (0 is padding), users are counted from 1 there.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import yaml
from pydantic import Field, create_model
from torch import Tensor
from torch.nn import functional as F

from harness.errors import InputError, nearest
from harness.interface import Batch, Fidelity, Needs, Recommender, Schema, Task
from harness.settings import Settings

__all__ = ["RecBoleFamily", "RecBoleModel", "import_recbole", "numpy_float"]

VERSION = "1.2.1"
"""The release whose models were checked."""

_UNUSED_IMPORTS = ("colorama", "colorlog", "tensorboard", "texttable")

_FEATURES = "it needs features of the items"
_KNOWLEDGE = "it needs embeddings trained on a knowledge graph"
_CANDIDATES = "it scores one labelled candidate at a time and does not rank the catalogue"
_REFUSED = {
    "DIEN": _CANDIDATES,
    "DIN": _CANDIDATES,
    "FDSA": _FEATURES,
    "FEARec": "its loss searches the whole training set for sequences with the same target",
    "GRU4RecF": _FEATURES,
    "GRU4RecKG": _KNOWLEDGE,
    "KSR": _KNOWLEDGE,
    "S3Rec": "it needs features of the items and a stage of pretraining",
    "SASRecF": _FEATURES,
}

_LOSSES = {"CORE": ("CE",), "FPMC": ("BPR",), "GRU4RecCPR": ("CE",), "SASRecCPR": ("CE",)}
"""What ``loss_type`` may be where it is not either of CE and BPR."""
_UNREAD = {"BERT4Rec": {"transform"}, "RepeatNet": {"loss_type"}, "SHAN": {"transform"}}
"""Keys in the files of RecBole that its model classes do not read: they are not settings."""

_TYPES: dict[str, Any] = {
    "bool": bool,
    "float": float,
    "int": int,
    "str": str,
    "list of float": list[float],
    "list of int": list[int],
}


class RecBoleFamily:
    """The family ``recbole``: ``member(name)`` is the class of one of RecBole's sequential models."""

    example = "SASRec"

    @classmethod
    def members(cls) -> list[str]:
        """The names that :meth:`member` takes: every sequential model that runs on ids alone."""
        return sorted(set(_models()) - set(_REFUSED))

    @classmethod
    def member(cls, name: str) -> type[RecBoleModel]:
        """The recommender that wraps RecBole's model ``name``, spelt as RecBole spells it.

        Raises:
            InputError: there is no such model, it needs what the harness does not give, or RecBole is missing.
        """
        if name in _REFUSED:
            raise InputError(f"model 'recbole:{name}' does not run on sequences of ids: {_REFUSED[name]}")
        if name not in _models():
            same = [known for known in cls.members() if known.lower() == name.lower()]
            hint = f"did you mean '{same[0]}'?" if same else nearest(name, cls.members())
            raise InputError(f"RecBole {VERSION} has no sequential model '{name}'; {hint}")
        return _member(name)


class RecBoleModel(Recommender[Any]):
    """One of RecBole's models, trained on its own unit: a prefix and its next item."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.RETRIEVAL})
    needs: ClassVar[Needs] = Needs(rows="prefixes")
    training_defaults: ClassVar[dict[str, Any]] = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 2048}
    name: ClassVar[str]
    """What RecBole calls the model."""

    def __init__(self, config: Settings, schema: Schema) -> None:
        super().__init__(config, schema)
        values = _Values(_general_settings())
        values |= config.model_dump() | {"MAX_ITEM_LIST_LENGTH": schema.max_length, "device": torch.device("cpu")}
        self.user_field, self.item_field = values["USER_ID_FIELD"], values["ITEM_ID_FIELD"]
        self.sequence_field = self.item_field + values["LIST_SUFFIX"]
        self.length_field = values["ITEM_LIST_LENGTH_FIELD"]
        self.negative_field = values["NEG_PREFIX"] + self.item_field
        values |= self.further_settings()
        try:
            with _numpy_follows_torch():
                self.model = _models()[self.name](values, _Catalogue(self))
        except (ArithmeticError, AssertionError, LookupError, NotImplementedError, RuntimeError, ValueError) as error:
            raise InputError(f"model 'recbole:{self.name}' can't be built with these settings: {error}") from error

    def further_settings(self) -> dict[str, Any]:
        """Settings that RecBole's data transforms add. Raises InputError where the model's do not fit the schema."""
        return {}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """RecBole's own loss over the supervised positions of ``batch``, each with the prefix that ends there."""
        width = batch.items.shape[1]
        rows, last = batch.positions() // width, batch.positions() % width  # (V,) each
        inside = torch.arange(width, device=last.device) <= last[:, None]  # (V, L)
        fields = self.fields(batch.items[rows] * inside, last + 1, batch.users[rows])
        target = batch.next_items()  # (V,)
        fields |= {self.item_field: target, self.negative_field: self.any_but(target)}
        return {"loss": self._run("calculate_loss", self.training_fields(fields))}

    def score_items(self, batch: Batch) -> Tensor:
        """(B, n_items) scores of RecBole's ``full_sort_predict``, without the column of padding."""
        fields = self.fields(batch.items, batch.lengths.clone(), batch.users)  # HRM writes into its lengths
        fields[self.item_field] = torch.zeros_like(batch.lengths)  # the CPR models compute a loss beside the scores
        return self._run("full_sort_predict", fields).view(len(batch.lengths), -1)[:, 1:]

    def fields(self, items: Tensor, lengths: Tensor, users: Tensor) -> dict[str, Tensor]:
        """The columns of RecBole's batch: (B, max_length) items, their (B,) lengths and the (B,) users."""
        items = F.pad(items, (0, self.schema.max_length - items.shape[1]))
        return {self.sequence_field: items, self.length_field: lengths, self.user_field: users + 1}

    def training_fields(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        """``fields`` as the loss reads them."""
        return fields

    def any_but(self, item: Tensor) -> Tensor:
        """Item ids of the same shape, drawn uniformly from the others of the catalogue."""
        draw = torch.randint(1, self.schema.n_items, item.shape, device=item.device)
        return draw + (draw >= item)  # ids from ``item`` on move up by one

    def _run(self, method: str, fields: dict[str, Tensor]) -> Tensor:
        for module in self.model.modules():
            if hasattr(module, "device"):  # the one it was built on; the trainer may have moved it since
                module.device = fields[self.sequence_field].device
        return getattr(self.model, method)(importlib.import_module("recbole.data.interaction").Interaction(fields))


class _MaskedItems(RecBoleModel):
    """BERT4Rec: trained to fill in masked items of the prefix.

    RecBole masks in a data transform with Python's random numbers. The same rule in tensors: with probability
    ``ft_ratio`` the whole batch has its last items masked, else each item with probability ``mask_ratio``; the
    latest ``mask_ratio * max_length`` masked positions count, the first position of a sequence never does. As in
    RecBole, the target of the prefix is not part of it. A batch in which no position would count, whose loss
    RecBole divides by zero, has the second position of its first row masked.
    """

    def further_settings(self) -> dict[str, Any]:
        self.n_masks = int(self.config.mask_ratio * self.schema.max_length)
        if self.n_masks < 1 or self.schema.max_length < 2:
            raise InputError(
                f"model 'recbole:{self.name}' masks mask_ratio * max_length items, here "
                f"{self.config.mask_ratio} * {self.schema.max_length}, which is less than one; raise either"
            )
        self.mask_fields = {
            "MASK_ITEM_SEQ": "Mask_" + self.sequence_field,
            "MASK_INDEX": "MASK_INDEX",
            "POS_ITEMS": "Pos_" + self.item_field,
            "NEG_ITEMS": "Neg_" + self.item_field,
        }
        return self.mask_fields

    def training_fields(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        items, lengths, mask = fields[self.sequence_field], fields[self.length_field], self.schema.n_items + 1
        place = torch.arange(items.shape[1], device=items.device)
        last = place == lengths[:, None] - 1  # (B, L)
        scattered = (torch.rand(items.shape, device=items.device) < self.config.mask_ratio) & (items > 0)
        chosen = torch.where(torch.rand((), device=items.device) < self.config.ft_ratio, last, scattered)
        masked = torch.where(chosen, mask, items)
        index = torch.where(chosen, place, 0).sort(dim=1).values[:, -self.n_masks :].contiguous()  # (B, n_masks)
        answers = items.gather(1, index)

        none = ~(index > 0).any()
        second = torch.where(lengths[0] > 1, items[0, 1], fields[self.item_field][0])
        masked[0, 1] = torch.where(none, mask, masked[0, 1])
        index[0, -1] = torch.where(none, 1, index[0, -1])
        answers[0, -1] = torch.where(none, second, answers[0, -1])
        return fields | dict(
            zip(self.mask_fields.values(), (masked, index, answers, self.any_but(answers)), strict=True)
        )


class _LeftPadded(RecBoleModel):
    """SHAN: reads sequences padded on the left, so that its last items stand in the last columns.

    RecBole 1.2.1 trains it so, but its ``full_sort_predict`` then reads the right-padded sequence. Both fields
    hold the left-padded one here.
    """

    def further_settings(self) -> dict[str, Any]:
        return {"INVERSE_ITEM_SEQ": "Inverse_" + self.sequence_field}

    def fields(self, items: Tensor, lengths: Tensor, users: Tensor) -> dict[str, Tensor]:
        fields = super().fields(items, lengths, users)
        width = self.schema.max_length
        place = torch.arange(width, device=items.device) - (width - lengths[:, None])  # (B, L); negative: padding
        shifted = fields[self.sequence_field].gather(1, place.clamp(min=0)) * (place >= 0)
        return fields | {self.sequence_field: shifted, "Inverse_" + self.sequence_field: shifted}


class _Reranked(RecBoleModel):
    """The CPR models: score the best ``reranker_CAN_NUM`` items once more, so there must be as many."""

    def further_settings(self) -> dict[str, Any]:
        sizes = str(self.config.reranker_CAN_NUM)
        if max(int(size) for size in re.findall(r"\d+", sizes) or "0") > self.schema.n_items:
            raise InputError(
                f"model 'recbole:{self.name}' reranks more items (reranker_CAN_NUM: {sizes}) than the "
                f"{self.schema.n_items} of the catalogue; lower it"
            )
        return {}


_SPECIAL: dict[str, type[RecBoleModel]] = {
    "BERT4Rec": _MaskedItems,
    "GRU4RecCPR": _Reranked,
    "SASRecCPR": _Reranked,
    "SHAN": _LeftPadded,
}
_DEPARTURES = {
    "BERT4Rec": "items are masked by our code, to RecBole's rule; a batch without any supervised position gets one",
    "SHAN": "ranks from the left-padded sequence that it is trained on, where RecBole's ranking reads the other",
}


class _Values(dict):
    """Settings as RecBole's models read them: a key that is not there is None."""

    def __missing__(self, key: str) -> None:
        return None


class _Catalogue:
    """What RecBole's models ask of a data set: how many users and items there are, padding included."""

    def __init__(self, model: RecBoleModel) -> None:
        self.user_num, self.item_num = model.schema.n_users + 1, model.schema.n_items + 1
        self.num = {model.user_field: self.user_num, model.item_field: self.item_num}.__getitem__
        self.field2seqlen = {model.sequence_field: model.schema.max_length}


@functools.cache
def _member(name: str) -> type[RecBoleModel]:
    fidelity = Fidelity(
        paper=_paper(name),
        status="original",
        verified=(
            f"the model is the class of RecBole {VERSION}, with the defaults of its settings file",
            "Adam, a learning rate of 0.001 and batches of 2048 are RecBole's defaults",
        ),
        departures=(
            "the training loop, the batches, early stopping and evaluation are this harness'",
            "a negative item is any item but the target; RecBole leaves out all items of the user",
            *([_DEPARTURES[name]] if name in _DEPARTURES else []),
        ),
    )
    body = {
        "__doc__": f"RecBole's {name}.",
        "__module__": __name__,
        "name": name,
        "Config": _settings(name),
        "fidelity": fidelity,
    }
    return type(f"RecBole{name}", (_SPECIAL.get(name, RecBoleModel),), body)


@contextmanager
def _numpy_follows_torch() -> Iterator[None]:
    """NumPy's global generator, from which SINE draws its first weights, seeded from torch's for a while."""
    state = np.random.get_state()
    np.random.seed(int(torch.randint(2**31, ())))
    try:
        yield
    finally:
        np.random.set_state(state)


@functools.cache
def _models() -> dict[str, type]:
    """RecBole's sequential models by name."""
    package = import_recbole("recbole.model.sequential_recommender")
    base = importlib.import_module("recbole.model.abstract_recommender").SequentialRecommender
    return {name: kind for name, kind in inspect.getmembers(package, inspect.isclass) if issubclass(kind, base)}


def import_recbole(module: str) -> ModuleType:
    """The module ``module`` of RecBole, with empty modules in the place of what it imports and is not installed.

    Raises:
        InputError: RecBole, or something that it does use, is missing.
    """
    if find_spec("recbole") is None:
        raise InputError(f"RecBole's models need the package: pip install --no-deps recbole=={VERSION}")
    missing = [name for name in _UNUSED_IMPORTS if find_spec(name) is None]
    empty = ["torch.utils.tensorboard" if name == "tensorboard" else name for name in missing]
    sys.modules.update({name: _Empty(name) for name in empty})
    detecting = torch.is_anomaly_enabled()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"RecBole can't be imported ({error}); pip install --no-deps recbole=={VERSION}") from error
    finally:
        for name in empty:
            del sys.modules[name]
        # SINE's module switches anomaly detection on for the whole process, which slows every model's training.
        torch.autograd.set_detect_anomaly(detecting)


@contextmanager
def numpy_float() -> Iterator[None]:
    """``np.float``, which RecBole's metrics use and NumPy has no more, for the length of a block."""
    np.float = float  # type: ignore[attr-defined]  # it is the purpose to add it
    try:
        yield
    finally:
        del np.float  # type: ignore[attr-defined]  # and to take it away


class _Empty(ModuleType):
    """A module in which every name is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _read_yaml(*path: str) -> tuple[str, dict[str, Any]]:
    """Text and content of one of RecBole's settings files."""
    spec = find_spec("recbole")
    assert spec, "the models were imported from it"
    assert spec.origin
    text = Path(spec.origin).parent.joinpath("properties", *path).read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


def _general_settings() -> dict[str, Any]:
    """RecBole's settings for all models and its names of fields; the model's own are in its Config."""
    return _read_yaml("overall.yaml")[1] | _read_yaml("dataset", "sample.yaml")[1]


def _settings(name: str) -> type[Settings]:
    """The keys, types and defaults of the model's file, whose comments read ``# (type) What it is.``"""
    text, values = _read_yaml("model", f"{name}.yaml")
    found = re.findall(r"(?m)^(\w+):[^#\n]*#\s*\(([\w ]+)\)\s*(.*)$", text)
    comments = {key: (kind, description) for key, kind, description in found}
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key in _UNREAD.get(name, ()):
            continue
        kind, description = comments.get(key, (type(value).__name__, ""))
        default = value if kind.startswith("list") else _TYPES[kind](value)
        annotation = Literal[_LOSSES.get(name, ("CE", "BPR"))] if key == "loss_type" else _TYPES[kind]
        fields[key] = (annotation, Field(default, description=description.strip()))
    return create_model(f"{name}Config", __base__=Settings, **fields)


def _paper(name: str) -> str:
    """The publication that the head of the model's module names."""
    head = inspect.getmodule(_models()[name]).__doc__ or ""
    found = re.search(r"Reference:\s*\n(.*?)(?=\n\s*\n|\n\s*Reference|\Z)", head, re.DOTALL)
    return " ".join(found.group(1).split()) if found else f"RecBole {VERSION}, {name}"
