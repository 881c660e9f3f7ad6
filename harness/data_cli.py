"""`harness data import`: parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.printing import print_json, print_tree

__all__ = ["data_import"]


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
    """Bring a log of your own into the data root: from then on it is a data set by its name.

    Example: harness data import ratings.csv --user userId --item movieId --time timestamp --items movies.csv --name ml
    """
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
