"""Where the uncertainty of each difference comes from, in a study that draws its item codes several times."""

from __future__ import annotations

from harness.analysis.artefacts import ReportTable
from harness.analysis.comparisons import named, over_users_and_seeds, to_base
from harness.analysis.provenance import provenance
from harness.analysis.rows import Run, metric_label
from harness.analysis.table import Column, Entry, Line, Table, fixed
from harness.analysis.tables.numbers import DIGITS

__all__ = ["Variance"]


class Variance(ReportTable):
    """Shares of seeds, draws of the codes and users in the variance of each declared difference."""

    order = 25
    compares = True

    def applies(self, run: Run) -> bool:
        return bool(run.pairs) and run.draws_codes

    def make(self, run: Run) -> Table:
        lines = []
        for dataset in run.datasets:
            for arm, than in run.pairs:
                wide = over_users_and_seeds(run, dataset, arm, than)
                ids = tuple(run.ids(dataset, arm) + run.ids(dataset, than))
                error = wide.standard_error if wide else None
                percent = [100 * share for share in wide.shares] if wide else [None] * 3
                entries = [Entry(fixed(error, DIGITS), error, cells=ids)]
                entries += [Entry(fixed(share, 0), share, cells=ids) for share in percent]
                group = dataset if len(run.datasets) > 1 else ""
                lines.append(Line(*named(run, arm, than), tuple(entries), group))
        heads = (
            Column("error", "Standard error"),
            Column("seeds", "Seeds %"),
            Column("codes", "Codes %"),
            Column("users", "Users %"),
        )
        caption = (
            f"What makes the difference in {metric_label(run.primary)}{to_base(run)} uncertain"
            f"{'' if len(run.datasets) > 1 else ' on ' + run.datasets[0]}: its standard error for new seeds, new draws "
            "of the item codes and new users, and the share of each in its square, which more of them would shrink. A "
            "share of 0 says that no effect was seen beyond the residual, not that there is none."
        )
        notes = provenance(run, run.datasets, run.variants)
        return Table("variance", caption, "Variant", heads, tuple(lines), notes, f"{run.name}-variance")
