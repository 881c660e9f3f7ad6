"""``harness items report``: do the codes of a catalogue make sense? Numbers, and neighbours by text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.items.codes import ItemCodes
from harness.items.quality import code_neighbours

__all__ = ["codes_markdown", "example_items"]


def example_items(counts: np.ndarray, number: int) -> list[int]:
    """Dense ids of ``number`` items spread evenly from the most to the least frequent.

    Args:
        counts: (I + 1,) events of each item, the first of padding.
    """
    order = np.argsort(-counts[1:], kind="stable") + 1
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return [int(item) for item in order[places]]


def codes_markdown(
    codes: ItemCodes,
    ids: Sequence[str],
    *,
    title: str,
    texts: Sequence[str] | None = None,
    examples: Sequence[int] = (),
    neighbours: int = 5,
) -> str:
    """The report as Markdown.

    Args:
        ids: (I + 1) external item ids, the first of padding.
        texts: (I + 1) texts; None where the data set has none.
        examples: dense ids of the items whose neighbours by code are shown.
    """
    quality = codes.quality
    lines = [f"# Item codes: {title}", ""]
    lines += [
        f"{quality['items']} items, quantiser `{quality['quantiser']}`, fingerprint `{codes.fingerprint[:16]}`.",
        "",
    ]
    for line in quality["warnings"]:
        lines += [f"**Warning:** {line}.", ""]
    if "fitted_on" in quality:
        lines += [
            f"Fitted on {quality['fitted_on']} items ({quality['fit_on']}). Reconstruction: "
            f"{quality['error']:.1%} of the variance is lost, mean cosine {quality['cosine']:.3f}.",
            "",
        ]
    lines += ["| level | codes | in use | share | perplexity | entropy (nats) |", "|---:|---:|---:|---:|---:|---:|"]
    for number, level in enumerate(quality["levels"], 1):
        lines.append(
            f"| {number} | {level['size']} | {level['used']} | {level['use']:.1%} | {level['perplexity']:.1f} "
            f"| {level['entropy']:.3f} |"
        )
    lines += ["", *_collision_lines(quality), ""]
    for item in examples:
        lines += _neighbour_lines(codes, ids, texts, item, neighbours)
    return "\n".join(lines).rstrip() + "\n"


def _collision_lines(quality: dict) -> list[str]:
    lines = [f"Different tuples: {quality['distinct']:.1%} of the items; alone with theirs: {quality['alone']:.1%}."]
    if quality.get("moved"):
        lines.append(f"Not on their nearest last code, so as to differ from another item: {quality['moved']:.1%}.")
    if quality["collision_level"]:
        lines.append("A last level numbers the items of a tuple, so that all codes differ.")
    if quality["collisions"]:
        lines += ["", "| items that share a tuple | such tuples |", "|---:|---:|"]
        lines += [f"| {size} | {tuples} |" for size, tuples in quality["collisions"].items()]
    return lines


def _neighbour_lines(
    codes: ItemCodes, ids: Sequence[str], texts: Sequence[str] | None, item: int, count: int
) -> list[str]:
    own_levels = codes.codes[1:, : len(codes.quality["levels"])]  # (I, levels), without the collision level
    rows = code_neighbours(own_levels, item - 1, count, residual=codes.quality["residual"])
    lines = [
        f"## Nearest by code to item {ids[item]}",
        "",
        "| item | codes | levels shared | text |",
        "|---|---|---:|---|",
    ]
    for other in [item, *(int(row) + 1 for row in rows)]:
        equal = own_levels[other - 1] == own_levels[item - 1]
        shared = int(np.cumprod(equal).sum() if codes.quality["residual"] else equal.sum())
        code = " ".join(map(str, codes.codes[other]))
        text = "" if texts is None else _cell(texts[other])
        lines.append(f"| {ids[other]} | {code} | {shared} of {len(equal)} | {text} |")
    return [*lines, ""]


def _cell(text: str, width: int = 90) -> str:
    """A text cut at a word's end, harmless inside a Markdown table."""
    if len(text) > width:
        text = text[:width].rsplit(" ", 1)[0] + " ..."
    return text.replace("|", "\\|")
