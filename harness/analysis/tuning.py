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
A variant of a tuned data set that has no entry was not tuned: it had no trial. The ledger tells of a run's cells only
where they were trained with what it found; it need not be so, for a run may leave ``--tuned`` out, or be tuned again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.run_files import OUTSIDE
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.reading import shapes
from harness.reading.json_text import read_json

__all__ = ["border_distance", "equal_budgets", "ledger_table", "load_tuning", "mark_unequal", "own_trial"]

MARK = "†"


def load_tuning(run: Run) -> list[dict[str, Any]]:
    """The entries of ``tuning.json``; empty where the run was not tuned. Raises InputError for a damaged file."""
    path: Path = run.path / "tuning.json"
    if not path.exists():
        return []
    return read_json(path, shapes.Ledger, "tune the study again")


def equal_budgets(entries: list[dict[str, Any]]) -> bool:
    """Whether every variant was tuned with the same number of trials on each data set."""
    counts: dict[str, set[int]] = {}
    for entry in entries:
        counts.setdefault(entry["dataset"], set()).add(len(entry["trials"]))
    return all(len(found) == 1 for found in counts.values())


def mark_unequal(run: Run, entries: list[dict[str, Any]], table: Table) -> Table:
    """The table with a mark on each variant that was tuned with fewer trials than another, and a note that says so.

    References, which nothing is tested against, have none. Another note names the variants whose budget is unknown.
    """
    trials = {(d, v): _trials_behind(run, entries, d, v) for d in run.datasets for v in run.contenders}
    usual = {d: max((n or 0 for (dataset, _), n in trials.items() if dataset == d), default=0) for d in run.datasets}
    lines, short, unknown = [], [], []
    for line in table.lines:
        # A block is a data set, or begins with one; the line of a comparison is called ARM/THAN.
        there = [d for d in run.datasets if line.group.split(", ")[0] == d] or run.datasets
        variant = line.key.partition("/")[0]
        found = {d: trials[d, variant] for d in there if usual[d] and (d, variant) in trials}
        fewer = {d: n for d, n in found.items() if n is not None and n < usual[d]}
        lines.append(replace(line, label=f"{line.label} {MARK}") if fewer else line)
        where = {d: f"{line.label} on {d}" if len(run.datasets) > 1 else line.label for d in found}
        short += [f"{where[d]} {n} of {usual[d]}" for d, n in fewer.items()]
        unknown += [where[d] for d, n in found.items() if n is None]
    notes = list(table.notes)
    if short:
        notes.append(f"{MARK}: tuned with fewer trials than others ({'; '.join(short)}); the comparison is not fair.")
    if unknown:
        notes.append(f"With how many trials these were tuned is unknown: {'; '.join(unknown)}.")
    return replace(table, lines=tuple(lines), notes=tuple(notes))


def _trials_behind(run: Run, entries: list[dict[str, Any]], dataset: str, variant: str) -> int | None:
    """How many trials the settings of a variant's cells come from; None where the ledger does not tell."""
    for entry in entries:
        if (entry["dataset"], entry["variant"]) == (dataset, variant):
            return len(entry["trials"]) if _was_used(run, entry) else None
    outside = run.path / OUTSIDE
    if _tuned(run, dataset, variant) or (
        outside.exists() and variant in read_json(outside, shapes.Outside)["variants"]
    ):
        return None
    return 0


def _tuned(run: Run, dataset: str, variant: str) -> dict[str, Any]:
    """The settings that the run's design took from a tuning."""
    return ((run.study.get("tuned") or {}).get(dataset) or {}).get(variant) or {}


def _was_used(run: Run, entry: dict[str, Any]) -> bool:
    """Whether the run's cells are trained with the best settings of a search: by the design, or else by their cards."""
    best = _best(entry, lower_is_better(run.primary))
    if best is None:
        return False
    cells = run.ids(entry["dataset"], entry["variant"])
    return _tuned(run, entry["dataset"], entry["variant"]) == best["params"] or (
        bool(cells) and all(_has(run.cards[cell], best["params"]) for cell in cells)
    )


def _has(card: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a cell was trained with these settings."""
    for key, value in settings.items():
        names = key.split(".")
        found = card if len(names) > 1 and names[0] in ("training", "data", "items") else card.get("config")
        for name in names:
            if not isinstance(found, dict) or name not in found:
                return False
            found = found[name]
        if found != value:
            return False
    return True


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
        ends = (0.0, float(len(choices) - 1), float(sorted(choices).index(value)))
    else:
        scale = math.log if space.get("log") else float
        ends = (scale(space["low"]), scale(space["high"]), scale(value))
    low, high, at = ends
    return {"low": (at - low) / (high - low), "high": (high - at) / (high - low)}


def own_trial(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The trial of the study's own setting; None in a ledger from before there was one."""
    return next((trial for trial in entry["trials"] if trial.get("drawn") == "own"), None)


def _how_it_started(entries: list[dict[str, Any]]) -> str:
    """What the caption says of who chose the trials, and of when they were pruned; empty for an old ledger."""
    if not entries or any(own_trial(entry) is None for entry in entries):
        return ""
    random = _between(sum(trial["drawn"] == "random" for trial in entry["trials"]) for entry in entries)
    tpe = _between(sum(trial["drawn"] == "tpe" for trial in entry["trials"]) for entry in entries)
    others = (
        f"then come random draws, spread evenly over the space ({random}), then TPE's choices ({tpe})"
        if all(map(_is_in_order, entries))
        else f"of the others some are random draws ({random}) and some TPE's choices ({tpe}), in no fixed order"
    )
    first = dict.fromkeys((entry["cap"]["first_pruning"], entry["cap"]["epochs"]) for entry in entries)
    before = ", or ".join(f"{epoch} of {epochs}" for epoch, epochs in first)
    never = all(epoch >= epochs for epoch, epochs in first)
    return (
        f" Trial 1 is the study's own setting (own: it was the best); {others}; none was pruned for its values"
        f"{'' if never else f' before epoch {before}'}. A limit of the model itself is no border."
    )


def _is_in_order(entry: dict[str, Any]) -> bool:
    """Whether TPE chose no trial before a random one, as it did where the search was given more trials later."""
    order = [("own", "random", "tpe").index(trial["drawn"]) for trial in entry["trials"]]
    return order == sorted(order)


def _what_time_cut(entries: list[dict[str, Any]]) -> str:
    """What the caption says of a cap of seconds; empty where there was none."""
    caps = sorted({seconds for entry in entries if (seconds := entry.get("cap", {}).get("seconds")) is not None})
    if not caps:
        return ""
    which = "A search" if all(entry.get("cap", {}).get("seconds") is not None for entry in entries) else "Some searches"
    return (
        f" {which} ended with the epoch in which {', or '.join(f'{seconds:g}' for seconds in caps)} seconds were "
        "spent, if it had not before; a trial that this cut counts as pruned."
    )


def _between(counts: Iterable[int]) -> str:
    """The count that all have, or the least and the most."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def ledger_table(run: Run, entries: list[dict[str, Any]]) -> Table:
    """Trials, epochs, seconds and the border of each search; unequal budgets are marked."""
    lower = lower_is_better(run.primary)
    starts = _how_it_started(entries)
    compared = [entry for entry in entries if entry["variant"] not in (run.study.get("references") or ())]
    usual: dict[str, int] = {}
    for entry in compared:
        usual[entry["dataset"]] = max(len(entry["trials"]), usual.get(entry["dataset"], 0))
    any_failed = any(trial["state"] == "failed" for entry in entries for trial in entry["trials"])
    heads = (
        Column("trials", "Trials"),
        Column("pruned", "Pruned"),
        *([Column("failed", "Failed")] if any_failed else []),
        Column("epochs", "Epochs"),
        Column("seconds", "Seconds"),
        *([Column("own", f"Own {metric_label(run.primary)}")] if starts else []),
        Column("best", f"Best {metric_label(run.primary)}"),
        Column("best_trial", "In trial"),
        Column("border", "Nearest border", align="l"),
    )
    lines, other = [], []
    for entry in entries:
        fewer = entry in compared and len(entry["trials"]) < usual[entry["dataset"]]
        found = _search(entry, lower, bool(starts))
        shown = [found[head.key] for head in heads]
        if fewer:
            shown[0] = replace(shown[0], mark=MARK)
        label = run.label(entry["variant"])
        lines.append(Line(entry["variant"], label, tuple(shown), entry["dataset"]))
        trained = run.ids(entry["dataset"], entry["variant"])
        if trained and _best(entry, lower) is not None and not _was_used(run, entry):
            other.append(f"The cells of {label} on {entry['dataset']} were not trained with these settings.")
    caption = (
        f"Tuning ledger: what each search cost, its best validation {metric_label(run.primary)}, and how near the best "
        "point lies to the border of its space (0: on it, 0.5: in the middle), for the parameter that is nearest."
        f"{starts}{_what_time_cut(entries)}"
    )
    mark = f"{MARK}: fewer trials than others; the comparison of what was found is not fair."
    notes = (*(() if equal_budgets(compared) else (mark,)), *other)
    return Table("tuning", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-tuning")


def _search(entry: dict[str, Any], lower: bool, knows_own: bool) -> dict[str, Entry]:
    """What one search cost and found, by the keys of the ledger's columns."""
    trials = entry["trials"]
    pruned = sum(t["state"] == "pruned" for t in trials)
    failed = sum(t["state"] == "failed" for t in trials)
    epochs = sum(t.get("epochs") or 0 for t in trials)
    seconds = sum(t.get("seconds") or 0.0 for t in trials)
    found = {
        "trials": Entry(str(len(trials)), len(trials)),
        "pruned": Entry(str(pruned), pruned),
        "failed": Entry(str(failed), failed),
        "epochs": Entry(str(epochs), epochs),
        "seconds": Entry(fixed(seconds, 0), seconds),
    }
    own = own_trial(entry) if knows_own else None
    if knows_own:
        own_value = None if own is None else own["value"]
        found["own"] = Entry(fixed(own_value, 4), own_value)
    best = _best(entry, lower)
    if best is None:
        nothing = Entry("–")
        return found | {"best": Entry(fixed(None, 4)), "best_trial": nothing, "border": nothing}
    number = best["number"] + 1
    found["best"] = Entry(fixed(best["value"], 4), best["value"])
    found["best_trial"] = Entry(f"{number}{' (own)' if best is own else ''}", number)
    distances = border_distance(entry, lower)
    nearest = min(distances, key=lambda name: distances[name], default=None)
    found["border"] = (
        Entry("–") if nearest is None else Entry(f"{fixed(distances[nearest], 2)} ({nearest})", distances[nearest])
    )
    return found


def _best(entry: dict[str, Any], lower: bool) -> dict[str, Any] | None:
    done = [t for t in entry["trials"] if t["state"] == "complete" and t["value"] is not None]
    return (min if lower else max)(done, key=lambda t: t["value"], default=None)
