"""The model card of an exported model: README.md with the Hub's YAML front matter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from harness import __version__
from harness.analysis.rows import CANDIDATES, Run
from harness.data.catalogue import DatasetSpec
from harness.data.datasets import known
from harness.interface import Recommender
from harness.metrics.base import label

__all__ = ["mean_interval", "model_card", "plain_name"]

Interval = tuple[float, float]


def model_card(run: Run, cell: str, model: type[Recommender], name: str, licence: str | None) -> str:
    """The card of a cell's model; ``name`` is the exported folder's.

    Metrics are those of the test part under the study's protocol, computed from the rows.
    """
    card = run.cards[cell]
    (line,) = run.cells[run.cells["id"] == cell].to_dict("records")
    dataset, variant = line["dataset"], line["variant"]
    spec = known().get(dataset)
    measured = {metric: _measured(run, cell, dataset, variant, metric) for metric in run.metrics}
    shown = plain_name(dataset)
    front = _front(run, name, shown, card, measured, licence)
    sections = [
        f"# {run.label(variant)} on {shown}",
        f"A sequential recommender trained by the study `{run.name}`: model `{card['model']}`, variant `{variant}`, "
        f"seed {line['seed']}. {_asked(run)}",
        f"## Metrics\n\n{_metrics(run, measured)}",
        f"## Use\n\n{_use(run, name)}",
        f"## Training\n\n{_training(card)}",
        f"## Data\n\n{_data(card, shown, spec)}",
        f"## Model\n\n{_model(model)}",
        f"## Upload\n\n```bash\nhf upload USER/{name} {name}\n```\n\n"
        "The command is huggingface_hub's; `hf auth login` comes first.",
        f"## Licence\n\n{_licence(licence, spec)}",
        f"## Citation\n\n{_citation(model, spec)}",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def plain_name(dataset: str) -> str:
    """A data set's name; of one that is named by its path the last part, since folders are nobody else's business."""
    return Path(dataset).name if "/" in dataset else dataset


def mean_interval(values: np.ndarray) -> Interval | None:
    """Student's 95 % interval of a mean; None of fewer than two values."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return float(values.mean()) - half, float(values.mean()) + half


def _measured(run: Run, cell: str, dataset: str, variant: str, metric: str) -> dict[str, Any]:
    """A metric of this cell, with an interval over test users, and its mean over the variant's seeds, with one."""
    users = run.user_values(cell, metric)
    seeds = np.array(list(run.by_seed(dataset, variant, metric).values()), float)
    return {
        "value": run.metric(cell, metric),
        "over_users": None if users is None else mean_interval(users),
        "seeds": len(seeds),
        "mean": float(seeds.mean()),
        "over_seeds": mean_interval(seeds),
    }


def _front(
    run: Run, name: str, dataset: str, card: dict[str, Any], measured: dict[str, dict[str, Any]], licence: str | None
) -> str:
    tags = ["recommendation", "sequential-recommendation", card["model"].replace(":", "-")]
    tags += ["generative-recommendation", "semantic-ids"] if card["fingerprints"].get("codes") else []
    task = {"type": "recommendation", "name": _task_name(run)}
    where = {"type": dataset, "name": dataset, "split": "test"}
    metrics = [
        {"type": metric, "name": label(metric), "value": round(found["value"], 6)}
        for metric, found in measured.items()
        if math.isfinite(found["value"])
    ]
    front = {
        "license": licence or "other",
        "library_name": "harness",
        "tags": tags,
        "model-index": [{"name": name, "results": [{"task": task, "dataset": where, "metrics": metrics}]}],
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def _task_name(run: Run) -> str:
    return "Next-item recommendation" if run.task == "retrieval" else "Action prediction"


def _asked(run: Run) -> str:
    if run.task == "retrieval":
        return "Given a history of items of this catalogue, it ranks those that may come next."
    return "Given a history and an item of this catalogue, it predicts the probability of each action on the item."


def _metrics(run: Run, measured: dict[str, dict[str, Any]]) -> str:
    def shown(value: float, interval: Interval | None) -> str:
        ends = "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
        return f"{value:.4f}{ends}" if math.isfinite(value) else "undefined"

    count = max(found["seeds"] for found in measured.values())
    lines = ["| metric | this model | mean over seeds |", "|---|---|---|"]
    for metric, found in measured.items():
        mean = shown(found["mean"], found["over_seeds"])
        lines.append(f"| {label(metric)} | {shown(found['value'], found['over_users'])} | {mean} |")
    how = f"Candidates: {CANDIDATES[run.candidates]}; full ranking, none sampled. " if run.task == "retrieval" else ""
    notes = (
        f"{how}In brackets 95 % intervals: of this model over test users, of the mean over {count} seed"
        f"{'s' * (count != 1)} of the same training (Student's t; none with one seed, or where a metric is not a mean "
        "over users)."
    )
    return "\n".join([*lines, "", notes])


def _use(run: Run, name: str) -> str:
    if run.task != "retrieval":
        return (
            f'```python\nimport harness\n\nmodel = harness.load_model("{name}")\nmodel.model  # the PyTorch module\n```'
        )
    return (
        f"```bash\nharness recommend {name} --history ITEM,ITEM,ITEM -k 10\n```\n\n"
        f'```python\nimport harness\n\nmodel = harness.load_model("{name}")\n'
        'model.recommend(["ITEM", "ITEM"], k=10)\n```\n\n'
        "Item ids are those of the data (`items.parquet`), oldest first. The folder knows no users."
    )


def _training(card: dict[str, Any]) -> str:
    outcome, budget = card["outcome"], card["budget"]
    return (
        f"At most {budget['epochs']} epochs; epoch {outcome['best_epoch']} of {outcome['epochs']} was the best on "
        f"validation by {label(card['selection']['primary'])}. All settings, versions and fingerprints stand in "
        f"`config.json`; made with harness {card.get('versions', {}).get('harness', __version__)}, cell `{card['id']}`."
    )


def _data(card: dict[str, Any], dataset: str, spec: DatasetSpec | None) -> str:
    prints = card["fingerprints"]
    split = f"Split: {card['data']['split']}. Fingerprints: log `{prints['log'][:16]}`, split `{prints['split'][:16]}`."
    held = "The folder holds the ids and titles of its items, and how often each occurs in training; no event, no user."
    if spec is None:
        return f"`{dataset}`. {split} {held}"
    return f"[{spec.title}]({spec.url}). Licence: {spec.licence}. {split} {held}"


def _model(model: type[Recommender]) -> str:
    card = model.fidelity
    lines = [f"{card.paper}. Status: {card.status}."]
    if card.departures:
        lines += ["", "Known differences:", "", *(f"- {departure}" for departure in card.departures)]
    return "\n".join(lines)


def _licence(licence: str | None, spec: DatasetSpec | None) -> str:
    own = f"Weights: {licence}." if licence else "No licence was chosen for the weights."
    return f"{own} Item ids and titles are the data set's" + (
        f": {spec.licence}." if spec else ", and so is their licence."
    )


def _citation(model: type[Recommender], spec: DatasetSpec | None) -> str:
    cited = [f"- Model: {model.fidelity.paper}"] + ([f"- Data: {spec.citation}"] if spec else [])
    return "\n".join([*cited, "- Software: Harness: benchmarks and ablations of generative recommenders"])
