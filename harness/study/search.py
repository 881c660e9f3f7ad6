"""What a search looks for, and how the settings of its trials are chosen.

The first trial of a search is the study's own setting, so that what is found is never worse on validation than what
was there. Random draws follow, spread evenly over the space (a Latin hypercube), until half of the trials (ten at most)
have been: :func:`first_trials`. Optuna's TPE chooses the others from all before it. Once five trials are complete, one
that has trained the study's ``prune_after`` of its epochs is pruned if its best value so far is worse than the median
of theirs at that epoch.

A trial's settings are a function of its number, of how many there are to be and of the trials before it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from harness.data.config import DataConfig
from harness.errors import InputError
from harness.files import digest
from harness.study.cells import Arm, Inputs, make_arm, make_cells, resolved
from harness.study.design import Space, Study

__all__ = ["SEED", "Search", "ask", "drawn_by", "first_pruning", "first_trials", "searches", "with_settings"]

SEED = 1_000_000
"""Trials train with a seed that no study has: nothing is chosen for the luck of a seed that is reported later."""
RULES = 2
"""How trials are chosen and pruned; raised when that changes, so that no search goes on from trials of other rules."""
MOST_CORNERS = 1000
MOST_FIRST_TRIALS = 10
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Search:
    """The search for the settings of one variant on one data set."""

    id: str
    dataset: str
    variant: str
    space: dict[str, Space]
    own: dict[str, Any]
    """What the study sets where nothing is tuned: the first trial."""

    @property
    def name(self) -> str:
        return f"{self.dataset} / {self.variant}"


def searches(study: Study, inputs: Inputs) -> list[Search]:
    """The searches that a study declares.

    Raises:
        InputError: it declares none, a setting is unknown or does not take a value of its space, the study's own
            setting lies outside, or the data can't be used.
    """
    if not any(study.search.values()):
        raise InputError(
            f"study '{study.study}' declares no search; add one, as in "
            "search: {VARIANT: {training.learning_rate: {low: 0.0001, high: 0.01, log: true}}}"
        )
    study = study.model_copy(update={"tuned": {}})
    make_cells(study, inputs)  # refuses here what would fail in every trial
    found = []
    for dataset in study.datasets:
        for variant, space in study.search.items():
            if not space:
                continue
            _check_space(study, dataset, variant, space)
            arm = make_arm(study, dataset, variant)
            own = _own_setting(study, dataset, arm, space)
            _, split = inputs.split(dataset, arm.data)
            spaces = {key: values.described() for key, values in space.items()}
            rules = [RULES, study.prune_after]
            identity = digest([resolved(study, dataset, arm), split.fingerprint, spaces, SEED, rules])[:16]
            found.append(Search(identity, dataset, variant, space, own))
    return found


def _check_space(study: Study, dataset: str, variant: str, space: dict[str, Space]) -> None:
    """Raises InputError where a setting must not be searched, or no corner of the space is possible."""
    where = f"study '{study.study}', search of '{variant}'"
    for key in space:
        part, _, rest = key.partition(".")
        if part == "data" and rest != "max_length" and rest in DataConfig.model_fields:
            raise InputError(f"{where}: '{key}' decides what is measured, so it can't be searched; take it out")
    refusal = None
    for corner in islice(product(*(values.ends() for values in space.values())), MOST_CORNERS):
        try:
            make_arm(with_settings(study, dataset, variant, dict(zip(space, corner, strict=True))), dataset, variant)
            return
        except InputError as error:
            refusal = refusal or error
    raise InputError(f"{where}: {refusal}") from refusal


def _own_setting(study: Study, dataset: str, arm: Arm, space: dict[str, Space]) -> dict[str, Any]:
    """What an untuned arm has for the searched settings. Raises InputError where that lies outside their spaces."""
    own = {}
    for key, values in space.items():
        part, _, rest = key.partition(".")
        other = {"training": arm.training, "data": arm.data, "items": arm.items}.get(part) if rest else None
        found: Any = (other or arm.config).model_dump()
        for name in (rest if other else key).split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if not values.holds(found):
            given = {name: value for name, value in values.described().items() if value is not False}
            raise InputError(
                f"study '{study.study}', search of '{arm.variant}' on '{dataset}': the study's own {key}, "
                f"{json.dumps(found)}, is not in {json.dumps(given)}, and the first trial takes it; widen the space, "
                "or set another value for the variant"
            )
        own[key] = found
    return own


def with_settings(study: Study, dataset: str, variant: str, settings: dict[str, Any]) -> Study:
    return study.model_copy(update={"tuned": {dataset: {variant: settings}}})


def first_trials(trials: int | None) -> int:
    """How many of a search's trials TPE does not choose: the study's own setting, and random draws after it. ``trials``
    is None where seconds alone end the search."""
    return MOST_FIRST_TRIALS if trials is None else max(1, min(MOST_FIRST_TRIALS, trials // 2))


def drawn_by(number: int, trials: int | None) -> Literal["own", "random", "tpe"]:
    """Who chooses the settings of a trial of a search of ``trials``."""
    if number == 0:
        return "own"
    return "random" if number < first_trials(trials) else "tpe"


def first_pruning(study: Study) -> int:
    """The first epoch after which a trial may be pruned."""
    return math.ceil(round(study.prune_after * study.budget.epochs, 6))


def _spread(space: dict[str, Space], count: int) -> list[dict[str, Any]]:
    """Random settings, each setting's values spread evenly over its space: a Latin hypercube."""
    random = np.random.default_rng(SEED)
    shares = {key: (random.permutation(count) + random.random(count)) / count for key in space}
    return [{key: values.at(float(shares[key][i])) for key, values in space.items()} for i in range(count)]


def ask(study: Study, search: Search, past: list[dict[str, Any]], trials: int | None) -> optuna.Trial:
    """Optuna's next trial of ``trials`` after ``past``, which is all that it knows."""
    distributions = {key: _distribution(space) for key, space in search.space.items()}
    made = optuna.create_study(
        direction="maximize" if study.higher_is_better else "minimize",
        # None of TPE's own random start: it leaves out trials that failed, so it could go on to the last one.
        sampler=optuna.samplers.TPESampler(seed=SEED + len(past), n_startup_trials=0),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=first_pruning(study)),
    )
    for trial in past:
        made.add_trial(
            optuna.trial.create_trial(
                state=STATES[trial["state"]],
                value=trial["value"],
                params=trial["params"],
                distributions=distributions,
                intermediate_values=dict(map(tuple, trial["curve"])),
            )
        )
    drawn = drawn_by(len(past), trials)
    if drawn != "tpe":
        draws = _spread(search.space, first_trials(trials) - 1)
        made.enqueue_trial(search.own if drawn == "own" else draws[len(past) - 1])
    return made.ask(distributions)


def _distribution(space: Space) -> BaseDistribution:
    if space.choices is not None:
        return CategoricalDistribution(space.choices)
    low, high = space.range
    if space.whole:
        return IntDistribution(int(low), int(high), log=space.log)
    return FloatDistribution(low, high, log=space.log)
