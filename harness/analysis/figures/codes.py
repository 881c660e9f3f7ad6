"""Use of item codes, for the reports of ``harness items report``."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.analysis.style import look_at, new_figure, style

__all__ = ["code_usage"]


def code_usage(quality: dict[str, Any], title: str) -> Figure:
    """Use and perplexity of each level's codebook, and how many items share their tuple with how many.

    ``quality``: of :class:`harness.items.codes.ItemCodes`.
    """
    levels = quality["levels"]
    numbers = np.arange(1, len(levels) + 1)
    groups = {1: round(quality["alone"] * quality["items"])}
    groups |= {int(size): tuples * int(size) for size, tuples in quality["collisions"].items()}
    with style():
        figure = new_figure()
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        left.bar(numbers - 0.2, [level["use"] for level in levels], 0.4, color=look_at(0).color, label="in use")
        relative = [level["perplexity"] / level["size"] for level in levels]
        left.bar(numbers + 0.2, relative, 0.4, color=look_at(4).color, label="perplexity")
        left.set(xlabel="level", ylabel="share of the codebook", ylim=(0, 1.02), title=title, xticks=_ticks(numbers))
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        right.bar(np.arange(len(groups)), list(groups.values()), color=look_at(2).color)
        shown = _ticks(np.arange(len(groups)))
        right.set_xticks(shown, [str(list(groups)[place]) for place in shown])
        right.set(xlabel="items with the same codes", ylabel="items", yscale="log", title="collisions")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    return figure


def _ticks(numbers: np.ndarray) -> np.ndarray:
    """At most 16 of some numbers, evenly spaced."""
    return numbers[:: -(-len(numbers) // 16)]
