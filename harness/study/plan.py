"""What a study will cost and what it can find out, before anything is trained.

Costs come from the records of earlier cells, the spread over seeds from their rows. What no earlier run tells is None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.comparisons import margin_in_units
from harness.analysis.power import (
    achieved_power,
    detectable_difference,
    deviation_limits,
    pilot_deviation,
    refusal,
    seeds_needed,
    smallest_p,
)
from harness.analysis.rows import Run, load_run
from harness.analysis.run_files import read_looks
from harness.errors import InputError
from harness.files import read_json
from harness.reading import shapes
from harness.study.cells import draws_of, make_arm, resolved
from harness.study.design import Study

__all__ = ["ALPHA", "POWER", "ArmPlan", "ComparisonPlan", "Plan", "make_plan"]

ALPHA, POWER = 0.05, 0.8
SECONDS = ("data_seconds", "train_seconds", "evaluation_seconds")


@dataclass(frozen=True)
class ArmPlan:
    """The cells of a variant on a data set."""

    dataset: str
    variant: str
    cells: int
    finished: int
    """Those that the run's folder holds already."""
    seconds: float | None
    """Of one cell."""
    memory_bytes: float | None
    """The peak of one cell."""
    basis: str
    """The records that the two come from; empty where there are none."""


@dataclass(frozen=True)
class ComparisonPlan:
    """A declared comparison, as far as a pilot tells what it can see."""

    dataset: str
    variant: str
    than: str
    """The variant that it is compared with."""
    pilot: str
    """The run that the pilot's rows come from; empty where there is none."""
    pilot_seeds: int
    base: float | None
    """The mean of ``than`` in the pilot."""
    deviation: float | None
    """Standard deviation of the paired differences over the pilot's seeds."""
    deviation_upper: float | None
    """Its upper 80 % limit, which the numbers below are planned with: a small pilot knows its spread badly."""
    detectable: float | None
    """The smallest true difference that the paired t-test over seeds finds with a probability of ``POWER``."""
    difference: float | None
    """The difference that was asked for, else the study's equivalence margin; None without either."""
    power: tuple[float, float] | None
    """The chance to find ``difference``, if the true deviation is its upper or its lower 80 % limit."""
    seeds_needed: int | None
    """Seeds that find ``difference`` with a probability of ``POWER``; None without one, or where no number does."""


@dataclass(frozen=True)
class Plan:
    """The cells of a study with what they will cost, and what its comparisons can find out."""

    arms: tuple[ArmPlan, ...]
    comparisons: tuple[ComparisonPlan, ...]
    """The family: Holm's correction is for as many comparisons."""
    smallest_p: float | None
    """The smallest p, Holm's correction applied, that the study's test can reach; None where nothing is tested."""
    refusal: str | None
    """Why no comparison could ever be significant; None where one could."""
    looks: tuple[int, ...] = ()
    """With how many seeds the run's verdicts were looked at before."""

    @property
    def left(self) -> int:
        """Cells that are not finished."""
        return sum(arm.cells - arm.finished for arm in self.arms)

    @property
    def seconds_left(self) -> float | None:
        """Of one worker, for all cells that are not finished; None where some arm's are unknown."""
        total: float = 0
        for arm in self.arms:
            if arm.cells > arm.finished:
                if arm.seconds is None:
                    return None
                total += (arm.cells - arm.finished) * arm.seconds
        return total


def make_plan(study: Study, results: Path, run: str, difference: float | None = None) -> Plan:
    """The plan of a study whose run would be ``results / run``. Reads earlier runs below ``results``, and no data.

    ``difference``: how many seeds it takes to see this difference in the primary metric.

    Raises:
        InputError: a model that is unknown or does not do the task, or a setting that it does not know.
    """
    wanted = {(d, v): resolved(study, d, make_arm(study, d, v)) for d in study.datasets for v in study.variants}
    records = list(_records(results))
    arms = tuple(_arm_plan(study, d, v, wanted[d, v], records, results / run) for d, v in wanted)
    pairs = [(d, arm, than) for d in study.datasets for arm, than in study.pairs]
    if not pairs:
        return Plan(arms, (), None, None)
    pilots = list(_pilots(results, study))
    comparisons = tuple(_comparison_plan(study, *pair, wanted, pilots, len(pairs), difference) for pair in pairs)
    # Under Benjamini-Hochberg's correction the smallest p of a family may stay as it is: where all are that small.
    design = (len(study.seeds), study.test, len(pairs) if study.correction == "holm" else 1)
    looks = tuple(read_looks(results / run))
    smallest = min(1.0, smallest_p(*design) * study.looks)
    return Plan(arms, comparisons, smallest, refusal(*design, ALPHA / study.looks), looks)


@dataclass(frozen=True)
class _Record:
    folder: Path
    card: dict[str, Any]
    cost: dict[str, Any]


def _records(results: Path) -> Iterator[_Record]:
    """Every finished cell below ``results`` that was trained here."""
    for path in sorted(results.glob("*/cells/*/cell.json")):
        try:
            card, cost = read_json(path, shapes.Card), read_json(path.parent / "cost.json", shapes.Cost)
        except InputError:  # a damaged record of another run is no reason not to plan this one
            continue
        if all(cost.get(part) is not None for part in (*SECONDS, "epochs")):
            yield _Record(path.parents[2], card, cost)


def _arm_plan(
    study: Study, dataset: str, variant: str, wanted: dict[str, Any], records: list[_Record], run: Path
) -> ArmPlan:
    same = [r for r in records if _same(r.card, wanted)]
    cells = set(product(study.seeds, range(draws_of(study, make_arm(study, dataset, variant)))))
    finished = len(cells & {(r.card["seed"], r.card.get("draw", 0)) for r in same if r.folder == run})
    alike = [r for r in records if (r.card["model"], r.card["dataset"]) == (wanted["model"], dataset)]
    seconds = memory = None
    basis = ""
    if same:
        seconds = float(np.mean([_seconds(r) for r in same]))
        basis = f"{_count(same)} with these settings"
    elif alike:
        seconds = float(np.mean([_seconds(r) / max(r.cost["epochs"], 1) for r in alike])) * study.budget.epochs
        basis = f"{_count(alike)} of this model with other settings, for all {study.budget.epochs} epochs"
    found = [r.cost["peak_memory_bytes"] for r in same or alike if r.cost.get("peak_memory_bytes")]
    if found:
        memory = float(max(found))
    return ArmPlan(dataset, variant, len(cells), finished, seconds, memory, basis)


def _same(card: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(card.get(key) == value for key, value in wanted.items())


def _seconds(record: _Record) -> float:
    return sum(record.cost[part] for part in SECONDS)


def _count(records: list[_Record]) -> str:
    return f"{len(records)} cell{'s' * (len(records) > 1)}"


def _pilots(results: Path, study: Study) -> Iterator[Run]:
    """Earlier runs of the same task. Smoke runs are left out: their spread over seeds is not that of a training."""
    for path in sorted(results.glob("*/study.yaml")):
        if path.parent.name.endswith("-smoke"):
            continue
        try:
            run = load_run(path.parent)
        except InputError:  # nothing finished, or damaged
            continue
        if run.task == study.task:
            yield run


def _comparison_plan(
    study: Study,
    dataset: str,
    variant: str,
    than: str,
    wanted: dict[tuple[str, str], dict[str, Any]],
    pilots: list[Run],
    comparisons: int,
    difference: float | None,
) -> ComparisonPlan:
    best: tuple[tuple[bool, int], str, np.ndarray, float] | None = None
    for run in pilots:
        arm, base_arm = (_stands_for(run, study, dataset, v, wanted[dataset, v]) for v in (variant, than))
        if arm is None or base_arm is None:
            continue
        (ours, same), (theirs, same_base) = arm, base_arm
        differences, base = _differences(run, study, dataset, ours, theirs)
        quality = (same and same_base, len(differences))
        if len(differences) > 1 and differences.std() > 0 and (best is None or quality > best[0]):
            best = quality, run.path.name, differences, base
    if best is None:
        return ComparisonPlan(dataset, variant, than, "", 0, None, None, None, None, None, None, None)
    _, pilot, differences, base = best
    deviation = pilot_deviation(differences)
    limits = deviation_limits(deviation, len(differences))
    alpha = ALPHA / study.looks
    wanted_difference = margin_in_units(study.equivalence_margin, base) if difference is None else difference
    power = needed = None
    if wanted_difference is not None:
        least, most = (
            achieved_power(wanted_difference, sd, len(study.seeds), alpha=alpha, comparisons=comparisons)
            for sd in limits[::-1]
        )
        power = least, most
        needed = seeds_needed(wanted_difference, limits[1], power=POWER, alpha=alpha, comparisons=comparisons)
    return ComparisonPlan(
        dataset=dataset,
        variant=variant,
        than=than,
        pilot=pilot,
        pilot_seeds=len(differences),
        base=base,
        deviation=deviation,
        deviation_upper=limits[1],
        detectable=detectable_difference(
            limits[1], len(study.seeds), power=POWER, alpha=alpha, comparisons=comparisons
        ),
        difference=wanted_difference,
        power=power,
        seeds_needed=needed,
    )


def _stands_for(run: Run, study: Study, dataset: str, variant: str, wanted: dict[str, Any]) -> tuple[str, bool] | None:
    """The variant of ``run`` with the same settings (True), or that of the same name in a run of the same study."""
    for name in run.variants:
        if any(_same(run.cards[cell], wanted) for cell in run.ids(dataset, name)):
            return name, True
    if run.name == study.study and any(run.cards[c]["model"] == wanted["model"] for c in run.ids(dataset, variant)):
        return variant, False
    return None


def _differences(run: Run, study: Study, dataset: str, variant: str, than: str) -> tuple[np.ndarray, float]:
    """(S,) differences in the primary metric over the seeds that both have, and the mean of ``than``."""
    options = {"candidates": study.candidates} if study.task == "retrieval" else {}
    try:
        ours, theirs = (run.by_seed(dataset, v, study.primary, **options) for v in (variant, than))
    except InputError:  # the pilot does not know the metric's action, or a file of it is damaged
        return np.empty(0), float("nan")
    pairs = np.array([(ours[seed], theirs[seed]) for seed in ours if seed in theirs]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[:, 0] - pairs[:, 1], float(pairs[:, 1].mean()) if len(pairs) else float("nan")
