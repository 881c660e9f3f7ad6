"""A figure for the page: an SVG that follows the reader's dark mode, and its data points for hovering."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, Formatter

from harness.analysis.glyphs import make_readable
from harness.analysis.style import style

__all__ = ["hover_points", "svg_uri"]

_DARK = {
    "000000": "f2f2f2", "222222": "dedfe2", "767676": "9b9ea5", "ffffff": "17191d", "e3e3e3": "34373d",
    "e6efe0": "26331f", "666666": "8b8e95", "0072b2": "4aa3df",
}  # fmt: skip
"""Colours of ink, paper and grid that can't be read on a dark page, and what they become there."""
MOST_POINTS = 4000
"""Of a figure's points that are shown; more would make the page slow."""


def svg_uri(figure: Figure) -> str:
    """The figure as a data URI, in which it is sharp at any size and its ids can't clash with another figure's."""
    make_readable(figure)
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    light = ";".join(f"--c{name}:#{name}" for name in _DARK)
    dark = ";".join(f"--c{name}:#{to}" for name, to in _DARK.items())
    rules = f"svg{{fill:var(--c000000);{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    text = re.sub(rf"#({'|'.join(_DARK)})\b", r"var(--c\1)", buffer.getvalue())
    text = re.sub(r"(<svg\b[^>]*>)", lambda found: f"{found[1]}<style>{rules}</style>", text, count=1)
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


def hover_points(figure: Figure) -> dict[str, Any]:
    """What a reader's pointer finds: of every labelled point its place in the figure (shares of its width and height,
    from the upper left corner), its label and its values as text.

    Places are those of the last drawing, so the figure must have been drawn.
    """
    labels: dict[str, int] = {}
    axes: dict[tuple[str, str], int] = {}
    found = []
    for axis in figure.axes:
        if not axis.get_visible():
            continue
        titles = _quantity(axis, "x"), _quantity(axis, "y")
        for label, points in _series(axis):
            inside = points[np.isfinite(points).all(axis=1)]
            on_screen = axis.transData.transform(inside) if len(inside) else inside
            places = figure.transFigure.inverted().transform(on_screen) if len(inside) else inside
            for (x, y), (left, up) in zip(inside, places, strict=True):
                texts = (
                    _text(axis.xaxis.get_major_formatter(), axis.get_xticks(), x),
                    _text(axis.yaxis.get_major_formatter(), axis.get_yticks(), y),
                )
                at = axes.setdefault(titles, len(axes)), labels.setdefault(label, len(labels))
                found.append([round(float(left), 4), round(1 - float(up), 4), *at, *texts])
    return {"labels": list(labels), "axes": list(axes), "points": found[:MOST_POINTS]}


def _quantity(axis: Axes, way: str) -> str:
    """What an axis shows: by its own label, that of a panel with the same axis, the figure's, or the panel's title."""
    siblings = axis.get_shared_x_axes() if way == "x" else axis.get_shared_y_axes()
    labels = [getattr(panel, f"get_{way}label")() for panel in (axis, *siblings.get_siblings(axis))]
    labels.append(getattr(axis.figure, f"get_sup{way}label")())
    return next(filter(None, labels), axis.get_title("left") if way == "y" else way)


def _series(axis: Axes) -> Iterator[tuple[str, np.ndarray]]:
    """Label and (N, 2) points of everything that a legend may name."""
    for line in axis.lines:
        data = np.asarray(line.get_xydata(), dtype=float).reshape(-1, 2)
        if not str(line.get_label()).startswith("_") and line.get_transform().contains_branch(axis.transData):
            yield str(line.get_label()), data
    for group in axis.containers:
        label = str(group.get_label())
        if label.startswith("_"):
            continue
        if isinstance(group, ErrorbarContainer) and group.lines[0] is not None:
            yield label, np.asarray(group.lines[0].get_xydata(), dtype=float).reshape(-1, 2)
        if isinstance(group, BarContainer):
            ends = [bar.get_bbox().max for bar in group]
            yield label, np.asarray(ends, dtype=float).reshape(-1, 2)


def _text(formatter: Formatter, ticks: np.ndarray, value: float) -> str:
    """A value, or the name of the category that stands at the nearest tick."""
    if isinstance(formatter, FixedFormatter) and len(ticks):
        nearest = int(np.abs(np.asarray(ticks) - value).argmin())
        if nearest < len(formatter.seq):
            return " ".join(str(formatter.seq[nearest]).split())
    return f"{value:.4g}".replace("-", "−")
