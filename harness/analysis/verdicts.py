"""What a run says, in sentences: the headline, one verdict per comparison, and what passes the references."""

from __future__ import annotations

from collections import Counter
from typing import cast

from harness.analysis.comparisons import Contrast, base_of_all, comparisons, over_users_and_seeds
from harness.analysis.efficiency import Efficiency
from harness.analysis.provenance import count
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.statistics import CORRECTIONS, Comparison
from harness.analysis.table import fixed, probability
from harness.analysis.tables.references import passes, reference_metrics

__all__ = ["MANY", "WORDS", "headline", "leaders", "speed_headline", "verdicts"]

MOST_SENTENCES = 8
"""More comparisons than this are summed up over data sets."""
WORDS = {
    "better": "is better than {}",
    "worse": "is worse than {}",
    "equivalent": "does the same as {} within the stated margin",
    "on these users only": "differs from {} on these users only",
    "undecided": "is statistically indistinguishable from {}",
}
_PASSES = {
    "yes": "passed by",
    "no": "not passed by",
    "undecided": "undecided for",
    "not tested": "not tested, with a single seed, for",
}
"""What :func:`references.passes` answers, in a sentence about the reference."""
MANY = {
    "better": "better than {}",
    "worse": "worse than {}",
    "equivalent": "the same as {} within the stated margin",
    "on these users only": "different from {} on these users only",
    "undecided": "statistically indistinguishable from {}",
}

MOST_NAMED = 4
"""More variants of one verdict than this are counted in the headline, not named."""


def headline(run: Run) -> str:
    """The main verdict in one sentence."""
    where = f"{metric_label(run.primary)}{f' on {run.datasets[0]}' if len(run.datasets) == 1 else ''}"
    tested = {contrast: c for contrast, c in comparisons(run).items() if c.p is not None}
    several, base = len(run.datasets) > 1, base_of_all(run)
    groups: dict[str, list[str]] = {}
    for (dataset, arm, than), c in tested.items():
        named = run.label(arm) if base else f"{run.label(arm)} against {run.label(than)}"
        groups.setdefault(c.verdict, []).append(f"{named} on {dataset}" if several else named)
    parts = [
        _counted(groups[verdict], verdict, run.label(base) if base else "") for verdict in WORDS if verdict in groups
    ]
    if not parts:
        parts = ["nothing was tested, which takes two seeds" if run.pairs else "the study declares no comparison"]
    most = "the lowest" if lower_is_better(run.primary) else "the highest"
    first = [
        f"{run.label(variant)}{'' if variant in run.contenders else ' (a reference)'} has {most}"
        f"{f' on {dataset}' if several else ''}, {fixed(value, 4)}"
        for dataset, variant, value in leaders(run)
    ]
    return f"{where}: {'; '.join([*parts, *first])}."


def speed_headline(found: Efficiency) -> str:
    """The variant with the shortest training step at the longest sequences, relative to the control."""
    length, dim = found.frame["length"].max(), found.frame["dim"].max()
    table = found.frame[(found.frame["length"] == length) & (found.frame["dim"] == dim)].set_index("variant")
    fastest = table["relative"].idxmin()
    where = f"At length {length:,} and width {dim}"
    if fastest == found.study["control"]:
        return f"{where}, no variant has a shorter training step than {found.control}."
    return (
        f"{where}, a training step of {found.label(fastest)} takes {fixed(table.loc[fastest, 'relative'], 2)} times as "
        f"long as one of {found.control}, the least of {count(len(table), 'variant')}."
    )


def _counted(arms: list[str], verdict: str, against: str) -> str:
    """``A and B are worse than FAIR``, or a number where there are many. Without ``against`` each arm names both."""
    words = MANY[verdict].format(against) if against else _UNNAMED[verdict]
    many = count(len(arms), "variant" if against else "comparison")
    return f"{many if len(arms) > MOST_NAMED else _listed(arms)} {'is' if len(arms) == 1 else 'are'} {words}"


_UNNAMED = {
    "better": "better",
    "worse": "worse",
    "equivalent": "the same within the stated margin",
    "on these users only": "different on these users only",
    "undecided": "statistically indistinguishable",
}
"""As :data:`MANY`, where each comparison names both of its sides."""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def verdicts(run: Run) -> list[str]:
    """The study's answer in plain sentences: one per comparison or, where many, a sum; and what passes a reference."""
    tested = comparisons(run)
    if not run.pairs:
        return _best(run) + _against_references(run)
    if len(tested) > MOST_SENTENCES:
        return _summed_up(run, tested) + _against_references(run)
    metric = metric_label(run.primary)
    return [
        f"On {dataset}, {run.label(arm)} {WORDS[c.verdict].format(run.label(than))}: {metric} {fixed(c.mean_a, 4)} "
        f"against {fixed(c.mean_b, 4)}, {_certainty(c)}; {count(c.seeds, 'paired seed')}"
        f"{f' with {c.draws} draws of the codes each' if c.draws > 1 else ''}."
        for (dataset, arm, than), c in tested.items()
    ] + _against_references(run)


def _against_references(run: Run) -> list[str]:
    """Which variants pass each reference for new users and seeds: what a reader must know before any difference."""
    metrics = reference_metrics(run)
    means = run.metric_table(metrics).groupby(level=["dataset", "variant"], sort=False).mean()
    sentences = []
    for dataset in run.datasets:
        for reference in [v for v in run.variants if v not in run.contenders and (dataset, v) in means.index]:
            bars: dict[str, list[str]] = {}
            for metric in metrics:
                groups: dict[str, list[str]] = {}
                for variant in run.contenders:
                    wide = over_users_and_seeds(run, dataset, variant, reference, metric)
                    groups.setdefault(passes(wide, lower_is_better(metric)), []).append(run.label(variant))
                clauses = [f"{words} {', '.join(groups[key])}" for key, words in _PASSES.items() if key in groups]
                said = "" if groups.keys() == {"not tested"} else "; ".join(clauses)
                bar = fixed(float(means[metric][dataset, reference]), 4)
                bars.setdefault(said, []).append(f"{metric_label(metric)} {bar}")
            for said, values in bars.items():
                named = f"{run.label(reference)} ({', '.join(values)})"
                if said:
                    named += f" is, by 95 % intervals over users and seeds, {said}."
                else:
                    named = f"no variant was tested against {named}: with a single seed there is no interval."
                sentences.append(f"On {dataset}, {named}")
    return sentences


def _summed_up(run: Run, tested: dict[Contrast, Comparison]) -> list[str]:
    """Many comparisons: one sentence per pair over all data sets, or per verdict where there is one data set."""
    if len(run.datasets) > 1:
        pairs = dict.fromkeys((arm, than) for _, arm, than in tested)
        return [_over_datasets(run, *p, [c for (_, arm, than), c in tested.items() if (arm, than) == p]) for p in pairs]
    groups: dict[tuple[str, str], list[str]] = {}
    for (_, arm, than), c in tested.items():
        groups.setdefault((than, c.verdict), []).append(f"{run.label(arm)} ({fixed(c.difference, 4, sign=True)})")
    order = sorted(groups, key=lambda key: list(WORDS).index(key[1]))
    where, metric = run.datasets[0], metric_label(run.primary)
    return [
        f"On {where}, {MANY[verdict].format(run.label(than))}, by the difference in {metric}: "
        f"{', '.join(groups[than, verdict])}."
        for than, verdict in order
    ]


def _over_datasets(run: Run, arm: str, than: str, comparisons: list[Comparison]) -> str:
    """One sentence on a pair over all data sets."""
    counts: Counter[str] = Counter(c.verdict for c in comparisons)
    parts = [f"{WORDS[verdict].format(run.label(than))} on {counts[verdict]}" for verdict in WORDS if counts[verdict]]
    changes = [c.percent for c in comparisons if c.percent is not None]
    spread = (
        f": {metric_label(run.primary)} {fixed(min(changes), 1, sign=True)} % to {fixed(max(changes), 1, sign=True)} %"
        if changes
        else ""
    )
    return f"{run.label(arm)} {', '.join(parts)} of {len(comparisons)} data sets{spread}."


def _best(run: Run) -> list[str]:
    """The best variant on each data set, where the study declares no comparison and so nothing is tested."""
    return [
        f"On {dataset}, {run.label(variant)} has the best {metric_label(run.primary)}: {fixed(value, 4)}. The study "
        "names no control and no contrasts, so nothing was tested."
        for dataset, variant, value in leaders(run)
    ]


def leaders(run: Run) -> list[tuple[str, str, float]]:
    """The data sets, with the variant that is best by the primary metric and its mean."""
    direction = -1 if lower_is_better(run.primary) else 1
    means = run.metric_table(run.primary).groupby(level=["dataset", "variant"], sort=False)[run.primary].mean().dropna()
    best = [(values * direction).idxmax() for _, values in means.groupby(level="dataset", sort=False)]
    keys = cast("list[tuple[str, str]]", best)  # the stubs know no index of two levels
    return [(dataset, variant, float(means[dataset, variant])) for dataset, variant in keys]


def _certainty(c: Comparison) -> str:
    if c.interval is None:
        return c.note
    codes = ", codes" if c.draws > 1 else ""
    intervals = [f"{_to(c.interval)} over seeds{codes and ' and codes'}"]
    if c.interval_users is not None:
        intervals.append(f"{_to(c.interval_users)} over users{codes} and seeds")
    return (
        f"a difference of {fixed(c.difference, 4, sign=True)} (95 % interval {', '.join(intervals)}; "
        f"{CORRECTIONS[c.correction]} p {probability(c.p_adjusted)})"
    )


def _to(interval: tuple[float, float]) -> str:
    return " to ".join(fixed(end, 4, sign=True) for end in interval)
