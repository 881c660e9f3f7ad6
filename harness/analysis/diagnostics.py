"""What histories say of a training: whether each loss pulls, whether states collapse, whether it came to rest.

All from ``history.csv`` and ``cell.json``. A run whose histories lack the columns has fewer warnings, no error.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.rows import Run

__all__ = ["COLLAPSED", "HIGHEST_SHARE", "LOWEST_SHARE", "STATES", "auxiliary_terms", "training_warnings"]

LOWEST_SHARE, HIGHEST_SHARE = 0.01, 0.5
"""Of the main loss' gradient: below, an auxiliary loss trains next to nothing; above, it competes with the main one."""
COLLAPSED = 0.95
"""Mean cosine of users' states above which the ranking depends little on the user."""
LAST_PART = 0.1
"""A best epoch in this last part of the budget may not be the best that training can reach."""
STATES = "state_cosine"


def auxiliary_terms(history: pd.DataFrame) -> list[str]:
    """The loss terms whose gradients were measured against the main loss', which is the first."""
    return [name.partition("/")[2] for name in map(str, history) if name.startswith("gradient/")][1:]


def training_warnings(run: Run, dataset: str) -> list[str]:
    """One sentence per thing that is wrong on a data set, with the variants it is true of. References are left out.

    Values are means over seeds at the chosen epochs, whose weights the results come from.
    """
    sentences = []
    histories = [run.history(cell) for variant in run.contenders for cell in run.ids(dataset, variant)]
    for term in dict.fromkeys(term for history in histories for term in auxiliary_terms(history)):
        shares = _at_chosen_epochs(run, dataset, f"gradient/{term}")
        sentences += _said(
            run,
            f"On {dataset}, the loss '{term}' has less than {_percent(LOWEST_SHARE)} % of the main loss' gradient at "
            "the chosen epoch and trains next to nothing",
            {v: f"{_percent(share)} %" for v, share in shares.items() if share < LOWEST_SHARE},
            "raise its weight or change its form",
        )
        sentences += _said(
            run,
            f"On {dataset}, the loss '{term}' has more than {_percent(HIGHEST_SHARE)} % of the main loss' gradient at "
            "the chosen epoch and competes with it",
            {v: f"{_percent(share)} %" for v, share in shares.items() if share > HIGHEST_SHARE},
            "lower its weight",
        )
    sentences += _said(
        run,
        f"On {dataset}, the states of different users are nearly the same (mean cosine above {COLLAPSED} at the chosen "
        "epoch)",
        {v: f"{cosine:.4g}" for v, cosine in _at_chosen_epochs(run, dataset, STATES).items() if cosine > COLLAPSED},
        "raise the scale of the model's input or train longer",
    )
    return sentences + _not_at_rest(run, dataset)


def _not_at_rest(run: Run, dataset: str) -> list[str]:
    """Variants whose curves do not show that more training would gain nothing."""
    late, annealed = {}, {}
    for variant in run.contenders:
        cards = [run.cards[cell] for cell in run.ids(dataset, variant)]
        cards = [card for card in cards if card["outcome"]["epochs"]]  # not another system's
        if not cards:
            continue
        budget, schedule = cards[0]["budget"]["epochs"], cards[0]["training"].get("schedule")
        best = float(np.mean([card["outcome"]["best_epoch"] for card in cards]))
        where = f"epoch {best:.3g} of {budget}"
        if schedule in ("cosine", "linear") and any(card["outcome"]["epochs"] >= budget for card in cards):
            annealed[variant] = f"{schedule}, best {where}"
        elif best > (1 - LAST_PART) * budget:
            late[variant] = where
    return [
        *_said(
            run,
            f"On {dataset}, the best epoch lies in the last tenth of the budget, so more training may gain more",
            late,
            "raise budget.epochs",
        ),
        *_said(
            run,
            f"On {dataset}, the learning rate ended at zero, where every curve is flat, so none shows that more "
            "training would gain nothing",
            annealed,
            "compare with twice the budget or a constant rate",
        ),
    ]


def _said(run: Run, finding: str, values: dict[str, str], remedy: str) -> list[str]:
    """The finding with the variants that it is true of, or nothing where there are none."""
    named = ", ".join(f"{run.label(variant)} ({value})" for variant, value in values.items())
    return [f"{finding}: {named}; {remedy}."] if values else []


def _at_chosen_epochs(run: Run, dataset: str, column: str) -> dict[str, float]:
    """Variant -> mean over seeds of a column of the history at the epoch whose weights were kept."""
    found = {}
    for variant in run.contenders:
        values = [_at(run.history(cell), column, run.cards[cell]) for cell in run.ids(dataset, variant)]
        values = [value for value in values if np.isfinite(value)]
        if values:
            found[variant] = float(np.mean(values))
    return found


def _at(history: pd.DataFrame, column: str, card: dict) -> float:
    if column not in history:
        return float("nan")
    chosen = history.loc[history["epoch"] == card["outcome"]["best_epoch"], column]
    return float(chosen.iloc[0]) if len(chosen) else float("nan")


def _percent(share: float) -> str:
    """In percent, three digits and no exponent."""
    return np.format_float_positional(100 * share, precision=3, fractional=False, trim="-")
