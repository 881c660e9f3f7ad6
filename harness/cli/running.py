"""`harness run`, `plan`, `tune` and `worker`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.common import FAILED, command_line, report_on, say
from harness.cli.options import (
    AsJson,
    Continue,
    DataRoot,
    Datasets,
    Device,
    ExecutorName,
    ExecutorSet,
    Name,
    Out,
    Preset,
    Seeds,
    Set,
    Storage,
    StudyName,
    Threads,
    Workers,
)
from harness.cli.printing import print_json, print_plan, print_tuning
from harness.errors import InputError
from harness.resolve import default_workers, read_study, run_folder, usable_device

if TYPE_CHECKING:
    from harness.api import Run


def run(
    study: StudyName,
    preset: Preset = "default",
    seeds: Seeds = None,
    dataset: Datasets = None,
    set_: Set = None,
    name: Name = None,
    workers: Workers = 0,
    threads: Threads = 1,
    device: Device = "auto",
    executor: ExecutorName = "local",
    executor_set: ExecutorSet = None,
    storage: Storage = None,
    out: Out = Path("results"),
    data_root: DataRoot = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed cells again.")] = False,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Go on in this folder though the design has changed.")
    ] = False,
    continue_: Continue = False,
    queue_only: Annotated[
        bool, typer.Option("--queue-only", help="Train nothing here; queue the cells for `harness worker`.")
    ] = False,
    tuned: Annotated[bool, typer.Option("--tuned", help="With the settings that `harness tune` found.")] = False,
) -> None:
    """Run a study, or go on with it: train what is not finished, then write tables, figures and the report.

    A study of task "efficiency" trains nothing: it measures the speed of training steps, in this process alone.
    """
    from harness import api

    done = api.run(
        study,
        preset=preset,
        set=set_,
        seeds=seeds,
        datasets=dataset,
        name=name,
        out=out,
        tuned=tuned,
        queue_only=queue_only,
        report=False,
        device=device,
        threads=threads,
        accept_change=accept_change,
        command=command_line(),
        workers=workers,
        executor=executor,
        executor_set=tuple(executor_set or ()),
        storage=storage,
        data_root=data_root,
        retry_failed=retry_failed,
        continue_training=continue_,
    )
    if done.task == "efficiency":
        report_on(done)
        return
    _say_outcome(done, queue_only)


def _say_outcome(done: Run, queue_only: bool) -> None:
    failed = done.failures()
    if queue_only:
        say(f"{done.total - done.finished - len(failed)} cells wait for `harness worker {done.path}`")
        say("once they are done, the same command without --queue-only writes the report")
        return
    say(f"{done.finished} of {done.total} cells finished, {len(failed)} failed")
    if done.finished:
        report_on(done)
    for failure in failed:
        where = f"{failure['dataset']} / {failure['variant']} / seed {failure['seed']}"
        where += f", codes {failure['draw']}" if "draw" in failure else ""
        print(f"failed: {where}: {failure['reason']}", file=sys.stderr)
    if failed:
        where = f"{done.path}/failed/*/failure.json and {done.path}/logs"
        say(f"more about them in {where}; try them again with --retry-failed")
    if done.finished < done.total:
        raise typer.Exit(FAILED)


def plan(
    study: StudyName,
    preset: Preset = "default",
    seeds: Seeds = None,
    dataset: Datasets = None,
    set_: Set = None,
    name: Name = None,
    workers: Workers = 0,
    difference: Annotated[
        float | None, typer.Option("--difference", min=0, help="How many seeds does it take to see this difference?")
    ] = None,
    allow_underpowered: Annotated[
        bool, typer.Option("--allow-underpowered", help="Accept a design in which no test can ever succeed.")
    ] = False,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """What a study will cost and what it can find out, from the records of earlier runs. Trains nothing."""
    declared = read_study(study, preset, seeds, dataset, set_)
    if difference == 0:
        raise InputError("--difference 0: no number of seeds shows that there is no difference")
    from harness.study.plan import make_plan

    folder = run_folder(study, preset, name, out)
    planned = make_plan(declared, folder.parent, folder.name, difference)
    workers = workers or default_workers("cpu")
    if as_json:
        shown = asdict(planned) | {"left": planned.left, "seconds_left": planned.seconds_left}
        print_json(shown)
    else:
        print_plan(declared, planned, workers, difference)
    if planned.refusal is None:
        return
    if not allow_underpowered:
        raise InputError(f"this design can't succeed: {planned.refusal} (or accept it with --allow-underpowered)")
    say(f"this design can't succeed: {planned.refusal}")


def tune(
    study: StudyName,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials of each search, the same for all variants.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0.001,
            help="Of a search's training and validation, the same for all; a cap beside --trials.",
        ),
    ] = None,
    preset: Preset = "default",
    dataset: Datasets = None,
    set_: Set = None,
    name: Name = None,
    workers: Workers = 0,
    threads: Threads = 1,
    device: Device = "auto",
    executor: ExecutorName = "local",
    executor_set: ExecutorSet = None,
    out: Out = Path("results"),
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Search the settings of each variant on validation, with equal budgets; `harness run --tuned` runs the best."""
    if trials is None and minutes is None:
        raise InputError("give each search a budget: equal --trials, equal --minutes, or both")
    declared = read_study(study, preset, None, dataset, set_)
    folder = run_folder(study, preset, name, out)
    from harness.study import tune as tuning
    from harness.study.executors import open_executor
    from harness.study.folder import RunFolder

    opened = open_executor(executor, executor_set or ())
    device = usable_device(device) if opened.here else device
    entries = tuning.tune(
        declared,
        RunFolder(folder),
        tuning.Budget(trials, None if minutes is None else 60 * minutes),
        data_root=data_root,
        cache=folder.parent / "cache",
        device=device,
        threads=threads,
        workers=workers or (default_workers(device) if opened.here else 1),
        executor=opened,
        say=say,
    )
    if as_json:
        print_json(entries)
    else:
        print_tuning(declared, entries)
        print(folder / tuning.LEDGER, folder / tuning.TUNED, sep="\n")


def worker(
    folder: Annotated[Path, typer.Argument(help="Folder of a run that `harness run` has started.")],
    storage: Storage = None,
    device: Device = "auto",
    threads: Threads = 1,
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder of item vectors and codes.", show_default="cache beside the folder"),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="Wait so long for a run that is not there yet.")
    ] = 0,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
    name: Annotated[str, typer.Option("--name", hidden=True)] = "",
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that train one cell together; a GPU for each.")
    ] = 1,
    join: Annotated[tuple[str, int, int, Path] | None, typer.Option("--join", hidden=True)] = None,
) -> None:
    """Work on a run's cells, or the searches in its folder tuning, until none is left, on this machine or another."""
    from harness.study.folder import RunFolder
    from harness.study.ranks import Ranks
    from harness.study.storage import absolute
    from harness.study.worker import follow, go_where_it_was_started, wait_for_run, work

    folder = folder.absolute()
    run = RunFolder(folder, name)
    wait_for_run(run, wait)
    device = usable_device(device)
    settings: dict[str, Any] = {
        "data_root": data_root.absolute() if data_root else None,
        "cache": (cache or folder.parent / "cache").absolute(),
    }
    go_where_it_was_started(run)
    settings |= {"device": device, "threads": threads}
    if join is not None and parent is not None:
        follow(run, join, **settings, parent=parent)
        return
    # -P: as for the workers that `harness run` starts.
    command = [sys.executable, "-P", "-m", "harness.cli", "worker", str(folder), "--device", device]
    command += ["--threads", str(threads), "--cache", str(settings["cache"])]
    command += ["--data-root", str(settings["data_root"])] if data_root else []
    ranks = Ranks(processes, tuple(command), folder / "logs", device)
    url = absolute(storage or f"sqlite:///{folder / 'study.db'}")
    work(run, **settings, storage=url, parent=parent, ranks=ranks)
