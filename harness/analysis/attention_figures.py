"""Figures of what models attend to, from the attention statistics of each cell.

Signed and absolute weights are never mixed up: attention that is a difference of two maps has negative weights, so
its signed mass can be small, or sum to less than 1, where its absolute mass is large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.figures import _legend
from harness.analysis.rows import Run
from harness.analysis.style import FULL, GREY, INK, look, new_figure, style

__all__ = ["attention_frame", "entropy_by_head", "examples", "recency", "relevance"]

STEPS = 20
"""How many events back the recency figure shows."""
TITLE = 34
"""Letters of an item's title that fit beside a heat map."""


def attention_frame(run: Run, dataset: str) -> pd.DataFrame:
    """The attention statistics of a data set's cells with their ``variant`` and ``seed``; may be empty."""
    parts = []
    for line in run.finished[run.finished["dataset"] == dataset].to_dict("records"):
        frame = run.attention(line["id"])
        if frame is not None:
            parts.append(frame.assign(variant=line["variant"], seed=line["seed"]))
    columns = ["layer", "head", "statistic", "bin", "value", "users", "variant", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def recency(run: Run, dataset: str) -> Figure | None:
    """Attention of the last event on the events before it, mean over layers and heads, band over seeds.

    Left: signed weight. Right: share of the absolute weight. None where no cell measured attention.
    """
    return _profiles(run, dataset, "recency", "Events back from the last one")


def relevance(run: Run, dataset: str) -> Figure | None:
    """Attention of the last event on the tenths of its history, from the events that turn out least relevant to the
    target to the most relevant ones; otherwise as :func:`recency`. The grey line is uniform attention."""
    figure = _profiles(run, dataset, "relevance", "Tenth of the history by relevance to the target")
    if figure is not None:
        for axis in figure.axes:
            axis.set_xticks(range(10), [str(tenth) for tenth in range(1, 11)])
        figure.axes[1].axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
    return figure


def _profiles(run: Run, dataset: str, name: str, label: str) -> Figure | None:
    frame = attention_frame(run, dataset)
    if not (frame["statistic"] == name).any():
        return None
    with style():
        figure = new_figure(FULL, 2.7)
        axes = figure.subplots(1, 2)
        panels = ((name, "Signed weight"), (f"{name}_abs", "Share of absolute weight"))
        for axis, (statistic, title) in zip(axes, panels, strict=True):
            chosen = frame[(frame["statistic"] == statistic) & (frame["bin"] < STEPS)]
            by_seed = chosen.groupby(["variant", "seed", "bin"])["value"].mean()  # over layers and heads
            for variant in run.variants:
                if variant not in by_seed.index.get_level_values("variant"):
                    continue
                table = by_seed[variant].unstack("seed")  # (bins, seeds)
                seen = look(run, variant)
                mean = table.mean(axis=1)
                axis.plot(mean.index, mean, color=seen.color, linestyle=seen.linestyle, label=run.label(variant))
                if table.shape[1] > 1:
                    sd = table.std(axis=1)
                    axis.fill_between(mean.index, mean - sd, mean + sd, color=seen.color, alpha=0.15, linewidth=0)
            axis.set_title(title)
            axis.set_xlabel(label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.axhline(0, color=GREY, linewidth=0.6)
        axes[0].set_ylabel("Mean over users, layers, heads")
        _legend(figure)
    return figure


def entropy_by_head(run: Run, dataset: str) -> Figure | None:
    """Entropy of each head's attention and negative share of its weight: mean ± sd over seeds, a panel per layer."""
    frame = attention_frame(run, dataset)
    panels = [
        ("entropy_relative", "Relative entropy"),
        ("negative", "Negative share"),
    ]
    panels = [panel for panel in panels if panel[0] in set(frame["statistic"])]
    if not panels:
        return None
    layers = sorted(frame["layer"].unique())
    variants = [v for v in run.variants if v in set(frame["variant"])]
    with style():
        figure = new_figure(FULL, 0.6 + 1.7 * len(panels))
        axes = figure.subplots(len(panels), len(layers), sharex="col", sharey="row", squeeze=False)
        for row, (statistic, title) in enumerate(panels):
            axes[row, 0].set_ylabel(title)
            for column, layer in enumerate(layers):
                axis = axes[row, column]
                chosen = frame[(frame["statistic"] == statistic) & (frame["layer"] == layer)]
                for place, variant in enumerate(variants):
                    table = chosen[chosen["variant"] == variant].pivot_table(
                        index="head", columns="seed", values="value"
                    )
                    if table.empty:
                        continue
                    seen = look(run, variant)
                    at = table.index.to_numpy() + (place - (len(variants) - 1) / 2) * 0.8 / max(4, len(variants))
                    sd = table.std(axis=1).fillna(0)
                    axis.errorbar(
                        at, table.mean(axis=1), sd, fmt=seen.marker, color=seen.color, elinewidth=1, markersize=4,
                        label=run.label(variant),
                    )  # fmt: skip
                axis.set_ylim(-0.03, 1.03)
                axis.grid(axis="x", visible=False)
                if row == 0:
                    axis.set_title(f"Layer {layer + 1}")
                if row == len(panels) - 1:
                    axis.set_xlabel("Head")
                heads = np.unique(chosen["head"])
                axis.set_xticks(heads, [str(head + 1) for head in heads])
                if len(heads):
                    axis.set_xlim(heads.min() - 0.5, heads.max() + 0.5)
        _legend(figure)
    return figure


def examples(run: Run, dataset: str) -> Figure | None:
    """Signed attention of a few users' last events on the items of their histories: the control beside the first
    other variant that has it, for the first seed of both. None where no cell kept examples."""
    kept = {}
    for variant in sorted(run.variants, key=lambda v: v != run.control):
        for cell in run.ids(dataset, variant)[:1]:
            if found := run.examples(cell):
                kept[variant] = {example["user"]: example for example in found}
    shown = list(kept)[:2]
    if not shown:
        return None
    first = kept[shown[0]]
    maps = {v: {user: _with_earlier(example) for user, example in kept[v].items()} for v in shown}
    rows = [maps[shown[0]][user][0].shape[1] for user in first]
    largest = max(np.abs(heads).max() for users in maps.values() for layers in users.values() for heads in layers)
    norm = FuncNorm((_root, _square), -largest, largest)
    with style():
        figure = new_figure(FULL, 0.8 + sum(0.45 + 0.15 * count for count in rows))
        axes = figure.subplots(
            len(first), len(shown), squeeze=False, sharey="row",
            gridspec_kw={"height_ratios": [3 + count for count in rows]},
        )  # fmt: skip
        for row, (user, example) in enumerate(first.items()):
            for axis, variant in zip(axes[row], shown, strict=True):
                mesh = _heat_map(axis, maps[variant][user], norm)
                if row == 0:
                    axis.set_title(run.label(variant), pad=14)
            names = [_short(event) for event in example["events"]]
            if example["earlier"]:
                names.insert(0, f"({example['earlier']} earlier ones, summed)")
            axes[row, 0].set_yticks(np.arange(rows[row]) + 0.5, names)
            axes[row, 0].set_ylim(rows[row], 0)
            axes[row, 0].annotate(
                f"user {user}, next: {_short(example['target'])}", (0, 0), (-4, -4), xycoords="axes fraction",
                textcoords="offset points", ha="right", va="top", fontsize=7, style="italic", color=INK,
            )  # fmt: skip
        bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.4, aspect=40, label="Signed weight", pad=0.01)
        ticks = [share * largest for share in (-1, -0.25, 0, 0.25, 1)]
        bar.set_ticks(ticks, labels=[f"{tick:+.2g}".replace("-", "−") if tick else "0" for tick in ticks])
        bar.minorticks_off()
    return figure


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


def _short(item: dict[str, str]) -> str:
    """The title of an item, or its id, cut to TITLE letters; a $ is no formula."""
    text = item["title"] or item["item"]
    text = text if len(text) <= TITLE else text[: TITLE - 1].rstrip() + "…"
    return text.replace("$", r"\$")
