"""A trained model out of a run, asked in the data's own item ids."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.data.config import DataConfig
from harness.data.log import EventLog
from harness.errors import InputError, nearest
from harness.interface import Batch, Recommender, Task
from harness.items.config import ItemsConfig
from harness.metrics.ranking import tie_places
from harness.probes.attention import last_row, per_event, shows_attention
from harness.registry import load_model
from harness.settings import parse
from harness.study.cells import Arm, Cell, Inputs
from harness.study.folder import RunFolder
from harness.study.run_cell import build_model, load_weights
from harness.tasks.action import ActionPrediction
from harness.tasks.base import TaskData
from harness.tasks.retrieval import LIST_LENGTH, Retrieval
from harness.training_config import TrainingConfig

__all__ = ["TrainedModel", "load_trained"]


@dataclass(frozen=True)
class TrainedModel:
    """The model of one cell with its kept weights, and the data that give its items their ids and titles."""

    name: str
    """Data set, variant and seed."""
    model: Recommender
    data: TaskData

    @torch.inference_mode()
    def recommend(
        self,
        history: Iterable[Any],
        k: int = 10,
        exclude_seen: bool = True,
        *,
        times: Iterable[int] | None = None,
        actions: Iterable[str | Iterable[str]] | None = None,
        user: Any = None,
    ) -> pd.DataFrame:
        """The best ``k`` items after a history, best first, as the study's evaluation ranks them.

        Args:
            history: Item ids as in the data, oldest first; of a longer one than the model reads, the last events count.
            k: Rows to return; fewer come back where a model that searches finds fewer (a beam is as wide as it is).
            exclude_seen: Leave the items of the history out (the protocol "unseen"), else "all".
            times: Seconds of each event, ascending; for models that read times.
            actions: The action of each event, or all of its actions; for models that read actions.
            user: A user id as in the data, for models that read who it is (TIGER's user token, some of RecBole's);
                without it, the data's first user stands in.

        Returns:
            Columns ``item``, ``title`` ("" where the data have none) and ``score``.

        Raises:
            InputError: an empty history, an id that the data do not hold, ``times`` or ``actions`` that the model reads
                and that are missing or do not fit; a model that does not rank items.
        """
        if self.data.task is not Task.RETRIEVAL:
            raise InputError(f"{self.name} predicts actions and ranks no items; ask a run of task 'retrieval'")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k is {k!r}; ask for a whole number of items from 1 on")
        items = self._items(history)
        batch = self._batch(items, times, actions, user)
        if self.model.exact:
            scores = self.model.score_items(batch)[0].float().cpu().numpy()
            order = np.lexsort((tie_places(len(scores)), -scores)) + 1  # the evaluation's order of equal scores
            scores = scores[order - 1]
        else:
            ranking = self.model.rank_items(batch, LIST_LENGTH)
            order, scores = ranking.items[0].cpu().numpy(), ranking.scores[0].float().cpu().numpy()
        kept = (order > 0) & ~(np.isin(order, items) & exclude_seen)
        best, scores = order[kept][:k], scores[kept][:k]
        return pd.DataFrame({"item": self.log.items[best], "title": self._titles(best), "score": scores})

    @torch.inference_mode()
    def attention_of(
        self,
        history: Iterable[Any],
        *,
        times: Iterable[int] | None = None,
        actions: Iterable[str | Iterable[str]] | None = None,
        user: Any = None,
    ) -> pd.DataFrame:
        """What each head attends to from the last event of a history. The arguments are those of :meth:`recommend`.

        Returns:
            A row per layer, head (both from 0) and event that the model reads: ``layer``, ``head``, ``event`` (its
            place in ``history``, from 0), ``item``, ``title`` and ``weight``, which may be negative.

        Raises:
            InputError: as :meth:`recommend`; a model that does not show its attention.
        """
        if not shows_attention(self.model):
            raise InputError(f"{self.name}: the model '{type(self.model).__name__}' does not show its attention")
        items = self._items(history)
        batch = self._batch(items, times, actions, user)
        maps = self.model.attention(batch, self.data.task)
        length = int(batch.lengths[0])
        read = items[-length:]
        events = {
            "event": np.arange(len(items) - length, len(items)),
            "item": self.log.items[read],
            "title": self._titles(read),
        }
        frames = []
        for layer, weights in enumerate(maps.maps):
            row, seen = last_row(maps, weights, batch.lengths)
            for head, by_event in enumerate(per_event(row, maps, seen, batch.items.shape[1])[0].cpu().numpy()):
                frames.append(pd.DataFrame({"layer": layer, "head": head, **events, "weight": by_event[:length]}))
        return pd.concat(frames, ignore_index=True)

    def events_of(self, user: Any) -> pd.DataFrame:
        """A user's events before the test target, oldest first: ``item``, ``title``, and ``time`` (seconds) and
        ``actions`` (a tuple of names) where the data have them. Raises InputError for an unknown user."""
        place = self._user(user)
        users, targets = self.data.split.targets("test")
        own = targets[users == place]
        chosen = slice(self.log.offsets[place], own[0] if len(own) else self.log.offsets[place + 1])
        items = self.log.item[chosen]
        frame = pd.DataFrame({"item": self.log.items[items], "title": self._titles(items)})
        if self.log.time is not None:
            frame["time"] = self.log.time[chosen]
        if self.log.actions is not None:
            names = np.array(self.log.action_names)
            frame["actions"] = [tuple(names[row > 0].tolist()) for row in self.log.actions[chosen]]
        return frame

    @property
    def log(self) -> EventLog:
        return self.data.log

    @cached_property
    def _places(self) -> dict[str, int]:
        return {item: place for place, item in enumerate(self.log.items.tolist()) if place}

    def _titles(self, items: np.ndarray) -> list[str]:
        if self.log.item_table is None or not self.log.text_fields:
            return [""] * len(items)
        return self.log.item_table.loc[items, self.log.text_fields[0]].tolist()

    def _items(self, history: Iterable[Any]) -> np.ndarray:
        """(n,) int64 dense ids."""
        if isinstance(history, (str, bytes)):
            raise InputError(f"history is the text {history!r}; give a list of item ids, as in ['{history!s:.20}']")
        ids = [str(item) for item in history]
        if not ids:
            raise InputError("the history is empty; give at least one item id, the oldest first")
        unknown = [item for item in ids if item not in self._places]
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise InputError(
                f"history: data set '{self.log.name}' as the study reads it has no item '{unknown[0]}'{more}; "
                f"{_like(unknown[0], self.log.items[1:])}"
            )
        return np.array([self._places[item] for item in ids], dtype=np.int64)

    def _user(self, user: Any) -> int:
        if not len(self.log.users):
            raise InputError(f"{self.name} is an exported model, which knows no users; leave user={user!r} out")
        found = np.flatnonzero(self.log.users == str(user))
        if not len(found):
            raise InputError(f"data set '{self.log.name}' has no user '{user}'; {_like(str(user), self.log.users)}")
        return int(found[0])

    def _batch(self, items: np.ndarray, times: Iterable[int] | None, actions: Iterable[Any] | None, user: Any) -> Batch:
        """One sequence, (1, L) with L at most the model's window."""
        shown = slice(max(0, len(items) - self.data.max_length), len(items))
        needs = self.model.needs_with(self.model.config)
        batch = Batch(
            items=torch.from_numpy(items[shown])[None],
            lengths=torch.tensor([shown.stop - shown.start]),
            users=torch.tensor([0 if user is None else self._user(user)]),
        )
        if times is not None:
            batch.times = torch.from_numpy(_times(list(times), len(items))[shown])[None]
        elif needs.times:
            raise InputError(f"{self.name} reads event times; give times=[...], seconds, one per event of the history")
        if actions is not None:
            batch.actions = torch.from_numpy(self._actions(list(actions), len(items))[shown])[None]
        elif needs.actions:
            known = ", ".join(self.log.action_names)
            raise InputError(f"{self.name} reads actions; give actions=[...], one entry per event, of: {known}")
        return batch.to(self.data.device)

    def _actions(self, actions: Sequence[Any], n: int) -> np.ndarray:
        """(n, A) float32 in {0, 1}."""
        _check_count("actions", actions, n)
        names = self.log.action_names
        found = np.zeros((n, len(names)), dtype=np.float32)
        for row, given in zip(found, actions, strict=True):
            for name in [given] if isinstance(given, str) else given:
                if name not in names:
                    raise InputError(f"actions: unknown action '{name}'; {nearest(str(name), names)}")
                row[names.index(name)] = 1
        return found


def load_trained(
    run: Path, cell: str, variant: str, *, data_root: Path | None = None, cache: Path | None = None, device: str = "cpu"
) -> TrainedModel:
    """The model of a finished cell. Its data are read again, and must be those that it was trained on.

    Raises:
        InputError: the cell's weights are not there or do not fit, its data are not there or are others; a cell whose
            predictions an outside system made.
    """
    folder = RunFolder(run).cell(cell)
    card = RunFolder(run).card(cell)
    where = f"cell {folder}"
    if "config" not in card:
        raise InputError(f"{where} holds the predictions of an outside system; there is no model to load")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(
            f"{where} has no weights ({weights.name} was left out of this copy); take them from the folder where the "
            "run was made, or run the study again under another --name"
        )
    model = load_model(card["model"])
    arm = Arm(
        variant=variant,
        model=model,
        model_name=card["model"],
        config=parse(model.Config, card["config"], where),
        training=parse(TrainingConfig, card["training"], where),
        data=parse(DataConfig, card["data"], where),
        items=parse(ItemsConfig, card.get("items") or {}, where),
    )
    made = Cell(card["id"], card["dataset"], arm, card["seed"], {}, card.get("draw", 0))
    inputs = Inputs(data_root and data_root.absolute(), (cache or run.parent / "cache").absolute())
    with _where_it_was_started(RunFolder(run)):
        log, split = inputs.split(made.dataset, arm.data)
        _check_prints(where, card, {"log": log.fingerprint, "split": split.fingerprint}, log.files)
        codes = inputs.codes(made.dataset, arm, made.draw)
        _check_prints(where, card, {"codes": codes.fingerprint if codes else None}, log.files)
        kind = Retrieval if card["task"] == Task.RETRIEVAL else ActionPrediction
        data = kind(log, split, max_length=arm.data.max_length, metrics=[], device=device)
        built = build_model(made, data, inputs)
    load_weights(built, weights)
    return TrainedModel(made.name, built.eval(), data)


def _where_it_was_started(folder: RunFolder) -> contextlib.AbstractContextManager[Any]:
    """The folder that relative paths of the study are seen from, where it exists on this machine."""
    place = folder.read_design()[1].get("started_in")
    here = None if place is None else folder.path / place
    return contextlib.chdir(here) if here is not None and here.is_dir() else contextlib.nullcontext()


def _check_prints(where: str, card: dict[str, Any], here: dict[str, str | None], files: dict[str, str]) -> None:
    trained = card["fingerprints"]
    for kind, value in here.items():
        if trained.get(kind) == value:
            continue
        changed = [name for name, sha in files.items() if trained["files"].get(name) != sha]
        cause = f" (changed: {', '.join(changed)})" if changed else " (the files are the same; another version made it)"
        raise InputError(
            f"{where} was trained on another {kind} of '{card['dataset']}' than what is here{cause}; "
            "name the folder of the data it was trained on with data_root, or train it again"
        )


def _times(times: Sequence[Any], n: int) -> np.ndarray:
    """(n,) int64 seconds."""
    _check_count("times", times, n)
    try:
        found = np.array(times).astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("times: give whole seconds, as in [978300760, 978302109]") from None
    if (np.diff(found) < 0).any():
        raise InputError("times: a history is given oldest event first; its times do not ascend")
    return found


def _check_count(what: str, given: Sequence[Any], n: int) -> None:
    if len(given) != n:
        raise InputError(f"{what}: {len(given)} given for a history of {n} events; give one per event")


def _like(word: str, known: np.ndarray) -> str:
    """The end of an error about an unknown id: the nearest one, or what ids look like."""
    close = difflib.get_close_matches(word, known.tolist(), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"its ids look like {', '.join(known[:3].tolist())}"
