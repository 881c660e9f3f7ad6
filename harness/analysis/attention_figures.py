"""Figures of what models attend to, from the attention statistics of each cell.

Signed and absolute weights are never mixed up: attention that is a difference of two maps has negative weights, so
its signed mass can be small, or sum to less than 1, where its absolute mass is large.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.figures import _legend
from harness.analysis.rows import Run
from harness.analysis.style import FULL, GREY, look, new_figure, style

__all__ = ["attention_frame", "entropy_by_head", "recency"]

STEPS = 20
"""How many events back the recency figure shows."""


def attention_frame(run: Run, dataset: str) -> pd.DataFrame:
    """The attention statistics of a data set's cells with their ``variant`` and ``seed``; may be empty."""
    parts = []
    for line in run.finished[run.finished["dataset"] == dataset].itertuples():
        frame = run.attention(line.id)
        if frame is not None:
            parts.append(frame.assign(variant=line.variant, seed=line.seed))
    columns = ["layer", "head", "statistic", "bin", "value", "users", "variant", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def recency(run: Run, dataset: str) -> Figure | None:
    """Attention of the last event on the events before it, mean over layers and heads, band over seeds.

    Left: signed weight. Right: share of the absolute weight. None where no cell measured attention.
    """
    frame = attention_frame(run, dataset)
    if frame.empty:
        return None
    with style():
        figure = new_figure(FULL, 2.7)
        axes = figure.subplots(1, 2)
        panels = (("recency", "Signed weight"), ("recency_abs", "Share of absolute weight"))
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
            axis.set_xlabel("Events back from the last one")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.axhline(0, color=GREY, linewidth=0.6)
        axes[0].set_ylabel("Mean over users, layers, heads")
        _legend(figure, axes[0])
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
        _legend(figure, axes[0, 0])
    return figure
