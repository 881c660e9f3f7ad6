"""What a reader must know before trusting a run's numbers, derived from its cells' files alone."""

from __future__ import annotations

from harness.analysis.comparisons import looks_corrected_for
from harness.analysis.diagnostics import training_warnings
from harness.analysis.rows import Run

__all__ = ["FEW_POSITIVES", "FEW_USERS", "warnings_of"]

FEW_POSITIVES = 100
"""Fewer test events with an action than this decide little about it: a standard error of a tenth of its rate."""
FEW_USERS = 100
"""Fewer users than this make a mean over users uncertain."""


def warnings_of(run: Run) -> list[str]:
    """Sentences, in the order of the data sets; empty where there is nothing to warn of."""
    sentences = _of_looks(run) + _of_trackers(run)
    for dataset in run.datasets:
        if run.task == "action":
            sentences += _of_actions(run, dataset)
        sentences += training_warnings(run, dataset)
    return sentences


def _of_looks(run: Run) -> list[str]:
    """Seeds that were added after a look at p, without the correction for it."""
    looks = run.looks
    if len(looks) < 2 or looks_corrected_for(run) >= len(looks):
        return []
    seeds = f"{', '.join(map(str, looks[:-1]))} and {looks[-1]}"
    return [
        f"The verdicts were looked at with {seeds} seeds. Adding seeds until p is small finds more than 5 % false "
        f"differences (about 12 % at 3, 5 and 8 seeds); `looks: {len(looks)}` in the study corrects for it."
    ]


def _of_trackers(run: Run) -> list[str]:
    """Trackers that failed, so that what they show is not whole."""
    given_up: dict[str, list[str]] = {}
    for card in run.cards.values():
        for name, reason in card.get("trackers_given_up", {}).items():
            given_up.setdefault(name, []).append(reason)
    return [
        f"The tracker {name} was given up in {len(reasons)} of {len(run.cards)} cells ({reasons[0]}); the cells are "
        "whole all the same."
        for name, reasons in given_up.items()
    ]


def _of_actions(run: Run, dataset: str) -> list[str]:
    """Actions with few positives, and those whose GAUC is a mean over few users.

    The labels are the same in all cells of a data set, so its first cell tells.
    """
    sentences = []
    for cell in run.ids(dataset)[:1]:
        rows = run.rows(cell, ["action", "label"]).to_pandas()
        positives = rows.groupby("action", sort=False)["label"].sum()
        few = [f"{action} ({number})" for action, number in positives.items() if number < FEW_POSITIVES]
        if few:
            sentences.append(
                f"On {dataset}, few test events (fewer than {FEW_POSITIVES}) have the action: {', '.join(few)}. Its "
                "metrics, and each mean over actions that holds it, rest on them."
            )
        users = run.gauc_users(cell)
        few = [f"{action} ({int(number)})" for action, number in users.items() if number < FEW_USERS]
        if few and any(metric.partition("/")[0] == "gauc" for metric in run.metrics):
            sentences.append(
                f"On {dataset}, GAUC is a mean over few users (fewer than {FEW_USERS}) for: {', '.join(few)}. It takes "
                "in users who have test events with the action and without it."
            )
    return sentences
