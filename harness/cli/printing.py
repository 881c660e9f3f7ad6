"""What the command line prints: tables, trees of values, plans, ledgers, bars of downloads."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis.table import Table
    from harness.study.design import Study
    from harness.study.plan import Plan

__all__ = ["download_bars", "print_json", "print_plan", "print_rows", "print_table", "print_tree", "print_tuning"]


def print_json(value: Any) -> None:
    """Numbers that are not finite become null, for which JSON has no word."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_rows(rows: list[dict[str, Any]], as_json: bool = False, columns: dict[str, str] | None = None) -> None:
    """A table of ``columns`` (title -> key; by default all keys), or all of it as JSON. Names are never broken."""
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = columns or {key: key for key in rows[0]} if rows else {}
    console = Console()
    if not console.is_terminal:
        console.width = 100_000  # whoever reads from a pipe wants whole names
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(columns):
        table.add_column(title, overflow="fold", no_wrap=place == 0)
    for row in rows:
        values = (row[key] for key in columns.values())
        texts = (", ".join(v) if isinstance(v, list) else "" if v is None else str(v) for v in values)
        table.add_row(*map(Text, texts))
    console.print(table)


def print_table(table: Table) -> None:
    """A table of the report, best values in bold, as wide as the terminal allows."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = 100_000
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column(Text(table.corner), no_wrap=True)
    for column in table.columns:
        grid.add_column(Text(column.title), justify="right")
    group = ""
    for line in table.lines:
        if line.group != group:
            group = line.group
            grid.add_row(Text(group, style="italic"))
        cells = [
            Text(" ".join([e.text + e.mark, *e.behind]), style={"best": "bold", "second": "underline"}.get(e.style, ""))
            for e in line.entries
        ]
        grid.add_row(Text(line.label), *cells)
    console.print(grid)


def print_plan(study: Study, plan: Plan, workers: int, difference: float | None) -> None:
    from harness.analysis.power import MAXIMUM_SEEDS
    from harness.analysis.provenance import count
    from harness.analysis.statistics import CORRECTIONS, TESTS
    from harness.study.plan import ALPHA, POWER

    sizes = {"data set": len(study.datasets), "variant": len(study.variants), "seed": len(study.seeds)}
    cells = sum(arm.cells for arm in plan.arms)
    finished = f", {cells - plan.left} of them finished" if plan.left < cells else ""
    shape = " x ".join(count(number, thing) for thing, number in sizes.items())
    if study.codes > 1:
        shape += f" x {study.codes} draws of the codes (1 for variants without)"
    print(f"{study.study}: {shape} = {count(cells, 'cell')}{finished}")
    _print_arms(plan, workers)
    print()
    if not plan.comparisons:
        print("comparisons: none; the study names no control and no contrasts, or has no other variant")
        return
    family = count(len(plan.comparisons), "comparison")
    corrected = CORRECTIONS[study.correction]
    bases = {c.than for c in plan.comparisons}
    against = f" with '{next(iter(bases))}'" if len(bases) == 1 else ""
    print(
        f"{family}{against} on {study.primary}, {TESTS[study.test]} over "
        f"{count(len(study.seeds), 'seed')}, {corrected}'s correction for the whole family, alpha {ALPHA:g}"
    )
    floor = "no floor, however few the seeds" if plan.smallest_p == 0 else f"{plan.smallest_p:.3g}"
    print(f"smallest p that the design can reach: {floor}")
    if study.codes > 1:
        print("power is that over seeds; what the draws of the codes add to the spread is known once they are run")
    if plan.looks:
        before = ", ".join(map(str, plan.looks))
        print(
            f"looked at before with {before} seeds; a verdict with more is one more look: `looks: N` in the study "
            f"corrects for N in all (now {study.looks})"
        )
    lines = []
    for c in plan.comparisons:
        line = {"dataset": c.dataset, "variant": c.variant} | ({"than": c.than} if len(bases) > 1 else {})
        line["sd (upper 80 % limit)"] = (
            "unknown" if c.deviation is None else f"{c.deviation:.5f} ({c.deviation_upper:.5f})"
        )
        line[f"detectable at {POWER:.0%} power (t)"] = (
            "unknown"
            if c.detectable is None
            else f"{c.detectable:.4f}" + (f" ({100 * c.detectable / abs(c.base):.1f} %)" if c.base else "")
        )
        if difference is not None or study.equivalence_margin is not None:
            head = "the margin" if difference is None else f"{difference:g}"
            line[f"power for {head}"] = "unknown" if c.power is None else " to ".join(f"{p:.2f}" for p in c.power)
            line[f"seeds for {head}"] = "unknown" if c.power is None else str(c.seeds_needed or f"over {MAXIMUM_SEEDS}")
        line["pilot"] = f"{c.pilot}, {count(c.pilot_seeds, 'seed')}" if c.pilot else "no earlier run"
        lines.append(line)
    print_rows(lines)


def _print_arms(plan: Plan, workers: int) -> None:
    from harness.study.progress import duration

    arms = [
        {
            "dataset": arm.dataset,
            "variant": arm.variant,
            "cells left": f"{arm.cells - arm.finished} of {arm.cells}",
            "time of a cell": "unknown" if arm.seconds is None else duration(arm.seconds),
            "memory": "unknown" if arm.memory_bytes is None else f"{arm.memory_bytes / 2**20:.0f} MiB",
            "from": arm.basis or "no earlier run",
        }
        for arm in plan.arms
    ]
    print_rows(arms)
    if plan.seconds_left is None:
        print("time left: unknown")
    elif plan.left:
        shared = f", {duration(plan.seconds_left / min(workers, plan.left))} of {workers}" if workers > 1 else ""
        print(f"time left: about {duration(plan.seconds_left)} of one worker{shared}")


def print_tuning(study: Study, entries: list[dict[str, Any]]) -> None:
    from harness.analysis.rows import lower_is_better
    from harness.analysis.tuning import best_in_search, border_distance, confirmed_values

    lower = lower_is_better(study.primary)
    lines = []
    for entry in entries:
        trials, again = entry["trials"], entry.get("confirmed") or []
        best, confirmed = best_in_search(entry, lower), confirmed_values(entry)
        near = [key for key, distance in border_distance(entry, lower).items() if distance < 0.05]
        lines.append(
            {
                "dataset": entry["dataset"],
                "variant": entry["variant"],
                "trials": len(trials),
                "pruned": sum(trial["state"] == "pruned" for trial in trials),
                "epochs": sum(run["epochs"] for run in [*trials, *again]),
                "seconds": f"{sum(run['seconds'] for run in [*trials, *again]):.1f}",
                f"best {study.primary} (optimistic)": f"{best['value']:.4f}" if best else "",
                "confirmed": f"{sum(confirmed) / len(confirmed):.4f}" if confirmed else "",
                "settings": ", ".join(
                    f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                    for key, value in entry["best"].items()
                ),
                "at the border of its space": ", ".join(near),
            }
        )
    print_rows(lines)


def print_tree(values: dict[str, Any], indent: int = 0) -> None:
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        if isinstance(value, dict) and value:
            print(" " * indent + key)
            print_tree(value, indent + 2)
        else:
            shown = (
                f"{value:.6g}"
                if isinstance(value, float)
                else ", ".join(map(str, value))
                if isinstance(value, list)
                else value
            )
            print(" " * indent + f"{key:{width}}  {shown}")


@contextmanager
def download_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar per file on a terminal's standard error, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        yield show
