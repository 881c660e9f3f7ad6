"""What tuning leaves: ``tuning.json``, its ledger, and ``tuned.yaml``, the study with the best settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from harness.errors import InputError
from harness.files import write_json, write_text
from harness.reading import shapes
from harness.reading.json_text import read_json
from harness.study.cells import make_arm, resolved
from harness.study.design import Space, Study
from harness.study.loading import load_study
from harness.study.search import Search, first_pruning, with_settings
from harness.study.trials import Budget, finalists

__all__ = ["LEDGER", "TUNED", "closed_ends", "entry_of", "write_ledger"]

LEDGER, TUNED = "tuning.json", "tuned.yaml"


def write_ledger(
    folder: Path, study: Study, entries: list[dict[str, Any]], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Writes both files. They keep what they hold of variants and data sets of the same design that were not searched
    now. Returns all entries."""
    study, entries = _with_earlier(folder, study, entries, say)
    write_json(folder / LEDGER, entries)
    _write_tuned(folder / TUNED, study, entries)
    return entries


def entry_of(
    search: Search, study: Study, budget: Budget, trials: list[dict[str, Any]], runs: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """What the ledger says of a search that has ended, with the ``runs`` that confirm its best trials."""
    done = [trial for trial in trials if trial["state"] == "complete"]
    if not done:
        why = f"the last one: {trials[-1].get('reason') or trials[-1]['state']}" if trials else "none was started"
        raise InputError(
            f"no trial of {search.name} was finished ({why}); fix its search space, or give it more trials or time"
        )
    numbers = finalists(study, budget, trials)
    confirming = [run for run in runs if run["trial"] in numbers]
    best = trials[_chosen(search, study, {number: trials[number]["value"] for number in numbers}, confirming)]
    return {
        "dataset": search.dataset,
        "variant": search.variant,
        "space": {
            key: space.described() | {"closed": closed_ends(study, search, key, space)}
            for key, space in search.space.items()
        },
        "cap": {
            "trials": budget.trials,
            "epochs": study.budget.epochs,
            "seconds": budget.seconds,
            "first_pruning": first_pruning(study),
        },
        "best": best["params"],
        "chosen": best["number"],
        "confirm": study.confirm.model_dump(mode="json") if study.confirm else None,
        "confirmed": [{key: value for key, value in run.items() if key != "curve"} for run in confirming],
        "trials": trials,
    }


def _chosen(search: Search, study: Study, finalists: dict[int, float], runs: list[dict[str, Any]]) -> int:
    """The number of the finalist with the best mean over all of its runs, that of the search, whose value
    ``finalists`` gives, among them; the best one of the search where none is confirmed.

    Raises:
        InputError: each of them failed with some seed.
    """
    if study.confirm is None:
        return next(iter(finalists))
    means = {}
    for number, first in finalists.items():
        values = [run["value"] for run in runs if run["trial"] == number]
        if values and None not in values:
            means[number] = (first + sum(values)) / (1 + len(values))
    if not means:
        why = next((run["reason"] for run in runs if "reason" in run), "none was run")
        raise InputError(
            f"none of the best trials of {search.name} trains with every seed ({why}); narrow its search space, or set "
            "`confirm: null`"
        )
    return (max if study.higher_is_better else min)(means, key=lambda number: means[number])


def closed_ends(study: Study, search: Search, key: str, space: Space) -> list[str]:
    """Which ends of a range, or of choices that are numbers, no space can reach beyond: the model refuses what lies
    there (a dropout below 0, say)."""
    values = space.ends()
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return []
    low, high = min(values), max(values)
    beyond: dict[str, tuple[float, ...]]
    if all(isinstance(value, int) for value in values):
        # Also half and twice the end: a width that is split among heads takes no odd number.
        beyond = {"low": (low - 1, low // 2), "high": (high + 1, high * 2)}
    else:
        beyond = {"low": (low - 1e-6 * abs(low or high),), "high": (high + 1e-6 * abs(high or low),)}

    def is_taken(value: float) -> bool:
        settings = search.own | {key: value}
        try:
            make_arm(with_settings(study, search.dataset, search.variant, settings), search.dataset, search.variant)
        except InputError:
            return False
        return True

    return [end for end, values in beyond.items() if not any(map(is_taken, values))]


def _with_earlier(
    folder: Path, study: Study, entries: list[dict[str, Any]], say: Callable[[str], None]
) -> tuple[Study, list[dict[str, Any]]]:
    """The study with the data sets, and the entries with those, of earlier searches that still hold."""
    if not ((folder / LEDGER).exists() and (folder / TUNED).exists()):
        return study, entries
    try:
        earlier, known = load_study(str(folder / TUNED)), read_json(folder / LEDGER, shapes.Ledger)
    except InputError as error:
        say(f"nothing is kept of earlier searches: {error}")
        return study, entries
    wider = study.model_copy(update={"datasets": {**earlier.datasets, **study.datasets}})
    searched = {(entry["dataset"], entry["variant"]) for entry in entries}
    kept = []
    for entry in known:
        dataset, variant = entry["dataset"], entry["variant"]
        if (dataset, variant) in searched:
            continue
        if _is_same_design(earlier, wider, dataset, variant):
            kept.append(entry)
        else:
            say(f"the earlier search of {dataset} / {variant} is left out: it was of another design")
    if not kept:
        return study, entries
    there = {*study.datasets, *(entry["dataset"] for entry in kept)}
    if there != set(study.datasets):
        study = study.model_copy(update={"datasets": {d: own for d, own in wider.datasets.items() if d in there}})
    order = {pair: i for i, pair in enumerate(product(study.datasets, dict.fromkeys([*study.search, *study.variants])))}
    return study, sorted([*kept, *entries], key=lambda entry: order[entry["dataset"], entry["variant"]])


def _is_same_design(one: Study, other: Study, dataset: str, variant: str) -> bool:
    """Whether two studies declare a variant on a data set, and mean the same untuned training by it."""
    found = []
    for study in (one, other):
        if dataset not in study.datasets or variant not in study.variants:
            return False
        untuned = study.model_copy(update={"tuned": {}})
        try:
            found.append(resolved(untuned, dataset, make_arm(untuned, dataset, variant)))
        except InputError:
            return False
    return found[0] == found[1]


def _write_tuned(path: Path, study: Study, entries: list[dict[str, Any]]) -> None:
    tuned: dict[str, dict[str, Any]] = {}
    for entry in entries:
        tuned.setdefault(entry["dataset"], {})[entry["variant"]] = entry["best"]
    found = study.model_copy(update={"tuned": tuned}).model_dump(mode="json")
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=110)
    write_text(path, f"# The study with the settings that its tuning found; {LEDGER} tells how.\n{text}")
