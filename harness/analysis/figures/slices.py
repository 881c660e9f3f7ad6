"""Accuracy by kinds of users and targets, as small multiples."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.figures.common import by_eights, legend, panels
from harness.analysis.rows import Run, metric_label
from harness.analysis.slices import KINDS, Slice, by_kind
from harness.analysis.style import look, style

__all__ = ["Slices"]

LINEAR = 0.01
"""Below this a wide range of values is on a linear scale, above on a logarithmic one."""
TICKS = (0, 0.01, 0.03, 0.1, 0.3, 1)
FEW = 4
"""As many bins have room for their numbers of users in a panel; those of more stand in the tables."""


class Slices(DatasetFigure):
    """The primary metric against history length, the target's popularity, and known against new transitions."""

    order = 45

    def applies(self, run: Run, dataset: str) -> bool:
        return run.task == "retrieval" and bool(_kinds(run, dataset))

    def caption(self, run: Run, dataset: str) -> str:
        pairs = " A pair is known if, in training, the target has directly followed the last item of the history."
        return (
            f"{metric_label(run.primary)} by kinds of users and targets{self.on(run, dataset)}, which the data alone "
            "decide: mean over users and seeds, with 95 % intervals over users (Student's t); where there is room, the "
            "users of each bin in brackets. Each panel has its own scale; that of "
            "targets is logarithmic above 0.01."
            f"{pairs if 'transition' in _kinds(run, dataset) else ''}"
        )

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        kinds = _kinds(run, dataset)
        groups = by_eights(run, run.variants)
        with style():
            figure, axes = panels(len(kinds) * len(groups), width, 2.3, columns=len(kinds))
            for place, axis in enumerate(axes):
                kind, group = list(kinds)[place % len(kinds)], groups[place // len(kinds)]
                _panel(axis, run, {v: kinds[kind][v] for v in group if v in kinds[kind]})
                axis.set_xlabel(KINDS[kind].title)
                if place % len(kinds) == 0 or width < 5:
                    axis.set_ylabel(metric_label(run.primary))
                if KINDS[kind].wide:
                    axis.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
                    axis.yaxis.set_major_locator(FixedLocator(TICKS))
                    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                    axis.yaxis.set_minor_locator(NullLocator())
                    axis.set_ylim(top=1.3 * axis.get_ylim()[1])
                axis.set_ylim(bottom=0)
            legend(figure)
        return figure


def _panel(axis: Axes, run: Run, slices: dict[str, list[Slice]]) -> None:
    labels = list(dict.fromkeys(s.label for found in slices.values() for s in found))
    sizes = {s.label: s.users for found in slices.values() for s in found}
    step = 0.35 / max(len(slices), 1)
    for place, (variant, found) in enumerate(slices.items()):
        seen = look(run, variant)
        x = np.array([labels.index(s.label) for s in found]) + (place - (len(slices) - 1) / 2) * step
        axis.errorbar(
            x, [s.mean for s in found], yerr=[s.half for s in found], color=seen.color, marker=seen.marker,
            linestyle=seen.linestyle, elinewidth=0.8, label=run.label(variant),
        )  # fmt: skip
    few = len(labels) <= FEW
    names = [f"{label}\n({sizes[label]:,})" if few else label for label in labels]
    axis.set_xticks(range(len(labels)), names, rotation=0 if few else 45)


def _kinds(run: Run, dataset: str) -> dict[str, dict[str, list[Slice]]]:
    """Kind -> variant -> its bins, of the kinds that have two bins."""
    found = {kind: {v: by_kind(run, dataset, v, kind) for v in run.variants} for kind in KINDS}
    return {
        kind: {variant: slices for variant, slices in of.items() if len(slices) > 1}
        for kind, of in found.items()
        if any(len(slices) > 1 for slices in of.values())
    }
