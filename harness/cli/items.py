"""`harness items`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import say
from harness.cli.options import DataRoot, Out, Preset
from harness.errors import InputError
from harness.resolve import read_study

items_app = typer.Typer(no_args_is_help=True, help="Look at item codes (semantic IDs).")


@items_app.command("report")
def items_report(
    study: Annotated[
        str | None, typer.Option("--study", "-s", help="Report on the codes that this study's models read.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="A data set (repeatable).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, as in a study: items.quantiser.kind=opq, data.split=temporal, ..."),
    ] = None,
    preset: Preset = "default",
    examples: Annotated[int, typer.Option("--examples", min=0, help="Items whose nearest by code are shown.")] = 4,
    out: Out = Path("results"),
    data_root: DataRoot = None,
) -> None:
    """Do the codes of a catalogue make sense? Use, collisions, reconstruction, and nearest items, as Markdown."""
    if study is None and not dataset:
        raise InputError("name a study with --study or a data set with --dataset")
    from harness.study import item_reports
    from harness.study.cells import Inputs

    inputs = Inputs(data_root, out / "cache", say)
    if study is not None:
        found = item_reports.codes_of_study(read_study(study, preset, None, dataset, set_), inputs)
    else:
        found = item_reports.codes_of_datasets(dataset or [], set_ or [], inputs)
    for codes in found:
        for path in item_reports.write_item_report(codes, out / "items", examples):
            print(path)


@items_app.command("export")
def items_export(
    dataset: Annotated[str, typer.Argument(help="A data set's name, or a path of RecBole atomic files.")],
    file: Annotated[Path, typer.Argument(help="Where to write, as in Beauty.index.json.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in a study: items.quantiser.kind=rqvae, ...")
    ] = None,
    offset: Annotated[int, typer.Option("--offset", help="What a key of the file lies below the item's id.")] = 0,
    out: Out = Path("results"),
    data_root: DataRoot = None,
) -> None:
    """Write a catalogue's codes in the form that others read: {"item": ["<a_12>", "<b_7>", ...], ...}."""
    from harness.items.index_file import write_index
    from harness.study.cells import Inputs
    from harness.study.item_reports import codes_of_datasets

    (found,) = codes_of_datasets([dataset], set_ or [], Inputs(data_root, out / "cache", say))
    write_index(file, found.log.items, found.codes.codes, offset)
    print(file)
