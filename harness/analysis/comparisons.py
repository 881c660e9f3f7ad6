"""Which variants of a run are compared with which, over which seeds, and in which family.

A run has one family of comparisons per quantity: its declared pairs on all of its data sets. Tables, figures, the
report's sentences and the claims all read it here, so that none of them can say another thing than the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.analysis.crossed import Replicate, by_seed, over_users_and_draws, paired
from harness.analysis.pooled import VarianceCheck, check_variances
from harness.analysis.rows import Run, lower_is_better
from harness.analysis.run_files import LOOKS
from harness.analysis.statistics import Comparison, compare, family
from harness.analysis.two_levels import Sampled
from harness.files import write_json

__all__ = [
    "Contrast",
    "base_of_all",
    "check_variances_of",
    "comparisons",
    "family_of",
    "looks_corrected_for",
    "margin_in_units",
    "named",
    "note_look",
    "over_users_and_seeds",
    "to_base",
]

Contrast = tuple[str, str, str]
"""(dataset, arm, than)."""
Values = Callable[[str, str], dict[Replicate, float]]
"""(dataset, variant) -> seed and draw of the codes -> value of a quantity."""


def comparisons(run: Run, metric: str | None = None, candidates: str | None = None) -> dict[Contrast, Comparison]:
    """The declared pairs on each data set, compared on a metric, by default the primary one."""
    metric = metric or run.primary
    stated = run.study.get("equivalence_margin") if metric == run.primary else None
    return family_of(
        run,
        lambda dataset, variant: run.by_replicate(dataset, variant, metric, candidates=candidates),
        higher_is_better=not lower_is_better(metric),
        margin=lambda mean: margin_in_units(stated, mean),
        of_users=True,
        users=lambda dataset, arm, than: run.differences(dataset, arm, than, metric, candidates=candidates).T,
    )


def family_of(
    run: Run,
    values: Values,
    *,
    higher_is_better: bool,
    margin: Callable[[float], float | None] | None = None,
    of_users: bool = False,
    users: Callable[[str, str, str], np.ndarray] | None = None,
) -> dict[Contrast, Comparison]:
    """The declared pairs on each data set, compared over the seeds (and draws of the codes) that both have, with the
    study's correction.

    A pair without a common seed, or with an undefined value, is left out of the answer but counts in the family's size.
    ``margin`` gives the equivalence margin by the mean of ``than``. ``of_users`` as in :func:`compare`; ``users`` gives
    the (S C, U) differences of a contrast, empty where unknown.
    """
    found: dict[Contrast, Comparison] = {}
    for dataset in run.datasets:
        shared = check_variances_of(run, dataset, values).pooled if run.test == "pooled" else {}
        for arm, than in run.pairs:
            ours, theirs = values(dataset, arm), values(dataset, than)
            pairs, draws = paired(ours, theirs, run.draws(dataset, arm), run.draws(dataset, than))
            a, b = np.array([ours[one] for one, _ in pairs]), np.array([theirs[other] for _, other in pairs])
            if not pairs or not (np.isfinite(a).all() and np.isfinite(b).all()):
                continue
            by_user = users(dataset, arm, than) if users else np.empty((0, 0))
            found[dataset, arm, than] = compare(
                a, b, test=run.test, higher_is_better=higher_is_better,
                margin=margin(float(b.mean())) if margin else None,
                of_users=of_users, draws=draws, users=by_user if by_user.size and by_user.shape[1] > 1 else None,
                pooled=shared.get((arm, than)) if draws == 1 else None,
            )  # fmt: skip
    return family(found, run.correction, declared=len(run.pairs) * len(run.datasets), looks=looks_corrected_for(run))


def check_variances_of(run: Run, dataset: str, values: Values | None = None) -> VarianceCheck:
    """Which of the declared pairs may be tested with one variance of all arms on a data set; of the primary metric, or
    of another quantity's ``values``."""
    read = values or (lambda dataset, variant: run.by_replicate(dataset, variant, run.primary))
    found = {arm: by_seed(read(dataset, arm)) for arm in dict.fromkeys(arm for pair in run.pairs for arm in pair)}
    return check_variances(found, run.pairs)


def looks_corrected_for(run: Run) -> int:
    """How many looks p are corrected for: as many as the study declares, or as were taken, if it declares any."""
    declared = int(run.study.get("looks") or 1)
    return max(declared, len(run.looks)) if declared > 1 else 1


def note_look(run: Run) -> None:
    """Notes in the run's folder that its verdicts are being looked at, where they rest on more seeds than before."""
    seeds = max((c.seeds for c in comparisons(run).values() if c.p is not None), default=0)
    if seeds and seeds not in run.looks:
        write_json(run.path / LOOKS, sorted([*run.looks, seeds]))


def margin_in_units(stated: float | str | None, mean: float) -> float | None:
    """An equivalence margin in the unit of the metric, where what is compared with has this mean."""
    if isinstance(stated, str):
        return float(stated.rstrip("% ")) / 100 * abs(mean) or None
    return stated


def base_of_all(run: Run) -> str | None:
    """The one variant that all others are compared with; None where the declared pairs name several, or none."""
    bases = {than for _, than in run.pairs}
    return bases.pop() if len(bases) == 1 else None


def to_base(run: Run) -> str:
    """`` to FAIR`` where all are compared with FAIR, else nothing: the lines of a table then name both sides."""
    base = base_of_all(run)
    return "" if base is None else f" to {run.label(base)}"


def named(run: Run, arm: str, than: str) -> tuple[str, str]:
    """Key and label of a comparison's line: the arm's, and with the other side where that is not the same for all."""
    if base_of_all(run) == than:
        return arm, run.label(arm)
    return f"{arm}/{than}", f"{run.label(arm)} − {run.label(than)}"


def over_users_and_seeds(run: Run, dataset: str, arm: str, than: str, metric: str | None = None) -> Sampled | None:
    """The interval of the difference arm - than for new seeds, new draws of the codes where there are several, and new
    users. None below two common seeds."""
    differences = run.differences(dataset, arm, than, metric or run.primary)  # (U, S C)
    draws = max(len(run.draws(dataset, arm)), len(run.draws(dataset, than)))
    if not differences.size or len(differences) < 2 or differences.shape[1] <= draws:
        return None
    return over_users_and_draws(differences.T, draws)
