"""The report of a run: all its tables and figures as files, and one HTML page that holds everything.

The page needs no network and runs no script. It is a function of the run folder alone: no date, no random id.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from markupsafe import Markup

from harness.analysis import attention_figures, figures
from harness.analysis.comparisons import against_control
from harness.analysis.rows import Run, load_run, lower_is_better, metric_label
from harness.analysis.statistics import Comparison
from harness.analysis.study_tables import study_tables
from harness.analysis.style import save, style
from harness.analysis.tables import fixed, html_table, probability, write_tables
from harness.files import write_text

__all__ = ["Picture", "pictures", "verdicts", "write_report"]


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
    run = load_run(run_dir)
    tables = study_tables(run)
    drawn = list(pictures(run))
    paths = write_tables(tables, run.path / "tables")
    for picture in drawn:
        paths += save(picture.figure, run.path / "figures", picture.name)
    paths.append(run.path / "report.html")
    write_text(paths[-1], page(run, tables, drawn))
    return paths


def pictures(run: Run) -> Iterator[Picture]:
    """The figures that the run's cells have the evidence for."""
    primary = metric_label(run.primary)
    if against_control(run):
        control = run.label(run.control)
        caption = (
            f"Differences in {primary} to {control}, paired over seeds, with 95 % intervals (Student's t). At the "
            "right: relative difference and verdict, Holm-corrected over the whole family at 0.05."
        )
        yield Picture("differences", "results", caption, figures.forest_plot(run))
    caption = (
        f"Learning curves: mean over seeds, band of one standard deviation, as far as every seed trained. The mark "
        f"stands at the mean of the chosen epochs (best validation {primary}). Losses with different terms have "
        "different scales."
    )
    yield Picture("learning-curves", "training", caption, figures.learning_curves(run))
    for dataset in run.datasets:
        suffix = f"-{dataset}" if len(run.datasets) > 1 else ""
        where = f" on {dataset}" if len(run.datasets) > 1 else ""
        makers: list[tuple[str, str, Callable[[Run, str], Figure | None]]] = [
            (
                f"attention-recency{suffix}",
                f"Where attention goes{where}: weight of the last event of each test history on the events before it, "
                "mean over users, layers and heads, band of one standard deviation over seeds. Left: signed weight, "
                "which may cancel or be negative. Right: share of the absolute weight.",
                attention_figures.recency,
            ),
            (
                f"attention-entropy{suffix}",
                f"How focused each head is{where}: entropy of its absolute weights relative to the log of the number of "
                "visible tokens (1 = uniform, 0 = a single token), and the share of weight that is negative. Mean over "
                "users, bars of one standard deviation over seeds.",
                attention_figures.entropy_by_head,
            ),
        ]
        for name, caption, make in makers:
            figure = make(run, dataset)
            if figure is not None:
                yield Picture(name, "attention", caption, figure)


def verdicts(run: Run) -> list[str]:
    """One plain sentence per comparison with the control."""
    sentences = []
    for (dataset, variant), c in against_control(run).items():
        ours, control, metric = run.label(variant), run.label(run.control), metric_label(run.primary)
        word = {
            "better": f"is better than {control}",
            "worse": f"is worse than {control}",
            "equivalent": f"does the same as {control} within the stated margin",
            "undecided": f"can't be told from {control}",
        }[c.verdict]
        sentences.append(
            f"On {dataset}, {ours} {word}: {metric} {fixed(c.mean_a, 4)} against {fixed(c.mean_b, 4)}"
            f"{_change(c)} ({_certainty(c)}; {c.seeds} paired seed{'s' * (c.seeds != 1)})."
        )
    if run.control is None and run.finished.size:
        direction = -1 if lower_is_better(run.primary) else 1
        means = run.metric_table(run.primary).groupby(level=["dataset", "variant"], sort=False)[run.primary].mean()
        for dataset, values in means.groupby(level="dataset", sort=False):
            best = (values * direction).idxmax()
            sentences.append(
                f"On {dataset}, {run.label(best[1])} has the best {metric_label(run.primary)}: "
                f"{fixed(float(values[best]), 4)}. The study names no control, so nothing was tested."
            )
    return sentences


def _change(c: Comparison) -> str:
    return "" if c.percent is None else f", {fixed(c.percent, 1, sign=True)} %"


def _certainty(c: Comparison) -> str:
    if c.interval is None:
        return c.note
    low, high = (fixed(end, 4, sign=True) for end in c.interval)
    return f"95 % interval {low} to {high}, Holm p {probability(c.p_adjusted)}"


# -- the page ---------------------------------------------------------------------------------------------------


def page(run: Run, tables: list, drawn: list[Picture]) -> str:
    """The report as one HTML document."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.analysis"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    shown = {table.name: Markup(html_table(table)) for table in tables}
    cost = shown.pop("cost")
    return environment.get_template("report.html").render(
        run=run,
        title=run.study.get("title") or run.name,
        question=run.study.get("question") or "",
        verdicts=verdicts(run),
        tables=list(shown.values()),
        cost=cost,
        pictures={section: [p for p in drawn if p.section == section] for section in {p.section for p in drawn}},
        image=_image,
        cards=_fidelity(run),
        states=run.cells["state"].value_counts().to_dict(),
        unfinished=run.cells[run.cells["state"] != "finished"].to_dict("records"),
        environment=_environment(run),
        fingerprints=_fingerprints(run),
        command=_command(run),
    )


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
    given = run.study.get("fidelity") or run.summary.get("fidelity") or {}
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
        card = run.cards[cell]
        hardware, git = card.get("hardware") or {}, card.get("git")
        memory = hardware.get("memory_bytes")
        found = {
            "versions": ", ".join(f"{name} {version}" for name, version in sorted(card.get("versions", {}).items())),
            "device": str(hardware.get("device", "")),
            "processor": f"{hardware.get('cpu', '')}, {hardware.get('cores', '?')} cores, "
            f"{hardware.get('threads', '?')} used by a cell",
            "memory": f"{memory / 2**30:.1f} GiB" if memory else "",
            "commit": f"{git['commit']}{' with local changes' if git.get('dirty') else ''}" if git else "",
        }
        for name, value in found.items():
            if value and value not in facts.setdefault(name, []):
                facts[name].append(value)
    return [(name, "; ".join(values)) for name, values in facts.items() if values]


def _fingerprints(run: Run) -> list[tuple[str, str, str]]:
    lines = []
    for dataset, cells in run.finished.groupby("dataset", sort=False):
        prints = run.cards[cells["id"].iloc[0]].get("fingerprints", {})
        lines += [(dataset, name, digest) for name, digest in sorted((prints.get("files") or {}).items())]
        lines += [(dataset, f"{kind}", prints[kind]) for kind in ("log", "split") if prints.get(kind)]
        lines += [(dataset, "item codes", codes) for codes in dict.fromkeys(cells["codes"].dropna())]
    return lines


def _command(run: Run) -> str:
    """The command that runs the study again: as it was recorded, or as its design says."""
    if run.summary.get("command"):
        return str(run.summary["command"])
    preset = run.study.get("preset")
    return f"harness run --study {run.name}" + (f" --preset {preset}" if preset not in (None, "default") else "")
