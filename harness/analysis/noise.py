"""The noise experiment of a run: its quantities by seed, how they differ from the control's, and its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.analysis.comparisons import looks_corrected_for, named, to_base
from harness.analysis.crossed import Replicate, paired
from harness.analysis.provenance import count, provenance
from harness.analysis.rows import Run, metric_label
from harness.analysis.statistics import CORRECTIONS, TESTS, Comparison, compare, family
from harness.analysis.table import Column, Entry, Line, Table, between, fixed

__all__ = [
    "ATTENTION",
    "RANKING",
    "Quantity",
    "noise_comparisons",
    "noise_quantities",
    "noise_shares",
    "noise_tables",
    "noise_values",
]


ATTENTION = ("injected_abs", "injected", "similarity")
RANKING = ("metric", "effect", "overlap")
"""Quantities that stand together in a figure and in a table of differences."""
Statistics = dict[tuple[str, str, float], float]
"""What :meth:`Run.noise` gives."""


@dataclass(frozen=True)
class Quantity:
    """What is read off a cell's noise statistics at one share of injected events."""

    title: str
    """As a column's heading."""
    group: str
    """What columns side by side share as a heading."""
    about: str
    """As a caption says it."""
    read: Callable[[Statistics, float], float | None]
    higher_is_better: bool
    digits: int

    @property
    def heading(self) -> str:
        """As a panel's heading, which stands alone."""
        return f"{self.group}: {self.title.lower()}" if self.title != self.title.upper() else self.title


def noise_quantities(run: Run) -> dict[str, Quantity]:
    """The quantities that tables and figures show, by name."""
    metric, candidates = f"{run.candidates}/{run.primary}", run.candidates
    label = metric_label(run.primary)

    def statistic(name: str) -> Callable[[Statistics, float], float | None]:
        return lambda found, share: found.get((name, "injected", share))

    def effect(found: Statistics, share: float) -> float | None:
        """Between the two histories, which hold the same real events, so that lost context doesn't count."""
        calm, noisy = (found.get((metric, history, share)) for history in ("real", "injected"))
        whole = found.get((metric, "injected", 0.0))
        return 100 * (noisy - calm) / whole if whole and calm is not None and noisy is not None else None

    return {
        "injected_abs": Quantity(
            "Absolute", "Weight on noise", "share of the absolute attention weight that lies on injected events",
            statistic("injected_abs"), False, 3,
        ),
        "injected": Quantity(
            "Signed", "Weight on noise", "signed attention weight on injected events",
            statistic("injected"), False, 3,
        ),
        "similarity": Quantity(
            "Similarity", "Maps", "1 − total variation between the attention on the real events with and without noise",
            statistic("similarity"), True, 3,
        ),
        "metric": Quantity(label, "Ranking", f"{label} with noise", statistic(metric), True, 4),
        "effect": Quantity(
            "Effect %", "Ranking", f"change of {label} by the injected events alone, in percent of the undisturbed",
            effect, True, 1,
        ),
        "overlap": Quantity(
            "Overlap", "Ranking", "share of the ten best items that are the same with and without noise",
            statistic(f"{candidates}/overlap@10"), True, 3,
        ),
    }  # fmt: skip


def noise_shares(run: Run) -> list[float]:
    """The shares of injected events that cells were measured at, ascending; none without the experiment."""
    return sorted({share for cell in run.ids() for _, _, share in run.noise(cell)})


def noise_values(run: Run, dataset: str, variant: str, quantity: Quantity, share: float) -> dict[Replicate, float]:
    """Seed and draw -> the quantity, of the finished cells that have it."""
    found = {}
    for replicate, cell in zip(run.replicates(dataset, variant), run.ids(dataset, variant), strict=True):
        value = quantity.read(run.noise(cell), share)
        if value is not None and np.isfinite(value):
            found[replicate] = value
    return found


def noise_comparisons(run: Run, quantity: Quantity) -> dict[tuple[str, str, str, float], Comparison]:
    """The run's declared pairs by (data set, arm, than, share), over the seeds that both have.

    The family of the correction is all of them: one family per quantity, share 0 aside.
    """
    found: dict[tuple[str, str, str, float], Comparison] = {}
    for share in [share for share in noise_shares(run) if share > 0]:
        for dataset in run.datasets:
            for arm, than in run.pairs:
                ours, theirs = (noise_values(run, dataset, v, quantity, share) for v in (arm, than))
                pairs, draws = paired(ours, theirs, run.draws(dataset, arm), run.draws(dataset, than))
                if pairs:
                    a, b = np.array([ours[one] for one, _ in pairs]), np.array([theirs[other] for _, other in pairs])
                    found[dataset, arm, than, share] = compare(
                        a, b, higher_is_better=quantity.higher_is_better, test=run.test, of_users=True, draws=draws
                    )
    return family(found, run.correction, looks=looks_corrected_for(run))


def noise_tables(run: Run) -> list[Table]:
    """What every variant does at every share, and the differences to the control; none without the experiment."""
    shares = noise_shares(run)
    if not shares:
        return []
    quantities = noise_quantities(run)
    return [
        _levels(run, quantities, shares),
        *_differences(run, "noise-attention", {key: quantities[key] for key in ATTENTION}, shares),
        *_differences(run, "noise-ranking", {key: quantities[key] for key in RANKING}, shares),
    ]


def _levels(run: Run, quantities: dict[str, Quantity], shares: list[float]) -> Table:
    lines = []
    for dataset, share in ((d, s) for d in run.datasets for s in shares):
        for variant in run.variants:
            entries = []
            for quantity in quantities.values():
                values = list(noise_values(run, dataset, variant, quantity, share).values())
                sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
                mean = float(np.mean(values)) if values else None
                spread = fixed(sd, quantity.digits) if sd is not None else ""
                ids = tuple(run.ids(dataset, variant))
                entries.append(Entry(fixed(mean, quantity.digits), mean, spread, sd, cells=ids))
            lines.append(Line(variant, run.label(variant), tuple(entries), _group(run, dataset, share)))
    heads = tuple(Column(key, quantity.title, quantity.group) for key, quantity in quantities.items())
    caption = (
        f"Random items in the test histories{_where(run)}, mean ± standard deviation over seeds. "
        + "; ".join(f"{quantity.title}: {quantity.about}" for key, quantity in quantities.items() if key != "metric")
        + "."
    )
    return Table("noise", caption, "Variant", heads, tuple(lines), _notes(run), f"{run.name}-noise", "Injected")


def _differences(run: Run, name: str, quantities: dict[str, Quantity], shares: list[float]) -> list[Table]:
    tested = {key: noise_comparisons(run, quantity) for key, quantity in quantities.items()}
    family_size = max(map(len, tested.values()))
    if not family_size:
        return []
    lines = []
    for dataset, share in ((d, s) for d in run.datasets for s in shares if s > 0):
        for variant, than in run.pairs:
            ids = tuple(run.ids(dataset, variant) + run.ids(dataset, than))
            entries = []
            for key, quantity in quantities.items():
                c = tested[key].get((dataset, variant, than, share))
                if c is None:
                    entries.append(Entry(cells=ids))
                    continue
                interval = f" {between(c.interval, quantity.digits)}" if c.interval else ""
                text = fixed(c.difference, quantity.digits, sign=True) + interval
                mark = "*" if c.verdict == "on these users only" else ""
                entries.append(Entry(text, c.difference, mark=mark, cells=ids))
            lines.append(Line(*named(run, variant, than), tuple(entries), _group(run, dataset, share)))
    heads = tuple(Column(key, quantity.title, quantity.group) for key, quantity in quantities.items())
    corrected = CORRECTIONS[run.correction]
    caption = (
        f"Differences{to_base(run)} with random items in the test histories{_where(run)}: paired over "
        "seeds, 95 % interval (Student's t), for these users (their means alone were kept). *: p < 0.05 by the "
        f"{TESTS[run.test]}, with {corrected}'s correction for the {count(family_size, 'comparison')} of a column."
    )
    return [Table(name, caption, "Variant", heads, tuple(lines), _notes(run), f"{run.name}-{name}", "Injected")]


def _group(run: Run, dataset: str, share: float) -> str:
    where = f"{dataset}, " if len(run.datasets) > 1 else ""
    return f"{where}{100 * share:g} % injected"


def _where(run: Run) -> str:
    return "" if len(run.datasets) > 1 else f" on {run.datasets[0]}"


def _notes(run: Run) -> tuple[str, ...]:
    """How histories were changed, and what fell out of them."""
    shares, dropped = noise_shares(run), []
    for dataset in run.datasets:
        found = [run.noise(cell).get(("dropped", "injected", shares[-1])) for cell in run.ids(dataset)]
        lost = max((share for share in found if share), default=0.0)  # the same in every cell that has it
        if lost:
            where = f" on {dataset}" if len(run.datasets) > 1 else ""
            dropped.append(f"{100 * lost:.1f} % of the real events{where}")
    note = (
        "Injected events carry items that the user has no event with, drawn uniformly, the same for every variant and "
        "seed, at random places before the last event, which stays real."
    )
    if dropped:
        note += (
            f" Histories that would outgrow the window lose their oldest real events: {', '.join(dropped)} at "
            f"{100 * shares[-1]:g} %; effects are measured against the same shortened history without noise."
        )
    return note, *provenance(run, run.datasets, run.variants)
