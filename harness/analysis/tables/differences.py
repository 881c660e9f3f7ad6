"""The declared pairs of a study: how much they differ, how sure that is, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping

from harness.analysis.artefacts import ReportTable
from harness.analysis.comparisons import Contrast, check_variances_of, comparisons, looks_corrected_for, named, to_base
from harness.analysis.pooled import LIMIT
from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.statistics import CORRECTIONS, TESTS, Comparison, wilcoxon_warning
from harness.analysis.table import Column, Entry, Line, Table, between, fixed, probability
from harness.analysis.tables.numbers import DIGITS, THESE, family_size, mark, pair, with_cells

__all__ = ["Differences", "Relative"]

_ADJUSTED = {"holm": ("p_holm", "Holm p"), "benjamini-hochberg": ("p_bh", "BH p")}
"""Correction -> key and title of the column."""


class Differences(ReportTable):
    """The declared pairs on the primary metric: difference, intervals, tests and verdict."""

    order = 20
    compares = True

    def applies(self, run: Run) -> bool:
        return bool(run.pairs)

    def make(self, run: Run) -> Table:
        tested = comparisons(run)
        known = any(c.interval_users is not None for c in tested.values())
        heads = _heads(run, known)
        lines = []
        for dataset in run.datasets:
            for arm, than in run.pairs:
                c = tested.get((dataset, arm, than))
                ids = tuple(run.ids(dataset, arm) + run.ids(dataset, than))
                if c is None:
                    entries = [Entry()] * (len(heads) - 1) + [Entry("not run", "not run")]
                else:
                    entries = _entries(c, known)
                filled = tuple(with_cells(entry, ids) for entry in entries)
                lines.append(Line(*named(run, arm, than), filled, dataset if len(run.datasets) > 1 else ""))
        notes = (*provenance(run, run.datasets, run.variants), *_test_notes(run, tested))
        caption, label = _caption(run, tested, known), f"{run.name}-differences"
        return Table("differences", caption, "Variant", tuple(heads), tuple(lines), notes, label)


class Relative(ReportTable):
    """The declared pairs on every metric of an action study: relative difference with its 95 % interval."""

    order = 30
    compares = True

    def applies(self, run: Run) -> bool:
        return bool(run.pairs) and run.task == "action"

    def make(self, run: Run) -> Table:
        metrics = run.metrics
        tested = {metric: comparisons(run, metric) for metric in metrics}
        heads = tuple(Column(m, metric_label(m) + (" ↓" if lower_is_better(m) else "")) for m in metrics)
        lines = []
        for dataset in run.datasets:
            for arm, than in run.pairs:
                ids = tuple(run.ids(dataset, arm) + run.ids(dataset, than))
                entries = [_relative_entry(tested[metric].get((dataset, arm, than)), ids) for metric in metrics]
                lines.append(Line(*named(run, arm, than), tuple(entries), dataset if len(run.datasets) > 1 else ""))
        corrected = CORRECTIONS[run.correction]
        caption = (
            f"Relative difference{to_base(run)} in percent, with the 95 % interval over paired seeds"
            f"{'' if len(run.datasets) > 1 else ', on ' + run.datasets[0]}. *: p < 0.05 by "
            f"{'a' if run.test == 't' else 'an'} {TESTS[run.test]}, with {corrected}'s correction within each metric, "
            f"and over users and seeds too; {THESE}: over seeds alone, so on these users only."
        )
        notes = provenance(run, run.datasets, run.variants)
        return Table("relative", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-relative")


def _heads(run: Run, known: bool) -> list[Column]:
    key, title = _ADJUSTED[run.correction]
    return [
        Column("difference", "Difference"),
        Column("percent", "Δ %"),
        Column("interval", "95 % interval"),
        *([Column("two-level", "Users × seeds")] if known else []),
        Column("better", "P(better)"),
        Column("p", "p"),
        Column(key, title),
        *([Column(f"{key}_users", f"{title}, users")] if known else []),
        Column("p_exact", "Exact p"),
        Column("verdict", "Verdict", align="l"),
    ]


def _entries(c: Comparison, known: bool) -> list[Entry]:
    return [
        Entry(fixed(c.difference, DIGITS, sign=True), c.difference),
        Entry(fixed(c.percent, 1, sign=True), c.percent),
        Entry(between(c.interval, DIGITS), pair(c.interval)),
        *([Entry(between(c.interval_users, DIGITS), pair(c.interval_users))] if known else []),
        Entry(fixed(c.probability_a_better, 2), c.probability_a_better),
        Entry(probability(c.p), c.p),
        Entry(probability(c.p_adjusted), c.p_adjusted),
        *([Entry(probability(c.p_users_adjusted), c.p_users_adjusted)] if known else []),
        Entry(probability(c.p_exact), c.p_exact),
        Entry(c.verdict, c.verdict),
    ]


def _caption(run: Run, tested: Mapping[Contrast, Comparison], known: bool) -> str:
    metric = metric_label(run.primary)
    adjusted_title, corrected = _ADJUSTED[run.correction][1], CORRECTIONS[run.correction]
    adjusted = "" if run.test == "t" else f"of the {TESTS[run.test]}, "
    caption = (
        f"Difference in {metric}{to_base(run)}, paired over seeds"
        f"{'' if len(run.datasets) > 1 else ', on ' + run.datasets[0]}. {_first_test(run)}"
        f"{'; users × seeds: 95 % interval for new users and new seeds' if known else ''}; "
        f"P(better): how often one of its runs beats one of the other's; {adjusted_title}: {adjusted}within the family "
        f"of {family_size(tested)}{', over seeds, and over users and seeds' if known else ''}; exact p: sign-flip "
        f"test (never below 2 / 2ⁿ for n seeds). The verdict is {corrected}'s at 0.05: better or worse need both p, "
        f"the seeds' alone holds for these users only{_margin(run)}."
    )
    return caption + (f" Lower {metric} is better." if lower_is_better(run.primary) else "")


def _first_test(run: Run) -> str:
    if run.test == "pooled":
        return "Interval: from the variance that all arms share, where the note says so; p: paired t-test"
    return "Interval and p: paired t-test"


def _margin(run: Run) -> str:
    margin = run.study.get("equivalence_margin")
    if not margin:
        return ""
    shown = f"{margin} of the mean of what is compared with" if isinstance(margin, str) else f"{margin:g}"
    return f"; equivalent: within ±{shown} by two one-sided tests, over seeds and over users and seeds"


def _test_notes(run: Run, tested: Mapping[Contrast, Comparison]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for (dataset, *contrast), comparison in tested.items():
        if comparison.note:
            where = named(run, *contrast)[1] + (f" on {dataset}" if len(run.datasets) > 1 else "")
            notes.setdefault(comparison.note, []).append(where)
    said = [f"{', '.join(where)}: {note}." for note, where in notes.items()]
    if (looks := looks_corrected_for(run)) > 1:
        said.append(f"Every corrected p holds for {looks} looks while seeds are added (Bonferroni).")
    if any(c.draws > 1 for c in tested.values()):
        said.append(
            "Item codes were drawn several times, crossed with the seeds: of variants with codes, intervals and p take "
            "both as samples (random effects, Cochran's t), so that they hold for new codes; such p are never exact."
        )
    if run.correction == "benjamini-hochberg":
        said.append(
            "Benjamini-Hochberg's correction is for exploration: of the differences that it finds, 5 % at the most are "
            "none, on average; the chance of finding any that is none is larger."
        )
    if run.test == "pooled":
        checks = "; ".join(f"{dataset}: {check_variances_of(run, dataset).said}" for dataset in run.datasets)
        said.append(f"One variance over seeds for all arms where both checks have p > {LIMIT:g}. {checks}.")
    if run.test == "wilcoxon" and tested:
        said.append(wilcoxon_warning(min(comparison.seeds for comparison in tested.values())))
    return said


def _relative_entry(c: Comparison | None, ids: tuple[str, ...]) -> Entry:
    if c is None or c.percent is None:
        return Entry(cells=ids)
    interval = "" if c.interval_percent is None else f" {between(c.interval_percent, 2)}"
    return Entry(fixed(c.percent, 2, sign=True) + interval, c.percent, mark=mark(c), cells=ids)
