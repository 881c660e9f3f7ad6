"""Critical differences: average ranks over data sets."""

from __future__ import annotations

from matplotlib.figure import Figure

from harness.analysis.artefacts import ReportFigure
from harness.analysis.blocks import MINIMUM_BLOCKS, friedman
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.style import INK, look, new_figure, style

__all__ = ["CriticalDifferences"]


class CriticalDifferences(ReportFigure):
    """Average ranks of the variants over data sets; a bar joins those that Nemenyi's test can't tell apart."""

    order = 16

    def applies(self, run: Run) -> bool:
        if len(run.datasets) < MINIMUM_BLOCKS or len(run.contenders) < 3:
            return False
        return all(run.ids(dataset, variant) for dataset in run.datasets for variant in run.contenders)

    def caption(self, run: Run) -> str:
        return (
            f"Average ranks of the variants by {metric_label(run.primary)} over {len(run.datasets)} data sets, 1 = "
            "best. A bar joins variants that Nemenyi's test can't tell apart at 0.05."
        )

    def make(self, run: Run, width: float) -> Figure:
        means = run.metric_table(run.primary)[run.primary].groupby(level=["dataset", "variant"], sort=False).mean()
        table = means.unstack("variant").reindex(index=run.datasets, columns=run.contenders)
        found = friedman(table, higher_is_better=not lower_is_better(run.primary))

        from scikit_posthocs import critical_difference_diagram  # takes seconds to import

        with style():
            figure = new_figure(width, 1.1 + 0.2 * len(run.contenders))
            axis = figure.subplots()
            labels = [run.label(v) for v in run.contenders]
            critical_difference_diagram(
                {run.label(v): float(found.average_ranks[v]) for v in run.contenders},
                found.nemenyi.set_axis(labels).set_axis(labels, axis=1),
                ax=axis,
                label_fmt_left="{label}  {rank:.2f} ",
                label_fmt_right=" {rank:.2f}  {label}",
                color_palette={run.label(v): look(run, v).color for v in run.contenders},
                crossbar_props={"color": INK, "linewidth": 2.5},
                text_h_margin=0.1,
            )
            for text in axis.texts:
                text.set_color(INK)
            axis.grid(visible=False)
            axis.set_title(
                f"Average rank over {found.blocks} data sets\n(Friedman p {found.p:.2g}, "
                f"critical difference {found.critical_difference:.2f})"
            )
        return figure
