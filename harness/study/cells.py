"""From a design to its cells: every setting resolved, every input fingerprinted, every cell named by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.log import EventLog
from harness.data.splits import Split, make_split
from harness.errors import InputError
from harness.files import digest
from harness.interface import Recommender, Task
from harness.items.config import FileCodes, ItemsConfig
from harness.registry import load_model
from harness.settings import Settings, parse
from harness.study.design import Study
from harness.study.loading import merged
from harness.study.places import in_variant
from harness.training_config import TrainingConfig

if TYPE_CHECKING:
    from harness.items.codes import ItemCodes

__all__ = [
    "FORMAT", "MEASURED", "SALT", "Arm", "Cell", "Inputs", "check_needs", "draws_of", "make_arm", "make_cells",
    "resolved",
]  # fmt: skip

FORMAT = 2
"""Of a cell directory: what a reader finds there. 2: `lists.parquet`. It is not part of a cell's identity."""
SALT = 1
"""A constant part of every identity, under the key ``format``: cells of format 1 keep their ids."""
MEASURED = ("attention", "noise", "decoding_audit", "probes")
"""Parts of a cell's identity that say what is measured on the trained model, and leave the training alone."""


DRAW = 1_000_003
"""Between the seeds of two draws of the codes; a quantiser counts on from its seed, level by level."""


@dataclass(frozen=True)
class Arm:
    """A variant on a data set, with every default filled in."""

    variant: str
    model: type[Recommender]
    model_name: str
    config: Settings
    training: TrainingConfig
    data: DataConfig
    items: ItemsConfig


@dataclass(frozen=True)
class Cell:
    """One training: an arm, a data set and a seed. ``id`` is the hash of all that decides its result."""

    id: str
    dataset: str
    arm: Arm
    seed: int
    identity: dict[str, Any]
    draw: int = 0
    """Which draw of the item codes it trains with."""

    @property
    def name(self) -> str:
        return f"{self.dataset} / {self.arm.variant} / {self.run}"

    @property
    def run(self) -> str:
        """``seed 2``, or ``seed 2, codes 1`` beyond the first draw."""
        return f"seed {self.seed}" + (f", codes {self.draw}" if self.draw else "")

    @property
    def entry(self) -> dict[str, Any]:
        """As a list of cells names it. The first draw of the codes goes without saying, as in runs of one draw."""
        entry = {"dataset": self.dataset, "variant": self.arm.variant, "seed": self.seed}
        return entry | ({"draw": self.draw} if self.draw else {})


@dataclass
class Inputs:
    """Loads each data set, split and set of codes once, however many cells use it."""

    data_root: Path | None
    cache: Path
    say: Callable[[str], None] = lambda line: None
    _logs: dict[str, EventLog] = field(default_factory=dict)
    _splits: dict[str, Split] = field(default_factory=dict)
    _codes: dict[str, ItemCodes] = field(default_factory=dict)

    def log(self, dataset: str, data: DataConfig) -> EventLog:
        # The length of the model's window is no business of the log's.
        key = digest([dataset, data.model_dump(mode="json", exclude={"max_length"})])
        if key not in self._logs:
            self._logs[key] = load(dataset, data, self.data_root)
            for note in self._logs[key].notes:
                self.say(f"note: {dataset}: {note}")
        return self._logs[key]

    def split(self, dataset: str, data: DataConfig) -> tuple[EventLog, Split]:
        key = digest([dataset, data.model_dump(mode="json", exclude={"max_length"})])
        log = self.log(dataset, data)
        if key not in self._splits:
            self._splits[key] = make_split(log, data)
            for note in self._splits[key].notes:
                self.say(f"note: {dataset}: {note}")
        return log, self._splits[key]

    def codes(self, dataset: str, arm: Arm, draw: int = 0) -> ItemCodes | None:
        """A draw of the codes that the arm's model asks for; None where it asks for none."""
        if not arm.model.needs.codes:
            return None
        log, split = self.split(dataset, arm.data)
        unique = arm.model.needs.unique_codes
        items = arm.items.model_copy(update={"seed": arm.items.seed + draw * DRAW})
        key = digest([log.fingerprint, split.fingerprint, items.model_dump(mode="json"), unique])
        if key not in self._codes:
            from harness.items.codes import item_codes  # its libraries are slow to import

            which = f", draw {draw}" if draw else ""
            self.say(f"codes of {dataset}: {items.quantiser.kind}{which} ...")
            self._codes[key] = item_codes(log, split, items, unique=unique, cache=self.cache, progress=self.say)
        return self._codes[key]


def make_cells(study: Study, inputs: Inputs) -> list[Cell]:
    """The cells of a design, seed by seed, so that an interrupted study has whole comparisons.

    Raises:
        InputError: a model that is unknown, does not do the task or gets a key that it does not know; data that
            can't be read or lacks what a model needs.
    """
    arms = {(d, v): make_arm(study, d, v) for d in study.datasets for v in study.variants}
    cells = []
    for dataset in study.datasets:
        splits = {}
        for variant in study.variants:
            arm = arms[dataset, variant]
            log, split = inputs.split(dataset, arm.data)
            check_needs(arm, log)
            splits[split.fingerprint] = variant
            if len(splits) > 1:
                first, second = list(splits.values())[:2]
                raise InputError(
                    f"study '{study.study}': variants '{first}' and '{second}' would be tested on different splits "
                    f"of '{dataset}'; set data.split and its like for the whole study"
                )
    for dataset in study.datasets:
        for seed, draw in product(study.seeds, range(study.codes)):
            for variant in study.variants:
                if draw < draws_of(study, arms[dataset, variant]):
                    cells.append(_cell(study, dataset, arms[dataset, variant], seed, draw, inputs))
    single = dict.fromkeys(arm.variant for arm in arms.values() if draws_of(study, arm) < study.codes)
    if single:
        inputs.say(f"note: {study.codes} draws of the codes: {', '.join(single)} train with one, having none to draw")
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.id in seen:
            raise InputError(
                f"study '{study.study}': variants '{seen[cell.id].arm.variant}' and '{cell.arm.variant}' are the same "
                f"on '{cell.dataset}'; change what one of them sets, or take it out"
            )
        seen[cell.id] = cell
    return cells


def draws_of(study: Study, arm: Arm) -> int:
    """How many draws of the codes an arm trains with: one where its model has no codes, or has those of a file."""
    return study.codes if arm.model.needs.codes and not isinstance(arm.items.quantiser, FileCodes) else 1


def _cell(study: Study, dataset: str, arm: Arm, seed: int, draw: int, inputs: Inputs) -> Cell:
    log, split = inputs.split(dataset, arm.data)
    codes = inputs.codes(dataset, arm, draw)
    identity = {
        "format": SALT,
        **resolved(study, dataset, arm),
        "seed": seed,
        **({"draw": draw} if draw else {}),  # cells of the first draw have the ids of studies with one
        "fingerprints": {
            "files": dict(sorted(log.files.items())),
            "log": log.fingerprint,
            "split": split.fingerprint,
            "codes": codes.fingerprint if codes else None,
        },
    }
    return Cell(digest(identity)[:16], dataset, arm, seed, identity, draw)


def resolved(study: Study, dataset: str, arm: Arm) -> dict[str, Any]:
    """All that decides the result of an arm's cells but the seed and the content of the data."""
    return {
        "task": study.task,
        "dataset": dataset,
        "model": arm.model_name,
        "config": arm.config.model_dump(mode="json"),
        "training": arm.training.model_dump(mode="json"),
        "data": arm.data.model_dump(mode="json"),
        "items": arm.items.model_dump(mode="json") if arm.model.needs.codes else None,
        "budget": study.budget.model_dump(mode="json"),
        "selection": {"primary": study.primary, "candidates": study.candidates if study.task == "retrieval" else None},
        "attention": study.attention,
        # Named only where they are asked for, so that the cells of other studies keep their ids.
        **({"noise": study.noise.model_dump(mode="json")} if study.noise else {}),
        **({"decoding_audit": True} if study.decoding_audit else {}),
        **({"probes": {n: study.measured[n].model_dump(mode="json") for n in study.probes}} if study.probes else {}),
    }


def make_arm(study: Study, dataset: str, variant: str) -> Arm:
    """A variant on a data set with every setting resolved. Reads no data.

    Raises:
        InputError: an unknown model, one that does not do the study's task, or a key that it does not know.
    """
    declared = study.variants[variant]
    where = f"study '{study.study}', variant '{variant}'"
    model = load_model(declared.model)
    if Task(study.task) not in model.tasks:
        done = ", ".join(sorted(model.tasks))
        raise InputError(f"{where}: model '{declared.model}' does not do the task '{study.task}', but: {done}")
    own: dict[str, Any] = {}
    other = {
        "training": dict(model.training_defaults),
        "data": study.data.model_dump(),
        "items": study.items.model_dump(),
    }
    layers = [study.common, study.datasets[dataset], declared.set, study.tuned.get(dataset, {}).get(variant, {})]
    if variant in study.references:
        layers[:2] = [{key: value for key, value in layer.items() if key.startswith("data.")} for layer in layers[:2]]
    for layer in layers:
        reached: dict[str, dict[str, Any]] = {part: {} for part in other}
        for key, value in layer.items():
            part, _, rest = key.partition(".")
            if rest and part in other:
                _put(reached[part], rest.split("."), value, f"{where}: '{key}'")
            elif rest:
                _put(own, key.split("."), value, f"{where}: '{key}'")
            else:
                own[key] = value
        other = {part: merged(other[part], reached[part]) for part in other}
    return Arm(
        variant=variant,
        model=model,
        model_name=declared.model,
        config=parse(model.Config, own, f"{where} (model '{declared.model}')", in_variant()),
        training=parse(TrainingConfig, other["training"], f"{where}, training"),
        data=parse(DataConfig, other["data"], f"{where}, data"),
        items=parse(ItemsConfig, other["items"], f"{where}, items"),
    )


def _put(values: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InputError(f"{where} can't be set where '{part}' is {values!r}, no mapping; drop one of the two")
    values[path[-1]] = value


def check_needs(arm: Arm, log: EventLog) -> None:
    """Raises InputError where the data lack what an arm needs, or its settings don't fit the data."""
    needs = arm.model.needs_with(arm.config)
    if needs.actions and not log.action_names:
        raise InputError(
            f"variant '{arm.variant}': model '{arm.model_name}' needs actions and data set '{log.name}' has none; "
            "declare them under data.actions, as in {like: 'rating >= 4'}"
        )
    if needs.times and log.time is None:
        raise InputError(
            f"variant '{arm.variant}': model '{arm.model_name}' needs event times as it is set, and data set "
            f"'{log.name}' has none; change the model's settings (time_bias: false, say) or choose another data set"
        )
    if arm.training.stride is not None and arm.training.stride > arm.data.max_length:
        raise InputError(
            f"variant '{arm.variant}': training.stride {arm.training.stride} is longer than data.max_length "
            f"{arm.data.max_length}, so events would be skipped; lower the stride"
        )
