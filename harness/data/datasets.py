"""Loading a data set: one that is registered by name, a synthetic one, or a log of your own."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from harness.data import readers
from harness.data.catalogue import Counts, DatasetSpec, Download, Form
from harness.data.config import DataConfig
from harness.data.log import EventLog, RawLog, build_log
from harness.data.own import find_own, read_own
from harness.data.synthetic import ACTIONS, SYNTHETIC, synthetic_log
from harness.errors import InputError, nearest
from harness.registry import REGISTRIES

__all__ = [
    "Counts",
    "DatasetSpec",
    "Download",
    "Form",
    "data_root",
    "dataset_names",
    "find_files",
    "known",
    "load",
    "overview",
    "own_names",
    "read_files",
]


@functools.cache
def known() -> dict[str, DatasetSpec]:
    """Every registered data set by name.

    Raises:
        InputError: what is registered is not a description of a data set, or calls itself by another name.
    """
    found = {}
    for name, place in REGISTRIES["datasets"].names().items():
        spec = REGISTRIES["datasets"].load(name)
        if not isinstance(spec, DatasetSpec) or spec.name != name:
            raise InputError(f"data set '{name}' ({place}) is not a harness.data.catalogue.DatasetSpec of that name")
        found[name] = spec
    return found


def dataset_names() -> dict[str, str]:
    """Name -> title of every data set that has a name."""
    named = {name: spec.title for name, spec in known().items()}
    return named | {name: title for name, (title, _, _) in SYNTHETIC.items()}


def overview(root: Path | None = None) -> list[dict[str, object]]:
    """One entry for each data set that has a name: its title, published counts, action types, and whether it is
    "ready" (on disk, or made when it is used), can be fetched with "prepare", or is to be got "by hand"."""
    entries = []
    for name, spec in known().items():
        try:
            form, _ = find_files(spec, data_root(root))
            state = "ready"
        except InputError:
            form, state = spec.forms[0], "prepare" if spec.downloads else "by hand"
        counts = {} if form.published is None else vars(form.published)
        entries.append({"dataset": name, "title": spec.title, **counts, "actions": list(spec.actions), "state": state})
    for name, (title, _, _) in SYNTHETIC.items():
        blank = dict.fromkeys(f.name for f in fields(Counts))
        entries.append({"dataset": name, "title": title, **blank, "actions": list(ACTIONS[name]), "state": "ready"})
    return entries


def load(name_or_path: str, config: DataConfig, root: Path | None = None) -> EventLog:
    """The log of a named data set, of a synthetic one (``synthetic-clusters:users=200``), or one of your own: a path
    of a file or a folder, or the name of a folder in the data root (see :mod:`harness.data.own`).

    ``root``: where data sets lie; default: $HARNESS_DATA, else ``./data``.

    Raises:
        InputError: an unknown name, files that are missing or not as they should be.
    """
    name = str(name_or_path)
    kind = name.partition(":")[0]
    if kind in SYNTHETIC:
        text_fields = ("title",)
        return build_log(name, synthetic_log(name), config, rules=ACTIONS[kind], text_fields=text_fields)
    if name in known():
        spec = known()[name]
        if config.columns is not None:
            raise InputError(f"data.columns: the columns of data set '{name}' are known; leave the setting out")
        form, files = find_files(spec, data_root(root))
        raw = read_files(spec, form, files)
        return build_log(
            name, raw, config, rules=spec.actions, duplicates=spec.duplicates, text_fields=spec.text_fields
        )
    own = find_own(name, data_root(root))
    if own is None:
        raise InputError(f"unknown data set '{name}'; {nearest(name, [*dataset_names(), *own_names(data_root(root))])}")
    raw = read_own(own, config.columns)
    columns = () if raw.item_table is None else tuple(map(str, raw.item_table.columns))
    return build_log(own.name, raw, config, rules={}, text_fields=columns)


def own_names(root: Path) -> list[str]:
    """The folders of the data root that are not those of a data set known by name."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in known())


def data_root(root: Path | None = None) -> Path:
    """Where data sets lie: ``root``, else $HARNESS_DATA, else ``./data``."""
    return Path(root or os.environ.get("HARNESS_DATA") or "data").expanduser()


def find_files(spec: DatasetSpec, root: Path) -> tuple[Form, dict[str, Path]]:
    """The form of a data set that lies under ``root``, and its files by part.

    Looks into ``root/NAME``, ``root`` and its subfolders, in that order, and takes the first folder that holds
    the events in any form; the other files are taken from the same folder only.

    Raises:
        InputError: nowhere; says how to get it.
    """
    for folder in _folders(spec, root):
        for form in _forms(spec):
            files = {part: folder / name for part, name in form.files.items() if (folder / name).is_file()}
            if "events" in files:
                return form, files
    wanted = " or ".join(form.files["events"] for form in spec.forms)
    fetch = f"run 'harness data prepare {spec.name}', or " if spec.downloads else ""
    if spec.name == "ml-100k":
        fetch = "install recbole, which holds it, or "
    raise InputError(
        f"data set '{spec.name}' is not under {root}: {fetch}put {wanted} there (see {spec.url}), or name another "
        "folder with --data-root or HARNESS_DATA"
    )


def read_files(spec: DatasetSpec, form: Form, files: dict[str, Path]) -> RawLog:
    """Reads a data set as it lies on disk and adds what is to be known about it."""
    raw = form.read(files)
    foreign = [name for name, digest in raw.files.items() if spec.checksums.get(name, digest) != digest]
    if foreign:
        raw.notes += (f"{', '.join(foreign)}: not the bytes that the reference results stand on",)
    raw.notes += spec.notes
    return raw


def _forms(spec: DatasetSpec) -> tuple[Form, ...]:
    """The forms of a data set, atomic files of its name first: preparing writes them where others are slow."""
    atomic = {"events": f"{spec.name}.inter", "items": f"{spec.name}.item"}
    return (Form(atomic, readers.atomic, spec.forms[0].published), *spec.forms)


def _folders(spec: DatasetSpec, root: Path) -> Iterator[Path]:
    yield root / spec.name
    yield root
    if root.is_dir():
        yield from sorted(folder for folder in root.iterdir() if folder.is_dir())
    if spec.name == "ml-100k" and (recbole := importlib.util.find_spec("recbole")) and recbole.origin:
        yield Path(recbole.origin).parent / "dataset_example" / spec.name
