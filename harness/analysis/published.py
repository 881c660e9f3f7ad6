"""Published numbers beside ours.

``results/published/*.csv`` holds what papers print, one number per line, with the columns ``dataset``, ``model``,
``metric`` (as in studies: ``recall@5``), ``value``, ``source`` (where it is printed) and ``protocol`` (how it was
measured where that differs from ours, or empty), and ``candidates`` (``all`` or ``unseen``: whether items of the
history could be recommended again). Ours is read off under the same candidates, whatever the study shows first.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, metric_label
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.errors import InputError
from harness.reading.csv_text import read_csv

__all__ = ["COLUMNS", "load_published", "published_folder", "published_table"]

COLUMNS = ("dataset", "model", "metric", "value", "source", "protocol", "candidates")
SHIPPED = Path(__file__).parents[2] / "results" / "published"
"""In a checkout; an installed wheel has none."""


def published_folder(run: Run) -> Path:
    """``published`` beside the folder of the run where there is one, else the numbers that ship."""
    own = run.path.parent / "published"
    return own if own.is_dir() else SHIPPED


def load_published(folder: str | Path) -> pd.DataFrame:
    """All published numbers of a folder, in the order of the files' names; empty where there is none.

    Raises:
        InputError: a missing column, a value that is not a number, a line without a source, a number given twice.
    """
    parts = []
    for path in sorted(Path(folder).glob("*.csv")):
        frame = read_csv(path, "correct it", dtype=str, keep_default_na=False, comment="#")
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise InputError(f"{path} lacks the column '{missing[0]}'; needed: {', '.join(COLUMNS)}")
        frame["value"] = pd.to_numeric(frame["value"], errors="coerce")
        for problem, lines in (
            ("no number as value", ~np.isfinite(frame["value"])),
            ("no source", frame["source"] == ""),
            ("candidates are 'all' or 'unseen'", ~frame["candidates"].isin(["all", "unseen"])),
        ):
            if lines.any():
                raise InputError(f"{path}, line {int(np.flatnonzero(lines)[0]) + 2}: {problem}")
        twice = frame.duplicated([column for column in COLUMNS if column != "value"])
        if twice.any():
            raise InputError(f"{path}, line {int(np.flatnonzero(twice)[0]) + 2}: the same number a second time")
        parts.append(frame[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def published_table(run: Run, published: pd.DataFrame) -> Table | None:
    """Ours beside what was published, for the run's data sets and metrics; None where nothing was published.

    A block of lines for each data set and each way to treat the history: our variants, then the published models. A
    published model is ours if its name is that of a variant or its label, or of a model that one variant alone has
    (SASRec is nobody's where two variants train it with different losses); its line says what share of it ours
    reaches. Names are compared without case.
    """
    chosen = published[published["dataset"].isin(run.datasets) & published["metric"].isin(run.metrics)]
    if chosen.empty:
        return None
    metrics = [metric for metric in run.metrics if (chosen["metric"] == metric).any()]
    named = _by_name(run)
    compared = set(chosen["metric"][chosen["model"].str.lower().isin(named)])  # metrics with a share
    columns = _columns(metrics, compared)
    sources: dict[tuple[str, str], str] = {}  # (source, protocol) -> letter
    lines = []
    for key, block in chosen.groupby(["dataset", "candidates"], sort=False):
        dataset, candidates = map(str, key)
        group = dataset if candidates == "all" else f"{dataset}, history removed"
        ours = {variant: _ours(run, dataset, variant, metrics, candidates) for variant in run.variants}
        for variant, own in ours.items():
            entries = {**own, "source": Entry("here", "here")}
            lines.append(_line(f"{dataset}/{candidates}/{variant}", run.label(variant), columns, entries, group))
        for named_by, printed in block.groupby(["model", "source", "protocol"], sort=False):
            model, source, protocol = map(str, named_by)
            letter = sources.setdefault((source, protocol), _letter(len(sources)))
            own = ours.get(named.get(model.lower(), ""), {})
            entries = {"source": Entry(letter, letter), **_printed(printed, metrics, own)}
            lines.append(_line(f"{dataset}/{candidates}/{model}/{letter}", model, columns, entries, group))
    caption = (
        "Ours (source: here; mean ± standard deviation over seeds) beside published numbers, which are copied from "
        "their sources and not re-run."
    )
    if compared:
        caption += (
            " Share: ours as a share of the published value of the same model, with the same candidates; where the "
            "protocols differ otherwise, it compares them too."
        )
    notes = [
        f"({at}) {source}{f'. There: {protocol}' if protocol else ''}." for (source, protocol), at in sources.items()
    ]
    return Table(
        "published",
        caption,
        "Model",
        tuple(columns),
        tuple(lines),
        (*notes, *provenance(run, run.datasets, run.variants)),
        f"{run.name}-published",
    )


def _columns(metrics: list[str], compared: set[str]) -> list[Column]:
    """The metrics, those of ``compared`` with a share, and the source."""
    columns = []
    for metric in metrics:
        label = metric_label(metric)
        columns.append(Column(metric, "value", label) if compared else Column(metric, label))
        columns += [Column(f"{metric}/share", "share", label)] * (metric in compared)
    return [*columns, Column("source", "Source", align="l")]


def _printed(printed: pd.DataFrame, metrics: list[str], own: dict[str, Entry]) -> dict[str, Entry]:
    """A published model's values, and the shares of them that ours reach."""
    entries = {metric: Entry() for metric in metrics}
    for metric, value in zip(printed["metric"], printed["value"], strict=True):
        entries[metric] = Entry(fixed(value, 4), float(value))
        mine = own.get(metric, Entry())
        if mine.value is not None and value:
            share = mine.value / value
            entries[f"{metric}/share"] = Entry(f"{100 * share:.0f} %", share, cells=mine.cells)
    return entries


def _by_name(run: Run) -> dict[str, str]:
    """What a published model may be called, in small letters, and the variant that it is."""
    models = {v: str(((run.study.get("variants") or {}).get(v) or {}).get("model", "")).lower() for v in run.variants}
    counts = Counter(models.values())
    names = {model: v for v, model in models.items() if counts[model] == 1}
    for variant in reversed(run.variants):
        names |= dict.fromkeys((run.label(variant).lower(), variant.lower()), variant)
    return names


def _ours(run: Run, dataset: str, variant: str, metrics: list[str], candidates: str) -> dict[str, Entry]:
    ids = run.ids(dataset, variant)
    entries = {}
    for metric in metrics:
        values = [run.metric(cell, metric, candidates=candidates) for cell in ids]
        if not values:
            entries[metric] = Entry()
            continue
        mean, sd = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
        entries[metric] = Entry(fixed(mean, 4), mean, "" if sd is None else fixed(sd, 4), sd, cells=tuple(ids))
    return entries


def _line(key: str, label: str, columns: list[Column], entries: dict[str, Entry], group: str) -> Line:
    """An empty place where ``entries`` has nothing for a column."""
    return Line(key, label, tuple(entries.get(column.key, Entry("")) for column in columns), group)


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    return ("" if number < 26 else _letter(number // 26 - 1)) + chr(ord("a") + number % 26)
