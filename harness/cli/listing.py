"""`harness list`."""

from __future__ import annotations

from typing import Any

import typer

from harness.cli.options import AsJson, DataRoot
from harness.cli.printing import print_rows
from harness.errors import InputError

list_app = typer.Typer(
    no_args_is_help=True, help="List what is registered: models, metrics, data sets, ..., and the studies that ship."
)


@list_app.command("models")
def list_models(as_json: AsJson = False) -> None:
    """The registered models, with how close each is to its publication."""
    from harness.fidelity import card
    from harness.registry import is_family, load_model, model_names

    found = []
    for name, place in model_names().items():
        entry: dict[str, Any] = {"name": name, "tasks": [], "status": "", "class": place, "fidelity": None}
        try:
            if is_family(name):
                entry["status"] = f"family: {name}:NAME"
            else:
                model = load_model(name)
                entry |= {"tasks": sorted(model.tasks), "status": model.fidelity.status, "fidelity": card(model)}
        except InputError as error:  # a library that it needs is not installed
            entry["status"] = f"unavailable: {' '.join(str(error).split())}"
        found.append(entry)
    print_rows(found, as_json, {"model": "name", "tasks": "tasks", "status": "status", "class": "class"})


@list_app.command("datasets")
def list_datasets(as_json: AsJson = False, data_root: DataRoot = None) -> None:
    """The data sets that are known by name; any other is named by its path, or its folder in the data root."""
    from harness.data.datasets import overview

    print_rows(overview(data_root), as_json)


@list_app.command("studies")
def list_studies(as_json: AsJson = False) -> None:
    """The studies that ship, with their presets."""
    from harness.reading.yaml_text import read_yaml
    from harness.study.loading import study_files

    found = []
    for name, path in study_files().items():
        raw = read_yaml(path)
        presets = ", ".join(["default", *(raw.get("presets") or {})])
        found.append({"study": name, "title": raw.get("title", ""), "presets": presets})
    print_rows(found, as_json)


@list_app.command("metrics")
def list_metrics(as_json: AsJson = False) -> None:
    """The metrics of both tasks."""
    from harness.registry import REGISTRIES

    metrics = REGISTRIES["metrics"]
    kinds = [(name, metrics.load(name)) for name in metrics.names()]
    kinds.sort(key=lambda entry: (entry[1].task != "retrieval", sorted(entry[1].needs, reverse=True), entry[0]))
    found = [
        {"task": kind.task, "metric": name, "needs": sorted(kind.needs), "meaning": kind.meaning}
        for name, kind in kinds
    ]
    print_rows(found, as_json)


def _plain(kind: str) -> None:
    """Adds `harness list KIND` for a registry whose entries say in one line what they are."""
    from harness.registry import REGISTRIES

    registry = REGISTRIES[kind]

    def listed(as_json: AsJson = False) -> None:
        found = []
        for name, place in registry.names().items():
            try:
                said = registry.load(name)
                meaning = getattr(said, "meaning", "") or (said.__doc__ or "").strip().split("\n")[0]
            except InputError as error:
                meaning = f"unavailable: {' '.join(str(error).split())}"
            found.append({registry.noun: name, "meaning": meaning, "class": place})
        print_rows(found, as_json)

    list_app.command(kind, help=f"{registry.purpose[0].upper()}{registry.purpose[1:]}.")(listed)


for _kind in ("splitters", "probes", "tables", "figures", "executors", "trackers"):
    _plain(_kind)
