"""What a claim may be about: a metric, cost/KEY, attention/STATISTIC or noise/STATISTIC@SHARE, by its name."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.analysis.comparisons import Contrast, comparisons, family_of
from harness.analysis.crossed import Replicate
from harness.analysis.noise import noise_comparisons, noise_quantities
from harness.analysis.rows import Run, lower_is_better, metric_label
from harness.analysis.statistics import Comparison
from harness.metrics import find

__all__ = ["less_is_better", "name_of", "tested_family", "values_of"]


def values_of(run: Run, dataset: str, variant: str, quantity: str, phase: str = "test") -> dict[Replicate, float]:
    """Seed and draw -> the quantity, of the cells that have it; ``phase`` is for metrics."""
    cells = zip(run.replicates(dataset, variant), run.ids(dataset, variant), strict=True)
    kind, _, key = quantity.partition("/")
    found = {}
    for replicate, cell in cells:
        if kind == "cost":
            value = _cost(run.cost(cell), key)
        elif kind == "noise":
            value = _under_noise(run.noise(cell), key)
        elif kind == "attention":
            frame = run.attention(cell)
            chosen = None if frame is None else frame[(frame["statistic"] == key) & (frame["bin"] == -1)]["value"]
            value = None if chosen is None or chosen.empty else float(chosen.mean())  # over layers and heads
        else:
            value = run.metric(cell, quantity, phase)
        if value is not None and np.isfinite(value):
            found[replicate] = value
    return found


def _under_noise(found: dict[tuple[str, str, float], float], key: str) -> float | None:
    """``injected_abs@0.3``: a statistic of the noise experiment where 30 % of the events are injected."""
    statistic, _, share = key.rpartition("@")
    return found.get((statistic, "injected", float(share)))


def _cost(cost: dict[str, Any], key: str) -> float | None:
    if key == "seconds_per_epoch":  # early stopping makes whole trainings incomparable
        return cost["train_seconds"] / cost["epochs"] if cost.get("epochs") else None
    return cost.get(key)


def less_is_better(quantity: str) -> bool:
    """Whether less of it is better: costs and losses. Attention and noise statistics are neither."""
    kind = quantity.partition("/")[0]
    return kind == "cost" or (kind not in ("attention", "noise") and lower_is_better(quantity))


def tested_family(run: Run, quantity: str) -> dict[Contrast, Comparison]:
    """The run's family of comparisons of a quantity: that of its tables, where they show the quantity."""
    kind, _, key = quantity.partition("/")
    if kind not in ("cost", "attention", "noise"):
        return comparisons(run, quantity) if find(quantity).task == run.task else {}
    statistic, _, share = key.rpartition("@")
    shown = noise_quantities(run).get(statistic) if kind == "noise" else None
    if shown is not None:
        tested = noise_comparisons(run, shown).items()
        return {(dataset, arm, than): c for (dataset, arm, than, at), c in tested if at == float(share)}
    return family_of(
        run,
        lambda d, v: values_of(run, d, v, quantity),
        higher_is_better=not less_is_better(quantity),
        of_users=kind != "cost",
    )


def name_of(quantity: str) -> str:
    return quantity if "/" in quantity else metric_label(quantity)
