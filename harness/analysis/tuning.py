"""The fairness ledger of tuning: was every model given the same budget, and did its search end inside its space?

``tuning.json`` of a run is a list with one entry per data set and variant::

    {"dataset": "ml-100k", "variant": "fair",
     "space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": true, "closed": []},
               "layers": {"choices": [1, 2, 3], "closed": ["low"]}},
     "cap": {"trials": 8, "epochs": 12, "seconds": null, "first_pruning": 6},
     "trials": [{"number": 0, "drawn": "own", "state": "complete", "value": 0.05, "epochs": 12, "seconds": 80.1,
                 "params": {...}, "curve": [[1, 0.01], ...]}, ...],
     "confirm": {"top": 3, "seeds": 3}, "chosen": 0,
     "confirmed": [{"trial": 0, "seed": 1000001, "state": "complete", "value": 0.048, "epochs": 12, "seconds": 80.3}]}

``drawn`` is "own" (the study's own setting), "random" or "tpe"; ``state`` is "complete", "pruned" or "failed";
``value`` is the primary metric on validation, null where there is none. ``closed`` names the ends of a space beyond
which the model takes no value. ``confirmed`` are the trainings of the ``confirm.top`` best trials with
``confirm.seeds`` new seeds each, to the last epoch; the trial with the best mean over these and its run in the search
is ``chosen``, and without any the best of the search. Where the cap of ``trials`` is null, seconds alone ended the
search. Ledgers that were written before lack ``drawn``, ``closed``, ``first_pruning``, ``chosen``, ``confirm`` and
``confirmed``.
A variant of a tuned data set that has no entry was not tuned: it had no trial. The ledger tells of a run's cells only
where they were trained with what it found; it need not be so, for a run may leave ``--tuned`` out, or be tuned again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.analysis.provenance import count
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.run_files import OUTSIDE
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.analysis.tables.numbers import mean_entry
from harness.reading import shapes
from harness.reading.json_text import read_json

__all__ = [
    "best_in_search",
    "border_distance",
    "confirmed_values",
    "equal_budgets",
    "ledger_table",
    "load_tuning",
    "mark_unequal",
    "own_trial",
]

MARK = "†"


def load_tuning(run: Run) -> list[dict[str, Any]]:
    """The entries of ``tuning.json``; empty where the run was not tuned. Raises InputError for a damaged file."""
    path: Path = run.path / "tuning.json"
    if not path.exists():
        return []
    return read_json(path, shapes.Ledger, "tune the study again")


def equal_budgets(entries: list[dict[str, Any]]) -> bool:
    """Whether every variant was tuned with the same budget on each data set: as many trials, or as many seconds where
    these alone end a search, and as many trials confirmed with as many seeds."""
    budgets: dict[str, set[str]] = {}
    for entry in entries:
        budgets.setdefault(entry["dataset"], set()).add(f"{_spent(entry)} {entry.get('confirm')}")
    return all(len(found) == 1 for found in budgets.values())


def _in_seconds(entry: dict[str, Any]) -> float | None:
    """The seconds that a search had, where they alone ended it."""
    cap = entry.get("cap", {})
    return cap.get("seconds") if cap.get("trials", 0) is None else None


def _spent(entry: dict[str, Any]) -> float:
    """What must be equal: the seconds of a search that these alone ended, else its trials."""
    return _in_seconds(entry) or len(entry["trials"])


def mark_unequal(run: Run, entries: list[dict[str, Any]], table: Table) -> Table:
    """The table with a mark on each variant that was tuned with fewer trials than another, and a note that says so.

    References, which nothing is tested against, have none. Another note names the variants whose budget is unknown.
    """
    trials = {(d, v): _trials_behind(run, entries, d, v) for d in run.datasets for v in run.contenders}
    usual = {d: max((n or 0 for (dataset, _), n in trials.items() if dataset == d), default=0) for d in run.datasets}
    units = {entry["dataset"]: " s" for entry in entries if _in_seconds(entry)}
    lines, short, unknown = [], [], []
    for line in table.lines:
        # A block is a data set, or begins with one; the line of a comparison is called ARM/THAN.
        there = [d for d in run.datasets if line.group.split(", ")[0] == d] or run.datasets
        variant = line.key.partition("/")[0]
        found = {d: trials[d, variant] for d in there if usual[d] and (d, variant) in trials}
        fewer = {d: n for d, n in found.items() if n is not None and n < usual[d]}
        lines.append(replace(line, label=f"{line.label} {MARK}") if fewer else line)
        where = {d: f"{line.label} on {d}" if len(run.datasets) > 1 else line.label for d in found}
        short += [f"{where[d]} {n:g} of {usual[d]:g}{units.get(d, '')}" for d, n in fewer.items()]
        unknown += [where[d] for d, n in found.items() if n is None]
    notes = list(table.notes)
    if short:
        less = "a smaller budget" if units else "fewer trials"
        notes.append(f"{MARK}: tuned with {less} than others ({'; '.join(short)}); the comparison is not fair.")
    if unknown:
        notes.append(f"With how many trials these were tuned is unknown: {'; '.join(unknown)}.")
    return replace(table, lines=tuple(lines), notes=tuple(notes))


def _trials_behind(run: Run, entries: list[dict[str, Any]], dataset: str, variant: str) -> float | None:
    """How many trials, or seconds where these alone end a search, the settings of a variant's cells come from; None
    where the ledger does not tell."""
    for entry in entries:
        if (entry["dataset"], entry["variant"]) == (dataset, variant):
            return _spent(entry) if _was_used(run, entry) else None
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
        f"{'' if never else f' before epoch {before}'}. A limit of the model itself is not a border."
    )


def _is_in_order(entry: dict[str, Any]) -> bool:
    """Whether TPE chose no trial before a random one, as it did where the search was given more trials later."""
    order = [("own", "random", "tpe").index(trial["drawn"]) for trial in entry["trials"]]
    return order == sorted(order)


def _how_it_was_chosen(entries: list[dict[str, Any]]) -> str:
    """What the caption says of the runs that decide; empty where none were made."""
    plans = list(dict.fromkeys((e["confirm"]["top"], e["confirm"]["seeds"]) for e in entries if e.get("confirmed")))
    if not plans:
        return ""
    how = ", or ".join(f"the best {top} with {count(seeds, 'new seed')} each" for top, seeds in plans)
    some = "" if all(entry.get("confirmed") for entry in entries) else " where there are confirming runs"
    return (
        f" So{some} {how} were trained again to the last epoch, and the best mean over all runs of a setting decided "
        "(confirmed: mean ± standard deviation over the new seeds; epochs and seconds of these runs are counted)."
    )


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
    usual: dict[str, float] = {}
    for entry in compared:
        usual[entry["dataset"]] = max(_spent(entry), usual.get(entry["dataset"], 0))
    any_confirmed = any(entry.get("confirmed") for entry in entries)
    any_failed = any(trial["state"] == "failed" for entry in entries for trial in entry["trials"])
    heads = (
        Column("trials", "Trials"),
        Column("pruned", "Pruned"),
        *([Column("failed", "Failed")] if any_failed else []),
        Column("epochs", "Epochs"),
        Column("seconds", "Seconds"),
        *([Column("own", f"Own {metric_label(run.primary)}")] if starts else []),
        Column("best", f"Best {metric_label(run.primary)} (optimistic)"),
        *([Column("confirmed", "Confirmed"), Column("runs", "Confirming runs")] if any_confirmed else []),
        Column("best_trial", "Chosen trial" if any_confirmed else "In trial"),
        Column("border", "Nearest border", align="l"),
    )
    lines, other = [], []
    for entry in entries:
        fewer = entry in compared and _spent(entry) < usual[entry["dataset"]]
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
        f"Tuning ledger: what each search cost, its best validation {metric_label(run.primary)}, and how near the "
        f"{'chosen' if any_confirmed else 'best'} point lies to the border of its space (0: on it, 0.5: in the "
        "middle), for the parameter that is nearest. The best value is that of a single run, picked for being the best "
        f"of many, and so optimistic.{_how_it_was_chosen(entries)}{starts}{_what_time_cut(entries)}"
    )
    less = "a smaller budget" if any(map(_in_seconds, entries)) else "fewer trials"
    mark = f"{MARK}: {less} than others; the comparison of what was found is not fair."
    notes = (*(() if equal_budgets(compared) else (mark,)), *other)
    return Table("tuning", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-tuning")


def _search(entry: dict[str, Any], lower: bool, knows_own: bool) -> dict[str, Entry]:
    """What one search cost and found, by the keys of the ledger's columns."""
    trials, runs = entry["trials"], entry.get("confirmed") or []
    pruned = sum(t["state"] == "pruned" for t in trials)
    failed = sum(t["state"] == "failed" for t in trials)
    epochs = sum(t.get("epochs") or 0 for t in [*trials, *runs])
    seconds = sum(t.get("seconds") or 0.0 for t in [*trials, *runs])
    found = {
        "trials": Entry(str(len(trials)), len(trials)),
        "pruned": Entry(str(pruned), pruned),
        "failed": Entry(str(failed), failed),
        "epochs": Entry(str(epochs), epochs),
        "seconds": Entry(fixed(seconds, 0), seconds),
        "runs": Entry(str(len(runs)), len(runs)),
    }
    own = own_trial(entry) if knows_own else None
    if knows_own:
        own_value = None if own is None else own["value"]
        found["own"] = Entry(fixed(own_value, 4), own_value)
    best, first = _best(entry, lower), best_in_search(entry, lower)
    if best is None or first is None:
        nothing = Entry("–")
        return found | dict.fromkeys(("best", "confirmed", "best_trial", "border"), nothing)
    number = best["number"] + 1
    found["best"] = Entry(fixed(first["value"], 4), first["value"])
    found["confirmed"] = mean_entry(confirmed_values(entry), 4)
    found["best_trial"] = Entry(f"{number}{' (own)' if best is own else ''}", number)
    distances = border_distance(entry, lower)
    nearest = min(distances, key=lambda name: distances[name], default=None)
    found["border"] = (
        Entry("–") if nearest is None else Entry(f"{fixed(distances[nearest], 2)} ({nearest})", distances[nearest])
    )
    return found


def _best(entry: dict[str, Any], lower: bool) -> dict[str, Any] | None:
    """The trial that was chosen; None where none was complete."""
    if entry.get("chosen") is not None:
        return next(trial for trial in entry["trials"] if trial["number"] == entry["chosen"])
    return best_in_search(entry, lower)


def confirmed_values(entry: dict[str, Any]) -> list[float]:
    """The validation values of the chosen trial's settings with new seeds; empty where it was not trained again."""
    return [run["value"] for run in entry.get("confirmed") or () if run["trial"] == entry["chosen"]]


def best_in_search(entry: dict[str, Any], lower: bool) -> dict[str, Any] | None:
    """The trial with the best value of its single run; None where none was complete."""
    done = [t for t in entry["trials"] if t["state"] == "complete" and t["value"] is not None]
    return (min if lower else max)(done, key=lambda t: t["value"], default=None)
