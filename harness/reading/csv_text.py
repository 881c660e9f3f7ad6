"""Small CSV files of a run, and tables of numbers beside one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import InputError, in_one_line, shortened
from harness.reading.bounds import check_size

__all__ = ["read_csv"]

BYTES = 1 << 30


def read_csv(path: Path, remedy: str, **options: Any) -> pd.DataFrame:
    """A CSV file as pandas reads it with ``options``. Raises InputError where it is missing or can't be read."""
    check_size(path, BYTES, remedy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # of columns that mix kinds, which readers check
            return pd.read_csv(path, **options)
    except (OSError, ValueError, OverflowError, MemoryError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path} can't be read ({shortened(in_one_line(error))}); {remedy}") from None
