"""`harness data`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.common import say
from harness.cli.examples import epilog
from harness.cli.options import AsJson, DataRoot
from harness.cli.printing import download_bars, print_json, print_rows, print_tree
from harness.errors import InputError

data_app = typer.Typer(no_args_is_help=True, help="Look at and prepare data sets.")


@data_app.command("show", epilog=epilog("data show"))
def data_show(
    name: Annotated[str, typer.Argument(help="A data set's name, or a path of your own log (file or folder).")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the data settings (repeatable).")
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Counts, lengths, sparsity, time range, ties and fingerprints of a data set under its split."""
    from harness.data.config import DataConfig
    from harness.data.datasets import load
    from harness.data.splits import make_split
    from harness.data.summary import describe
    from harness.settings import from_pairs

    config = from_pairs(DataConfig, set_ or [], "data")
    log = load(name, config, data_root)
    described = describe(log, make_split(log, config))
    for note in described["notes"]:
        say(f"note: {note}")
    if as_json:
        print_json(described)
    else:
        print_tree(described)


@data_app.command("import", epilog=epilog("data import"))
def data_import(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A log: CSV, TSV, Parquet, JSON lines, .inter, also .gz and .zst; or a folder of them."
        ),
    ],
    user: Annotated[str | None, typer.Option("--user", help="The column of users, or its place from 1 on.")] = None,
    item: Annotated[str | None, typer.Option("--item", help="The column of items.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="The column of times.")] = None,
    rating: Annotated[str | None, typer.Option("--rating", help="The column of ratings.")] = None,
    items: Annotated[Path | None, typer.Option("--items", help="A table that describes the items.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the data set.", show_default="the file's or folder's")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="Folder of the data sets.", envvar="HARNESS_DATA", show_default="data"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bring a log of your own into the data root: from then on it is a data set by its name."""
    from harness.data.config import Columns
    from harness.data.datasets import data_root as resolve
    from harness.data.importing import import_log

    named = {"user": user, "item": item, "time": time, "rating": rating}
    columns = Columns(**named) if any(named.values()) else None
    done = import_log(source, resolve(data_root), columns, items, name)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    shown = {
        "name": done.name,
        "folder": str(done.folder),
        "counts": vars(done.counts),
        "parts": done.parts,
        "columns": list(done.columns),
        "texts": list(done.texts),
        "files": done.files,
        "notes": list(done.notes),
    }
    if as_json:
        print_json(shown)
    else:
        print_tree(shown)
        print(f"look at it: harness data show {done.name}")


@data_app.command("prepare", hidden=True)
@data_app.command("get", epilog=epilog("data get"))
def data_get(
    name: Annotated[str, typer.Argument(help="A data set's name, as `harness list datasets` has it.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take the files from this folder, or archive, instead of downloading them."),
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Bring a data set into the data root: download it, or take files on disk; check sizes, hashes and counts."""
    from harness.data.datasets import data_root as resolve
    from harness.data.prepare import prepare

    with download_bars() as progress:
        done = prepare(name, resolve(data_root), source, progress)
    shown: dict[str, Any] = {
        "name": done.name,
        "folder": str(done.folder),
        "files": done.files,
        "counts": vars(done.counts),
        "published": vars(done.published) if done.published else None,
        "differences": {key: f"published {a}, here {b}" for key, (a, b) in done.differences.items()} or "none",
        "notes": list(done.notes),
    }
    if as_json:
        print_json(shown)
    else:
        print_tree(shown)


@data_app.command("cache")
def data_cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it.")] = False,
    unused: Annotated[
        float | None, typer.Option("--unused", min=0, metavar="DAYS", help="Remove what was not used for so long.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The logs that are kept parsed, so that they open at once; in HARNESS_CACHE, else the user's cache folder."""
    from datetime import UTC, datetime

    from harness.data.cache import cache_folder, clean, entries

    folder = cache_folder()
    if folder is None:
        raise InputError("HARNESS_CACHE is off, so that nothing is cached; unset it, or set it to a folder")
    removing = clear or unused is not None
    found = clean(folder, 0 if clear else unused or 0) if removing else entries(folder)
    rows = [
        {
            "data set": entry.name or "damaged",
            "events": entry.events,
            "MB": round(entry.bytes / 1e6, 1),
            "used": datetime.fromtimestamp(entry.used, UTC).date().isoformat(),
        }
        for entry in found
    ]
    print_rows(rows, as_json)
    if not as_json:
        print(f"{len(rows)} removed from {folder}" if removing else f"{len(rows)} in {folder}")
