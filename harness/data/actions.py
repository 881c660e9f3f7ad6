"""Action labels derived from the columns of a log by one-line rules; nothing is ever evaluated as code.

A rule is ``COLUMN OP VALUE`` (``rating >= 4``, ``action == buy``) or a bare ``COLUMN`` that holds 0 and 1.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.errors import InputError, nearest

__all__ = ["Rule", "apply_rules", "parse_rule"]

_OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_PATTERN = re.compile(r"\s*([\w.-]+)\s*(?:(==|!=|>=|<=|>|<)\s*([^\s=<>!]+)\s*)?")


@dataclass(frozen=True)
class Rule:
    """One parsed rule; ``op`` and ``value`` are None for a bare column of 0 and 1."""

    column: str
    op: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        return self.column if self.op is None else f"{self.column} {self.op} {self.value}"


def parse_rule(text: str) -> Rule:
    """``text`` as a :class:`Rule`.

    Raises:
        ValueError: it is not a rule.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"'{text}' is not a rule; write COLUMN, or COLUMN OP VALUE with OP one of {' '.join(_OPERATORS)}"
        )
    rule = Rule(*match.groups())
    if rule.op not in (None, "==", "!=") and _number(rule.value or "") is None:
        raise ValueError(f"'{text}' compares with {rule.op}, which needs a number on its right")
    return rule


def apply_rules(rules: Mapping[str, str], columns: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """(N, A) uint8 labels, one column per rule, from the (N,) ``columns`` of the log named ``where``.

    Raises:
        InputError: a rule names no column, compares words by size, or takes a column as labels that
            holds something else than 0 and 1.
    """
    labels = [_apply(name, parse_rule(text), columns, where) for name, text in rules.items()]
    return np.stack(labels, axis=1).astype(np.uint8)


def _apply(name: str, rule: Rule, columns: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    if rule.column not in columns:
        hint = nearest(rule.column, columns)
        raise InputError(f"{where}: action '{name}' ({rule}) needs a column '{rule.column}'; {hint}")
    values = columns[rule.column]
    numbers = _numbers(values)
    if rule.op is None:
        wrong = np.ones(len(values), bool) if numbers is None else (numbers != 0) & (numbers != 1)
        if wrong.any():
            found = values[np.argmax(wrong)]
            raise InputError(
                f"{where}: action '{name}' takes column '{rule.column}' as labels, but it holds {found}, "
                f"not 0 or 1; write a rule such as '{rule.column} >= {found}' under data.actions"
            )
        return np.asarray(numbers == 1)
    value = rule.value or ""
    number = _number(value)
    if numbers is not None and number is not None:
        return _OPERATORS[rule.op](numbers, number)
    if rule.op in ("==", "!="):
        return _OPERATORS[rule.op](values.astype(str), value)
    raise InputError(
        f"{where}: action '{name}' ({rule}) compares column '{rule.column}' with a number, but it holds words "
        f"such as '{values[0]}'; use == or !="
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(values: np.ndarray) -> np.ndarray | None:
    """The values as float64, or None where some are words."""
    try:
        return values.astype(np.float64)
    except ValueError:
        return None
