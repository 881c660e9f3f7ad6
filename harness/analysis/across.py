"""Each declared pair over several data sets: a verdict on each, an aggregate, and Friedman's test of all variants.

The data sets may be those of one run, or of several runs of one design. A verdict is corrected within its own run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from harness.analysis.blocks import friedman
from harness.analysis.comparisons import comparisons, over_users_and_seeds
from harness.analysis.rows import Run, lower_is_better
from harness.analysis.statistics import Comparison
from harness.errors import InputError

__all__ = ["FEWEST", "Aggregate", "Pair", "Place", "aggregate", "friedman_line", "pairs_across", "places_of"]

FEWEST = 3
"""Data sets that an aggregate needs: of two, an interval for others says next to nothing."""


class Place(NamedTuple):
    """A data set of a run."""

    run: Run
    dataset: str


@dataclass(frozen=True)
class Aggregate:
    """The mean relative difference over data sets, in percent, for data sets like these."""

    mean: float
    interval: tuple[float, float]
    heterogeneity: float
    """Standard deviation between data sets of the true relative differences, as estimated."""
    datasets: int


@dataclass(frozen=True)
class Pair:
    """One declared pair on every data set."""

    arm: str
    than: str
    found: dict[str, Comparison]
    """Data set -> comparison; one that was not run is missing."""
    aggregate: Aggregate | None


def places_of(runs: Sequence[Run]) -> dict[str, Place]:
    """The data sets of runs of one design, by name.

    Raises:
        InputError: runs with other variants, pairs, metric or task than the first; a data set that stands in two.
    """
    first = runs[0]
    places: dict[str, Place] = {}
    for run in runs:
        for what, ours, theirs in (
            ("task", first.task, run.task),
            ("primary metric", first.primary, run.primary),
            ("variants", first.variants, run.variants),
            ("declared comparisons", first.pairs, run.pairs),
        ):
            if ours != theirs:
                raise InputError(
                    f"{first.path} and {run.path} differ in {what}, so they are not runs of one design; give runs of "
                    "the same study on other data sets"
                )
        for dataset in run.datasets:
            if dataset in places:
                raise InputError(
                    f"data set '{dataset}' stands in {places[dataset].run.path} and {run.path}; leave one of them out"
                )
            places[dataset] = Place(run, dataset)
    return places


def pairs_across(places: Mapping[str, Place]) -> list[Pair]:
    """Each declared pair with its verdicts and, from :data:`FEWEST` data sets on, its aggregate."""
    runs = list({id(place.run): place.run for place in places.values()}.values())
    tested = {id(run): comparisons(run) for run in runs}
    pairs = []
    for arm, than in runs[0].pairs:
        keys = {name: (place.dataset, arm, than) for name, place in places.items()}
        found = {
            name: tested[id(place.run)][keys[name]]
            for name, place in places.items()
            if keys[name] in tested[id(place.run)]
        }
        errors = {name: _error(places[name], arm, than, c) for name, c in found.items()}
        usable = [(c.percent, errors[name]) for name, c in found.items() if c.percent is not None and errors[name]]
        pairs.append(Pair(arm, than, found, aggregate(*zip(*usable, strict=True)) if usable else None))
    return pairs


def aggregate(percents: Sequence[float], errors: Sequence[float]) -> Aggregate | None:
    """Random-effects mean of relative differences with their standard errors; None below :data:`FEWEST` of them.

    Between-data-sets variance by Paule & Mandel, the interval by Hartung, Knapp, Sidik & Jonkman with t(k - 1), never
    narrower than the random-effects one (Röver et al. 2015): few data sets that agree by chance prove little.
    """
    if len(percents) < FEWEST:
        return None
    found = combine_effects(np.array(percents), np.array(errors) ** 2, method_re="iterated")
    mean, error = float(found.mean_effect_re), float(max(found.sd_eff_w_re_hksj, found.sd_eff_w_re))
    half = float(stats.t.isf(0.025, len(percents) - 1)) * error
    return Aggregate(mean, (mean - half, mean + half), float(np.sqrt(max(found.tau2, 0.0))), len(percents))


def _error(place: Place, arm: str, than: str, c: Comparison) -> float | None:
    """Standard error of the relative difference in percent, for new users and seeds, or for new seeds where no user's
    values are known; None where there is none."""
    if not c.mean_b:
        return None
    wide = over_users_and_seeds(place.run, place.dataset, arm, than)
    if wide is not None:
        return 100 * wide.standard_error / abs(c.mean_b) or None
    if c.interval is None:
        return None
    half = (c.interval[1] - c.interval[0]) / 2
    return 100 * half / float(stats.t.isf(0.025, c.seeds - 1)) / abs(c.mean_b) or None


def friedman_line(places: Mapping[str, Place]) -> str:
    """Friedman's test of the variants that are not references, in one sentence, or why there is none."""
    first = next(iter(places.values())).run
    means = pd.DataFrame(
        {
            name: {
                first.label(v): np.mean(list(place.run.by_seed(place.dataset, v, first.primary).values()) or [np.nan])
                for v in first.contenders
            }
            for name, place in places.items()
        }
    ).T
    try:
        found = friedman(means, higher_is_better=not lower_is_better(first.primary))
    except InputError as error:
        return f"No test of all variants at once: {error}."
    ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in found.average_ranks.sort_values().items())
    p = "below 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return (
        f"Friedman's test of {len(found.methods)} variants over {found.blocks} data sets: chi-squared "
        f"{found.statistic:.2f}, p {p}; average ranks (1 = best): {ranks}; they differ at 0.05 where they are "
        f"{found.critical_difference:.2f} apart (Nemenyi)."
    )
