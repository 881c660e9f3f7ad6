"""Tables of what stands beside the rows: published numbers, noise, decoding, tuning, claims and speed."""

from __future__ import annotations

from harness.analysis.artefacts import ReportTable
from harness.analysis.claims import claims_for, load_claims
from harness.analysis.claims import ledger_table as claims_table
from harness.analysis.decoding_tables import decoding_table
from harness.analysis.efficiency import Efficiency, efficiency_tables
from harness.analysis.noise import noise_shares, noise_tables
from harness.analysis.published import load_published, published_folder, published_table
from harness.analysis.rows import Run
from harness.analysis.table import Table
from harness.analysis.tuning import ledger_table, load_tuning

__all__ = ["Claims", "Decoding", "Noise", "Published", "Speed", "Tuning"]


class Claims(ReportTable):
    """The ledger of what the papers claim and this run tests. The claims file is newer than most runs."""

    section = "claims"
    order = 10
    page_only = True

    def make(self, run: Run) -> list[Table]:
        papers, claims = load_claims()
        findings = claims_for(run, claims)
        return [claims_table(papers, findings)] if findings else []


class Published(ReportTable):
    """Numbers from papers beside ours."""

    order = 80

    def make(self, run: Run) -> list[Table]:
        table = published_table(run, load_published(published_folder(run)))
        return [table] if table else []


class Noise(ReportTable):
    """What random items in the test histories do, and how variants differ in it."""

    section = "noise"
    order = 50

    def applies(self, run: Run) -> bool:
        return bool(noise_shares(run))

    def make(self, run: Run) -> list[Table]:
        return noise_tables(run)


class Decoding(ReportTable):
    """What free decoding makes up, and what a beam misses."""

    section = "decoding"
    order = 10

    def make(self, run: Run) -> list[Table]:
        table = decoding_table(run)
        return [table] if table else []


class Tuning(ReportTable):
    """The ledger of `harness tune`: what each search cost and found."""

    section = "tuning"
    order = 10

    def applies(self, run: Run) -> bool:
        return bool(load_tuning(run))

    def make(self, run: Run) -> Table:
        return ledger_table(run, load_tuning(run))


class Speed(ReportTable):
    """Step times, FLOPs and memory of a study of speed."""

    section = "efficiency"
    order = 50
    subject = Efficiency

    def make(self, run: Efficiency) -> list[Table]:
        return efficiency_tables(run)
