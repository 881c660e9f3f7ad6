"""Which variants of a run are compared with which, over which seeds, and in which family."""

from __future__ import annotations

import numpy as np

from harness.analysis.rows import Run, lower_is_better
from harness.analysis.statistics import Comparison, TwoLevel, compare, family, two_level_interval

__all__ = ["against_control", "over_users_and_seeds"]

Pair = tuple[str, str]
"""(dataset, variant)."""


def against_control(run: Run, metric: str | None = None, candidates: str | None = None) -> dict[Pair, Comparison]:
    """Each variant against the study's control on each data set, over the seeds that both finished.

    The family that the correction is for is the whole of it: compared variants x data sets on one metric. A pair
    without a common seed, or with an undefined metric, is left out of the answer but counts in the family's size.
    """
    metric = metric or run.primary
    if run.control is None:
        return {}
    found: dict[str, tuple[Pair, Comparison]] = {}
    for dataset in run.datasets:
        control = run.by_seed(dataset, run.control, metric, candidates=candidates)
        for variant in run.compared:
            ours = run.by_seed(dataset, variant, metric, candidates=candidates)
            seeds = [seed for seed in ours if seed in control]
            a, b = np.array([ours[s] for s in seeds]), np.array([control[s] for s in seeds])
            if not seeds or not (np.isfinite(a).all() and np.isfinite(b).all()):
                continue
            margin, lower = run.study.get("equivalence_margin"), lower_is_better(metric)
            comparison = compare(a, b, margin=margin, higher_is_better=not lower, test=run.test)
            found[f"{dataset}/{variant}"] = (dataset, variant), comparison
    declared = len(run.compared) * len(run.datasets)
    adjusted = family({name: c for name, (_, c) in found.items()}, run.correction, declared=declared)
    return {found[name][0]: comparison for name, comparison in adjusted.items()}


def over_users_and_seeds(run: Run, dataset: str, variant: str, metric: str | None = None) -> TwoLevel | None:
    """The interval of the difference to the control for new seeds and new users. None below two common seeds."""
    if run.task != "retrieval" or run.control is None:
        return None
    differences = run.differences(dataset, variant, run.control, metric or run.primary)  # (U, S)
    return two_level_interval(differences.T) if differences.size and differences.shape[1] > 1 else None
