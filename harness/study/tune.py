"""Tuning with equal budgets: one search per data set and variant, the same trials and the same cap for each.

:mod:`harness.study.search` says how settings are chosen, :mod:`harness.study.trials` how they are tried,
:mod:`harness.study.ledger` what is written of them. The searches are shared out among workers, as a run's cells are.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.files import writing
from harness.study.cells import Inputs
from harness.study.crew import Crew, Task
from harness.study.design import Study
from harness.study.executors import Executor, open_executor
from harness.study.folder import RunFolder
from harness.study.ledger import LEDGER, TUNED, entry_of, write_ledger
from harness.study.search import Search, searches
from harness.study.trials import Budget, Job, Searches, confirmed_of, trials_of, write_job

__all__ = ["LEDGER", "TUNED", "Budget", "tune"]


def tune(
    study: Study,
    folder: RunFolder,
    budget: Budget,
    *,
    data_root: Path | None,
    cache: Path,
    device: str = "cpu",
    threads: int = 1,
    workers: int = 1,
    executor: Executor | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Searches, or goes on with searches that were interrupted; writes ``tuning.json`` and ``tuned.yaml``.

    Both keep what an earlier call found for variants and data sets of the same design that are not searched now, so
    that data sets can be tuned one by one.

    Returns the entries of ``tuning.json`` (see :mod:`harness.analysis.tuning`).

    Raises:
        InputError: no search space, a setting that the model does not know, data that can't be used, or a search
            none of whose trials could be finished.
        Interrupted: the user stopped it; the same command goes on.
    """
    place = RunFolder(folder.path / "tuning")
    with _only_tuning(place):
        found = searches(study, Inputs(data_root, cache, say))
        job = Job(study, place.path, budget, data_root, cache, device, threads)
        write_job(place, job, found)
        crew = Crew(executor or open_executor("local"), place, cache, data_root, device, threads, workers, say=say)
        _work(job, found, crew)
        tried = [(search, place.path / search.id) for search in found]
        entries = [
            entry_of(search, study, budget, trials_of(at)[: budget.trials], confirmed_of(at)) for search, at in tried
        ]
        return write_ledger(folder.path, study, entries, say)


def _work(job: Job, found: list[Search], crew: Crew) -> None:
    """Runs the trials that are left of each search."""
    shared = Searches(job, found, crew.folder)
    told = {search.id: _ended(job, search) for search in found}
    before = sum(len(trials_of(job.place / search.id)[: job.budget.trials]) for search in found)
    kept = f", {before} of them finished before" if before else ""
    workers = min(crew.size, shared.left())
    several = "s" * (workers > 1)
    crew.say(
        f"{job.place}: {len(told)} searches of {_cap(job.budget)}{_confirmation(job)}{kept}; {workers} worker{several}"
    )

    def tell() -> None:
        for search in found:
            told[search.id] = _tell(job, search, told[search.id], crew.say)

    def give_up(search: Task, reason: str) -> None:
        raise InputError(f"{search.name}: {reason}. Run the same command again, with fewer --workers")

    try:
        dataclasses.replace(crew, update=tell).work_off(shared, found, give_up)
    finally:
        tell()
        for search in found:
            if shared.is_over(search.id) and not crew.folder.is_held(search.id):
                shutil.rmtree(crew.folder.running(search.id), ignore_errors=True)


def _cap(budget: Budget) -> str:
    trials = None if budget.trials is None else f"{budget.trials} trials"
    seconds = None if budget.seconds is None else f"{budget.seconds:g} s at the most"
    return " and ".join(filter(None, [trials, seconds]))


def _confirmation(job: Job) -> str:
    how = job.study.confirm
    return f", the best {how.top} confirmed with {how.seeds} new seeds each" if how else ""


def _ended(job: Job, search: Search) -> tuple[int, int]:
    """How many trials and confirming runs of a search have ended."""
    return len(trials_of(job.place / search.id)), len(confirmed_of(job.place / search.id))


def _tell(job: Job, search: Search, told: tuple[int, int], say: Callable[[str], None]) -> tuple[int, int]:
    """Says which trials and confirming runs have ended since ``told``; returns how many have."""
    trials, runs = trials_of(job.place / search.id), confirmed_of(job.place / search.id)
    of = "" if job.budget.trials is None else f"/{job.budget.trials}"
    for trial in trials[told[0] :]:
        own = ", the study's own setting:" if trial["drawn"] == "own" else ""
        say(f"  {search.name}: trial {trial['number'] + 1}{of}{own} {_outcome(trial)}")
    for run in runs[told[1] :]:
        say(f"  {search.name}: trial {run['trial'] + 1} again, seed {run['seed']}: {_outcome(run)}")
    return len(trials), len(runs)


def _outcome(run: dict[str, Any]) -> str:
    value = "" if run["value"] is None else f" {run['value']:.4f}"
    reason = f" ({run['reason']})" if "reason" in run else ""
    return f"{run['state']}{value}{reason}"


@contextmanager
def _only_tuning(place: RunFolder) -> Iterator[None]:
    with writing(place.path):
        place.path.mkdir(parents=True, exist_ok=True)
    with place.run_lock() as mine:
        if not mine:
            raise InputError(
                f"another `harness tune` is working in {place.path}; wait for it, or choose another --name"
            )
        yield
