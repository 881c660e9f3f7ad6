"""One look for all figures: colours that colour-blind readers can tell apart, sizes for a printed column.

The colours are Okabe & Ito's (2008). A variant keeps its colour, line and marker in every figure of a run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.analysis.glyphs import make_readable
from harness.analysis.rows import Run
from harness.files import whole_file

__all__ = ["COLUMN", "FULL", "GREY", "INK", "Look", "look", "look_at", "new_figure", "png", "save", "style"]

FULL = 6.9
"""Width of a printed page's text in inches."""
COLUMN = 3.33
"""Width of a column of a paper with two, in inches: acmart's; IEEEtran's is 3.49."""
SMALLEST = 7.0
"""No text of a figure is smaller, in points at either width."""
INK = "#222222"
GREY = "#767676"

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures look the same on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # letters stay letters: searchable, and accepted by publishers
    "svg.hashsalt": "harness",
    "text.parse_math": False,  # a $ in somebody's label is a $
    "image.cmap": "viridis",
}


class Look(NamedTuple):
    color: str
    marker: str
    linestyle: object


def look(run: Run, variant: str) -> Look:
    """Colour, marker and line of a variant, by its place in the design."""
    return look_at(run.variants.index(variant))


def look_at(place: int) -> Look:
    """The look of the arm at a place, from 0; colours repeat after eight, with another marker and line."""
    turn = place // len(_COLOURS)
    return Look(
        _COLOURS[place % len(_COLOURS)],
        _MARKERS[(place + 3 * turn) % len(_MARKERS)],
        _LINES[(place + turn) % len(_LINES)],
    )


@contextmanager
def style() -> Iterator[None]:
    """The style sheet, for as long as a figure is made."""
    with mpl.rc_context(_RC):
        yield


def new_figure(width: float = FULL, height: float = 2.6) -> Figure:
    """An empty figure (inches) that no global state knows of, so none is left open."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str, forms: tuple[str, ...] = ("pdf", "png")) -> list[Path]:
    """``name.pdf`` and ``name.png`` in ``folder``; the same figure gives the same bytes.

    Its parts are laid out once, for the first form, and stay where they are: that takes longer than all else.
    """
    make_readable(figure)
    paths = [folder / f"{name}.{form}" for form in forms]
    for path in paths:
        with style(), whole_file(path) as aside:
            if path.suffix == ".png":
                aside.write_bytes(png(figure))
            else:
                dateless = {"CreationDate": None, "Producer": None, "Creator": None}
                figure.savefig(aside, format="pdf", metadata=dateless)
        figure.set_layout_engine("none")
    return paths


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
