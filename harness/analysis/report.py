"""The report of a run: all its tables and figures as files, and one HTML page that holds everything.

The page needs no network and runs no script. It is a function of the run folder alone: no date, no random id.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from harness.analysis import attention_figures, diagnostic_figures, figures, noise_figures, slices
from harness.analysis.claims import claims_for, ledger_table, load_claims
from harness.analysis.comparisons import Contrast, comparisons, note_look, over_users_and_seeds, to_base
from harness.analysis.efficiency import PARTS, Efficiency, efficiency_tables, is_efficiency, load_efficiency, sentences
from harness.analysis.provenance import count
from harness.analysis.rows import Run, load_run, lower_is_better, metric_label, read_outside
from harness.analysis.statistics import CORRECTIONS, MINIMUM_BLOCKS, Comparison
from harness.analysis.study_tables import passes, reference_metrics, study_tables
from harness.analysis.style import save, style
from harness.analysis.tables import Table, fixed, html_table, probability, write_tables
from harness.analysis.tuning import load_tuning
from harness.analysis.verify import write_efficiency_evidence, write_evidence
from harness.analysis.warnings import warnings_of
from harness.files import as_file_name, write_text

__all__ = ["Picture", "pictures", "verdicts", "write_report"]


MOST_SENTENCES = 8
"""More comparisons than this are summed up over data sets."""
SECTIONS = {
    "diagnostics": "training",
    "noise": "noise",
    "attention": "attention",
    "calibration": "results",
    "history": "results",
}
"""Where a data set's figures stand, by the first word of their names."""
_WORDS = {
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
    "not tested": "not tested, for want of two seeds, for",
}
"""What :func:`study_tables.passes` answers, in a sentence about the reference."""
_MANY = {
    "better": "better than {}",
    "worse": "worse than {}",
    "equivalent": "the same as {} within the stated margin",
    "on these users only": "different from {} on these users only",
    "undecided": "statistically indistinguishable from {}",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the report with its file name, its section and its caption."""

    name: str
    section: str
    caption: str
    figure: Figure


def write_report(run_dir: str | Path) -> list[Path]:
    """Derives every table and figure of the run in ``run_dir`` and its report; returns the paths of all files.

    Raises:
        InputError: no run folder, no finished cell, or a damaged file.
    """
    if is_efficiency(run_dir):
        return _write_efficiency_report(load_efficiency(run_dir))
    run = load_run(run_dir)
    note_look(run)
    tables = study_tables(run)
    drawn = list(pictures(run))
    papers, claims = load_claims()
    findings = claims_for(run, claims)
    paths = write_tables(tables, run.path / "tables")
    for picture in drawn:
        paths += save(picture.figure, run.path / "figures", picture.name)
    paths.append(run.path / "report.html")
    write_text(paths[-1], page(run, tables, drawn, ledger_table(papers, findings) if findings else None))
    return [*paths, write_evidence(run)]


def _write_efficiency_report(found: Efficiency) -> list[Path]:
    tables, drawn = efficiency_tables(found), efficiency_pictures(found)
    paths = write_tables(tables, found.path / "tables")
    for picture in drawn:
        paths += save(picture.figure, found.path / "figures", picture.name)
    paths.append(found.path / "report.html")
    write_text(paths[-1], efficiency_page(found, tables, drawn))
    return [*paths, write_efficiency_evidence(found)]


def efficiency_pictures(found: Efficiency) -> list[Picture]:
    """The curves over sequence lengths, and the bars of a step's parts."""
    quantities = {
        "step_milliseconds": "Milliseconds of a step",
        "tokens_per_second": "Tokens per second",
        "gigaflops": "GFLOPs of a step",
        "peak_mebibytes": "Peak MiB of a step",
    }
    table = found.frame.assign(
        step_milliseconds=found.frame["step_seconds"] * 1e3,
        gigaflops=found.frame["flops"] / 1e9,
        peak_mebibytes=found.frame["peak_memory_bytes"] / 2**20,
    )
    titles = dict(zip(PARTS, ("Embeddings", "Backbone", "Head and loss", "Optimizer"), strict=True))
    events = f"{found.study['events']:,} events"
    return [
        Picture(
            "efficiency",
            "efficiency",
            f"Step time (median over turns), tokens per second, FLOPs and peak memory of a training step on {events} "
            "against the length of the sequences, on logarithmic axes.",
            figures.efficiency_curves(table, quantities),
        ),
        Picture(
            "training-time",
            "efficiency",
            f"Time of a training step on {events} relative to {found.control}, by sequence length. Bars: its parts, "
            "timed in steps of their own; marks: whole steps, median and extremes of the ratios within a turn.",
            figures.training_time(table, {f"relative_{part}": titles[part] for part in PARTS}, found.control),
        ),
    ]


def pictures(run: Run) -> Iterator[Picture]:
    """The figures that the run's cells have the evidence for."""
    primary = metric_label(run.primary)
    if comparisons(run):
        corrected = CORRECTIONS[run.correction]
        caption = (
            f"Differences in {primary}{to_base(run)}, paired over seeds, with 95 % intervals: thick over seeds "
            "(Student's t), for these users; thin over users and seeds. The grey band is the stated margin. At the "
            f"right: relative difference and verdict, {corrected}-corrected over the whole family at 0.05."
        )
        yield Picture("differences", "results", caption, figures.forest_plot(run))
    caption = (
        "Learning curves: mean over seeds, band of one standard deviation, as far as every seed trained. The mark "
        f"stands at the validation nearest to the mean of the chosen epochs (best validation {primary}). Losses with "
        "different terms have different scales."
    )
    if any(len(run.history(cell)) for cell in run.finished["id"]):
        yield Picture("learning-curves", "training", caption, figures.learning_curves(run))
    if len(run.variants) > 1:
        caption = (
            f"Accuracy against cost: test {primary}, mean and one standard deviation over seeds, and training seconds, "
            "mean and extremes. The grey line joins the variants that no other beats in both. The seconds are those "
            "that went by, with whatever else the machine did meanwhile; FLOPs per event stand in the table of costs."
        )
        yield Picture("accuracy-against-cost", "cost", caption, figures.accuracy_against_cost(run))
    if len(run.datasets) >= MINIMUM_BLOCKS and len(run.contenders) > 2 and _complete(run):
        caption = (
            f"Average ranks of the variants by {primary} over {len(run.datasets)} data sets, 1 = best. A bar joins "
            "variants that Nemenyi's test can't tell apart at 0.05."
        )
        yield Picture("critical-differences", "results", caption, figures.critical_differences(run))
    if tuned := load_tuning(run):
        caption = (
            f"Tuning: validation {primary} of each trial at its best epoch (pruned trials hollow), and the best so "
            "far. The dashed line is the study's own setting, where it was tried first. Each panel has its own scale."
        )
        yield Picture("tuning", "tuning", caption, figures.tuning_curves(run, tuned))
    hidden = "; its own action is hidden, so a token or a pooling of it has no weight" if run.task == "action" else ""
    further = (
        " Further maps of a model, such as a pooling, count as layers behind the others."
        if run.task == "action"
        else ""
    )
    for dataset in run.datasets:
        suffix = f"-{as_file_name(dataset)}" if len(run.datasets) > 1 else ""
        where = f" on {dataset}" if len(run.datasets) > 1 else ""
        makers: list[tuple[str, str, Callable[[Run, str], Figure | None]]] = [
            (
                f"diagnostics{suffix}",
                f"What trained{where}: the gradient of each auxiliary loss in percent of the main loss' (over the "
                "parameters that both reach, on one fixed batch), shaded from 1 to 50 %: below, a loss does next to "
                "nothing; above, it competes with the main one. The mean cosine between the states of different users "
                "(before the validation targets), dashed at 0.95: above, the ranking depends little on the user. Mean "
                "over seeds, band from the lowest to the highest, as far as every seed trained; the mark stands at the "
                "mean of the chosen epochs.",
                diagnostic_figures.training_diagnostics,
            ),
            (
                f"noise-attention{suffix}",
                f"Attention under noise{where}, as a growing share of the test histories is random items. Above, means "
                "over seeds with 95 % intervals; the dotted line is the injected share of what is read, where "
                "attention that can't tell noise would lie. Below, differences to the control, paired over seeds, with "
                "95 % intervals (Student's t). Weights of the last event, mean over users, layers and heads.",
                noise_figures.noise_attention,
            ),
            (
                f"noise-accuracy{suffix}",
                f"Ranking under noise{where}: test {primary} (dotted: of the same real events alone, without those "
                "that leave the window to make room), its change by the injected events in percent, how many of the "
                "ten best items stay. Above, means over seeds with 95 % intervals; below, differences to the control, "
                "paired over seeds, with theirs.",
                noise_figures.noise_accuracy,
            ),
            (
                f"attention-recency{suffix}",
                f"Where attention goes{where}: weight of the last event of each test history on itself (0) and on the "
                f"events before it{hidden}, mean over users, layers and heads, band of one standard deviation over "
                "seeds. Left: signed weight, which may cancel or be negative. Right: share of the absolute weight.",
                attention_figures.recency,
            ),
            (
                f"attention-relevance{suffix}",
                f"Whether attention goes to what matters{where}: weight of the last event of each test history on the "
                "tenths of that history, from the events least relevant to the target (1) to the most relevant (10). "
                "Relevance is the cosine of items' co-occurrence vectors (PPMI) in the training part, so no model "
                "defines it. Mean over users, layers and heads, band of one standard deviation over seeds; dotted: "
                "uniform attention.",
                attention_figures.relevance,
            ),
            (
                f"attention-entropy{suffix}",
                f"How focused each head is{where}: entropy of its absolute weights relative to the log of the number "
                "of visible tokens (1 = uniform, 0 = a single token), and the share of weight that is negative. Mean "
                f"over users, bars of one standard deviation over seeds.{further}",
                attention_figures.entropy_by_head,
            ),
            (
                f"attention-examples{suffix}",
                f"Signed attention of three users' last events{where} on the items of their histories (oldest above, a "
                "column per head), for the first seed. The users were chosen by a hash of their ids, not by what "
                "their maps look like. Red: positive, blue: negative; colours follow the square root of the weight.",
                attention_figures.examples,
            ),
        ]
        if run.task == "retrieval":
            caption = (
                f"{primary} by the length of the history{where}: mean over users and seeds, with 95 % intervals over "
                "users (Student's t)."
            )
            makers.append((f"history{suffix}", caption, slices.history_figure))
        if run.task == "action":
            caption = (
                f"Calibration{where}: share of test events with the action against the predicted probability, in ten "
                "bins of equal numbers of events; mean over seeds, band of one standard deviation. On the diagonal, "
                "probabilities mean what they say."
            )
            makers.append((f"calibration{suffix}", caption, figures.calibration))
        for name, caption, make in makers:
            figure = make(run, dataset)
            if figure is not None:
                yield Picture(name, SECTIONS[name.partition("-")[0]], caption, figure)


def _complete(run: Run) -> bool:
    """Whether every variant that is ranked has a result on every data set."""
    return all(run.ids(dataset, variant) for dataset in run.datasets for variant in run.contenders)


def verdicts(run: Run) -> list[str]:
    """The study's answer in plain sentences: one per comparison or, where many, a sum; and what passes a reference."""
    tested = comparisons(run)
    if not run.pairs:
        return _best(run) + _against_references(run)
    if len(tested) > MOST_SENTENCES:
        return _summed_up(run, tested) + _against_references(run)
    metric = metric_label(run.primary)
    return [
        f"On {dataset}, {run.label(arm)} {_WORDS[c.verdict].format(run.label(than))}: {metric} {fixed(c.mean_a, 4)} "
        f"against {fixed(c.mean_b, 4)}, {_certainty(c)}; {count(c.seeds, 'paired seed')}."
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
                said = "; ".join(f"{words} {', '.join(groups[key])}" for key, words in _PASSES.items() if key in groups)
                bar = fixed(float(means.loc[(dataset, reference), metric]), 4)
                bars.setdefault(said, []).append(f"{metric_label(metric)} {bar}")
            sentences += [
                f"On {dataset}, {run.label(reference)} ({', '.join(bar)}) is, by 95 % intervals over users and seeds, "
                f"{said}."
                for said, bar in bars.items()
            ]
    return sentences


def _summed_up(run: Run, tested: dict[Contrast, Comparison]) -> list[str]:
    """Many comparisons: one sentence per pair over all data sets, or per verdict where there is one data set."""
    if len(run.datasets) > 1:
        pairs = dict.fromkeys((arm, than) for _, arm, than in tested)
        return [_over_datasets(run, *p, [c for (_, arm, than), c in tested.items() if (arm, than) == p]) for p in pairs]
    groups: dict[tuple[str, str], list[str]] = {}
    for (_, arm, than), c in tested.items():
        groups.setdefault((than, c.verdict), []).append(f"{run.label(arm)} ({fixed(c.difference, 4, sign=True)})")
    order = sorted(groups, key=lambda key: list(_WORDS).index(key[1]))
    where, metric = run.datasets[0], metric_label(run.primary)
    return [
        f"On {where}, {_MANY[verdict].format(run.label(than))}, by the difference in {metric}: "
        f"{', '.join(groups[than, verdict])}."
        for than, verdict in order
    ]


def _over_datasets(run: Run, arm: str, than: str, comparisons: list[Comparison]) -> str:
    """One sentence on a pair over all data sets."""
    counts = Counter(c.verdict for c in comparisons)
    parts = [f"{_WORDS[verdict].format(run.label(than))} on {counts[verdict]}" for verdict in _WORDS if counts[verdict]]
    changes = [c.percent for c in comparisons if c.percent is not None]
    spread = (
        f": {metric_label(run.primary)} {fixed(min(changes), 1, sign=True)} % to {fixed(max(changes), 1, sign=True)} %"
        if changes
        else ""
    )
    return f"{run.label(arm)} {', '.join(parts)} of {len(comparisons)} data sets{spread}."


def _best(run: Run) -> list[str]:
    """The best variant on each data set, where the study declares no comparison and so nothing is tested."""
    direction = -1 if lower_is_better(run.primary) else 1
    means = run.metric_table(run.primary).groupby(level=["dataset", "variant"], sort=False)[run.primary].mean()
    sentences = []
    for dataset, values in means.dropna().groupby(level="dataset", sort=False):
        best = (values * direction).idxmax()
        sentences.append(
            f"On {dataset}, {run.label(best[1])} has the best {metric_label(run.primary)}: "
            f"{fixed(float(values[best]), 4)}. The study names no control and no contrasts, so nothing was tested."
        )
    return sentences


def _certainty(c: Comparison) -> str:
    if c.interval is None:
        return c.note
    intervals = [f"{_to(c.interval)} over seeds"]
    if c.interval_users is not None:
        intervals.append(f"{_to(c.interval_users)} over users and seeds")
    return (
        f"a difference of {fixed(c.difference, 4, sign=True)} (95 % interval {', '.join(intervals)}; "
        f"{CORRECTIONS[c.correction]} p {probability(c.p_adjusted)})"
    )


def _to(interval: tuple[float, float]) -> str:
    return " to ".join(fixed(end, 4, sign=True) for end in interval)


# -- the page ---------------------------------------------------------------------------------------------------


def page(run: Run, tables: list[Table], drawn: list[Picture], claims: Table | None = None) -> str:
    """The report as one HTML document. ``claims`` is the ledger of what the papers claim and this run tests."""
    shown = {table.name: Markup(html_table(table)) for table in tables}
    cost, tuning, decoding = shown.pop("cost"), shown.pop("tuning", None), shown.pop("decoding", None)
    noise = [shown.pop(name) for name in ("noise", "noise-attention", "noise-ranking") if name in shown]
    return _template("report.html").render(
        run=run,
        title=run.study.get("title") or run.name,
        question=run.study.get("question") or "",
        verdicts=verdicts(run),
        warnings=warnings_of(run),
        tables=list(shown.values()),
        claims=claims and Markup(html_table(claims)),
        cost=cost,
        tuning=tuning,
        decoding=decoding,
        noise=noise,
        pictures={section: [p for p in drawn if p.section == section] for section in {p.section for p in drawn}},
        image=_image,
        cards=_fidelity(run),
        states=run.cells["state"].value_counts().to_dict(),
        unfinished=run.cells[run.cells["state"] != "finished"].to_dict("records"),
        environment=_environment(run),
        fingerprints=_fingerprints(run),
        command="\n".join(_commands(run)),
    )


def _commands(run: Run) -> list[str]:
    """What was typed: the run, and what added predictions of other systems to it."""
    outside = read_outside(run.path, ())["cells"]
    return [run.summary.get("command", ""), *(cell["command"] for cell in outside if "command" in cell)]


def efficiency_page(found: Efficiency, tables: list[Table], drawn: list[Picture]) -> str:
    """The report of a measurement of speed as one HTML document."""
    return _template("efficiency.html").render(
        title=found.study["title"] or found.study["study"],
        question=found.study["question"],
        sentences=sentences(found),
        tables=[Markup(html_table(table)) for table in tables],
        pictures=drawn,
        image=_image,
        environment=[(name, value) for name, value in _facts(found.record).items() if value],
        command=found.record["command"],
    )


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.analysis"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template(name)


def _image(picture: Picture) -> Markup:
    """The figure as an SVG in a data URI: sharp at any size, and its ids can't clash with another figure's."""
    buffer = io.BytesIO()
    with style():
        picture.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = picture.figure.get_size_inches()
    return Markup('<img alt="{}" width="{}" height="{}" src="data:image/svg+xml;base64,{}">').format(
        picture.caption, round(96 * width), round(96 * height), data
    )


def _fidelity(run: Run) -> list[dict[str, Any]]:
    """Fidelity cards, one per distinct card, with the labels of the variants that it holds for."""
    given = run.study.get("fidelity") or {}
    cards: list[dict[str, Any]] = []
    for variant in run.variants:
        card = given.get(variant)
        if not card:
            continue
        same = next((entry for entry in cards if entry["card"] == card), None)
        if same is None:
            cards.append({"labels": [run.label(variant)], "card": card})
        else:
            same["labels"].append(run.label(variant))
    return cards


def _environment(run: Run) -> list[tuple[str, str]]:
    """What the cells ran on: each distinct value once."""
    facts: dict[str, list[str]] = {}
    for cell in run.finished["id"]:
        for name, value in _facts(run.cards[cell]).items():
            if value and value not in facts.setdefault(name, []):
                facts[name].append(value)
    return [(name, "; ".join(values)) for name, values in facts.items() if values]


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """Versions, hardware and commit of a cell or a measurement; empty where unknown."""
    hardware, git = card.get("hardware") or {}, card.get("git")
    memory = hardware.get("memory_bytes")
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(card.get("versions", {}).items())),
        "device": str(hardware.get("device", "")),
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} used" if hardware else "",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "",
        "commit": f"{git['commit']}{' with local changes' if git.get('dirty') else ''}" if git else "",
    }


def _fingerprints(run: Run) -> list[tuple[str, str, str]]:
    lines = []
    for dataset, cells in run.finished.groupby("dataset", sort=False):
        prints = run.cards[cells["id"].iloc[0]].get("fingerprints", {})
        lines += [(dataset, name, digest) for name, digest in sorted((prints.get("files") or {}).items())]
        lines += [(dataset, f"{kind}", prints[kind]) for kind in ("log", "split") if prints.get(kind)]
        lines += [(dataset, "item codes", codes) for codes in dict.fromkeys(cells["codes"].dropna())]
    return lines
