"""The command line: parses, calls, prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import InputError, Interrupted

app = typer.Typer(
    help="Benchmarks and ablations of generative recommenders: from a study file to a paper's evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
list_app = typer.Typer(no_args_is_help=True, help="What there is: models, data sets, studies, metrics.")
data_app = typer.Typer(no_args_is_help=True, help="Look at and prepare data sets.")
app.add_typer(list_app, name="list")
app.add_typer(data_app, name="data")

UsageError = typer.BadParameter.__base__
"""Of the click that this typer was built with, its own or the package."""
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Out = Annotated[Path, typer.Option("--out", help="Folder of all results.", envvar="HARNESS_OUT")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the data sets.", envvar="HARNESS_DATA", show_default="data"),
]
StudyName = Annotated[str, typer.Option("--study", "-s", help="A study that ships, or a path of a study file.")]
Preset = Annotated[str, typer.Option("--preset", help="A preset of the study file: smoke, default, paper, ...")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run's folder.", show_default="study[-preset]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    study: StudyName,
    preset: Preset = "default",
    seeds: Annotated[str | None, typer.Option("--seeds", help="A number of seeds, or a list: 0,1,2.")] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="Run on this data set (repeatable).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value: a path into the study file, or a key of the models (repeatable)."),
    ] = None,
    name: Name = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Worker processes; 0: one per core (CPU).")] = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of a worker; results depend on it.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto.")] = "auto",
    storage: Annotated[
        str | None, typer.Option("--storage", help="Optuna storage URL.", show_default="study.db in the run's folder")
    ] = None,
    out: Out = Path("results"),
    data_root: DataRoot = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed cells again.")] = False,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Go on in this folder though the design has changed.")
    ] = False,
) -> None:
    """Run a study, or go on with it: train what is not finished, then write tables, figures and the report."""
    from harness.study.design import load_study

    declared = load_study(study, preset=preset, settings=tuple(set_ or ()), seeds=seeds, datasets=tuple(dataset or ()))
    from harness.study.runner import Settings, run_study

    device = _device(device)
    settings = Settings(
        out=out,
        name=_run_name(declared.study, preset, name),
        storage=storage,
        workers=workers or _default_workers(device),
        threads=threads,
        device=device,
        data_root=data_root,
        retry_failed=retry_failed,
        accept_change=accept_change,
    )
    outcome = run_study(declared, settings)
    _say(f"{outcome.finished} of {outcome.total} cells finished, {len(outcome.failed)} failed")
    if outcome.finished:
        _report(settings.folder.path)
    for failure in outcome.failed:
        where = f"{failure['dataset']} / {failure['variant']} / seed {failure['seed']}"
        print(f"failed: {where}: {failure['reason']}", file=sys.stderr)
    if outcome.finished < outcome.total:
        raise typer.Exit(FAILED)


@app.command()
def report(
    study: StudyName,
    preset: Preset = "default",
    name: Name = None,
    out: Out = Path("results"),
) -> None:
    """Derive every table, figure and the report again from the rows, without training anything."""
    from harness.study.design import study_name

    _report(_existing(out / _run_name(study_name(study), preset, name)))


@app.command()
def worker(
    folder: Annotated[Path, typer.Argument(help="Folder of a run that `harness run` has started.")],
    storage: Annotated[str | None, typer.Option("--storage", help="Optuna storage URL.")] = None,
    device: Annotated[str, typer.Option("--device")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1)] = 1,
    data_root: DataRoot = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of item codes.")] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Work on a run's cells until none is left: one more pair of hands, on this machine or another."""
    from harness.study.folder import RunFolder
    from harness.study.worker import work

    work(
        RunFolder(_existing(folder)),
        storage=storage or f"sqlite:///{(folder / 'study.db').resolve()}",
        data_root=data_root,
        cache=cache or folder.parent / "cache",
        device=_device(device),
        threads=threads,
        parent=parent,
    )


@list_app.command("models")
def list_models(as_json: AsJson = False) -> None:
    """The registered models, with how close each is to its publication."""
    from harness.fidelity import card
    from harness.registry import load_model, model_names

    found = []
    for name, place in model_names().items():
        model = load_model(name) if name != "recbole" else None
        entry: dict[str, Any] = {"name": name, "class": place}
        if model is None:
            entry |= {"tasks": ["retrieval"], "fidelity": None, "status": "family: recbole:NAME"}
        else:
            entry |= {"tasks": sorted(model.tasks), "status": model.fidelity.status, "fidelity": card(model)}
        found.append(entry)
    _print(found, as_json, {"model": "name", "tasks": "tasks", "status": "status", "class": "class"})


@list_app.command("datasets")
def list_datasets(as_json: AsJson = False, data_root: DataRoot = None) -> None:
    """The data sets that are known by name; any other is named by the path of its RecBole atomic files."""
    from harness.data.datasets import overview

    _print(overview(data_root), as_json)


@list_app.command("studies")
def list_studies(as_json: AsJson = False) -> None:
    """The studies that ship, with their presets."""
    import yaml

    from harness.study.design import study_files

    found = []
    for name, path in study_files().items():
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        presets = ", ".join(["default", *(raw.get("presets") or {})])
        found.append({"study": name, "title": raw.get("title", ""), "presets": presets})
    _print(found, as_json)


@list_app.command("metrics")
def list_metrics(as_json: AsJson = False) -> None:
    """The metrics of both tasks."""
    from harness.tasks import action_metrics, ranking_metrics

    found = [{"task": "retrieval", "metric": k, "meaning": v} for k, v in ranking_metrics.FAMILIES.items()]
    found += [{"task": "action", "metric": k, "meaning": v} for k, v in action_metrics.FAMILIES.items()]
    _print(found, as_json)


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A data set's name, or a path of RecBole atomic files.")],
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
    if as_json:
        print(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        _print_tree(described)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="A data set's name.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the files from this folder instead of downloading them.")
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Bring a data set into the data root: download it, or take files on disk; check sizes, hashes and counts."""
    from harness.data.datasets import data_root as resolve
    from harness.data.prepare import prepare

    with _download_bars() as progress:
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
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        _print_tree(shown)


def main() -> None:
    """Entry point: turns the harness's errors into one line and an exit code."""
    sys.exit(_guarded(lambda: app(standalone_mode=False)))


def _guarded(work: Callable[[], Any]) -> int:  # noqa: PLR0911 (one return per way to end)
    try:
        code = work()
        return code if isinstance(code, int) else DONE
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except (Interrupted, KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        if not str(error):  # a command group without a command has shown its help
            return BAD_INPUT
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return BAD_INPUT
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _report(folder: Path) -> None:
    from harness.analysis.report import write_report

    for path in write_report(folder):
        print(path)


def _existing(folder: Path) -> Path:
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder} holds no run; start one with `harness run`, or check --out, --preset and --name")
    return folder


def _run_name(study: str, preset: str, name: str | None) -> str:
    chosen = name or (study if preset == "default" else f"{study}-{preset}")
    if chosen in {".", ".."} or "/" in chosen or chosen.startswith("-"):
        raise InputError(f"--name {chosen}: a run's name is the name of one folder below --out")
    return chosen


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise InputError(f"--device {name}: expected cpu, cuda, cuda:N or auto") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this PyTorch sees no CUDA device; use --device cpu")
    return name


def _default_workers(device: str) -> int:
    from harness.provenance import cores

    return cores() if device == "cpu" else 1


@contextmanager
def _download_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar per file on a terminal's standard error, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        yield show


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _print(rows: list[dict[str, Any]], as_json: bool, columns: dict[str, str] | None = None) -> None:
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    columns = columns or {key: key for key in rows[0]} if rows else {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        values = (row[key] for key in columns.values())
        table.add_row(*(", ".join(v) if isinstance(v, list) else "" if v is None else str(v) for v in values))
    Console().print(table)


def _print_tree(values: dict[str, Any], indent: int = 0) -> None:
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        if isinstance(value, dict) and value:
            print(" " * indent + key)
            _print_tree(value, indent + 2)
        else:
            shown = (
                f"{value:.6g}"
                if isinstance(value, float)
                else ", ".join(map(str, value))
                if isinstance(value, list)
                else value
            )
            print(" " * indent + f"{key:{width}}  {shown}")


if __name__ == "__main__":
    main()
