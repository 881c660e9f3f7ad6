"""The tables of one study: results, declared differences, candidate protocols, cost.

All but the cost table are a function of the rows and the design alone: they hold no time and no date, so a study
that was interrupted and resumed prints the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from harness.analysis.comparisons import (
    Contrast,
    base_of_all,
    comparisons,
    looks_corrected_for,
    named,
    over_users_and_seeds,
    to_base,
)
from harness.analysis.decoding_tables import decoding_table
from harness.analysis.noise import noise_tables
from harness.analysis.provenance import count, incomplete, provenance
from harness.analysis.published import load_published, published_folder, published_table
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.slices import history_table
from harness.analysis.statistics import CORRECTIONS, TESTS, Comparison, TwoLevel, wilcoxon_warning
from harness.analysis.tables import Column, Entry, Line, Table, between, fixed, probability
from harness.analysis.tuning import ledger_table, load_tuning, mark_unequal
from harness.errors import InputError, nearest
from harness.files import as_file_name

__all__ = [
    "cost_table", "differences_table", "evidence_tables", "passes", "reference_metrics", "references_table",
    "results_table", "study_tables",
]  # fmt: skip

DIGITS = 4
_RELATIVE = "percent"
_ADJUSTED = {"holm": ("p_holm", "Holm p"), "benjamini-hochberg": ("p_bh", "BH p")}
"""Correction -> key and title of the column."""
THESE = "(*)"
"""Marks a difference on these users only."""
WIDEST = 6
"""More columns of results than this are stacked, one block of lines per data set."""


def study_tables(run: Run) -> list[Table]:
    """Every table of the study, cost last."""
    tables = evidence_tables(run)
    beside = published_table(run, load_published(published_folder(run)))
    tuned = load_tuning(run)
    if tuned:
        tables = [mark_unequal(run, tuned, table) for table in tables]
    audit = decoding_table(run)
    tables += [*([beside] if beside else []), *noise_tables(run), *([audit] if audit else [])]
    return [*tables, *([ledger_table(run, tuned)] if tuned else []), cost_table(run)]


def evidence_tables(run: Run) -> list[Table]:
    """The tables that are a function of rows and design alone."""
    tables = [results_table(run, name, **choice) for name, choice in _choices(run).items()]
    if run.pairs:
        tables.append(differences_table(run))
        if run.task == "action":
            tables += [relative_table(run), *per_action_tables(run)]
    if passing := references_table(run):
        tables.append(passing)
    if run.task == "retrieval":
        tables.append(candidates_table(run))
        if by_length := history_table(run):
            tables.append(by_length)
    return tables


def results_table(
    run: Run,
    name: str = "main",
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
) -> Table:
    """Variants x (data set x metric): mean ± standard deviation over seeds; the primary metric carries the test.

    ``rows`` are variants, ``columns`` metrics, ``datasets`` data sets; each defaults to all of the study.
    """
    rows, columns, datasets = list(rows or run.variants), list(columns or run.metrics), list(datasets or run.datasets)
    declared = comparisons(run) if run.primary in columns else {}
    tested = _by_base(run, declared)
    elsewhere = len(declared) - len(tested)
    cells = {
        (dataset, metric): _results(run, dataset, metric, rows, tested if metric == run.primary else {}, errors=True)
        for dataset in datasets
        for metric in columns
    }
    relative = {d: _relative(run, d, rows, tested) for d in datasets} if tested else {}
    if tested:
        columns.append(_RELATIVE)
        cells |= {(d, _RELATIVE): entries for d, entries in relative.items()}
    titles = {_RELATIVE: "Δ %"} | {
        metric: metric_label(metric) + (" ↓" if lower_is_better(metric) else "")
        for metric in columns
        if metric != _RELATIVE
    }
    if len(datasets) * len(columns) <= WIDEST or len(datasets) == 1:
        group = (lambda dataset: dataset) if len(datasets) > 1 else (lambda dataset: "")
        heads = [Column(f"{d}/{m}", titles[m], group(d)) for d in datasets for m in columns]
        lines = [
            Line(v, run.label(v), tuple(cells[d, m][v] for d in datasets for m in columns))
            for v in rows
        ]  # fmt: skip
    else:
        heads = [Column(m, titles[m]) for m in columns]
        lines = [Line(v, run.label(v), tuple(cells[d, m][v] for m in columns), d) for d in datasets for v in rows]
    references = [run.label(v) for v in rows if v not in run.contenders]
    data = f" Data: {datasets[0]}." if len(datasets) == 1 else ""
    caption = f"{_title(run)}{data} Test part, mean ± standard deviation over seeds; best in bold, second underlined."
    if any(entry.error for column in cells.values() for entry in column.values()):
        caption += f" In brackets behind {metric_label(run.primary)}: its standard error over users."
    if tested:
        marks = {entry.mark for column in cells.values() for entry in column.values()} - {""}
        metric, base = metric_label(run.primary), base_of_all(run)
        against = run.label(base) if base else "what it is compared with"
        caption += f" Δ %: {metric} relative to {against}"
        caption += ", over the seeds that both have." if incomplete(run, datasets, rows) else "."
    if any(c.p is not None for c in tested.values()) and ("*" in marks or not elsewhere):
        corrected = CORRECTIONS[run.correction]
        caption += (
            (
                f" *: {metric} differs from that of {against}"
                if "*" in marks
                else f" No {'tested ' if references else ''}{metric} differs from that of {against}"
            )
            + f" at p < 0.05 ({TESTS[run.test]} over seeds, and over seeds and users; {corrected}'s correction for "
            + f"{count(_family_size(tested), 'comparison')})."
            + (f" {THESE}: over seeds alone, so on these users only." if THESE in marks else "")
        )
    if elsewhere:
        caption += f" {count(elsewhere, 'more comparison')} in the table of differences."
    if references:
        caption += f" For orientation: {', '.join(references)} (see the table of references)."
    notes = (
        *provenance(run, datasets, rows),
        *_deterministic(run, datasets, rows),
        *_undefined(run, datasets, columns),
        *_outside(run, datasets, rows),
    )
    label = f"{run.name}-{name}"
    return Table(name, caption, "Variant", tuple(heads), tuple(lines), notes, label)


def _by_base(run: Run, tested: Mapping[Contrast, Comparison]) -> dict[tuple[str, str], Comparison]:
    """(data set, variant) -> its comparison with what it is first compared with."""
    return {(d, arm): c for (d, arm, than), c in tested.items() if run.bases.get(arm) == than}


def _outside(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> list[str]:
    """What a reader must know of predictions that another system made."""
    return [
        f"{run.label(cell.variant)}{f' on {cell.dataset}' if len(datasets) > 1 else ''}, seed {cell.seed}: {note}."
        for cell in run.finished.itertuples()
        if cell.dataset in datasets and cell.variant in rows
        for note in (note.rstrip(".") for note in run.cards[cell.id].get("notes", ()))
    ]


def differences_table(run: Run) -> Table:
    """The declared pairs on the primary metric: how much, how sure, and the verdict."""
    tested = comparisons(run)
    known = any(c.interval_users is not None for c in tested.values())
    adjusted_key, adjusted_title = _ADJUSTED[run.correction]
    heads = [
        Column("difference", "Difference"),
        Column("percent", "Δ %"),
        Column("interval", "95 % interval"),
        *([Column("two-level", "Users × seeds")] if known else []),
        Column("better", "P(better)"),
        Column("p", "p"),
        Column(adjusted_key, adjusted_title),
        *([Column(f"{adjusted_key}_users", f"{adjusted_title}, users")] if known else []),
        Column("p_exact", "Exact p"),
        Column("verdict", "Verdict", align="l"),
    ]
    lines = []
    for dataset in run.datasets:
        for arm, than in run.pairs:
            c = tested.get((dataset, arm, than))
            ids = tuple(run.ids(dataset, arm) + run.ids(dataset, than))
            if c is None:
                entries: tuple[Entry, ...] = (Entry(),) * (len(heads) - 1) + (Entry("not run", "not run"),)
            else:
                entries = (
                    Entry(fixed(c.difference, DIGITS, sign=True), c.difference),
                    Entry(fixed(c.percent, 1, sign=True), c.percent),
                    Entry(between(c.interval, DIGITS), _pair(c.interval)),
                    *([Entry(between(c.interval_users, DIGITS), _pair(c.interval_users))] if known else []),
                    Entry(fixed(c.probability_a_better, 2), c.probability_a_better),
                    Entry(probability(c.p), c.p),
                    Entry(probability(c.p_adjusted), c.p_adjusted),
                    *([Entry(probability(c.p_users_adjusted), c.p_users_adjusted)] if known else []),
                    Entry(probability(c.p_exact), c.p_exact),
                    Entry(c.verdict, c.verdict),
                )
            entries = tuple(_with_cells(entry, ids) for entry in entries)
            lines.append(Line(*named(run, arm, than), entries, dataset if len(run.datasets) > 1 else ""))
    metric = metric_label(run.primary)
    corrected = CORRECTIONS[run.correction]
    adjusted = "" if run.test == "t" else f"of the {TESTS[run.test]}, "
    caption = (
        f"Difference in {metric}{to_base(run)}, paired over seeds"
        f"{'' if len(run.datasets) > 1 else ', on ' + run.datasets[0]}. Interval and p: paired t-test"
        f"{'; users × seeds: 95 % interval for new users and new seeds' if known else ''}; "
        f"P(better): how often one of its runs beats one of the other's; {adjusted_title}: {adjusted}within the family "
        f"of {_family_size(tested)}{', over seeds, and over users and seeds' if known else ''}; exact p: sign-flip "
        f"test (never below 2 / 2ⁿ for n seeds). The verdict is {corrected}'s at 0.05: better or worse need both p, "
        f"the seeds' alone holds for these users only{_margin(run)}."
    )
    if lower_is_better(run.primary):
        caption += f" Lower {metric} is better."
    notes = (*provenance(run, run.datasets, run.variants), *_test_notes(run, tested))
    return Table("differences", caption, "Variant", tuple(heads), tuple(lines), notes, f"{run.name}-differences")


def _family_size(tested: Mapping[Any, Comparison]) -> int:
    """How many comparisons the correction is for, with those that were declared and have no runs yet."""
    return next(iter(tested.values())).family_size if tested else 0


def references_table(run: Run) -> Table | None:
    """Whether each variant passes each reference, for new seeds and new users; None without references."""
    metrics = reference_metrics(run)
    heads = [
        Column(f"{metric}/{key}", title, metric_label(metric) if len(metrics) > 1 else "", align)
        for metric in metrics
        for key, title, align in (
            ("difference", "Difference", "r"), ("two-level", "Users × seeds", "r"), ("passes", "Passes", "l")
        )
    ]  # fmt: skip
    lines = []
    for dataset in run.datasets:
        for reference in [v for v in run.variants if v not in run.contenders]:
            for variant in run.contenders:
                ids = tuple(run.ids(dataset, variant) + run.ids(dataset, reference))
                entries: list[Entry] = []
                for metric in metrics:
                    wide = over_users_and_seeds(run, dataset, variant, reference, metric)
                    said = passes(wide, lower_is_better(metric))
                    entries += [
                        Entry(fixed(wide and wide.difference, DIGITS, sign=True), wide and wide.difference, cells=ids),
                        Entry(between(wide and wide.interval, DIGITS), _pair(wide and wide.interval), cells=ids),
                        Entry(said, said, cells=ids),
                    ]
                where = f"{dataset}, " if len(run.datasets) > 1 else ""
                key = f"{variant}/{reference}"
                lines.append(Line(key, run.label(variant), tuple(entries), f"{where}{run.label(reference)}"))
    if not lines:
        return None
    shown = " and ".join(metric_label(metric) for metric in metrics)
    caption = (
        f"Differences in {shown} to the references{'' if len(run.datasets) > 1 else ' on ' + run.datasets[0]}, with "
        "the 95 % interval for new seeds and new users. A variant passes a reference where the whole interval is on "
        "the better side of 0, does not where it is on the other, else it is undecided; the number of comparisons is "
        "not corrected for."
    )
    notes = provenance(run, run.datasets, run.variants)
    return Table(
        "references", caption, "Variant", tuple(heads), tuple(lines), notes, f"{run.name}-references", "Reference"
    )  # fmt: skip


def reference_metrics(run: Run) -> list[str]:
    """What variants are held against references by: the primary metric; for actions NE too, whose mean over actions
    gives a rare one the weight of any other."""
    return list(dict.fromkeys([run.primary, "ne"] if run.task == "action" else [run.primary]))


def passes(wide: TwoLevel | None, lower: bool) -> str:
    """Whether a difference to a reference is for the better: "yes", "no", "undecided"; "not tested" without seeds."""
    if wide is None:
        return "not tested"
    low, high = (-wide.interval[1], -wide.interval[0]) if lower else wide.interval
    return "yes" if low > 0 else "no" if high < 0 else "undecided"


def relative_table(run: Run) -> Table:
    """The declared pairs on every metric: relative difference in percent, with its 95 % interval."""
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
        f"{'a' if run.test == 't' else 'an'} {TESTS[run.test]}, with {corrected}'s correction within each metric, and "
        f"over users and seeds too; {THESE}: over seeds alone, so on these users only."
    )
    notes = provenance(run, run.datasets, run.variants)
    return Table("relative", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-relative")


def per_action_tables(run: Run) -> list[Table]:
    """The primary metric of each action, a table per data set that has more than one."""
    family = run.primary.partition("/")[0]
    better = "Lower" if lower_is_better(family) else "Higher"
    tables = []
    for dataset in run.datasets:
        actions = run.actions(dataset)
        if len(actions) < 2:
            continue
        columns = [_results(run, dataset, f"{family}/{action}", run.variants, {}) for action in actions]
        lines = [Line(v, run.label(v), tuple(column[v] for column in columns)) for v in run.variants]
        heads = tuple(Column(f"{family}/{action}", action) for action in actions)
        caption = (
            f"{metric_label(family)} of each action on {dataset}, mean ± standard deviation over seeds; best in bold, "
            f"second underlined. {better} is better; a dash where it is undefined."
        )
        name = "per-action" if len(run.datasets) == 1 else f"per-action-{as_file_name(dataset)}"
        notes = provenance(run, [dataset], run.variants)
        tables.append(Table(name, caption, "Variant", heads, tuple(lines), notes, f"{run.name}-{name}"))
    return tables


def _relative_entry(c: Comparison | None, ids: tuple[str, ...]) -> Entry:
    if c is None or c.percent is None:
        return Entry(cells=ids)
    interval = "" if c.interval_percent is None else f" {between(c.interval_percent, 2)}"
    return Entry(fixed(c.percent, 2, sign=True) + interval, c.percent, mark=_mark(c), cells=ids)


def candidates_table(run: Run) -> Table:
    """The primary metric under both candidate protocols."""
    grouped = len(run.datasets) > 1
    protocols = {"unseen": "History removed", "all": "History kept"}
    cells = {
        (dataset, protocol): _results(run, dataset, run.primary, run.variants, {}, candidates=protocol)
        for dataset in run.datasets
        for protocol in protocols
    }
    if len(run.datasets) * len(protocols) <= WIDEST:
        heads = [
            Column(f"{d}/{p}", title, d if grouped else "") for d in run.datasets for p, title in protocols.items()
        ]
        lines = [
            Line(v, run.label(v), tuple(cells[d, p][v] for d in run.datasets for p in protocols)) for v in run.variants
        ]
    else:
        heads = [Column(p, title) for p, title in protocols.items()]
        lines = [
            Line(v, run.label(v), tuple(cells[d, p][v] for p in protocols), d)
            for d in run.datasets
            for v in run.variants
        ]
    trained = any(card.get("training") for card in run.cards.values())
    chosen = f"; the epoch was chosen on validation with it {'kept' if run.candidates == 'all' else 'removed'}"
    caption = (
        f"{metric_label(run.primary)} under both candidate protocols{'' if grouped else ' on ' + run.datasets[0]}: the "
        f"user's history removed from the candidates, or kept{chosen if trained else ''}. Mean ± standard deviation "
        "over seeds; best in bold, second underlined."
    )
    notes = provenance(run, run.datasets, run.variants)[1:]
    return Table("candidates", caption, "Variant", tuple(heads), tuple(lines), notes, f"{run.name}-candidates")


def cost_table(run: Run) -> Table:
    """What a cell costs: the one table with seconds in it."""
    kinds = (
        ("parameters", "Parameters (k)", 1e-3, 1),
        ("training_flops_per_event", "MFLOPs/event", 1e-6, 2),
        ("train_seconds", "Train (s)", 1, 1),
        ("evaluation_seconds", "Evaluate (s)", 1, 1),
        ("events_per_second", "k events/s", 1e-3, 1),
        ("peak_memory_bytes", "Memory (MiB)", 2**-20, 0),
        ("epochs", "Epochs", 1, 1),
    )
    lines = []
    for dataset in run.datasets:
        for variant in run.variants:
            ids = run.ids(dataset, variant)
            costs = [run.cost(cell) for cell in ids]
            entries = []
            for key, _, scale, digits in kinds:
                values = [cost[key] * scale for cost in costs if cost.get(key) is not None]
                same = len(set(values)) == 1
                entries.append(_with_cells(_mean(values, digits, spread=not same), tuple(ids)))
            lines.append(Line(variant, run.label(variant), tuple(entries), dataset if len(run.datasets) > 1 else ""))
    devices = sorted({_device(card) for card in run.cards.values() if card.get("hardware")})
    caption = (
        f"Cost of one cell{'' if len(run.datasets) > 1 else ' on ' + run.datasets[0]}, mean ± standard deviation over "
        "seeds. Training and evaluation seconds exclude each other and the loading of data; memory is the peak."
    )
    measured = [f"Measured on {'; '.join(devices)}."] if devices else []
    notes = (*measured, *provenance(run, run.datasets, run.variants)[-1:])
    heads = tuple(Column(key, title) for key, title, _, _ in kinds)
    return Table("cost", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-cost")


def _choices(run: Run) -> dict[str, dict[str, list[str]]]:
    """Rows and columns of the result tables, from the study's ``tables`` or all of them in one."""
    chosen = run.study.get("tables") or {"main": {}}
    known = {"rows": run.variants, "columns": None, "datasets": run.datasets}
    for name, choice in chosen.items():
        for key, values in (choice or {}).items():
            where = f"study '{run.name}', table '{name}'"
            if key not in known:
                raise InputError(f"{where}: unknown key '{key}'; {nearest(key, known)}")
            odd = [value for value in values if known[key] is not None and value not in known[key]]
            if odd:
                raise InputError(f"{where}: unknown {key[:-1]} '{odd[0]}'; {nearest(odd[0], known[key])}")
    return {name: choice or {} for name, choice in chosen.items()}


def _results(
    run: Run,
    dataset: str,
    metric: str,
    rows: Sequence[str],
    tested: dict,
    candidates: str | None = None,
    errors: bool = False,
) -> dict[str, Entry]:
    """One column: mean ± sd of each variant, the best two marked, with stars where the test found a difference.

    ``errors``: with the standard error over users, which is shown for the primary metric and else in the CSV file only.
    """
    values = {v: list(run.by_seed(dataset, v, metric, candidates=candidates).values()) for v in rows}
    values = {v: [x for x in found if np.isfinite(x)] for v, found in values.items()}
    means = {v: float(np.mean(found)) for v, found in values.items() if found}
    order = sorted(set(means.values()), reverse=not lower_is_better(metric)) if len(means) > 1 else []
    styles = dict(zip(order, ("best", "second"), strict=False))
    entries = {}
    for variant, found in values.items():
        entry = _mean(found, DIGITS)
        error = _error_over_users(run, dataset, variant, metric) if errors and found else None
        entries[variant] = replace(
            entry,
            error=fixed(error, DIGITS) if error is not None and metric == run.primary else "",
            error_value=error,
            mark=_mark(tested.get((dataset, variant))),
            style=styles.get(means.get(variant), ""),
            cells=tuple(run.ids(dataset, variant)),
        )
    return entries


def _error_over_users(run: Run, dataset: str, variant: str, metric: str) -> float | None:
    """Standard error over users of the mean over seeds and users: how far it would move with other users."""
    cells = run.ids(dataset, variant)
    run.check_same_users(cells)
    values = [run.user_values(cell, metric) for cell in cells]
    if any(found is None for found in values) or len(values[0]) < 2:
        return None
    return float(stats.sem(np.mean(values, axis=0)))


def _deterministic(run: Run, datasets: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Which variants have no deviation, because their rows are the same in every seed."""
    found = [
        run.label(v)
        for v in rows
        if all(len({*found.values()}) == 1 < len(found) for found in (run.by_seed(d, v, run.primary) for d in datasets))
    ]
    return [f"Deterministic, the same in every seed: {', '.join(found)}."] if found else []


def _mark(c: Comparison | None) -> str:
    return {"better": "*", "worse": "*", "on these users only": THESE}.get(c.verdict, "") if c else ""


def _relative(run: Run, dataset: str, rows: Sequence[str], tested: dict) -> dict[str, Entry]:
    """The column of relative differences, in percent of the mean of what a variant is compared with."""
    entries = {}
    for variant in rows:
        comparison = tested.get((dataset, variant))
        base = run.bases.get(variant)
        entries[variant] = Entry(cells=tuple(run.ids(dataset, variant) + (run.ids(dataset, base) if base else [])))
        if comparison is not None:
            shown = fixed(comparison.percent, 1, sign=True)
            entries[variant] = Entry(shown, comparison.percent, cells=entries[variant].cells)
    return entries


def _mean(values: Sequence[float], digits: int, spread: bool = True) -> Entry:
    if not values:
        return Entry()
    mean = float(np.mean(values))
    if len(set(values)) == 1 or not spread:
        return Entry(_thousands(mean, digits), mean)
    sd = float(np.std(values, ddof=1))
    return Entry(_thousands(mean, digits), mean, _thousands(sd, digits), sd)


def _thousands(value: float, digits: int) -> str:
    """Large whole numbers with narrow spaces between thousands, all else with fixed decimals."""
    return f"{value:,.0f}".replace(",", "\u202f") if digits == 0 else fixed(value, digits)


def _with_cells(entry: Entry, cells: tuple[str, ...]) -> Entry:
    return replace(entry, cells=cells)


def _pair(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:.12g} {interval[1]:.12g}"


def _title(run: Run) -> str:
    title = str(run.study.get("title") or run.name)
    return title if title.endswith((".", "?", "!")) else f"{title}."


def _margin(run: Run) -> str:
    margin = run.study.get("equivalence_margin")
    if not margin:
        return ""
    shown = f"{margin} of the mean of what is compared with" if isinstance(margin, str) else f"{margin:g}"
    return f"; equivalent: within ±{shown} by two one-sided tests, over seeds and over users and seeds"


def _undefined(run: Run, datasets: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Which actions leave a metric without a value, and why."""
    notes = []
    for dataset in datasets if run.task == "action" else ():
        for cell in run.ids(dataset)[:1]:
            names = [
                (metric_label(metric), action)
                for metric in metrics
                for action in run.actions(dataset)
                if metric in run.metrics and "/" not in metric and np.isnan(run.metric(cell, f"{metric}/{action}"))
            ]
            for action in dict.fromkeys(action for _, action in names):
                undefined = ", ".join(metric for metric, of in names if of == action)
                notes.append(
                    f"'{action}' occurs in every or in no test event of {dataset}, or of each of its users: "
                    f"{undefined} undefined for it, and so on average."
                )
    return notes


def _test_notes(run: Run, tested: dict) -> list[str]:
    notes: dict[str, list[str]] = {}
    for (dataset, *pair), comparison in tested.items():
        if comparison.note:
            where = named(run, *pair)[1] + (f" on {dataset}" if len(run.datasets) > 1 else "")
            notes.setdefault(comparison.note, []).append(where)
    said = [f"{', '.join(where)}: {note}." for note, where in notes.items()]
    if (looks := looks_corrected_for(run)) > 1:
        said.append(f"Every corrected p holds for {looks} looks while seeds are added (Bonferroni).")
    if run.correction == "benjamini-hochberg":
        said.append(
            "Benjamini-Hochberg's correction is for exploration: of the differences that it finds, 5 % at the most are "
            "none, on average; the chance of finding any that is none is larger."
        )
    if run.test == "wilcoxon" and tested:
        said.append(wilcoxon_warning(min(comparison.seeds for comparison in tested.values())))
    return said


def _device(card: dict[str, Any]) -> str:
    hardware = card.get("hardware", {})
    device, threads = hardware.get("device", "cpu"), hardware.get("threads", 1)
    return f"{hardware.get('cpu', 'CPU')} ({count(threads, 'thread')})" if device == "cpu" else str(device)
