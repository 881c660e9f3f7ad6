"""The declared pairs over several data sets: a sign for each, and an aggregate."""

from __future__ import annotations

from collections.abc import Mapping

from harness.analysis.across import FEWEST, Pair, Place, friedman_line, pairs_across, places_of
from harness.analysis.artefacts import ReportTable
from harness.analysis.comparisons import named, to_base
from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, metric_label
from harness.analysis.statistics import Comparison
from harness.analysis.table import MINUS, Column, Entry, Line, Table, between, fixed
from harness.analysis.tables.numbers import pair as interval_value

__all__ = ["Datasets", "datasets_table"]

SIGNS = {"better": "+", "worse": MINUS, "equivalent": "=", "undecided": "?"}


class Datasets(ReportTable):
    """The declared pairs, a sign per data set, with the mean over data sets."""

    order = 25
    compares = True

    def applies(self, run: Run) -> bool:
        return len(run.datasets) > 1 and bool(run.pairs)

    def make(self, run: Run) -> Table:
        return datasets_table(places_of([run]))


def datasets_table(places: Mapping[str, Place]) -> Table:
    """The table of runs of one design on other data sets, or of one run on several."""
    runs = list({id(place.run): place.run for place in places.values()}.values())
    run, pairs = runs[0], pairs_across(places)
    heads = (
        *(Column(name, name, align="l") for name in places),
        Column("counts", "+ / − / ?"),
        Column("mean", "Mean Δ %"),
        Column("interval", "95 % interval"),
    )
    lines = []
    for pair in pairs:
        ids = tuple(i for p in places.values() for v in (pair.arm, pair.than) for i in p.run.ids(p.dataset, v))
        entries = [_sign(pair.found.get(name), place, pair) for name, place in places.items()]
        mean, wide = (pair.aggregate.mean, pair.aggregate.interval) if pair.aggregate else (None, None)
        counts = _counts(pair)
        entries += [
            Entry(counts, counts, cells=ids),
            Entry(fixed(mean, 1, sign=True), mean, cells=ids),
            Entry(between(wide, 1), interval_value(wide), cells=ids),
        ]
        lines.append(Line(*named(run, pair.arm, pair.than), tuple(entries)))
    caption = (
        f"The verdicts on {metric_label(run.primary)}{to_base(run)}, by data set. +: better; {MINUS}: worse; =: "
        f"equivalent; ?: undecided; in brackets: on these users only; with the relative difference in percent. "
        "Mean Δ %: random-effects mean of the relative differences, with its 95 % interval for data sets like these "
        "(Paule and Mandel; Hartung, Knapp, Sidik and Jonkman)."
    )
    notes = (
        [] if len(places) >= FEWEST else [f"No mean over data sets: it takes {FEWEST}, and there are {len(places)}."]
    )
    notes += [friedman_line(places), *(note for r in runs for note in provenance(r, r.datasets, r.variants))]
    return Table(
        "datasets", caption, "Variant", heads, tuple(lines), tuple(dict.fromkeys(notes)), f"{run.name}-datasets"
    )


def _sign(c: Comparison | None, place: Place, pair: Pair) -> Entry:
    cells = tuple(i for v in (pair.arm, pair.than) for i in place.run.ids(place.dataset, v))
    if c is None:
        return Entry("not run", "not run", cells=cells)
    upward = SIGNS["better"] if (c.difference > 0) == c.higher_is_better else SIGNS["worse"]
    sign = f"({upward})" if c.verdict == "on these users only" else SIGNS[c.verdict]
    percent = "" if c.percent is None else f" {fixed(c.percent, 1, sign=True)}"
    return Entry(sign + percent, c.verdict, cells=cells)


def _counts(pair: Pair) -> str:
    """How many data sets say better, worse, and neither."""
    said = [c.verdict for c in pair.found.values()]
    better, worse = said.count("better"), said.count("worse")
    return f"{better} / {worse} / {len(said) - better - worse}"
