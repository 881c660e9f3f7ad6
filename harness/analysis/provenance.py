"""What the footer of a table says about where its numbers come from. Nothing in it changes with time."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.rows import CANDIDATES, Run

ONE_TARGET = "leave-one-out"
"""The split that has one event in each user's test part."""
TARGETS = {
    "last": "the last test event of each user (last)",
    "first": "the first test event of each user (first)",
    "all": "every test event, each from all events before it (all)",
}
"""What is to be recommended, by the study's ``data.targets``."""

__all__ = ["count", "incomplete", "provenance"]


def provenance(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> tuple[str, ...]:
    """One line each: candidates, split and seeds, fingerprints and versions."""
    done = run.finished[run.finished["dataset"].isin(list(datasets)) & run.finished["variant"].isin(list(rows))]
    notes = []
    if run.task == "retrieval":
        notes.append(f"Candidates: {CANDIDATES[run.candidates]} ({run.candidates}); full ranking, none sampled.")
    seeds = sorted(run.cells["seed"].unique())
    data = run.study.get("data") or {}
    split = f"Split: {data['split']}. " if "split" in data else ""
    if run.task == "retrieval" and data.get("split", ONE_TARGET) != ONE_TARGET:
        cards = [run.cards[cell]["data"] for cell in done["id"] if "data" in run.cards[cell]]
        kinds = dict.fromkeys(card.get("targets", "last") for card in cards or [data])
        split += f"Targets: {'; '.join(TARGETS[kind] for kind in kinds)}. "
    notes.append(f"{split}Seeds: {_ranges(seeds)}{_draws(run, datasets, rows)}.{incomplete(run, datasets, rows)}")
    prints = [
        f"{dataset} {str(cells['log'].iloc[0])[:8]} / {str(cells['split'].iloc[0])[:8]}"
        for dataset, cells in done.groupby("dataset", sort=False)
    ]
    versions = ", ".join(sorted(set(done["harness"].dropna().astype(str))))
    notes.append(f"Fingerprints (log / split): {'; '.join(prints)}. Study {run.name}, harness {versions}.")
    return tuple(notes)


def count(number: int, thing: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {thing}{'s' * (number != 1)}"


def incomplete(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> str:
    """A sentence on lines with fewer seeds than the run has; empty where all are there."""
    short, seeds = [], run.cells["seed"].nunique()
    thing = " cells" if run.draws_codes else ""
    for key, cells in run.cells.groupby(["dataset", "variant"], sort=False):
        dataset, variant = map(str, key)
        if dataset not in datasets or variant not in rows:
            continue
        there, wanted = (cells["state"] == "finished").sum(), seeds * len(run.draws(dataset, variant))
        if there < wanted:
            short.append(f"{run.label(variant)} on {dataset} {there} of {wanted}{thing}")
    return f" Incomplete: {'; '.join(short)}." if short else ""


def _draws(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> str:
    """How often item codes were drawn, and for which lines that has no effect; nothing where they were drawn once."""
    drawn = {v: max((len(run.draws(d, v)) for d in datasets), default=1) for v in rows if v in run.variants}
    most = max(drawn.values(), default=1)
    if most == 1:
        return ""
    single = [run.label(v) for v, number in drawn.items() if number < most]
    without = f" (one for {', '.join(single)}, having none to draw)" if single else ""
    return f", each with {count(most, 'draw')} of the item codes{without}"


def _ranges(seeds: Sequence[int]) -> str:
    """0, 1, 2, 5 -> ``0–2, 5 (4 seeds)``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    text = ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
    return f"{text} ({count(len(seeds), 'seed')})"
