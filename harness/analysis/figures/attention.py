"""Figures of what models attend to, layer by layer, from the attention statistics of each cell.

Signed and absolute weights are never mixed up: attention that is a difference of two maps has negative weights, so
its signed mass can be small, or sum to less than 1, where its absolute mass is large. Nor are layers: what one does,
another may undo. Each caption ends in a sentence of what was measured.
"""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.artefacts import DatasetFigure
from harness.analysis.figures.common import is_narrow, legend
from harness.analysis.rows import Run
from harness.analysis.style import GREY, look, new_figure, style
from harness.analysis.table import fixed

__all__ = ["Entropy", "Recency", "Relevance", "attention_frame"]

STEPS = 20
"""How many events back the recency figure shows."""
LAST = 3
"""Events whose share of the weight the sentence on recency tells."""
MOST_NAMED = 6
"""More variants than this are summed up by the control and the two extremes."""


def attention_frame(run: Run, dataset: str) -> pd.DataFrame:
    """The attention statistics of a data set's cells with their ``variant`` and ``seed``; may be empty."""
    parts = []
    cells = run.finished[run.finished["dataset"] == dataset]
    for cell, variant, seed in zip(cells["id"], cells["variant"], cells["seed"], strict=True):
        frame = run.attention(cell)
        if frame is not None:
            parts.append(frame.assign(variant=variant, seed=seed))
    columns = ["layer", "head", "statistic", "bin", "value", "users", "variant", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def measured(run: Run, values: pd.Series, quantity: str) -> str:
    """One sentence: a quantity (percent, by variant, layer and seed) in the layer in which variants differ most."""
    means = values.groupby(level=["layer", "variant"]).mean().unstack("variant")
    layer = cast("int", (means.max(axis=1) - means.min(axis=1)).idxmax())  # to the stubs any Hashable
    row = means.T[layer]
    variants = [v for v in run.variants if v in means and np.isfinite(row[v])]
    if len(variants) > MOST_NAMED:
        order = row[variants].sort_values()
        kept = {order.index[0], order.index[-1], run.control}
        variants = [v for v in variants if v in kept]
    said = []
    for variant in variants:
        seeds = values.xs((variant, layer), level=("variant", "layer"))
        sd = f" ± {fixed(seeds.std(), 1)}" if len(seeds) > 1 else ""
        said.append(f"{fixed(seeds.mean(), 1)}{sd} % for {run.label(variant)}")
    which = ", in which variants differ most," if len(means) > 1 and len(variants) > 1 else ""
    return f" Measured: in layer {layer + 1}{which} {quantity} is {', '.join(said)} (mean ± deviation over seeds)."


class _Profile(DatasetFigure):
    """A statistic with bins: signed weight above, share of the absolute weight below, a column of panels per layer."""

    section = "attention"
    statistic: ClassVar[str]
    bins: ClassVar[str]
    """Title of the axis of bins."""

    def applies(self, run: Run, dataset: str) -> bool:
        return bool((attention_frame(run, dataset)["statistic"] == self.statistic).any())

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        frame = attention_frame(run, dataset)
        layers = sorted(frame.loc[frame["statistic"] == self.statistic, "layer"].unique())
        columns = min(2 if is_narrow(width) else 4, len(layers))
        blocks = -(-len(layers) // columns)
        rows = ((self.statistic, "Signed attention weight"), (f"{self.statistic}_abs", "Share of absolute weight"))
        with style():
            figure = new_figure(width, 0.6 + 3.4 * blocks)
            axes = figure.subplots(2 * blocks, columns, squeeze=False, sharey="row")
            for axis in axes.ravel():
                axis.set_visible(False)
            for place, layer in enumerate(layers):
                for row, (statistic, title) in enumerate(rows):
                    axis = axes[place // columns * 2 + row, place % columns]
                    axis.set_visible(True)
                    own = frame[(frame["statistic"] == statistic) & (frame["layer"] == layer)]
                    self.draw(run, own[own["bin"] < STEPS], axis)
                    if not place % columns:
                        axis.set_ylabel(title)
                    if row == 0:
                        axis.set_title(f"Layer {layer + 1}")
            figure.supxlabel(self.bins, fontsize=8)
            legend(figure)
        return figure

    def draw(self, run: Run, frame: pd.DataFrame, axis: Axes) -> None:
        """One layer's curves: mean over heads and seeds, and the deviation over seeds."""
        by_seed = frame.groupby(["variant", "seed", "bin"])["value"].mean()  # over heads
        for variant in [v for v in run.variants if v in by_seed.index.get_level_values("variant")]:
            table = by_seed[variant].unstack("seed")  # (bins, seeds)
            seen, mean = look(run, variant), table.mean(axis=1)
            axis.plot(mean.index, mean, color=seen.color, linestyle=seen.linestyle, label=run.label(variant))
            if table.shape[1] > 1:
                sd = table.std(axis=1)
                axis.fill_between(mean.index, mean - sd, mean + sd, color=seen.color, alpha=0.15, linewidth=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.axhline(0, color=GREY, linewidth=0.6)

    def shares(self, run: Run, dataset: str, bins: list[int]) -> pd.Series:
        """Percent of the absolute weight in some bins, by variant, layer and seed."""
        frame = attention_frame(run, dataset)
        chosen = frame[(frame["statistic"] == f"{self.statistic}_abs") & frame["bin"].isin(bins)]
        by_head = chosen.groupby(["variant", "layer", "seed", "head"])["value"].sum()
        return 100 * by_head.groupby(level=["variant", "layer", "seed"]).mean()


class Recency(_Profile):
    """Attention of the last event on the events before it."""

    order = 10
    statistic = "recency"
    bins = "Events back from the last one"

    def caption(self, run: Run, dataset: str) -> str:
        hidden = (
            "; its own action is hidden, so a token or a pooling of it has no weight" if run.task == "action" else ""
        )
        return (
            f"Where attention goes{self.on(run, dataset)}: weight of the last event of each test history on itself (0) "
            f"and on the events before it{hidden}, mean over users and heads, band of one standard deviation over "
            "seeds. Above: signed weight, which may cancel or be negative. Below: share of the absolute weight."
            + measured(
                run,
                self.shares(run, dataset, list(range(LAST))),
                f"the share of the absolute weight on the last {LAST} events",
            )
        )


class Relevance(_Profile):
    """Attention of the last event on the tenths of its history, from the least to the most relevant to the target."""

    order = 20
    statistic = "relevance"
    bins = "Tenth of the history by relevance to the target"

    def caption(self, run: Run, dataset: str) -> str:
        return (
            f"Whether attention goes to what matters{self.on(run, dataset)}: weight of the last event of each test "
            "history on the tenths of that history, from the events least relevant to the target (1) to the most "
            "relevant (10). Relevance is the cosine of items' co-occurrence vectors (PPMI) in the training part, so no "
            "model defines it. Mean over users and heads, band of one standard deviation over seeds. Above: signed "
            "weight. Below: share of the absolute weight; dotted: uniform attention."
            + measured(
                run,
                self.shares(run, dataset, [9]),
                "the share of the absolute weight on the most relevant tenth (10 % if uniform)",
            )
        )

    def draw(self, run: Run, frame: pd.DataFrame, axis: Axes) -> None:
        super().draw(run, frame, axis)
        axis.set_xticks(range(0, 10, 3), [str(tenth + 1) for tenth in range(0, 10, 3)])
        if frame["statistic"].str.endswith("_abs").any():
            axis.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")


class Entropy(DatasetFigure):
    """Entropy of each head's attention and negative share of its weight: mean ± sd over seeds, a panel per layer."""

    section = "attention"
    order = 30

    def applies(self, run: Run, dataset: str) -> bool:
        return bool(_panels(attention_frame(run, dataset)))

    def caption(self, run: Run, dataset: str) -> str:
        frame = attention_frame(run, dataset)
        further = (
            " Further maps of a model, such as a pooling, count as layers behind the others."
            if run.task == "action"
            else ""
        )
        negative = frame[frame["statistic"] == "negative"]
        signed = bool((negative["value"] > 0).any())
        chosen = negative if signed else frame[frame["statistic"] == "entropy_relative"]
        quantity = "the negative share of the weight" if signed else "the relative entropy"
        values = 100 * chosen.groupby(["variant", "layer", "seed"])["value"].mean()
        return (
            f"How focused each head is{self.on(run, dataset)}: entropy of its absolute weights relative to the log of "
            "the number of visible tokens (1 = uniform, 0 = a single token), and the share of the absolute weight that "
            f"is negative. Mean over users, bars of one standard deviation over seeds.{further}"
            + measured(run, values, quantity)
        )

    def make(self, run: Run, dataset: str, width: float) -> Figure:
        frame = attention_frame(run, dataset)
        rows, layers = _panels(frame), sorted(frame["layer"].unique())
        variants = [v for v in run.variants if v in set(frame["variant"])]
        with style():
            figure = new_figure(width, 0.6 + 1.7 * len(rows))
            axes = figure.subplots(len(rows), len(layers), sharex="col", sharey="row", squeeze=False)
            for row, (statistic, title) in enumerate(rows.items()):
                axes[row, 0].set_ylabel(title)
                for column, layer in enumerate(layers):
                    chosen = frame[(frame["statistic"] == statistic) & (frame["layer"] == layer)]
                    _heads(run, chosen, variants, axes[row, column])
            for axis, layer in zip(axes[0], layers, strict=True):
                axis.set_title(f"Layer {layer + 1}")
            for axis in axes[-1]:
                axis.set_xlabel("Head")
            legend(figure)
        return figure


def _panels(frame: pd.DataFrame) -> dict[str, str]:
    titles = {"entropy_relative": "Relative entropy", "negative": "Negative share"}
    return {statistic: title for statistic, title in titles.items() if statistic in set(frame["statistic"])}


def _heads(run: Run, frame: pd.DataFrame, variants: list[str], axis: Axes) -> None:
    """One statistic of one layer, a place per head and side by side the variants."""
    for place, variant in enumerate(variants):
        table = frame[frame["variant"] == variant].pivot_table(index="head", columns="seed", values="value")
        if table.empty:
            continue
        seen = look(run, variant)
        at = table.index.to_numpy() + (place - (len(variants) - 1) / 2) * 0.8 / max(4, len(variants))
        axis.errorbar(
            at, table.mean(axis=1), table.std(axis=1).fillna(0), fmt=seen.marker, color=seen.color, elinewidth=1,
            markersize=4, label=run.label(variant),
        )  # fmt: skip
    axis.set_ylim(-0.03, 1.03)
    axis.grid(axis="x", visible=False)
    heads = np.unique(frame["head"])
    axis.set_xticks(heads, [str(head + 1) for head in heads])
    if len(heads):
        axis.set_xlim(heads.min() - 0.5, heads.max() + 0.5)
