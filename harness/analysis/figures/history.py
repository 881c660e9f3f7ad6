"""Accuracy by the length of the history."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.figures.common import by_eights, is_narrow, legend, panels
from harness.analysis.rows import Run, metric_label
from harness.analysis.slices import Slice, by_history
from harness.analysis.style import look, style

__all__ = ["HistoryLength"]


class HistoryLength(DatasetFigure):
    """The primary metric against the bins of history lengths, a line per variant."""

    order = 45

    def applies(self, run: Run, dataset: str) -> bool:
        return run.task == "retrieval" and bool(_slices(run, dataset))

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"{metric_label(run.primary)} by the length of the history{self.on(run, dataset)}: mean over users and "
            "seeds, with 95 % intervals over users (Student's t)."
        )

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        slices = _slices(run, dataset)
        groups = by_eights(run, slices)
        with style():
            figure, axes = panels(len(groups), width, 2.5, columns=1, sharey=True)
            for axis, group in zip(axes, groups, strict=True):
                step = 0.35 / len(group)
                for place, variant in enumerate(group):
                    found, seen = slices[variant], look(run, variant)
                    x = np.arange(len(found)) + (place - (len(group) - 1) / 2) * step
                    axis.errorbar(
                        x, [s.mean for s in found], yerr=[s.half for s in found], color=seen.color, marker=seen.marker,
                        linestyle=seen.linestyle, elinewidth=0.8, label=run.label(variant),
                    )  # fmt: skip
                first = slices[group[0]]
                users = "" if is_narrow(width) else " users"
                axis.set_xticks(range(len(first)), [f"{s.label}\n{s.users:,}{users}" for s in first])
                axis.set_ylabel(metric_label(run.primary))
                axis.set_ylim(bottom=0)
            counted = " (below: users)" if is_narrow(width) else ""
            axes[-1].set_xlabel(f"Events before the test target{counted}")
            legend(figure)
        return figure


def _slices(run: Run, dataset: str) -> dict[str, list[Slice]]:
    """Variant -> its bins, where it has two."""
    found = {variant: by_history(run, dataset, variant) for variant in run.variants}
    return {variant: slices for variant, slices in found.items() if len(slices) > 1}
