"""Two sides timed in one run, in turns, and the ratio between them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from harness.provenance import hardware

__all__ = ["Comparison", "alternate", "machine", "options", "table"]


@dataclass(frozen=True)
class Comparison:
    """What two sides reached in the same number of repeats; entry i of both was measured one after the other."""

    what: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.peer, strict=True)]


def alternate(
    what: str, unit: str, ours: Callable[[], float], peer: Callable[[], float], repeats: int, warm_up: bool = True
) -> Comparison:
    """Calls both sides ``repeats`` times in turns, each time starting with the other one.

    Each call answers its own measurement, so that it can leave its preparation out. ``warm_up``: one call of each
    before that does not count.
    """
    sides = (ours, peer)
    if warm_up:
        for side in sides:
            side()
    measured: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for index in (0, 1) if repeat % 2 == 0 else (1, 0):
            measured[index].append(sides[index]())
    return Comparison(what, unit, tuple(measured[0]), tuple(measured[1]))


def options(description: str, repeats: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch on both sides")
    parser.add_argument("--repeats", type=int, default=repeats, help="times that each side is measured")
    return parser


def machine() -> str:
    """One line: processor, threads and the version of torch."""
    found = hardware("cpu")
    return f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads, torch {torch.__version__}"


def table(comparisons: list[Comparison], ours: str, peer: str) -> str:
    """Markdown: medians of both sides, and the median, smallest and largest ratio of the repeats."""
    lines = [f"| | {ours} | {peer} | ratio | smallest to largest |", "|---|---:|---:|---:|---:|"]
    for c in comparisons:
        spread = f"{min(c.ratios):.2f} to {max(c.ratios):.2f}"
        values = f"{median(c.ours):,.4g} {c.unit} | {median(c.peer):,.4g} {c.unit}"
        lines.append(f"| {c.what} | {values} | **{median(c.ratios):.2f}** | {spread} |")
    return "\n".join(lines)
