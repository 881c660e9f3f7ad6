"""Two runs on the same data, side by side: what a change of a study, of its settings or of the code did.

Such a comparison belongs to no declared family, so it has intervals and no verdict: it explores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.analysis.crossed import over_users_and_draws, paired
from harness.analysis.rows import Run
from harness.errors import InputError, nearest

__all__ = ["between_runs"]

Pair = tuple[str, str]


def between_runs(
    first: Run,
    second: Run,
    *,
    pairs: Iterable[Pair] | None = None,
    metrics: Iterable[str] | None = None,
    candidates: str | None = None,
) -> pd.DataFrame:
    """The test metrics of both runs, on each data set that both have.

    Args:
        pairs: A variant of the first run and one of the second; by default each variant that both have, with itself.
        metrics: By default those of both studies, the first one's primary metric first.
        candidates: The protocol of a ranking, by default the first study's.

    Returns:
        A row per data set, pair and metric: ``dataset``, ``variant`` and ``other`` (of the second run), ``metric``,
        ``first`` and ``second`` (means over each run's finished seeds), ``seeds`` (how many both have), ``difference``
        (second - first over those seeds, which are paired), ``percent`` (of the first), ``low`` and ``high`` (95 %
        interval of the difference for new seeds and new users) and ``note`` (why an interval is missing).

    Raises:
        InputError: runs of different tasks, without a common data set, variant or metric, or on data or splits that
            differ; an unknown variant or metric.
    """
    if first.task != second.task:
        raise InputError(f"{first.path} is about {first.task}, {second.path} about {second.task}: nothing to compare")
    datasets = [dataset for dataset in first.datasets if dataset in second.datasets]
    if not datasets:
        sides = " and ".join(f"{run.path} has {', '.join(run.datasets)}" for run in (first, second))
        raise InputError(f"the runs have no data set in common: {sides}")
    for dataset in datasets:
        _check_same_data(first, second, dataset)
    pairs = _checked_pairs(first, second, pairs)
    metrics = list(metrics or ()) or _common_metrics(first, second)
    protocol = candidates or first.candidates
    lines = [
        _line(first, second, dataset, one, other, metric, protocol)
        for dataset in datasets
        for one, other in pairs
        for metric in metrics
    ]
    return pd.DataFrame(lines)


def _check_same_data(first: Run, second: Run, dataset: str) -> None:
    for kind, what in (("log", "data"), ("split", "split")):
        ours, theirs = _print(first, dataset, kind), _print(second, dataset, kind)
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"the {what} of '{dataset}' differ{'s' if what == 'split' else ''} between {first.path} "
                f"({kind} {ours[:12]}) and {second.path} ({kind} {theirs[:12]}), so their numbers can't be compared; "
                "run one of the studies again on the other's data settings"
            )


def _print(run: Run, dataset: str, kind: str) -> str | None:
    """The fingerprint of the cells of a data set, which are all of one; None where none is finished."""
    found = run.finished[run.finished["dataset"] == dataset][kind]
    return str(found.iloc[0]) if len(found) else None


def _checked_pairs(first: Run, second: Run, pairs: Iterable[Pair] | None) -> list[Pair]:
    named = list(pairs or ())
    for pair in named:
        for run, variant in zip((first, second), pair, strict=True):
            if variant not in run.variants:
                raise InputError(f"{run.path} has no variant '{variant}'; {nearest(variant, run.variants)}")
    found = named or [(variant, variant) for variant in first.variants if variant in second.variants]
    if not found:
        sides = " and ".join(f"{run.path} has {', '.join(run.variants)}" for run in (first, second))
        raise InputError(f"the runs have no variant in common ({sides}); name pairs, as in --pair ONE/OTHER")
    return found


def _common_metrics(first: Run, second: Run) -> list[str]:
    metrics = [metric for metric in dict.fromkeys([first.primary, *first.metrics]) if metric in second.metrics]
    if not metrics:
        sides = " and ".join(f"{run.path} has {', '.join(run.metrics)}" for run in (first, second))
        raise InputError(f"the studies have no metric in common ({sides}); name one, as in --metric ndcg@10")
    return metrics


def _line(first: Run, second: Run, dataset: str, one: str, other: str, metric: str, candidates: str) -> dict[str, Any]:
    ours = first.by_seed(dataset, one, metric, candidates=candidates)
    theirs = second.by_seed(dataset, other, metric, candidates=candidates)
    seeds = [seed for seed in ours if seed in theirs]
    base = float(np.mean([ours[seed] for seed in seeds])) if seeds else None
    change = float(np.mean([theirs[seed] - ours[seed] for seed in seeds])) if seeds else None
    differences, draws, note = _by_user(first, second, dataset, one, other, metric, candidates)
    interval = (None, None) if note else over_users_and_draws(differences, draws).interval
    return {
        "dataset": dataset,
        "variant": one,
        "other": other,
        "metric": metric,
        "first": float(np.mean([*ours.values()])) if ours else None,
        "second": float(np.mean([*theirs.values()])) if theirs else None,
        "seeds": len(seeds),
        "difference": change,
        "percent": 100 * change / abs(base) if base and change is not None else None,
        "low": interval[0],
        "high": interval[1],
        "note": note,
    }


def _by_user(
    first: Run, second: Run, dataset: str, one: str, other: str, metric: str, candidates: str
) -> tuple[np.ndarray, int, str]:
    """(S C, U) differences second - first over the common seeds, how many draws of the codes each has, or why there is
    no interval from them."""
    ours = dict(zip(first.replicates(dataset, one), first.ids(dataset, one), strict=True))
    theirs = dict(zip(second.replicates(dataset, other), second.ids(dataset, other), strict=True))
    replicates, draws = paired(ours, theirs, first.draws(dataset, one), second.draws(dataset, other))
    pairs = [(ours[left], theirs[right]) for left, right in replicates]
    nothing = np.empty((0, 0))
    if len(pairs) < 2 * draws:
        return nothing, draws, "fewer than two seeds in common"
    if any(_who(first, a) != _who(second, b) for a, b in pairs):
        return nothing, draws, "evaluated on different users or targets"
    found = []
    for a, b in pairs:
        before = first.user_values(a, metric, candidates=candidates)
        after = second.user_values(b, metric, candidates=candidates)
        if before is None or after is None:
            return nothing, draws, "no mean over users"
        found.append(after - before)
    differences = np.stack(found)
    if not np.isfinite(differences).all():
        return nothing, draws, "undefined for some users"
    return (differences, draws, "") if differences.shape[1] > 1 else (nothing, draws, "one user")


def _who(run: Run, cell: str) -> list[pa.ChunkedArray]:
    """Users and targets (or items) of a cell, as strings of one type, whatever wrote the file."""
    columns = ["user", "target" if run.task == "retrieval" else "item"]
    return [column.cast(pa.large_string()) for column in run.rows(cell, columns).columns]
