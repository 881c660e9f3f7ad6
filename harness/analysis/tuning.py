"""The fairness ledger of tuning: was every model given the same budget, and did its search end inside its space?

``tuning.json`` of a run is a list with one entry per data set and variant::

    {"dataset": "ml-100k", "variant": "fair",
     "space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": true, "closed": []},
               "layers": {"choices": [1, 2, 3], "closed": ["low"]}},
     "cap": {"trials": 8, "epochs": 12, "seconds": null, "first_pruning": 6},
     "trials": [{"number": 0, "drawn": "own", "state": "complete", "value": 0.05, "epochs": 12, "seconds": 80.1,
                 "params": {...}, "curve": [[1, 0.01], ...]}, ...]}

``drawn`` is "own" (the study's own setting), "random" or "tpe"; ``state`` is "complete", "pruned" or "failed";
``value`` is the primary metric on validation, null where there is none. ``closed`` names the ends of a space beyond
which the model takes no value. Ledgers that were written before lack ``drawn``, ``closed`` and ``first_pruning``.
A variant of a tuned data set that has no entry was not tuned: it had no trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.tables import Column, Entry, Line, Table, fixed
from harness.errors import InputError
from harness.files import read_json

__all__ = ["border_distance", "equal_budgets", "ledger_table", "load_tuning", "mark_unequal", "own_trial"]

MARK = "†"


def load_tuning(run: Run) -> list[dict[str, Any]]:
    """The entries of ``tuning.json``; empty where the run was not tuned. Raises InputError for a damaged file."""
    path: Path = run.path / "tuning.json"
    if not path.exists():
        return []
    entries = read_json(path)
    for entry in entries:
        missing = [key for key in ("dataset", "variant", "space", "trials") if key not in entry]
        if missing:
            raise InputError(f"{path}: an entry lacks '{missing[0]}'; tune the study again")
    return entries


def equal_budgets(entries: list[dict[str, Any]]) -> bool:
    """Whether every variant was tuned with the same number of trials on each data set."""
    counts: dict[str, set[int]] = {}
    for entry in entries:
        counts.setdefault(entry["dataset"], set()).add(len(entry["trials"]))
    return all(len(found) == 1 for found in counts.values())


def mark_unequal(run: Run, entries: list[dict[str, Any]], table: Table) -> Table:
    """The table with a mark on each variant that was tuned with fewer trials than another, and a note that says so."""
    trials = {(e["dataset"], e["variant"]): len(e["trials"]) for e in entries}
    usual = {d: max((n for (dataset, _), n in trials.items() if dataset == d), default=0) for d in run.datasets}
    lines, short = [], []
    for line in table.lines:
        there = [line.group] if line.group else run.datasets
        fewer = [d for d in there if trials.get((d, line.key), 0) < usual[d]]
        lines.append(replace(line, label=f"{line.label} {MARK}") if fewer else line)
        for d in fewer:
            where = f" on {d}" if len(run.datasets) > 1 else ""
            short.append(f"{line.label}{where} {trials.get((d, line.key), 0)} of {usual[d]}")
    if not short:
        return table
    note = f"{MARK}: tuned with fewer trials than others ({'; '.join(short)}); the comparison is not fair."
    return replace(table, lines=tuple(lines), notes=(*table.notes, note))


def border_distance(entry: dict[str, Any], lower: bool) -> dict[str, float]:
    """How far inside its range each parameter of the best trial lies: 0 on the border, 0.5 in the middle.

    Three or more choices that are numbers are a range, by their order; other choices have no border. Neither has an end
    that the model's own limits close: the space could not be wider there.
    """
    best = _best(entry, lower)
    found = {}
    for name, space in entry["space"].items():
        ends = {} if best is None else _distances(space, best["params"][name])
        if inside := [distance for end, distance in ends.items() if end not in space.get("closed", ())]:
            found[name] = min(0.5, *inside)
    return found


def _distances(space: dict[str, Any], value: Any) -> dict[str, float]:
    """How far from each end of its space a value lies, 1 being the width; empty where the space has no order."""
    if "choices" in space:
        choices = space["choices"]
        if len(choices) < 3 or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in choices):
            return {}
        low, high, value = 0, len(choices) - 1, sorted(choices).index(value)
    else:
        scale = math.log if space.get("log") else float
        low, high, value = (scale(x) for x in (space["low"], space["high"], value))
    return {"low": (value - low) / (high - low), "high": (high - value) / (high - low)}


def own_trial(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The trial of the study's own setting; None in a ledger from before there was one."""
    return next((trial for trial in entry["trials"] if trial.get("drawn") == "own"), None)


def _how_it_started(entries: list[dict[str, Any]]) -> str:
    """What the caption says of who chose the trials, and of when they were pruned; empty for an old ledger."""
    if not entries or any(own_trial(entry) is None for entry in entries):
        return ""
    random = _between(sum(trial["drawn"] == "random" for trial in entry["trials"]) for entry in entries)
    tpe = _between(sum(trial["drawn"] == "tpe" for trial in entry["trials"]) for entry in entries)
    cap = entries[0]["cap"]
    pruning = (
        f"none was pruned before epoch {cap['first_pruning']} of {cap['epochs']}"
        if cap["first_pruning"] < cap["epochs"]
        else "none was pruned for its values"
    )
    return (
        f" Trial 1 is the study's own setting (own: it was the best); then come random draws, spread evenly over "
        f"the space ({random}), then TPE's choices ({tpe}); {pruning}. A limit of the model itself is no border."
    )


def _between(counts: Iterable[int]) -> str:
    """The count that all have, or the least and the most."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def ledger_table(run: Run, entries: list[dict[str, Any]]) -> Table:
    """Trials, epochs, seconds and the border of each search; unequal budgets are marked."""
    lower = lower_is_better(run.primary)
    usual = max((len(e["trials"]) for e in entries), default=0)
    starts = _how_it_started(entries)
    lines = []
    for entry in entries:
        trials = entry["trials"]
        best = _best(entry, lower)
        distances = border_distance(entry, lower)
        nearest = min(distances, key=distances.get) if distances else None
        pruned = sum(t["state"] == "pruned" for t in trials)
        epochs = sum(t.get("epochs") or 0 for t in trials)
        seconds = sum(t.get("seconds") or 0.0 for t in trials)
        own = own_trial(entry) if starts else None
        own_value = None if own is None else own["value"]
        is_own = best is not None and best is own
        entries_ = (
            Entry(str(len(trials)), len(trials), mark=MARK if len(trials) != usual else ""),
            Entry(str(pruned), pruned),
            Entry(str(epochs), epochs),
            Entry(fixed(seconds, 0), seconds),
            *([Entry(fixed(own_value, 4), own_value)] if starts else []),
            Entry(fixed(best and best["value"], 4), best and best["value"]),
            Entry(
                "–" if best is None else f"{best['number'] + 1}{' (own)' if is_own else ''}",
                best and best["number"] + 1,
            ),
            Entry(
                "–" if nearest is None else f"{fixed(distances[nearest], 2)} ({nearest})",
                nearest and distances[nearest],
            ),
        )
        lines.append(Line(entry["variant"], run.label(entry["variant"]), entries_, entry["dataset"]))
    heads = (
        Column("trials", "Trials"),
        Column("pruned", "Pruned"),
        Column("epochs", "Epochs"),
        Column("seconds", "Seconds"),
        *([Column("own", f"Own {metric_label(run.primary)}")] if starts else []),
        Column("best", f"Best {metric_label(run.primary)}"),
        Column("best_trial", "In trial"),
        Column("border", "Nearest border", align="l"),
    )
    caption = (
        f"Tuning ledger: what each search cost, its best validation {metric_label(run.primary)}, and how near the best "
        "point lies to the border of its space (0: on it, 0.5: in the middle), for the parameter that is nearest."
        f"{starts}"
    )
    notes = () if equal_budgets(entries) else (f"{MARK}: fewer trials than others; the comparison is not fair.",)
    return Table("tuning", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-tuning")


def _best(entry: dict[str, Any], lower: bool) -> dict[str, Any] | None:
    done = [t for t in entry["trials"] if t["state"] == "complete" and t["value"] is not None]
    return (min if lower else max)(done, key=lambda t: t["value"], default=None)
