"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder of all results.", envvar="HARNESS_OUT")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the data sets.", envvar="HARNESS_DATA", show_default="data"),
]
RunName = Annotated[
    str,
    typer.Option("--study", "-s", help="A study that ships, a path of a study file, or the name of a run below --out."),
]
StudyName = Annotated[str, typer.Option("--study", "-s", help="A study that ships, or a path of a study file.")]
Preset = Annotated[str, typer.Option("--preset", help="A preset of the study file: smoke, default, paper, ...")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run's folder.", show_default="study[-preset]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="A number of seeds, or a list: 0,1,2.")]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", help="Run on this data set (repeatable).")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: a path into the study file, or a key of the models (repeatable)."),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Worker processes; 0: one per core (CPU).")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of a worker; results depend on it.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Storage of the queue, the same for all workers of a run: sqlite:///FILE, or, with harness[postgres], "
        "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE. A password is safer in the environment, or in ~/.pgpass.",
        envvar="HARNESS_STORAGE",
        show_envvar=True,
        show_default="study.db in the run's folder",
    ),
]
Continue = Annotated[
    bool,
    typer.Option("--continue", help="Go on with finished cells where the budget has grown (keep_last_state: true)."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto.")]
ExecutorName = Annotated[
    str, typer.Option("--executor", help="Where workers are started: local, slurm, or one of your own.")
]
ExecutorSet = Annotated[
    list[str] | None, typer.Option("--executor-set", help="key=value: an option of the executor (repeatable).")
]
