"""The command line: parses, calls, prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import __version__
from harness.data_cli import data_import
from harness.errors import InputError, Interrupted, nearest
from harness.printing import download_bars, print_json, print_plan, print_rows, print_tree, print_tuning

if TYPE_CHECKING:
    from harness.analysis.claims import Finding
    from harness.study.design import Study

app = typer.Typer(
    help="Benchmarks and ablations of generative recommenders: from a study file to a paper's evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
list_app = typer.Typer(no_args_is_help=True, help="What there is: models, data sets, studies, metrics.")
data_app = typer.Typer(no_args_is_help=True, help="Look at and prepare data sets.")
items_app = typer.Typer(no_args_is_help=True, help="Look at item codes (semantic IDs).")
app.add_typer(list_app, name="list")
app.add_typer(data_app, name="data")
app.add_typer(items_app, name="items")

UsageError = typer.BadParameter.__base__
"""Of the click that this typer was built with, its own or the package."""
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

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
        "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE. A password is safer in the environment.",
        envvar="HARNESS_STORAGE",
        show_envvar=True,
        show_default="study.db in the run's folder",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto.")]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
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
    storage: Storage = None,
    out: Out = Path("results"),
    data_root: DataRoot = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed cells again.")] = False,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Go on in this folder though the design has changed.")
    ] = False,
    queue_only: Annotated[
        bool, typer.Option("--queue-only", help="Train nothing here; queue the cells for `harness worker`.")
    ] = False,
    tuned: Annotated[bool, typer.Option("--tuned", help="With the settings that `harness tune` found.")] = False,
) -> None:
    """Run a study, or go on with it: train what is not finished, then write tables, figures and the report.

    A study of task "efficiency" trains nothing: it measures the speed of training steps, in this process alone.
    """
    folder = _folder(study, preset, name, out)
    if tuned:
        study = str(_existing(folder, "tuned.yaml", "tune the study first with `harness tune`"))
    from harness.study.design import measures_efficiency

    if measures_efficiency(study):
        if queue_only:
            raise InputError("an efficiency study has no cells to queue; leave --queue-only out")
        if seeds is not None or dataset:
            raise InputError("an efficiency study has no seeds and no data sets; leave --seeds and --dataset out")
        _run_efficiency(study, preset, set_, folder, threads, device, accept_change)
        return
    # A study that was tuned under a preset holds it already.
    declared = _study(study, "default" if tuned else preset, seeds, dataset, set_)
    from harness.study.runner import Settings, queue_study, run_study

    device = _device(device)
    settings = Settings(
        out=folder.parent,
        name=folder.name,
        storage=storage,
        workers=workers or _default_workers(device),
        threads=threads,
        device=device,
        data_root=data_root,
        retry_failed=retry_failed,
        accept_change=accept_change,
        preset=preset,
        command=_command(),
    )
    if queue_only:
        left = queue_study(declared, settings)
        _say(f"{left} cells wait for `harness worker {settings.folder.path}`")
        _say("once they are done, the same command without --queue-only writes the report")
        return
    outcome = run_study(declared, settings)
    _say(f"{outcome.finished} of {outcome.total} cells finished, {len(outcome.failed)} failed")
    whole = _report(settings.folder.path) if outcome.finished else True
    for failure in outcome.failed:
        where = f"{failure['dataset']} / {failure['variant']} / seed {failure['seed']}"
        print(f"failed: {where}: {failure['reason']}", file=sys.stderr)
    if outcome.failed:
        folder = settings.folder.path
        _say(f"more about them in {folder}/failed/*/failure.json and {folder}/logs; try them again with --retry-failed")
    if outcome.finished < outcome.total or not whole:
        raise typer.Exit(FAILED)


@app.command()
def report(
    study: Annotated[str | None, typer.Option("--study", "-s", help="As for `harness verify`.")] = None,
    preset: Preset = "default",
    name: Name = None,
    text_width: Annotated[
        float, typer.Option(min=100, help="Width in points of the text that LaTeX tables must fit.")
    ] = 455,
    column_width: Annotated[
        float, typer.Option(min=100, help="Width in points of a column of a paper with two (IEEEtran: 252).")
    ] = 241,
    index: Annotated[
        bool, typer.Option("--index", help="Write a page that lists all runs below --out, with their verdicts.")
    ] = False,
    out: Out = Path("results"),
) -> None:
    """Derive every table, figure and the report again from the rows, without training anything.

    Exits with 1 if a table or figure could not be made; the others are in the report all the same.
    """
    if study is None and not index:
        raise InputError("name a run with --study, or ask for the list of all runs with --index")
    whole = study is None or _report(_existing_run(study, preset, name, out), text=text_width, column=column_width)
    if index:
        from harness.analysis.index import write_index

        print(write_index(out))
    if not whole:
        raise typer.Exit(FAILED)


@app.command()
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
    declared = _study(study, preset, seeds, dataset, set_)
    if difference == 0:
        raise InputError("--difference 0: no number of seeds shows that there is no difference")
    from harness.study.plan import make_plan

    folder = _folder(study, preset, name, out)
    planned = make_plan(declared, folder.parent, folder.name, difference)
    workers = workers or _default_workers("cpu")
    if as_json:
        shown = asdict(planned) | {"left": planned.left, "seconds_left": planned.seconds_left}
        print_json(shown)
    else:
        print_plan(declared, planned, workers, difference)
    if planned.refusal is None:
        return
    if not allow_underpowered:
        raise InputError(f"this design can't succeed: {planned.refusal} (or accept it with --allow-underpowered)")
    _say(f"this design can't succeed: {planned.refusal}")


@app.command()
def tune(
    study: StudyName,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials of each search, the same for all variants.")],
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.001, help="Cap on a search's training and validation, the same for all."),
    ] = None,
    preset: Preset = "default",
    dataset: Datasets = None,
    set_: Set = None,
    name: Name = None,
    workers: Workers = 0,
    threads: Threads = 1,
    device: Device = "auto",
    out: Out = Path("results"),
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Search the settings of each variant on validation, with equal budgets; `harness run --tuned` runs the best."""
    declared = _study(study, preset, None, dataset, set_)
    folder = _folder(study, preset, name, out)
    from harness.study import tune as tuning
    from harness.study.folder import RunFolder

    device = _device(device)
    entries = tuning.tune(
        declared,
        RunFolder(folder),
        tuning.Budget(trials, None if minutes is None else 60 * minutes),
        data_root=data_root,
        cache=folder.parent / "cache",
        device=device,
        threads=threads,
        workers=workers or _default_workers(device),
        say=_say,
    )
    if as_json:
        print_json(entries)
    else:
        print_tuning(declared, entries)
        print(folder / tuning.LEDGER, folder / tuning.TUNED, sep="\n")


@app.command()
def verify(
    study: RunName,
    preset: Preset = "default",
    name: Name = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Derive every table again and compare byte for byte; check every cell. Exits with 1 if anything differs."""
    from harness.analysis.verify import verify as checks_of

    checks = checks_of(_existing_run(study, preset, name, out))
    problems = [check for check in checks if not check.ok]
    if as_json:
        print_json([asdict(check) | {"ok": check.ok} for check in checks])
    else:
        for check in problems:
            print(f"{check.name}: {check.problem}")
        print(f"{len(checks) - len(problems)} of {len(checks)} cells and tables are what the rows say")
    if problems:
        raise typer.Exit(FAILED)


@app.command()
def trace(
    study: RunName,
    table: Annotated[str, typer.Argument(help="A table's name, as its file's: main, differences, ...")],
    row: Annotated[str, typer.Argument(help="A variant; DATASET/VARIANT where the table has a block per data set.")],
    column: Annotated[str, typer.Argument(help="A column's key, as in the CSV file, or its title.")],
    preset: Preset = "default",
    name: Name = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Name the cells behind one number of a table."""
    from harness.analysis.verify import trace as trace_of

    found = trace_of(_existing_run(study, preset, name, out), table, row, column)
    sources = [asdict(source) | {"path": str(source.path)} for source in found.sources]
    if as_json:
        print_json(asdict(found) | {"sources": sources})
        return
    print(f"{found.table}, {found.row}, {found.column}: {found.printed}")
    columns = {key: key for key in ("dataset", "variant", "seed", "value", "path")}
    print_rows(sources, columns=columns)


@app.command()
def claims(
    out: Out = Path("results"),
    file: Annotated[Path | None, typer.Option("--claims", help="Another claims file than the one that ships.")] = None,
    as_json: AsJson = False,
) -> None:
    """What the papers claim, and what the runs below --out say about it. Exits with 1 if a run had to be left out."""
    from harness.analysis.claims import evaluate, load_claims, measurements_below, runs_below

    papers, known = load_claims(file)
    damaged: list[InputError] = []
    findings = evaluate(known, runs_below(out, known, damaged.append), measurements_below(out))
    _print_claims(papers, findings, as_json)
    for error in damaged:
        _say(f"left out: {error}")
    if damaged:
        raise typer.Exit(FAILED)


def _print_claims(papers: dict[str, dict[str, Any]], findings: list[Finding], as_json: bool) -> None:
    from harness.analysis.claims import ledger_table

    if as_json:
        shown = [asdict(finding) | {"claim": finding.claim.model_dump(mode="json")} for finding in findings]
        print_json(shown)
        return
    table = ledger_table(papers, findings)
    for paper in dict.fromkeys(line.group for line in table.lines):
        print(paper)
        titles = {column.title: column.title for column in table.columns}
        lines = [
            {"Claim": line.label} | dict(zip(titles, (entry.text for entry in line.entries), strict=True))
            for line in table.lines
            if line.group == paper
        ]
        print_rows(lines, columns={"Claim": "Claim"} | titles)
        print()


@app.command()
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
        folder = _existing_run(study, preset, name, out)
        scored = scoring.add_to_run(predictions, RunFolder(folder), dataset, variant, seed, label, inputs, _command())
    else:
        folder = out / _run_name("", "default", name or predictions.stem)
        declared = None if study is None else _study(study, preset, None, None, None)
        design = scoring.design_of(declared, dataset, label or folder.name, seed, set_ or [])
        scored = scoring.score_alone(predictions, design, RunFolder(folder), inputs, _command())
    if as_json:
        print_json(asdict(scored) | {"cell": str(scored.cell)})
        return
    metrics = next(iter(scored.metrics.values()))
    print_rows([{"metric": m} | {p: f"{values[m]:.4f}" for p, values in scored.metrics.items()} for m in metrics])
    for note in scored.notes:
        print(f"note: {note}")
    print(scored.cell)


@app.command()
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
) -> None:
    """Work on a run's cells until none is left: one more pair of hands, on this machine or another."""
    from harness.study.folder import RunFolder
    from harness.study.storage import absolute
    from harness.study.worker import go_where_it_was_started, wait_for_run, work

    folder = folder.absolute()
    run = RunFolder(folder)
    wait_for_run(run, wait)
    settings: dict[str, Any] = {
        "storage": absolute(storage or f"sqlite:///{folder / 'study.db'}"),
        "data_root": data_root.absolute() if data_root else None,
        "cache": (cache or folder.parent / "cache").absolute(),
    }
    go_where_it_was_started(run)
    work(run, **settings, device=_device(device), threads=threads, parent=parent)


@list_app.command("models")
def list_models(as_json: AsJson = False) -> None:
    """The registered models, with how close each is to its publication."""
    from harness.fidelity import card
    from harness.registry import is_family, load_model, model_names

    found = []
    for name, place in model_names().items():
        entry: dict[str, Any] = {"name": name, "tasks": [], "status": "", "class": place, "fidelity": None}
        try:
            if is_family(name):
                entry["status"] = f"family: {name}:NAME"
            else:
                model = load_model(name)
                entry |= {"tasks": sorted(model.tasks), "status": model.fidelity.status, "fidelity": card(model)}
        except InputError as error:  # a library that it needs is not installed
            entry["status"] = f"unavailable: {' '.join(str(error).split())}"
        found.append(entry)
    print_rows(found, as_json, {"model": "name", "tasks": "tasks", "status": "status", "class": "class"})


@list_app.command("datasets")
def list_datasets(as_json: AsJson = False, data_root: DataRoot = None) -> None:
    """The data sets that are known by name; any other is named by its path, or its folder in the data root."""
    from harness.data.datasets import overview

    print_rows(overview(data_root), as_json)


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
    print_rows(found, as_json)


@list_app.command("metrics")
def list_metrics(as_json: AsJson = False) -> None:
    """The metrics of both tasks."""
    from harness.tasks import action_metrics, ranking_metrics

    found = [{"task": "retrieval", "metric": k, "meaning": v} for k, v in ranking_metrics.FAMILIES.items()]
    found += [{"task": "action", "metric": k, "meaning": v} for k, v in action_metrics.FAMILIES.items()]
    print_rows(found, as_json)


@data_app.command("show")
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
        _say(f"note: {note}")
    if as_json:
        print_json(described)
    else:
        print_tree(described)


data_app.command("import")(data_import)


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

    inputs = Inputs(data_root, out / "cache", _say)
    if study is not None:
        found = item_reports.codes_of_study(_study(study, preset, None, dataset, set_), inputs)
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

    (found,) = codes_of_datasets([dataset], set_ or [], Inputs(data_root, out / "cache", _say))
    write_index(file, found.log.items, found.codes.codes, offset)
    print(file)


def main() -> None:
    """Entry point: turns the harness's errors into one line and an exit code."""
    sys.exit(_guarded(lambda: app(standalone_mode=False)))


def _guarded(work: Callable[[], Any]) -> int:  # noqa: PLR0911 (one return per way to end)
    try:
        code = work()
        if code == INTERRUPTED:  # typer's way of passing a Ctrl-C on
            raise KeyboardInterrupt
        return code if isinstance(code, int) else DONE
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stopped:
        again = (
            "the same command goes on from here" if isinstance(stopped, Interrupted) else "give the same command again"
        )
        print(f"interrupted; {again}", file=sys.stderr)
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


def _run_efficiency(
    study: str, preset: str, settings: list[str] | None, folder: Path, threads: int, device: str, accept_change: bool
) -> None:
    """Measures, and writes the report."""
    from harness.study.design import load_efficiency
    from harness.study.efficiency import run_efficiency

    run_efficiency(
        load_efficiency(study, preset=preset, settings=tuple(settings or ())),
        folder,
        device=_device(device),
        threads=threads,
        accept_change=accept_change,
        command=_command(),
        say=_say,
    )
    if not _report(folder):
        raise typer.Exit(FAILED)


def _command() -> str:
    """What was typed, for the record, which is no place for a password."""
    from harness.study.storage import without_passwords

    return without_passwords(shlex.join(["harness", *sys.argv[1:]]))


def _report(folder: Path, **widths: float) -> bool:
    """Writes the report and says where; whether all of it could be made."""
    from harness.analysis.efficiency import is_efficiency
    from harness.analysis.render.latex import Widths
    from harness.analysis.report import write_report
    from harness.analysis.rows import load_run
    from harness.analysis.warnings import warnings_of

    report = write_report(folder, Widths(**widths))
    for path in report.paths:
        print(path)
    if not is_efficiency(folder):
        for sentence in warnings_of(load_run(folder)):
            _say(f"warning: {sentence}")
    for failure in report.failures:
        _say(f"not in the report: {failure} (traceback: {folder / failure.file})")
    return not report.failures


NO_RUN = "start one with `harness run`, or check --out, --preset and --name"


def _existing(folder: Path, file: str, mend: str) -> Path:
    if not (folder / file).is_file():
        what = "no run" if file == "study.yaml" else f"no {file}"
        raise InputError(f"{folder} holds {what}; {mend}")
    return folder / file


def _existing_run(study: str, preset: str, name: str | None, out: Path) -> Path:
    """The folder of a run that a study's name, a study file or the run's own name stands for."""
    from harness.study.design import study_files

    if name is None and preset == "default" and Path(study).name == study and not study.endswith((".yaml", ".yml")):
        if study not in {"", ".."} and (out / study / "study.yaml").is_file():
            return out / study
        studies = study_files()
        if study not in studies:
            known = [*studies, *(path.parent.name for path in out.glob("*/study.yaml"))]
            raise InputError(f"unknown study '{study}', and no run of that name in {out}; {nearest(study, known)}")
    return _existing(_folder(study, preset, name, out), "study.yaml", NO_RUN).parent


def _study(study: str, preset: str, seeds: str | None, datasets: list[str] | None, settings: list[str] | None) -> Study:
    from harness.study.design import load_study

    return load_study(study, preset=preset, settings=tuple(settings or ()), seeds=seeds, datasets=tuple(datasets or ()))


def _folder(study: str, preset: str, name: str | None, out: Path) -> Path:
    """The run's folder. A file that a run left (its design, or its tuned study) stands for that run."""
    from harness.study.design import study_name

    path = Path(study)
    beside = {"study.yaml": ("cells", "efficiency.json"), "tuned.yaml": ("tuning.json",)}.get(path.name, ())
    if name is None and any((path.parent / file).exists() for file in beside):
        return path.parent
    return out / _run_name(study_name(study), preset, name)


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
    try:
        if torch.ones(1, device=name).item() != 1:
            raise RuntimeError("it does not compute")
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--device {name} can't be used here ({reason[:200]}); use --device cpu") from None
    return name


def _default_workers(device: str) -> int:
    from harness.provenance import cores

    return cores() if device == "cpu" else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
