"""The Python door: run a study, read a run as data frames, take a trained model out of it.

``import harness`` gives these names without importing anything heavy; docs/python.md shows them on one page. The
command line uses the same functions.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from harness.errors import CellFailed, InputError, Interrupted, nearest
from harness.passwords import without_passwords
from harness.resolve import as_pairs, default_workers, existing, read_study, run_folder, usable_device

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis import rows
    from harness.analysis.report import Report
    from harness.study.design import Study
    from harness.trained import TrainedModel

__all__ = ["CellFailed", "InputError", "Interrupted", "Run", "compare", "load_run", "run"]

Phase = Literal["valid", "test"]
Candidates = Literal["all", "unseen"]


def run(
    study: str | Path,
    *,
    preset: str = "default",
    set: Mapping[str, Any] | Iterable[str] | None = None,
    seeds: str | int | Iterable[int] | None = None,
    datasets: Iterable[str] | None = None,
    name: str | None = None,
    out: str | Path = "results",
    tuned: bool = False,
    queue_only: bool = False,
    report: bool = True,
    device: str = "auto",
    threads: int = 1,
    accept_change: bool = False,
    command: str | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """Runs a study, or goes on with it: trains what is not finished, then writes tables, figures and the report.

    The arguments are the options of ``harness run``: a study that ships or the path of a study file, a preset of it,
    ``set`` as ``{"budget.epochs": 3, "dim": 32}`` (paths into the study file, or keys of the models), how many seeds or
    which, data sets instead of the study's, the run's folder ``out``/``name``, ``workers`` (0: one per core) and more.
    ``report=False`` leaves the report to :meth:`Run.report`; ``command`` is what the report names as its origin.
    Failed cells raise nothing: see :meth:`Run.failures`.

    Raises:
        InputError: anything in the study, its data, the folder or the storage that can't be used.
        Interrupted: Ctrl-C; the same call goes on from there.
    """
    from harness.study.loading import measures_efficiency

    if threading.current_thread() is not threading.main_thread():
        raise InputError("a study is run from the main thread, which hears signals; start `harness run` as a process")
    folder = run_folder(str(study), preset, name, Path(out))
    changes = as_pairs(set)
    command = without_passwords(command or f"harness.run({str(study)!r}, preset={preset!r}, set={list(changes)})")
    settings: dict[str, Any] = {
        "device": device,
        "threads": threads,
        "accept_change": accept_change,
        "command": command,
    }
    if tuned:
        study = existing(folder, "tuned.yaml", "tune the study first with `harness tune`")
    found = Run(folder)
    if measures_efficiency(str(study)):
        if queue_only:
            raise InputError("an efficiency study has no cells to queue; leave --queue-only out")
        if seeds is not None or datasets:
            raise InputError("an efficiency study has no seeds and no data sets; leave --seeds and --dataset out")
        _measure_speed(study, preset, changes, folder, **settings)
    else:  # a study that was tuned under a preset holds it already
        declared = read_study(study, "default" if tuned else preset, seeds, datasets, changes)
        _train(declared, folder, queue_only, preset=preset, **settings, **options)
    if report and not queue_only and (found.task == "efficiency" or found.finished):
        found.report()
    return found


class RunOptions(TypedDict, total=False):
    """What else :func:`run` takes; see ``harness run --help``."""

    workers: int
    executor: str
    executor_set: tuple[str, ...]
    storage: str | None
    data_root: str | Path | None
    retry_failed: bool
    continue_training: bool


def _train(study: Study, folder: Path, queue_only: bool, *, device: str, workers: int = 0, **options: Any) -> None:
    from harness.study.executors import open_executor
    from harness.study.runner import Settings, queue_study, run_study

    executor = open_executor(options.get("executor", "local"), options.get("executor_set", ()))
    here = executor.here
    device = usable_device(device) if here else device
    if options.get("data_root") is not None:
        options["data_root"] = Path(options["data_root"])
    settings = Settings(
        out=folder.parent,
        name=folder.name,
        device=device,
        workers=workers or (default_workers(device, executor.processes_per_cell) if here else 1),
        **options,
    )
    (queue_study if queue_only else run_study)(study, settings)


def _measure_speed(
    study: str | Path, preset: str, changes: tuple[str, ...], folder: Path, *, device: str, **options: Any
) -> None:
    from harness.study.efficiency import run_efficiency
    from harness.study.loading import load_efficiency

    declared = load_efficiency(str(study), preset=preset, settings=changes)
    run_efficiency(
        declared, folder, device=usable_device(device), say=lambda line: print(line, file=sys.stderr), **options
    )


def load_run(path: str | Path, out: str | Path = "results") -> Run:
    """The run in folder ``path``, or the one of that name below ``out``. Raises InputError where there is none."""
    for folder in (Path(path), Path(out) / path):
        if (folder / "study.yaml").is_file():
            return Run(folder)
    if Path(path).name == "study.yaml" and Path(path).is_file():
        return Run(Path(path).parent)
    known = [found.parent.name for found in Path(out).glob("*/study.yaml")]
    raise InputError(f"there is no run in {path}, and none of that name in {out}; {nearest(str(path), known)}")


def compare(
    one: Run | str | Path,
    other: Run | str | Path,
    *,
    pairs: Iterable[tuple[str, str]] | None = None,
    metrics: Iterable[str] | None = None,
    candidates: str | None = None,
) -> pd.DataFrame:
    """Two runs on the same data, side by side; see :func:`harness.analysis.between.between_runs`."""
    from harness.analysis.between import between_runs

    first, second = (run if isinstance(run, Run) else load_run(run) for run in (one, other))
    return between_runs(first.data, second.data, pairs=pairs, metrics=metrics, candidates=candidates)


@dataclass(frozen=True)
class Run:
    """The folder of one run. Every number is derived from the rows of its cells, each time it is asked for.

    Where a method takes ``variant``, ``seed`` and ``dataset``, each that is left out stands for all of them.
    """

    path: Path

    @cached_property
    def data(self) -> rows.Run:
        """What the tables and figures read. Raises InputError where no cell is finished, or a file is damaged."""
        from harness.analysis.rows import load_run

        return load_run(self.path)

    # -- how far it is ------------------------------------------------------------------------------------------

    @cached_property
    def design(self) -> dict[str, Any]:
        """The study as it was run, every preset and change laid over it."""
        from harness.reading.bounds import DESIGN_NODES
        from harness.reading.yaml_text import read_yaml

        path = self.path / "study.yaml"
        found = read_yaml(path, "restore it from a copy", DESIGN_NODES)
        if not isinstance(found, dict) or "task" not in found:
            raise InputError(f"{path} is not the resolved study of a run; restore it from a copy")
        return found

    @property
    def task(self) -> str:
        return str(self.design["task"])

    @property
    def finished(self) -> int:
        """How many cells are finished."""
        return sum((self.path / "cells" / cell["id"]).is_dir() for cell in self.design.get("cells", ()))

    @property
    def total(self) -> int:
        return len(self.design.get("cells", ()))

    def failures(self) -> list[dict[str, Any]]:
        """Of each cell that failed ``dataset``, ``variant``, ``seed`` and ``reason``."""
        from harness.study.folder import RunFolder

        found = (RunFolder(self.path).failure(cell["id"]) for cell in self.design.get("cells", ()))
        return [failure for failure in found if failure]

    def cells(self) -> pd.DataFrame:
        """A row per cell of the design: ``id``, ``dataset``, ``variant``, ``seed``, ``state`` ("finished", "failed",
        "missing"), ``model``, ``best_epoch``, ``epochs``, fingerprints and more."""
        return self.data.cells.copy()

    # -- its evidence as data frames ----------------------------------------------------------------------------

    def metrics(
        self, names: Iterable[str] | None = None, *, phase: Phase = "test", candidates: Candidates | None = None
    ) -> pd.DataFrame:
        """A row per finished cell: ``dataset``, ``variant``, ``seed`` and a column per metric, by default the study's.

        ``candidates``: the protocol of a ranking, by default the study's. Raises InputError for an unknown metric.
        """
        return self.data.metric_table(names, phase, candidates).reset_index()

    def rows(
        self, variant: str | None = None, seed: int | None = None, dataset: str | None = None, phase: Phase = "test"
    ) -> pd.DataFrame:
        """The evidence: a row per user (retrieval) or per event and action, as docs/architecture.md describes them."""
        return self._stacked(lambda cell: self.data.rows(cell, phase=phase).to_pandas(), variant, seed, dataset)

    def lists(
        self,
        variant: str | None = None,
        seed: int | None = None,
        dataset: str | None = None,
        candidates: Candidates | None = None,
    ) -> pd.DataFrame:
        """The best 50 items of each test user: ``user``, ``items`` (ids as in the data, best first) and ``scores``.

        ``candidates``: the protocol, by default the study's.

        Raises:
            InputError: a cell that keeps no lists.
        """
        import pandas as pd

        def read(cell: str) -> pd.DataFrame:
            items, scores = self.data.lists(cell, candidates)
            ids = self.data.catalogue(cell, ["item"])["item"].to_numpy()
            there = items > 0
            return pd.DataFrame(
                {
                    "user": self.data.users(cell).to_numpy(),
                    "items": [list(ids[row[kept] - 1]) for row, kept in zip(items, there, strict=True)],
                    "scores": [row[kept].tolist() for row, kept in zip(scores, there, strict=True)],
                }
            )

        return self._stacked(read, variant, seed, dataset)

    def attention(
        self, variant: str | None = None, seed: int | None = None, dataset: str | None = None
    ) -> pd.DataFrame:
        """What the attention does, as docs/architecture.md describes it: ``layer``, ``head``, ``statistic``, ``bin``,
        ``value``. Cells whose models show none are left out; InputError where that leaves nothing."""
        return self._stacked(
            self.data.attention, variant, seed, dataset, none="no attention was measured; set attention: true"
        )

    def history(self, variant: str | None = None, seed: int | None = None, dataset: str | None = None) -> pd.DataFrame:
        """The epochs: losses, validation metrics, seconds."""
        return self._stacked(self.data.history, variant, seed, dataset)

    def comparisons(self, metric: str | None = None, *, candidates: Candidates | None = None) -> pd.DataFrame:
        """The study's declared comparisons on a metric, by default its primary one: a row per data set and pair
        (``arm``, ``than``), with the fields of :class:`harness.analysis.statistics.Comparison`. Empty where the study
        names neither a control nor contrasts."""
        import pandas as pd

        from harness.analysis.comparisons import comparisons

        found = comparisons(self.data, metric, candidates)
        return pd.DataFrame(
            {"dataset": dataset, "arm": arm, "than": than} | asdict(comparison)
            for (dataset, arm, than), comparison in found.items()
        )

    def table(self, name: str = "main") -> pd.DataFrame:
        """A table of the report, with the numbers of its CSV file. Raises InputError for one that is not there."""
        from harness.reading.csv_text import read_csv

        path = self.path / "tables" / f"{name}.csv"
        if not path.is_file():
            known = [found.stem for found in path.parent.glob("*.csv")]
            raise InputError(f"{self.path} has no table '{name}'; {nearest(name, known)}")
        return read_csv(path, "write the report again")

    def report(self, text: float = 455, column: float = 241) -> Report:
        """Derives every table, figure and the report again from the rows; returns the files, the main table, the
        verdict, and what could not be made.

        ``text`` and ``column``: widths in points that LaTeX tables must fit, of the text and of one of two columns.
        """
        from harness.analysis.render.latex import Widths
        from harness.analysis.report import write_report

        return write_report(self.path, Widths(text=text, column=column))

    def warnings(self) -> list[str]:
        """What a reader of the report must know, one sentence each."""
        from harness.analysis.warnings import warnings_of

        return [] if self.task == "efficiency" else warnings_of(self.data)

    # -- its models ---------------------------------------------------------------------------------------------

    def model(
        self,
        variant: str,
        seed: int,
        dataset: str | None = None,
        *,
        data_root: str | Path | None = None,
        cache: str | Path | None = None,
        device: str = "cpu",
        draw: int = 0,
    ) -> TrainedModel:
        """The trained model of a cell, from its kept weights; its data are read again.

        Args:
            dataset: May be left out where the run has one.
            data_root: Folder of the data sets; by default $HARNESS_DATA, else ./data.
            cache: Folder of item vectors and codes; by default the one beside the run.
            draw: Of the item codes, where the study has several.

        Raises:
            InputError: no such cell, or it is not finished; weights that are not there; data that are not there, or not
                those that the model was trained on.
        """
        from harness.trained import load_trained

        if dataset is None and len(self.data.datasets) > 1:
            raise InputError(f"{self.path} has several data sets; name one of {', '.join(self.data.datasets)}")
        (cell,) = self._chosen(variant, seed, dataset, draw).to_dict("records")
        return load_trained(
            self.path,
            cell["id"],
            variant,
            data_root=None if data_root is None else Path(data_root),
            cache=None if cache is None else Path(cache),
            device=usable_device(device),
        )

    # -- inside -------------------------------------------------------------------------------------------------

    def _chosen(
        self, variant: str | None, seed: int | None, dataset: str | None, draw: int | None = None
    ) -> pd.DataFrame:
        """The finished cells that are asked for, at least one."""
        chosen = self.data.cells
        for column, value in (("dataset", dataset), ("variant", variant), ("seed", seed), ("draw", draw)):
            if value is None:
                continue
            known = list(dict.fromkeys(chosen[column]))
            if value not in known:
                raise InputError(f"{self.path} has no {column} '{value}'; {nearest(str(value), map(str, known))}")
            chosen = chosen[chosen[column] == value]
        done = chosen[chosen["state"] == "finished"]
        if not len(done):
            states = ", ".join(dict.fromkeys(chosen["state"]))
            raise InputError(f"{self.path}: no cell that is asked for is finished ({states}); run the study on")
        return done

    def _stacked(
        self,
        read: Callable[[str], pd.DataFrame | None],
        variant: str | None,
        seed: int | None,
        dataset: str | None,
        none: str = "nothing is there",
    ) -> pd.DataFrame:
        """The frames of the cells one below the other, each led by what names its cell."""
        import pandas as pd

        frames = []
        for cell in self._chosen(variant, seed, dataset).to_dict("records"):
            frame = read(cell["id"])
            if frame is not None:
                named = {key: cell[key] for key in ("dataset", "variant", "seed", *["draw"] * self.data.draws_codes)}
                frames.append(frame.assign(**named)[[*named, *frame.columns]])
        if not frames:
            raise InputError(f"{self.path}: {none}")
        return pd.concat(frames, ignore_index=True)
