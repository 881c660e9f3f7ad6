"""Loading a data set: one that is registered by name, a synthetic one, or a log of your own."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from harness.data import readers
from harness.data.cache import through_cache
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
    "count",
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

    A registered tuple is a family, whose members are called NAME:MEMBER.

    Raises:
        InputError: what is registered is not a description of a data set, or calls itself by another name.
    """
    found = {}
    for name, place in REGISTRIES["datasets"].names().items():
        registered = REGISTRIES["datasets"].load(name)
        family = isinstance(registered, tuple)
        for spec in registered if family else (registered,):
            if not isinstance(spec, DatasetSpec) or (spec.name.partition(":")[0] if family else spec.name) != name:
                raise InputError(
                    f"data set '{name}' ({place}) is not a harness.data.catalogue.DatasetSpec of that name"
                )
            found[spec.name] = spec
    return found


def dataset_names() -> dict[str, str]:
    """Name -> title of every data set that has a name."""
    named = {name: spec.title for name, spec in known().items()}
    return named | {name: title for name, (title, _, _) in SYNTHETIC.items()}


def overview(root: Path | None = None) -> list[dict[str, object]]:
    """One entry for each data set that has a name: its title, published counts, action types, and whether it is
    "ready" (on disk, or made when it is used), can be downloaded ("get"), or is to be got "by hand"."""
    entries = []
    blank = dict.fromkeys(f.name for f in fields(Counts))
    for name, spec in known().items():
        try:
            form, _ = find_files(spec, data_root(root))
            state = "ready"
        except InputError:
            form, state = spec.forms[0], "get" if spec.downloads else "by hand"
        counts = blank if form.published is None else vars(form.published)
        entries.append({"dataset": name, "title": spec.title, **counts, "actions": list(spec.actions), "state": state})
    for name, (title, _, _) in SYNTHETIC.items():
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
        return _load_known(spec, form, files, config)
    own = find_own(name, data_root(root))
    if own is None:
        raise InputError(f"unknown data set '{name}'; {nearest(name, [*dataset_names(), *own_names(data_root(root))])}")

    def read() -> EventLog:
        raw = read_own(own, config.columns)
        columns = () if raw.item_table is None else tuple(map(str, raw.item_table.columns))
        return build_log(own.name, raw, config, rules={}, text_fields=columns)

    sources = [*own.events, *([] if own.items is None else [own.items])]
    return through_cache(sources, {"own": own.name, "config": _deciding(config)}, read)


def _load_known(spec: DatasetSpec, form: Form, files: dict[str, Path], config: DataConfig) -> EventLog:
    def read() -> EventLog:
        raw = read_files(spec, form, files)
        return build_log(
            spec.name, raw, config, rules=spec.actions, duplicates=spec.duplicates, text_fields=spec.text_fields
        )

    reader = readers.identity(form.read)
    if reader is None:
        return read()
    said = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in ("forms", "downloads")}
    published = None if form.published is None else vars(form.published)
    decided_by = {"spec": said, "reader": reader, "published": published, "config": _deciding(config)}
    return through_cache(list(files.values()), decided_by | {"parts": {p: f.name for p, f in files.items()}}, read)


def _deciding(config: DataConfig) -> dict[str, object]:
    """The settings that decide the log, without those that only decide its split and its windows."""
    later = {"max_length", "short_users", "valid_fraction", "test_fraction", "split", "split_options"}
    return config.model_dump(mode="json", exclude=later) | {"given": config.split == "given"}


def own_names(root: Path) -> list[str]:
    """The folders of the data root that are not those of a data set known by name."""
    if not root.is_dir():
        return []
    folders = {spec.folder for spec in known().values()}
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in folders)


def data_root(root: Path | None = None) -> Path:
    """Where data sets lie: ``root``, else $HARNESS_DATA, else ``./data``."""
    return Path(root or os.environ.get("HARNESS_DATA") or "data").expanduser()


def find_files(spec: DatasetSpec, root: Path, *, given: bool = False) -> tuple[Form, dict[str, Path]]:
    """The form of a data set that lies under ``root``, and its files by part.

    Looks into ``root/NAME``, ``root`` and its subfolders, in that order, and takes the first folder that holds
    the events in any form; the other files are taken from the same folder only. Files that could be anybody's
    (``own_folder``) are looked for in ``root/NAME`` alone, unless ``root`` was ``given`` for this data set.

    Raises:
        InputError: nowhere; says how to get it.
    """
    for folder in _folders(spec, root, given):
        for form in _forms(spec):
            found = {part: _there(folder, name) for part, name in form.files.items()}
            files = {part: path for part, path in found.items() if path is not None}
            if "events" not in files:
                continue
            missing = [form.files[part] for part in form.files if part not in files and part not in OPTIONAL]
            if missing:
                raise InputError(
                    f"{folder} holds {files['events'].name} of '{spec.name}', but not {', '.join(missing)}; "
                    f"add what is missing (see {spec.url})"
                )
            return form, files
    wanted = " or ".join(form.files["events"] for form in spec.forms)
    place = f"into {root / spec.folder}" if spec.own_folder else "there"
    fetch = f"run 'harness data get {spec.name}', or " if spec.downloads else ""
    if spec.name == "ml-100k":
        fetch = "install recbole, which holds it, or "
    raise InputError(
        f"data set '{spec.name}' is not under {root}: {fetch}put {wanted} {place} (see {spec.url}), or name another "
        "folder with --data-root or HARNESS_DATA"
    )


OPTIONAL = ("items", "times")


def _there(folder: Path, name: str) -> Path | None:
    return next((path for n in (name, name.removesuffix(".gz")) if (path := folder / n).is_file()), None)


def count(raw: RawLog) -> Counts:
    """As publishers count: before anything is dropped."""
    return Counts(len(raw.users), len(raw.items), len(raw.item) + raw.dropped)


def read_files(spec: DatasetSpec, form: Form, files: dict[str, Path]) -> RawLog:
    """Reads a data set as it lies on disk and adds what is to be known about it."""
    raw = form.read(files)
    foreign = [name for name, digest in raw.files.items() if spec.checksums.get(name, digest) != digest]
    if foreign:
        raw.notes += (f"{', '.join(foreign)}: not the bytes that the reference results stand on",)
    differences = form.published.differences(count(raw)) if form.published else {}
    if differences:
        said = ", ".join(f"{found:,} {what} instead of {said:,}" for what, (said, found) in differences.items())
        raw.notes += (f"{raw.path.name} holds other counts than were published: {said}",)
    raw.notes += spec.notes
    return raw


def _forms(spec: DatasetSpec) -> tuple[Form, ...]:
    """The forms of a data set, atomic files of its name first: preparing writes them where others are slow."""
    atomic = {"events": f"{spec.folder}.inter", "items": f"{spec.folder}.item"}
    return (Form(atomic, readers.atomic, spec.forms[0].published), *spec.forms)


def _folders(spec: DatasetSpec, root: Path, given: bool) -> Iterator[Path]:
    yield root / spec.folder
    if spec.own_folder and not given:
        return
    yield root
    if root.is_dir():
        yield from sorted(folder for folder in root.iterdir() if folder.is_dir())
    if spec.name == "ml-100k" and (recbole := importlib.util.find_spec("recbole")) and recbole.origin:
        yield Path(recbole.origin).parent / "dataset_example" / spec.name
