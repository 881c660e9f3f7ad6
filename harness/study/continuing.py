"""Going on with finished cells under a larger budget: each starts from the last state that its earlier cell kept.

A cell under another budget is another cell, with an id of its own. All that is done here is to lay the earlier cell's
last state where the new one looks for its checkpoint: so it ends, on a CPU bit by bit, as if it had never stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.files import read_json, whole_file
from harness.reading import shapes
from harness.study.cells import MEASURED, Cell
from harness.study.folder import CELL_REMEDY, RunFolder
from harness.training import CHECKPOINT, LAST_STATE, NEEDS_TOTAL, checkpoint_state
from harness.training_config import Budget

__all__ = ["continue_cells"]

ANEW = "run the study without --continue, under another --name or with --accept-change, to train from scratch"


def continue_cells(cells: Sequence[Cell], folder: RunFolder, made_with: str) -> tuple[int, int]:
    """Prepares the cells that are not finished: how many go on from an earlier cell, and how many start from scratch,
    since the folder holds none that differs in its budget alone.

    ``made_with``: as :func:`harness.training.fit` takes it.

    Raises:
        InputError: the folder holds such a cell, but going on from it is impossible, or would not end as one
            uninterrupted training does. Nothing was prepared then.
    """
    cards = [read_json(path, shapes.Card, CELL_REMEDY) for path in sorted(folder.path.glob("cells/*/cell.json"))]
    states: dict[str, Path] = {}
    anew = 0
    for cell in cells:
        if folder.is_finished(cell.id) or (folder.running(cell.id) / CHECKPOINT).exists():
            continue
        earlier = [card for card in cards if _training(card) == _training(cell.identity)]
        if earlier and any(card["outcome"]["epochs"] for card in earlier):
            states[cell.id] = _state_of(_largest(earlier, cell), cell, folder, made_with)
        else:
            anew += 1
    for cell_id, state in states.items():
        with whole_file(folder.running(cell_id) / CHECKPOINT) as aside:
            shutil.copyfile(state, aside)
    return len(states), anew


def _training(identity: dict[str, Any]) -> Any:
    """What decides a training but its budget, as JSON holds it."""
    keys = ("task", "dataset", "model", "config", "training", "data", "items", "selection", "seed", "fingerprints")
    assert not {*keys} & {*MEASURED}
    return json.loads(json.dumps([identity.get(key) for key in keys]))


def _largest(earlier: list[dict[str, Any]], cell: Cell) -> dict[str, Any]:
    """The cell that trained longest of those whose budget is within the new one."""
    new = Budget.model_validate(cell.identity["budget"])
    within = [card for card in earlier if _within(Budget.model_validate(card["budget"]), new)]
    if not within:
        old = max((Budget.model_validate(card["budget"]) for card in earlier), key=lambda budget: budget.epochs)
        raise InputError(
            f"--continue: {cell.name} was trained with budget ({_said(old)}), which is not within the new one "
            f"({_said(new)}); raise epochs or patience and leave eval_every as it is, or {ANEW}"
        )
    return max(within, key=lambda card: (card["outcome"]["epochs"], card["budget"]["epochs"]))


def _within(old: Budget, new: Budget) -> bool:
    patient = new.patience is None or (old.patience is not None and old.patience <= new.patience)
    return old.epochs <= new.epochs and patient and old.eval_every == new.eval_every


def _said(budget: Budget) -> str:
    return ", ".join(f"{key} {value}" for key, value in budget.model_dump(mode="json").items())


def _state_of(card: dict[str, Any], cell: Cell, folder: RunFolder, made_with: str) -> Path:
    """The last state of an earlier cell, from which ``cell`` can go on."""
    where = f"--continue: {cell.name}"
    schedule = cell.arm.training.schedule
    if schedule in NEEDS_TOTAL:
        raise InputError(
            f"{where} has training.schedule {schedule}, whose learning rate depends on the number of epochs in all, so "
            f"{card['budget']['epochs']} epochs are not the beginning of {cell.identity['budget']['epochs']}; {ANEW}"
        )
    state = folder.cell(card["id"]) / LAST_STATE
    if not state.is_file():
        raise InputError(
            f"{where}: {state} is not there; cells keep it where the study says keep_last_state: true; {ANEW}"
        )
    kept = checkpoint_state(state)
    if kept["epoch"] % card["budget"]["eval_every"]:
        raise InputError(
            f"{where}: its epoch {kept['epoch']} was validated only as the last one (eval_every is "
            f"{card['budget']['eval_every']}), which a longer training does not do; {ANEW}"
        )
    if kept["made_with"] != made_with:
        raise InputError(
            f"{where}: its last state was made with another version of the code or its libraries, or other --threads "
            f"or --device, so the result would be that of neither; go back to them, or {ANEW}"
        )
    return state
