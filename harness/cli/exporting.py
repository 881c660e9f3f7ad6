"""`harness export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.examples import epilog
from harness.cli.options import DataRoot, Out
from harness.cli.using import RunPath

export_app = typer.Typer(no_args_is_help=True, help="Take lists, predictions or a trained model out of a run.")

Variant = Annotated[str | None, typer.Option("--variant", help="Of this variant.", show_default="all")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of this seed.", show_default="all")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Of the run's data sets.", show_default="all")]
File = Annotated[Path, typer.Option("--to", help="The file: .csv, .tsv or .parquet.")]


class Protocol(StrEnum):
    UNSEEN = "unseen"
    ALL = "all"


class Part(StrEnum):
    TEST = "test"
    VALID = "valid"


@export_app.command("top-k", epilog=epilog("export top-k"))
def top_k(
    run: RunPath,
    to: File,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items of each user.")] = 10,
    variant: Variant = None,
    seed: Seed = None,
    dataset: Dataset = None,
    candidates: Annotated[
        Protocol | None, typer.Option("--candidates", help="The protocol.", show_default="the study's")
    ] = None,
    out: Out = Path("results"),
) -> None:
    """Write each test user's best items in the data's own ids: dataset, variant, seed, user, rank, item, score."""
    from harness import api
    from harness.export.tables import write_top_k

    rows = write_top_k(
        api.load_run(run, out),
        to,
        k,
        variant=variant,
        seed=seed,
        dataset=dataset,
        candidates=candidates.value if candidates else None,
    )
    print(f"{to}: {rows} rows")


@export_app.command("predictions", epilog=epilog("export predictions"))
def predictions(
    run: RunPath,
    to: File,
    variant: Variant = None,
    seed: Seed = None,
    dataset: Dataset = None,
    part: Annotated[Part, typer.Option("--part", help="Of the data.")] = Part.TEST,
    out: Out = Path("results"),
) -> None:
    """Write the evidence: of each user the target and its ranks, or of each event and action label and probability."""
    from harness import api
    from harness.export.tables import write_predictions

    found = api.load_run(run, out)
    rows = write_predictions(found, to, phase=part.value, variant=variant, seed=seed, dataset=dataset)
    print(f"{to}: {rows} rows")


@export_app.command("hub", epilog=epilog("export hub"))
def hub(
    run: RunPath,
    to: Annotated[Path, typer.Option("--to", help="The folder, which is not there yet.")],
    variant: Annotated[str, typer.Option("--variant", help="Whose model.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of which seed.")] = 0,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Of the run's data sets.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Of the weights, as the Hub calls it: mit, apache-2.0.")
    ] = None,
    out: Out = Path("results"),
    data_root: DataRoot = None,
) -> None:
    """Write a trained model as a folder for the Hugging Face Hub: model card, weights, settings, item ids and codes.

    `harness recommend FOLDER` and harness.load_model(FOLDER) load it. Nothing is uploaded; the card says how."""
    from harness import api
    from harness.export.hub import write_hub

    found = api.load_run(run, out)
    for path in write_hub(found, to, variant, seed, dataset, licence=licence, data_root=data_root):
        print(path)
