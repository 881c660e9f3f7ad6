"""The claims ledger: what papers claim, the statistic that tests it, and what our runs say.

``studies/claims.yaml`` holds one entry per claim. A claim either compares two arms of a study::

    - id: fair-noise-loss
      paper: fair
      claim: The noise-robustness loss improves accuracy.
      study: ablations
      quantity: ndcg@10            # a metric, cost/KEY, attention/STATISTIC, noise/STATISTIC@SHARE, step_seconds
      arm: fair
      than: no-noise-loss
      expect: higher
      by: 23                       # percent, where the paper states a size

or says that a sweep has its best level inside its range (``sweep: true``; the levels are the study's variants in
their order). Verdicts, each per data set:

- without ``by``, the verdict of the run's tables: the comparison is looked up in the run's one family of this quantity
  (its declared pairs on all of its data sets). *supported* or *contradicted* where it found a difference in the claimed
  or in the other direction, *equivalent* within the study's margin, *on these users only* where the seeds find a
  difference that need not hold for new users, else *undecided*;
- with ``by``: *supported* where the whole 95 % interval of the relative difference (for new seeds and new users, where
  users' values are known) reaches the claimed size,
  *contradicted* where the whole interval falls short of it, else *undecided*;
- sweep: *supported* where the best inner level is better than both ends, *contradicted* where an end is better than
  every inner level, looked up in the same family (so the study declares ``contrasts: all-pairs``), else *undecided*;
- the seconds of a training step (``quantity: step_seconds``, a study of task "efficiency", with ``by``): as with ``by``
  above, with the turns of the measurement for seeds, one verdict per width, at the length that speaks least for it;
- *not tested* where no run declares the comparison, or none has the quantity.

``arm`` and ``than`` may stand in either order; the ledger shows the comparison as the run's tables do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from harness.analysis.comparisons import Contrast
from harness.analysis.efficiency import MEASUREMENTS, Efficiency, load_efficiency
from harness.analysis.quantities import less_is_better, name_of, tested_family, values_of
from harness.analysis.rows import Run, load_run
from harness.analysis.statistics import Comparison, compare
from harness.analysis.table import Column, Entry, Line, Table, between, fixed
from harness.errors import InputError, shown
from harness.reading.yaml_text import read_yaml
from harness.settings import Settings, parse

__all__ = [
    "Claim", "Finding", "claims_for", "evaluate", "ledger_table", "load_claims", "measurements_below", "runs_below",
]  # fmt: skip

MISSING = "the run does not declare this comparison, or lacks the quantity"
Verdict = Literal["supported", "contradicted", "equivalent", "on these users only", "undecided", "not tested"]


class Claim(Settings):
    """One claim of a paper and the test of it."""

    id: str
    paper: str
    claim: str
    """The claim in one line."""
    study: str
    quantity: str
    arm: str | None = None
    than: str | None = None
    expect: Literal["higher", "lower"] | None = None
    by: float | None = Field(None, gt=0)
    """The size that the paper states, in percent of ``than``; taken as "at least so much"."""
    sweep: bool = False
    """The quantity is best at an inner level of the study's variants."""

    @model_validator(mode="after")
    def _one_test(self) -> Claim:
        if self.quantity.startswith("noise/") and not re.fullmatch(r"noise/.+@0\.\d+", self.quantity):
            raise ValueError(f"claim '{self.id}': write a quantity of the noise study as in 'noise/injected_abs@0.3'")
        pair = (self.arm, self.than, self.expect)
        if self.sweep == any(part is not None for part in pair) or (not self.sweep and None in pair):
            raise ValueError(f"claim '{self.id}' needs either arm, than and expect, or sweep: true")
        return self

    @property
    def pair(self) -> tuple[str, str]:
        """``arm`` and ``than`` of a claim that compares two."""
        assert self.arm is not None, "a sweep compares no pair"
        assert self.than is not None
        return self.arm, self.than


@dataclass(frozen=True)
class Finding:
    """What one run says about one claim on one data set."""

    claim: Claim
    verdict: Verdict
    run: str = ""
    dataset: str = ""
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    unit: Literal["", "%"] = ""
    compared: str = ""
    """What was subtracted from what."""
    turned: bool = False
    """Whether that is the other way round than the claim has it."""
    p: float | None = None
    """Adjusted within the run's family; None where an interval decides."""
    seeds: int = 0
    detail: str = ""
    """The numbers in words, or why there are none."""


def load_claims(path: str | Path | None = None) -> tuple[dict[str, dict[str, Any]], list[Claim]]:
    """Papers and claims of ``path``; without one, those that ship.

    Raises:
        InputError: no such file, no YAML, no papers or claims, an unknown key or paper, an id that stands twice.
    """
    path = Path(str(resources.files("harness.studies") / "claims.yaml")) if path is None else Path(path)
    raw = read_yaml(path, "give the path of a claims file")
    if not isinstance(raw, dict) or set(raw) != {"papers", "claims"}:
        raise InputError(f"{path} needs the two keys 'papers' and 'claims'")
    if not isinstance(raw["claims"], list):
        raise InputError(f"{path}: 'claims' is a list, one entry per claim; found {shown(raw['claims'])}")
    papers = raw["papers"]
    if not isinstance(papers, dict) or not all(isinstance(paper, dict) for paper in papers.values()):
        raise InputError(f"{path}: 'papers' maps keys to what is known of a paper, as in {{fair: {{title: FAIR}}}}")
    claims = [parse(Claim, entry, f"{path}, claim {number}") for number, entry in enumerate(raw["claims"], start=1)]
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise InputError(f"{path}: two claims are called '{claim.id}'; rename one")
        if claim.paper not in papers:
            raise InputError(f"{path}: claim '{claim.id}' names the paper '{claim.paper}', which is not among 'papers'")
        seen.add(claim.id)
    return papers, claims


def runs_below(results: str | Path, claims: Iterable[Claim], damaged: Callable[[InputError], None]) -> list[Run]:
    """The runs in a results folder that have a finished cell, by name. Smoke runs prove nothing and are left out.

    So is a run whose files can't be used for ``claims``: what is wrong with them goes to ``damaged``.
    """
    claims, runs = list(claims), []
    for path in sorted(Path(results).glob("*/study.yaml")):
        if path.parent.name.endswith("-smoke") or not any((path.parent / "cells").glob("*/cell.json")):
            continue
        try:
            run = load_run(path.parent)
            claims_for(run, claims)  # the files of cells are read only now
        except InputError as error:
            if str(path.parent) not in str(error):  # it is the claim that is off
                raise
            damaged(error)
        else:
            runs.append(run)
    return runs


def measurements_below(results: str | Path) -> list[Efficiency]:
    """The measurements of speed in a results folder, by name; none of a smoke run."""
    folders = [path.parent for path in sorted(Path(results).glob(f"*/{MEASUREMENTS}"))]
    return [load_efficiency(folder) for folder in folders if not folder.name.endswith("-smoke")]


def claims_for(run: Run, claims: Iterable[Claim]) -> list[Finding]:
    """What one run says about the claims that its study tests; one finding per claim and data set."""
    mine = [claim for claim in claims if claim.study == run.name]
    families = {quantity: tested_family(run, quantity) for quantity in dict.fromkeys(claim.quantity for claim in mine)}
    findings = []
    for claim in mine:
        tested = families[claim.quantity]
        for dataset in run.datasets:
            if claim.sweep:
                finding = _sweep(run, dataset, claim, tested)
            elif claim.by is None:
                finding = _direction(run, dataset, claim, tested)
            else:
                c = _looked_up(tested, dataset, *claim.pair)
                finding = replace(_size(claim, c), compared=_minus(run, *claim.pair))
            findings.append(replace(finding, run=str(run.study.get("run") or run.name), dataset=dataset))
    return findings


def evaluate(claims: Iterable[Claim], runs: Iterable[Run], measurements: Iterable[Efficiency] = ()) -> list[Finding]:
    """All findings, in the order of the claims; a claim that no run tests is "not tested" once."""
    claims = list(claims)
    found: dict[str, list[Finding]] = {claim.id: [] for claim in claims}
    for run in runs:
        for finding in claims_for(run, claims):
            if finding.verdict != "not tested":
                found[finding.claim.id].append(finding)
    for measured in measurements:
        for claim in claims:
            if claim.study == measured.study["study"]:
                found[claim.id] += _speed(measured, claim)
    return [
        finding
        for claim in claims
        for finding in found[claim.id]
        or [Finding(claim, "not tested", detail=f"no run of study '{claim.study}' tests it")]
    ]


def ledger_table(papers: dict[str, dict[str, Any]], findings: list[Finding], name: str = "claims") -> Table:
    """The ledger as a table: a block per paper, a line per claim and data set."""
    heads = (
        Column("verdict", "Verdict", align="l"),
        Column("compared", "Compared", align="l"),
        Column("estimate", "Measured"),
        Column("interval", "95 % interval"),
        Column("claimed", "Claimed"),
        Column("data", "Data", align="l"),
        Column("seeds", "Seeds"),
    )
    lines = []
    for finding in findings:
        claim, digits = finding.claim, 2 if finding.unit == "%" else 4
        unit = f" {finding.unit}" if finding.unit else ""
        claimed = _claimed(finding)
        lines.append(
            Line(
                claim.id,
                claim.claim,
                (
                    Entry(finding.verdict, finding.verdict),
                    Entry(finding.compared or "–", finding.compared),
                    Entry(
                        fixed(finding.estimate, digits, sign=True) + (unit if finding.estimate is not None else ""),
                        finding.estimate,
                    ),
                    Entry(between(finding.interval, digits)),
                    Entry(claimed, claimed),
                    Entry(" ".join(filter(None, (finding.run, finding.dataset))) or "–"),
                    Entry(str(finding.seeds) if finding.seeds else "–", finding.seeds),
                ),
                str(papers[claim.paper].get("title", claim.paper)),
            )
        )
    caption = (
        "Claims of the papers and what was measured. A claimed direction has the verdict of the run's tables, "
        "corrected for the run's whole family of comparisons. A claimed size is taken as 'at least so much': supported "
        "where the whole 95 % interval of the relative difference reaches it, contradicted where the whole interval "
        "falls short of it. Undecided: neither; not tested: no run declares the comparison, or has the quantity."
    )
    return Table(name, caption, "Claim", heads, tuple(lines), block="Paper")


def _claimed(finding: Finding) -> str:
    """The claimed sign or size of the difference, in the direction in which it is shown."""
    claim = finding.claim
    if claim.sweep:
        return "best inside"
    sign = "−" if (claim.expect == "lower") != finding.turned else "+"
    return f"{sign}{claim.by:g} %" if claim.by is not None else sign


def _looked_up(tested: dict[Contrast, Comparison], dataset: str, arm: str, than: str) -> Comparison | None:
    """A comparison in the direction that is asked for; None where the run does not declare it."""
    if (dataset, arm, than) in tested:
        return tested[dataset, arm, than]
    turned = tested.get((dataset, than, arm))
    return turned and turned.reversed()


def _minus(run: Run, arm: str, than: str) -> str:
    return f"{run.label(arm)} − {run.label(than)}"


def _direction(run: Run, dataset: str, claim: Claim, tested: dict[Contrast, Comparison]) -> Finding:
    arm, than = claim.pair
    turned = (dataset, than, arm) in tested
    if turned:
        arm, than = than, arm
    c = tested.get((dataset, arm, than))
    if c is None:
        return Finding(claim, "not tested", detail=MISSING)
    verdict: Verdict
    match c.verdict:
        case "better" | "worse":
            agrees = (c.difference > 0) == ((claim.expect == "higher") != turned)
            verdict = "supported" if agrees else "contradicted"
        case other:
            verdict = other
    return Finding(
        claim, verdict, estimate=c.difference, interval=c.interval, p=c.p_adjusted, seeds=c.seeds,
        compared=_minus(run, arm, than), turned=turned,
        detail=f"{name_of(claim.quantity)} {c.mean_a:.4g} against {c.mean_b:.4g}" + (f"; {c.note}" if c.note else ""),
    )  # fmt: skip


def _size(claim: Claim, c: Comparison | None) -> Finding:
    if c is None or c.percent is None or claim.by is None:
        return Finding(claim, "not tested", detail=MISSING)
    interval = c.interval_percent
    if c.interval_users is not None:  # never the narrower one
        lowest, highest = c.interval_users
        interval = 100 * lowest / abs(c.mean_b), 100 * highest / abs(c.mean_b)
    if interval is None and c.seeds > 1:  # the same difference in every seed
        interval = (c.percent, c.percent)
    verdict: Verdict = "undecided"
    if interval is not None:
        # Turned so that more is more of what was claimed.
        low, high = interval if claim.expect == "higher" else (-interval[1], -interval[0])
        if low >= claim.by:
            verdict = "supported"
        elif high < claim.by:
            verdict = "contradicted"
    return Finding(
        claim, verdict, estimate=c.percent, interval=interval, unit="%", seeds=c.seeds,
        detail=f"{name_of(claim.quantity)} {c.mean_a:.4g} against {c.mean_b:.4g}" + (f"; {c.note}" if c.note else ""),
    )  # fmt: skip


def _speed(measured: Efficiency, claim: Claim) -> list[Finding]:
    """One finding per width, at the length that speaks least for the claim."""
    if {claim.arm, claim.than} - set(measured.variants):
        return []
    findings = []
    for dim in measured.study["dims"]:
        found = []
        for length in measured.study["lengths"]:
            ours, theirs = (measured.steps(variant, dim, length) for variant in claim.pair)
            # The ratio within a turn is what is compared, so that a slow moment of the machine counts for both.
            finding = _size(claim, compare(100 * ours / theirs, np.full(len(ours), 100.0)))
            compared = " − ".join(measured.label(variant) for variant in claim.pair)
            found.append(replace(finding, dataset=f"width {dim}, length {length}", compared=compared))
        sign = -1 if claim.expect == "higher" else 1
        least = max(found, key=lambda finding: sign * (finding.estimate or 0))
        said = f"mean of {measured.study['repeats']} turns on one machine; the other lengths speak more for it"
        findings.append(replace(least, run=measured.study["study"], seeds=0, detail=said))
    return findings


def _sweep(run: Run, dataset: str, claim: Claim, tested: dict[Contrast, Comparison]) -> Finding:
    # The best level is picked on validation, where the quantity has one, so that the test below is not a second look.
    means = {v: list(values_of(run, dataset, v, claim.quantity, "valid").values()) for v in run.contenders}
    levels = [v for v, found in means.items() if found]
    if len(levels) < 3:
        return Finding(claim, "not tested", detail=f"{len(levels)} levels have the quantity; a sweep needs three")
    sign = -1 if less_is_better(claim.quantity) else 1
    best = max(levels, key=lambda v: sign * np.mean(means[v]))
    ends, inner = (levels[0], levels[-1]), levels[1:-1]
    looked_up = {rival: _looked_up(tested, dataset, best, rival) for rival in (ends if best in inner else inner)}
    pairs = {rival: c for rival, c in looked_up.items() if c is not None}
    if len(pairs) < len(looked_up):
        return Finding(claim, "not tested", detail=f"{MISSING}; a sweep needs `contrasts: all-pairs`")
    decided = all(c.verdict == "better" for c in pairs.values())
    verdict: Verdict = ("supported" if best in inner else "contradicted") if decided else "undecided"
    rival, closest = min(pairs.items(), key=lambda item: abs(item[1].difference))
    return Finding(
        claim, verdict, estimate=closest.difference, interval=closest.interval, p=closest.p_adjusted,
        seeds=closest.seeds, compared=_minus(run, best, rival),
        detail=f"best on validation at {run.label(best)} ({name_of(claim.quantity)} {np.mean(means[best]):.4g}), "
        f"closest rival on test {run.label(rival)}",
    )  # fmt: skip
