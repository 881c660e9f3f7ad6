"""Reading a study file: under a preset, and with what the command line changes."""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path
from typing import Any

from harness.errors import InputError, nearest, shortened, shown
from harness.reading.bounds import DESIGN_NODES, YAML_NODES, first_odd
from harness.reading.yaml_text import read_yaml, yaml_value
from harness.settings import Settings, parse
from harness.study.design import Space, Study
from harness.study.efficiency_design import EFFICIENCY, EfficiencyStudy
from harness.study.places import in_file

__all__ = [
    "load_efficiency",
    "load_study",
    "measures_efficiency",
    "merged",
    "study_files",
    "study_name",
]

DOTTED = {"common": 1, "datasets": 2, "search": 2, "tuned": 3, "variants": 3}
"""Key of a study file -> how many names lead from there to settings, whose own names may hold dots."""


def study_files() -> dict[str, Path]:
    """The studies that ship, by name."""
    folder = Path(str(resources.files("harness.studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.stem != "claims"}


def load_study(
    name: str,
    *,
    preset: str = "default",
    settings: tuple[str, ...] = (),
    seeds: str | None = None,
    datasets: tuple[str, ...] = (),
) -> Study:
    """The study called ``name`` (or the file of that path) under a preset and the command line's changes.

    Raises:
        InputError: no such study, file, preset or key; or a value that does not fit.
    """
    raw, where = _changed(name, preset, settings, Study)
    if raw.get("task") == EFFICIENCY:
        raise InputError(f"{where} measures speed and trains nothing; `harness run`, `report` and `verify` take it")
    if seeds is not None:
        raw["seeds"] = _parse_seeds(seeds)
    if datasets:
        known = raw.get("datasets") or {}
        raw["datasets"] = {d: known.get(d, {}) if isinstance(known, dict) else {} for d in datasets}
        _narrow(raw, datasets)
    return parse(Study, raw, where, in_file())


def load_efficiency(name: str, *, preset: str = "default", settings: tuple[str, ...] = ()) -> EfficiencyStudy:
    """The same of a study that measures speed."""
    raw, where = _changed(name, preset, settings, EfficiencyStudy)
    return parse(EfficiencyStudy, raw, where)


def measures_efficiency(name: str) -> bool:
    """Whether the study called ``name``, or the study file of that path, measures speed."""
    return _read(name).get("task") == EFFICIENCY


def _changed(name: str, preset: str, settings: tuple[str, ...], kind: type[Settings]) -> tuple[dict[str, Any], str]:
    """The study file under a preset and ``--set``, and how errors call it."""
    raw = _read(name)
    where = f"study '{name}'"
    presets = raw.pop("presets", None) or {}
    if not isinstance(presets, dict) or not all(isinstance(found, dict | None) for found in presets.values()):
        raise InputError(f"{where}: 'presets' maps names to changes of the file, as in {{smoke: {{seeds: 2}}}}")
    presets = {str(key): changes or {} for key, changes in presets.items()}
    if preset != "default" and preset not in presets:
        raise InputError(f"{where} has no preset '{preset}'; {nearest(preset, [*presets, 'default'])}")
    changes = presets.get(preset, {})
    new = [variant for variant, found in _mapping(changes, "variants").items() if found is not None]
    declared = {str(variant) for variant in (*_mapping(raw, "variants"), *new)}
    raw = merged(raw, changes)
    for setting in settings:
        _apply(raw, setting, kind)
    _leave_out(raw, declared, where)
    return raw, where


def _mapping(raw: dict[str, Any], key: str) -> dict[Any, Any]:
    """What the file has under ``key``; empty where that is not a mapping, which is for :func:`parse` to refuse."""
    return raw[key] if isinstance(raw.get(key), dict) else {}


def _leave_out(raw: dict[str, Any], declared: set[str], where: str) -> None:
    """Takes variants that were set to null out of the study, wherever it names them; not where one is the control."""
    null = [variant for variant, found in _mapping(raw, "variants").items() if found is None]
    for variant in null:
        if str(variant) not in declared:
            raise InputError(f"{where} has no variant '{variant}' to leave out; {nearest(str(variant), declared)}")
        for choice in (raw["variants"], _mapping(raw, "search"), *_mapping(raw, "tuned").values()):
            if isinstance(choice, dict):
                choice.pop(variant, None)
    if isinstance(raw.get("references"), list):
        raw["references"] = [variant for variant in raw["references"] if variant not in null]
    if isinstance(raw.get("contrasts"), list):
        raw["contrasts"] = [pair for pair in raw["contrasts"] if not isinstance(pair, list) or not {*pair} & {*null}]
    for name, choice in list(_mapping(raw, "tables").items()):
        if isinstance(choice, dict) and isinstance(choice.get("rows"), list) and choice["rows"]:
            choice["rows"] = [variant for variant in choice["rows"] if variant not in null]
            if not choice["rows"]:  # which would stand for all variants
                del raw["tables"][name]


def _narrow(raw: dict[str, Any], datasets: tuple[str, ...]) -> None:
    """Takes out of tables and tuned settings what speaks of data sets that the command line left out."""
    for choice in _mapping(raw, "tables").values():
        if isinstance(choice, dict):
            choice.pop("datasets", None)
    for dataset in [dataset for dataset in _mapping(raw, "tuned") if dataset not in datasets]:
        del raw["tuned"][dataset]


def study_name(name: str) -> str:
    """The name that the study called ``name``, or the study file of that path, gives its run."""
    return str(_read(name).get("study", name))


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, mapping by mapping; ``datasets`` is replaced as a whole,
    and so is a mapping that becomes another ``kind``, whose keys are others."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        old = result.get(key)
        another_kind = (
            isinstance(value, dict) and isinstance(old, dict) and value.get("kind", old.get("kind")) != old.get("kind")
        )
        if isinstance(value, dict) and isinstance(old, dict) and key != "datasets" and not another_kind:
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _read(name: str) -> dict[str, Any]:
    known = study_files()
    path = known.get(name)
    if path is None:
        if odd := first_odd(name):
            raise InputError(f"unknown study {shown(name)}: a name can't hold the character U+{ord(odd[0]):04X}")
        path = Path(name)
        if path.suffix not in {".yaml", ".yml"}:
            raise InputError(f"unknown study '{name}'; {nearest(name, known)} (the path of a study file ends in .yaml)")
        if not path.is_file():
            raise InputError(f"there is no study file {path}")
    raw = read_yaml(path, nodes=DESIGN_NODES if (path.parent / "cells").is_dir() else YAML_NODES)
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no study: expected keys such as 'study', 'datasets' and 'variants'")
    return raw


def _apply(raw: dict[str, Any], setting: str, kind: type[Settings]) -> None:
    """Lays one ``key=value`` of the command line over a study: a dotted path into the study file, or a key of
    the models, which goes to ``common``."""
    path, sign, text = setting.partition("=")
    parts = path.strip().split(".")
    if not sign or not all(parts):
        raise InputError(f"--set {shortened(setting, 80)}: write it as key=value, for example --set budget.epochs=10")
    value = yaml_value(text, f"--set {shortened(setting, 80)}")
    if parts[0] not in kind.model_fields:
        parts = ["common", *parts]
    depth = DOTTED.get(parts[0], len(parts))
    outer, behind = parts[:depth], parts[depth:]
    if parts[0] == "search" and len(behind) > 1 and behind[-1] in Space.model_fields:
        outer, behind = [*outer, ".".join(behind[:-1])], behind[-1:]
    *outer, last = [*outer, ".".join(behind)] if behind else outer
    place = raw
    for depth, part in enumerate(outer, start=1):
        if place.get(part) is None:
            place[part] = {}
        if not isinstance(place[part], dict):
            raise InputError(f"--set {shortened(setting, 80)}: '{'.'.join(outer[:depth])}' holds no keys")
        place = place[part]
    place[last] = value


def _parse_seeds(text: str) -> int | list[int]:
    """``5`` (0..4) or ``0,3,7``."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds {text}: give a number of seeds, or a list such as 0,1,2") from None
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers
