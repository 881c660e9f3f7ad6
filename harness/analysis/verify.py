"""Is every printed number still what the rows say, and which cells stand behind it?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.artefacts import Failures, make_tables
from harness.analysis.efficiency import MEASUREMENTS, Efficiency, is_efficiency, load_efficiency
from harness.analysis.render import FILES, TWO_COLUMN, render
from harness.analysis.render.latex import widths_of
from harness.analysis.rows import Run, load_run
from harness.analysis.run_files import LISTS
from harness.analysis.table import Line, Table
from harness.analysis.tuning import MARK
from harness.errors import InputError, nearest
from harness.files import file_digest, write_json
from harness.reading import shapes
from harness.reading.json_text import read_json
from harness.registry import REGISTRIES

__all__ = ["EVIDENCE", "Check", "Source", "Trace", "trace", "verify", "write_efficiency_evidence", "write_evidence"]

EVIDENCE = "evidence.json"
"""Beside the report: SHA-256 of every file that it was derived from."""
_NOT_EVIDENCE = ("cell.json", "metrics.json", "model.safetensors", "last_state.safetensors")
"""Files of a cell that no table or figure is derived from."""


@dataclass(frozen=True)
class Check:
    """One thing that was verified: a cell or a file of a table."""

    name: str
    problem: str = ""
    """One line; empty where all is well."""

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Source:
    """A cell behind a number, with its own value where the number is a mean over cells."""

    id: str
    dataset: str
    variant: str
    seed: int
    path: Path
    value: float | None


@dataclass(frozen=True)
class Trace:
    """One entry of a table and the cells that it was derived from."""

    table: str
    row: str
    column: str
    printed: str
    value: float | str | None
    sources: tuple[Source, ...]


def write_evidence(run: Run) -> Path:
    """Notes the digests of the files that the run's report is derived from."""
    path = run.path / EVIDENCE
    write_json(path, {cell: _digests(run.path / "cells" / cell) for cell in run.finished["id"]})
    return path


def write_efficiency_evidence(found: Efficiency) -> Path:
    """Notes the digest of the measurements that the report of speed is derived from."""
    path = found.path / EVIDENCE
    write_json(path, {MEASUREMENTS: file_digest(found.path / MEASUREMENTS)})
    return path


def verify(run_dir: str | Path) -> list[Check]:
    """Checks every cell, or the measurements of speed, and every table of a run.

    A cell is well if its files have the digests that were noted when the report was written, and if the metrics that
    training stored are those of its rows. A table is well if deriving it again gives its file byte for byte.

    Raises:
        InputError: no run folder, or a run without a report.
    """
    run_dir = Path(run_dir)
    if is_efficiency(run_dir):
        return _verify_efficiency(load_efficiency(run_dir))
    run = load_run(run_dir)
    noted = _evidence(run_dir)
    checks = [Check(f"cell {cell}", _cell_problem(run, cell, noted.get(cell))) for cell in run.finished["id"]]
    checks += [Check(f"cell {cell}", "stands in the report, but is gone") for cell in noted if cell not in run.cards]
    return checks + list(_table_checks(run))


def _verify_efficiency(found: Efficiency) -> list[Check]:
    noted, path = _evidence(found.path), found.path / MEASUREMENTS
    same = noted.get(MEASUREMENTS) == file_digest(path)
    measured = Check(MEASUREMENTS, "" if same else f"{path} is not the file that the report was derived from")
    return [measured, *_table_checks(found)]


def _evidence(run_dir: Path) -> dict[str, Any]:
    if not (run_dir / EVIDENCE).exists():
        raise InputError(f"{run_dir} has no {EVIDENCE}, so there is nothing to verify; write its report first")
    return read_json(run_dir / EVIDENCE, shapes.Digests, "write the report again")


def trace(run_dir: str | Path, table: str, row: str, column: str) -> Trace:
    """The cells behind one entry of a table.

    ``row`` is a variant or its label, with ``DATASET/`` before it where the table has a block per data set; ``column``
    is a column's key (its heading in the CSV file) or its title.

    Raises:
        InputError: no such table, row or column, or more than one of them.
    """
    if is_efficiency(run_dir):
        raise InputError(f"every number of {run_dir} comes from its {MEASUREMENTS}; there are no cells to trace")
    run = load_run(run_dir)
    tables = {found.name: found for _, found in make_tables(run, Failures(), filed=True)}
    if table not in tables:
        raise InputError(f"no table '{table}' in {run_dir}; {nearest(table, tables)}")
    found = tables[table]
    line = _row(found, row)
    only = f"{run.datasets[0]}/" if len(run.datasets) == 1 else ""
    titles = [
        i
        for i, c in enumerate(found.columns)
        if column in (c.key, c.key.removeprefix(only), c.title, f"{c.group}/{c.title}")
    ]
    if len(titles) != 1:
        problem = "more than one" if titles else "no"
        raise InputError(f"table '{table}' has {problem} column '{column}'; {_known(c.key for c in found.columns)}")
    key, entry = found.columns[titles[0]].key, line.entries[titles[0]]
    lines = {line["id"]: line for line in run.cells.to_dict("records")}
    sources = []
    for cell in entry.cells:
        own = lines[cell]
        value = _value(run, cell, key)
        sources.append(Source(cell, own["dataset"], own["variant"], int(own["seed"]), run.path / "cells" / cell, value))
    printed = entry.text + (f" ± {entry.spread}" if entry.spread else "")
    printed += (f" ({entry.error})" if entry.error else "") + entry.mark
    return Trace(table, line.label, key, printed, entry.value, tuple(sources))


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: file_digest(path) for path in files if path.name not in _NOT_EVIDENCE}


def _cell_problem(run: Run, cell: str, noted: dict[str, str] | None) -> str:
    folder = run.path / "cells" / cell
    if noted is None:
        return "finished after the report was written; write the report again"
    now = _digests(folder)
    for name in sorted(noted.keys() | now.keys()):
        if name not in now and name == LISTS:
            continue  # a copy may leave them out, as the weights; tables that need them show it
        if name not in now:
            return f"{folder / name} is gone"
        if now[name] != noted.get(name):
            return f"{folder / name} is not the file that the report was derived from"
    try:
        return _metrics_problem(run, cell)
    except InputError as error:
        return str(error)


def _metrics_problem(run: Run, cell: str) -> str:
    """Where the metrics that training stored differ from those of the rows."""
    for phase, groups in read_json(run.file(cell, "metrics.json"), shapes.Metrics).items():
        for group, values in groups.items():
            for metric, stored in values.items():
                if run.task == "retrieval":
                    derived = run.metric(cell, metric, phase, group)
                elif metric in REGISTRIES["metrics"].names():
                    derived = run.metric(cell, metric if group == "mean" else f"{metric}/{group}", phase)
                else:
                    continue  # a count that goes with a metric
                if not _same(stored, derived):
                    where = f"{phase}, {group}, {metric}"
                    return f"metrics.json says {stored} for {where}, its rows say {derived:.6g}"
    return ""


def _same(stored: float | None, derived: float) -> bool:
    if stored is None:
        return math.isnan(derived)
    return math.isclose(stored, derived, rel_tol=1e-9, abs_tol=1e-12)


def _table_checks(subject: Run | Efficiency) -> Iterator[Check]:
    failures = Failures()
    for _, table in make_tables(subject, failures, filed=True):
        yield from _file_checks(subject.path / "tables", table)
    yield from (Check(failure.what, f"can't be derived: {failure.kind}: {failure.message}") for failure in failures)


def _file_checks(folder: Path, table: Table) -> Iterator[Check]:
    for form, name in FILES.items():
        path = folder / name.format(table.name)
        if form == TWO_COLUMN and not path.parent.exists():
            continue  # a report from before there was this form
        yield Check(f"tables/{path.relative_to(folder)}", _file_problem(path, table, form))


def _file_problem(path: Path, table: Table, form: str) -> str:
    if not path.exists():
        return "is missing; write the report again"
    found = path.read_bytes()
    expected = render(table, form, widths_of(found.decode(errors="replace")))
    if found == expected.encode():
        return ""
    lines = zip(found.decode(errors="replace").splitlines(), expected.splitlines(), strict=False)
    for number, (there, derived) in enumerate(lines, start=1):
        if there != derived:
            return f"line {number} is {json.dumps(there, ensure_ascii=False)[:100]}, but the rows give another"
    return "is shorter or longer than what the rows give"


def _row(table: Table, row: str) -> Line:
    names = []
    for line in table.lines:
        label = line.label.removesuffix(f" {MARK}")
        names.append((line, {line.key, label, f"{line.group}/{line.key}", f"{line.group}/{label}"}))
    found = [line for line, known in names if row in known]
    if len(found) == 1:
        return found[0]
    known = _known(f"{line.group}/{line.key}" if line.group else line.key for line in table.lines)
    problem = "more than one row" if found else "no row"
    raise InputError(f"table '{table.name}' has {problem} '{row}'; {known}")


def _known(names: Any) -> str:
    return "known: " + ", ".join(names)


def _value(run: Run, cell: str, key: str) -> float | None:
    """The cell's own value of a column: a metric, or an entry of its cost record."""
    name = key.removeprefix(f"{run.cards[cell]['dataset']}/")
    if name in run.metrics:
        return run.metric(cell, name)
    if name in ("unseen", "all") and run.task == "retrieval":
        return run.metric(cell, run.primary, candidates=name)
    cost = run.cost(cell).get(name)
    return None if cost is None else float(cost)
