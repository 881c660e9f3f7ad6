"""Which comparisons a study declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

__all__ = ["ALL_PAIRS", "declared_pairs"]

ALL_PAIRS = "all-pairs"
"""What a study's ``contrasts`` say instead of a list: every two variants that are not references."""


def declared_pairs(
    variants: Iterable[str],
    control: str | None,
    references: Sequence[str] = (),
    contrasts: str | Sequence[Sequence[str]] = (),
) -> list[tuple[str, str]]:
    """The pairs (arm, than) that a study compares: each variant with the control, then the contrasts.

    A pair stands once, in the control's direction where it has one. References are in none of the control's pairs.
    """
    contenders = [variant for variant in variants if variant not in references]
    pairs = [(arm, control) for arm in contenders if arm != control] if control is not None else []
    listed = [(b, a) for a, b in combinations(contenders, 2)] if contrasts == ALL_PAIRS else contrasts
    for arm, than in listed:
        if (arm, than) not in pairs and (than, arm) not in pairs:
            pairs.append((arm, than))
    return pairs
