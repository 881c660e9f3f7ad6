"""Methods ranked within several data sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from harness.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MINIMUM_BLOCKS", "Friedman", "friedman"]

MINIMUM_BLOCKS = 6
"""Friedman's test is refused below this number of data sets: its chi-squared approximation does not hold there."""


@dataclass(frozen=True)
class Friedman:
    """Methods ranked within data sets: Friedman's test and Nemenyi's comparison of average ranks."""

    blocks: int
    methods: tuple[str, ...]
    statistic: float
    """Chi-squared with methods - 1 degrees of freedom, corrected for ties."""
    p: float
    average_ranks: pd.Series
    """By method, 1 = best."""
    nemenyi: pd.DataFrame
    """(methods, methods) p of Nemenyi's pairwise test."""
    critical_difference: float
    """Average ranks that are further apart differ at ``alpha`` (Demšar 2006)."""
    alpha: float


def friedman(table: pd.DataFrame, *, higher_is_better: bool = True, alpha: float = 0.05) -> Friedman:
    """Friedman's test of a (blocks, methods) table: one row per data set, one column per method, means over seeds.

    Raises:
        InputError: fewer than ``MINIMUM_BLOCKS`` rows or 3 columns, a missing value, an alpha outside (0, 1).
    """
    import scikit_posthocs  # takes seconds to import

    blocks, k = table.shape
    if k < 3:
        raise InputError(f"Friedman's test needs at least 3 methods, not {k}; compare two methods over their seeds")
    if blocks < MINIMUM_BLOCKS:
        raise InputError(
            f"Friedman's test needs at least {MINIMUM_BLOCKS} data sets, not {blocks}: "
            "its chi-squared approximation does not hold for fewer; compare the methods within each data set"
        )
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha} is not between 0 and 1; 0.05 is usual")
    values = table.to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise InputError(
            f"no value for method '{table.columns[column]}' on data set '{table.index[row]}': "
            "Friedman's test needs every method on every data set; run it, or leave one of the two out"
        )
    ranks = (-table if higher_is_better else table).rank(axis=1)
    same = bool((ranks == (k + 1) / 2).all(axis=None))
    result = None if same else stats.friedmanchisquare(*values.T)
    return Friedman(
        blocks=blocks,
        methods=tuple(str(name) for name in table.columns),
        statistic=0.0 if result is None else float(result.statistic),
        p=1.0 if result is None else float(result.pvalue),
        average_ranks=ranks.mean(),
        nemenyi=scikit_posthocs.posthoc_nemenyi_friedman(table),
        critical_difference=float(
            stats.studentized_range.ppf(1 - alpha, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * blocks))
        ),
        alpha=alpha,
    )
