"""Attention of a few users as it is: signed weights on the items of their histories."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.figures.common import is_narrow
from harness.analysis.rows import Run
from harness.analysis.style import INK, new_figure, style
from harness.analysis.table import fixed

__all__ = ["Examples"]

TITLE, NARROW_TITLE = 34, 16
"""Letters of an item's title that fit beside a heat map."""
Maps = dict[str, dict[str, list[np.ndarray]]]
"""Variant -> user -> (H, L) weights per layer."""


class Examples(DatasetFigure):
    """Signed attention of a few users' last events on the items of their histories: the control beside the first
    other variant that has it, for the first seed of both."""

    section = "attention"
    order = 40

    def applies(self, run: Run, dataset: str) -> bool:
        return bool(_kept(run, dataset))

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"Signed attention of three users' last events{self.on(run, dataset)} on the items of their histories "
            "(oldest above, a column per head), for the first seed. The users were chosen by a hash of their ids, not "
            "by what their maps look like. Red: positive, blue: negative; colours follow the square root of the "
            f"weight. Measured: {_measured(run, _maps(_kept(run, dataset)))}."
        )

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        kept, longest = _kept(run, dataset), NARROW_TITLE if is_narrow(width) else TITLE
        maps, shown = _maps(kept), list(kept)
        first = kept[shown[0]]
        rows = [maps[shown[0]][user][0].shape[1] for user in first]
        largest = max(np.abs(heads).max() for users in maps.values() for layers in users.values() for heads in layers)
        norm = FuncNorm((_root, _square), -largest, largest)
        with style():
            figure = new_figure(width, 0.8 + sum(0.45 + 0.15 * count for count in rows))
            axes = figure.subplots(
                len(first), len(shown), squeeze=False, sharey="row",
                gridspec_kw={"height_ratios": [3 + count for count in rows]},
            )  # fmt: skip
            for row, (user, example) in enumerate(first.items()):
                for axis, variant in zip(axes[row], shown, strict=True):
                    mesh = _heat_map(axis, maps[variant][user], norm)
                    if row == 0:
                        axis.set_title(textwrap.fill(run.label(variant), 14 if is_narrow(width) else 40), pad=14)
                _name_rows(axes[row, 0], user, example, rows[row], longest)
            _colour_bar(figure, axes, mesh, largest)
        return figure


def _kept(run: Run, dataset: str) -> dict[str, dict[str, Any]]:
    """Variant -> user -> example, of at most two variants."""
    kept = {}
    for variant in sorted(run.variants, key=lambda v: v != run.control):
        for cell in run.ids(dataset, variant)[:1]:
            if found := run.examples(cell):
                kept[variant] = {example["user"]: example for example in found}
    return dict(list(kept.items())[:2])


def _maps(kept: dict[str, dict[str, Any]]) -> Maps:
    return {v: {user: _with_earlier(example) for user, example in users.items()} for v, users in kept.items()}


def _measured(run: Run, maps: Maps) -> str:
    """How much of each variant's weight in the maps is negative, and in which layer most."""
    said = []
    for variant, users in maps.items():
        layers = [np.concatenate([np.ravel(heads) for heads in layer]) for layer in zip(*users.values(), strict=True)]
        negative = [100 * -w[w < 0].sum() / max(np.abs(w).sum(), 1e-12) for w in layers]
        most = int(np.argmax(negative))
        where = (
            f", most in layer {most + 1} ({fixed(negative[most], 1)} %)" if len(layers) > 1 and negative[most] else ""
        )
        every = np.concatenate(layers)
        share = 100 * -every[every < 0].sum() / max(np.abs(every).sum(), 1e-12)
        said.append(f"of {run.label(variant)}'s absolute weight in these maps {fixed(share, 1)} % is negative{where}")
    return "; ".join(said)


def _name_rows(axis: Axes, user: str, example: dict[str, Any], rows: int, longest: int) -> None:
    names = [_short(event, longest) for event in example["events"]]
    if example["earlier"]:
        names.insert(0, f"({example['earlier']} earlier ones{', summed' if longest == TITLE else ''})")
    axis.set_yticks(np.arange(rows) + 0.5, names)
    axis.set_ylim(rows, 0)
    who = f"user {_cut(user, longest)},{' ' if longest == TITLE else chr(10)}next: {_short(example['target'], longest)}"
    axis.annotate(
        who, (0, 0), (-4, -4), xycoords="axes fraction", textcoords="offset points", ha="right", va="top", fontsize=7,
        style="italic", color=INK,
    )  # fmt: skip


def _colour_bar(figure: Figure, axes: np.ndarray, mesh: QuadMesh, largest: float) -> None:
    shrink = 0.4 if figure.get_figwidth() > 5 else 0.9
    bar = figure.colorbar(
        mesh, ax=axes, location="bottom", shrink=shrink, aspect=40, label="Signed attention weight", pad=0.01
    )
    ticks = [share * largest for share in (-1, -0.25, 0, 0.25, 1)]
    bar.set_ticks(ticks, labels=[f"{tick:+.2g}".replace("-", "−") if tick else "0" for tick in ticks])
    bar.minorticks_off()


def _with_earlier(example: dict[str, Any]) -> list[np.ndarray]:
    """Per layer (H, L) weights, those of the earlier events as a sum in front where there are any."""
    layers = [np.array(heads) for heads in example["layers"]]
    if not example["earlier"]:
        return layers
    return [np.column_stack(parts) for parts in zip(example["rest"], layers, strict=True)]


def _root(weight: np.ndarray) -> np.ndarray:
    return np.sign(weight) * np.sqrt(np.abs(weight))


def _square(root: np.ndarray) -> np.ndarray:
    return np.sign(root) * np.square(root)


def _heat_map(axis: Axes, layers: list[np.ndarray], norm: FuncNorm) -> QuadMesh:
    """Per layer (H, L) weights: a column per head and a row per event, a gap between layers."""
    at, ticks = 0.0, []
    for layer, weights in enumerate(layers):
        heads, events = weights.shape
        edges = at + np.arange(heads + 1), np.arange(events + 1)
        mesh = axis.pcolormesh(*edges, weights.T, cmap="RdBu_r", norm=norm)
        axis.text(at + heads / 2, -0.2, f"layer {layer + 1}", ha="center", va="bottom", fontsize=7, color=INK)
        ticks += [(at + head + 0.5, str(head + 1)) for head in range(heads)]
        at += heads + 0.25
    axis.set_xticks([place for place, _ in ticks], [name for _, name in ticks])
    axis.tick_params(length=0, pad=2)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    return mesh


def _short(item: dict[str, str], longest: int) -> str:
    """The title of an item, or its id, cut."""
    return _cut(item["title"] or item["item"], longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
