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
from harness.analysis.tables import Column, Entry, Line, Table, fixed
from harness.errors import InputError

__all__ = ["COLUMNS", "load_published", "published_table"]

COLUMNS = ("dataset", "model", "metric", "value", "source", "protocol", "candidates")


def load_published(folder: str | Path) -> pd.DataFrame:
    """All published numbers of a folder, in the order of the files' names; empty where there is none.

    Raises:
        InputError: a missing column, a value that is no number, or a line without a source.
    """
    parts = []
    for path in sorted(Path(folder).glob("*.csv")):
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#")
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no CSV file ({error})") from None
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise InputError(f"{path} lacks the column '{missing[0]}'; needed: {', '.join(COLUMNS)}")
        frame["value"] = pd.to_numeric(frame["value"], errors="coerce")
        for problem, lines in (
            ("no number as value", frame["value"].isna()),
            ("no source", frame["source"] == ""),
            ("candidates are 'all' or 'unseen'", ~frame["candidates"].isin(["all", "unseen"])),
        ):
            if lines.any():
                raise InputError(f"{path}, line {int(np.flatnonzero(lines)[0]) + 2}: {problem}")
        parts.append(frame[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def published_table(run: Run, published: pd.DataFrame) -> Table | None:
    """Ours beside what was published, for the run's data sets and metrics; None where nothing was published.

    A published model is ours if its name is that of a variant or its label, or of a model that one variant alone has
    (SASRec is nobody's where two variants train it with different losses). Names are compared without case. Models
    that the run does not have stand there without a number of ours.
    """
    chosen = published[published["dataset"].isin(run.datasets) & published["metric"].isin(run.metrics)]
    if chosen.empty:
        return None
    models = {v: str(((run.study.get("variants") or {}).get(v) or {}).get("model", "")).lower() for v in run.variants}
    counts = Counter(models.values())
    names: dict[str, str] = {model: v for v, model in models.items() if counts[model] == 1}
    for variant in reversed(run.variants):
        names |= dict.fromkeys((run.label(variant).lower(), variant.lower()), variant)
    lines = []
    for line in chosen.itertuples():
        variant = names.get(line.model.lower())
        ids = run.ids(line.dataset, variant) if variant else []
        values = [run.metric(cell, line.metric, candidates=line.candidates) for cell in ids]
        ours, share = Entry(), Entry()
        if values:
            mean, sd = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
            spread = "" if sd is None else fixed(sd, 4)
            ours = Entry(fixed(mean, 4), mean, spread, sd, cells=tuple(ids))
            share = (
                Entry(f"{100 * mean / line.value:.0f} %", mean / line.value, cells=tuple(ids)) if line.value else share
            )
        entries = (
            Entry(metric_label(line.metric), line.metric),
            ours,
            Entry(fixed(line.value, 4), float(line.value)),
            share,
            Entry(line.source, line.source),
            Entry(line.protocol or "–", line.protocol),
        )
        lines.append(Line(f"{line.model}/{line.metric}/{line.source}", line.model, entries, line.dataset))
    heads = (
        Column("metric", "Metric", align="l"),
        Column("ours", "Ours"),
        Column("published", "Published"),
        Column("share", "Share"),
        Column("source", "Source", align="l"),
        Column("protocol", "Protocol there", align="l"),
    )
    caption = (
        "Ours (mean ± standard deviation over seeds) beside published numbers. Share: ours as a share of the "
        "published value, both with the same candidates. Published numbers are copied from their sources, not re-run; "
        "where their protocol differs otherwise, the share compares protocols too."
    )
    return Table(
        "published", caption, "Model", heads, tuple(lines), provenance(run, run.datasets, run.variants),
        f"{run.name}-published",
    )  # fmt: skip
