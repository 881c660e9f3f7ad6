"""`harness score`: the predictions of another system."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import command_line
from harness.cli.options import AsJson, DataRoot, Out, Preset
from harness.cli.printing import print_json, print_rows
from harness.errors import InputError
from harness.resolve import existing_run, read_study, run_name


class UnknownItems(StrEnum):
    REFUSE = "refuse"
    MISSES = "misses"


def score(
    predictions: Annotated[Path, typer.Option("--predictions", help="A .csv, .tsv, .parquet, .trec or .run file.")],
    dataset: Annotated[str, typer.Option("--dataset", help="The data set that they are for.")],
    study: Annotated[
        str | None, typer.Option("--study", "-s", help="Take split, metrics and protocol from this study.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Add them to the study's run, as a variant of this name.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed that they are paired with.")] = 0,
    label: Annotated[str | None, typer.Option("--label", help="How tables call them.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the data settings, without --study (repeatable).")
    ] = None,
    unknown_items: Annotated[
        UnknownItems, typer.Option("--unknown-items", help="Items that the data do not hold: refused, or misses.")
    ] = UnknownItems.REFUSE,
    preset: Preset = "default",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run's folder.", show_default="the file's, or the study's")
    ] = None,
    out: Out = Path("results"),
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Rank the predictions of any other system by our protocol: a run of their own, or a variant of a study's run."""
    from harness.study import score as scoring
    from harness.study.cells import Inputs
    from harness.study.folder import RunFolder

    inputs = Inputs(data_root, out / "cache")
    if study is not None and set_:
        raise InputError("--set with --study: the study states the split; leave one of the two out")
    if variant is not None:
        if study is None:
            raise InputError("--variant needs --study: the study to whose run the predictions are added")
        folder = existing_run(study, preset, name, out)
        scored = scoring.add_to_run(
            predictions, RunFolder(folder), dataset, variant, seed, label, inputs, command_line(), unknown_items.value
        )
    else:
        folder = out / run_name("", "default", name or predictions.stem)
        declared = None if study is None else read_study(study, preset)
        design = scoring.design_of(declared, dataset, label or folder.name, seed, set_ or [])
        scored = scoring.score_alone(
            predictions, design, RunFolder(folder), inputs, command_line(), unknown_items.value
        )
    if as_json:
        print_json(asdict(scored) | {"cell": str(scored.cell)})
        return
    metrics = next(iter(scored.metrics.values()))
    print_rows([{"metric": m} | {p: f"{values[m]:.4f}" for p, values in scored.metrics.items()} for m in metrics])
    for note in scored.notes:
        print(f"note: {note}")
    print(scored.cell)
