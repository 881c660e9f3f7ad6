"""The tables of the report, one class each, and what one needs to write another."""

from __future__ import annotations

from harness.analysis.table import Column, Entry, Line, Table, between, fixed, from_frame, probability

__all__ = ["Column", "Entry", "Line", "Table", "between", "fixed", "from_frame", "probability"]
