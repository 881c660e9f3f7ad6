"""Optuna's storage as the queue of cells: who works on what, what is left, what died.

What counts is the run's folder: it says which cells are finished, failed or under way. The queue only shares the
others out among the workers, and can be made again from the folder at any time. One rule keeps a cell from getting
lost: while it is neither finished nor failed, :meth:`Queue.synchronise` sees to it that a trial waits for a worker
or is held by a living one. Taking a living worker for dead does no harm, since the cell's lock lets one worker
alone work on it. A cell is a trial whose parameters are its data set, variant and seed, so that
``optuna-dashboard`` shows the study.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from harness.errors import CellFailed, InputError, Interrupted
from harness.passwords import without_passwords
from harness.study.cells import Cell
from harness.study.design import Study
from harness.study.folder import HOST, RunFolder
from harness.study.storage import Retry, is_storage_error, open_storage

__all__ = ["Queue", "Report"]

Report = Callable[[float, int], None]
"""Takes the validation value of an epoch, and the epoch."""
GRACE_SECONDS = 120
"""A worker on another machine that has not been heard of for so long is taken for dead."""
TAKING_SECONDS = 10
"""So long may lie between taking a trial and holding its cell; beyond it the worker is taken for dead."""
QUIET_SECONDS = 30
"""Between two tries to report an epoch while the storage is away."""
PAUSE_SECONDS = 1.0
LIVE = (TrialState.WAITING, TrialState.RUNNING)


class Queue:
    """The queue of one run.

    Args:
        name: of the Optuna study.
        create: whether to make the Optuna study where there is none.
        patient: whether to wait for a storage that can't be reached at the moment.
        say: takes a line for the user.
        stop: whether somebody asked this process to end.

    Raises:
        InputError: the storage can't be reached or opened, or holds no study of that name.
    """

    def __init__(
        self,
        url: str,
        name: str,
        study: Study,
        cells: list[Cell],
        folder: RunFolder,
        *,
        create: bool = False,
        patient: bool = False,
        say: Callable[[str], None] = lambda line: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cells = {cell.id: cell for cell in cells}
        self.folder = folder
        self.distributions: dict[str, BaseDistribution] = {
            "dataset": CategoricalDistribution(list(study.datasets)),
            "variant": CategoricalDistribution(list(study.variants)),
            "seed": IntDistribution(0, 2**31),
            **({"draw": IntDistribution(0, 2**31)} if study.codes > 1 else {}),
        }
        self.stop = stop
        self._retry = Retry(say, stop)
        storage = self._retry.storage = open_storage(url, *([self._retry] if patient else []))
        self._unreported: list[tuple[optuna.Trial, float, int]] = []
        self._quiet_until = 0.0
        self._heard: dict[int, tuple[float | None, float]] = {}
        sampler = optuna.samplers.RandomSampler(seed=0)
        if create:
            direction: Literal["minimize", "maximize"] = "maximize" if study.higher_is_better else "minimize"
            self.study = self._retry(
                lambda: optuna.create_study(
                    study_name=name, storage=storage, direction=direction, sampler=sampler, load_if_exists=True
                )
            )
            self._retry(lambda: self.study.set_metric_names([f"validation {study.primary}"]))
        else:
            try:
                self.study = self._retry(lambda: optuna.load_study(study_name=name, storage=storage, sampler=sampler))
            except KeyError:
                raise InputError(
                    f"the storage {without_passwords(url)} holds no study '{name}', which {folder.path} belongs to; "
                    "give the --storage that `harness run` was given"
                ) from None

    # -- what is left ------------------------------------------------------------------------------------------------

    def is_over(self, cell_id: str) -> bool:
        return self.folder.is_over(cell_id)

    def left(self) -> int:
        """How many cells are neither finished nor failed."""
        return sum(not self.is_over(cell_id) for cell_id in self.cells)

    def synchronise(self, *, retry_failed: bool = False) -> int:
        """Makes the queue agree with the folder: finished cells completed, each other one queued or worked on.

        Trials of workers of this machine that are no longer alive are closed at once; those of other machines, and
        those whose worker never came to hold the cell, after a while without a sign of life.

        Returns:
            How many cells are neither finished nor failed.
        """
        trials: dict[str, list[FrozenTrial]] = {}
        for trial in self._retry(lambda: self.study.get_trials(deepcopy=False)):
            trials.setdefault(trial.user_attrs.get("cell", ""), []).append(trial)
        for cell in self.cells.values():
            self._synchronise_cell(cell, trials.get(cell.id, []), retry_failed)
        return self.left()

    def _synchronise_cell(self, cell: Cell, known: list[FrozenTrial], retry_failed: bool) -> None:
        running = [trial for trial in known if trial.state == TrialState.RUNNING]
        if self.folder.is_finished(cell.id):
            complete = any(trial.state == TrialState.COMPLETE for trial in known)
            for trial in running:  # its worker died behind its last file, or is about to close it in the same way
                self._close(trial.number, *((TrialState.PRUNED, None) if complete else self._completed(cell)))
                complete = True
            if not complete and not any(trial.state in LIVE for trial in known):
                self._retry(lambda: self._enter_finished(cell))
            return
        if retry_failed:
            self.folder.forget_failure(cell.id)
        live = [trial for trial in known if trial.state in LIVE]
        for trial in running:
            if self._is_dead(trial, cell):
                self._close(trial.number, TrialState.FAIL)
                live.remove(trial)
        if not live and not self.folder.is_over(cell.id):
            self._retry(lambda: self._enqueue(cell))

    def _is_dead(self, trial: FrozenTrial, cell: Cell) -> bool:
        if self.folder.is_held(cell.id):
            return False
        host = trial.user_attrs.get("host")
        if host == HOST:  # it is set by the holder of the lock, so a free lock means that the holder is gone
            return True
        beat = self.folder.last_beat(cell.id)
        now = time.monotonic()
        if trial.number not in self._heard or self._heard[trial.number][0] != beat:
            self._heard[trial.number] = (beat, now)
        # By this machine's clock alone: those of two machines may differ.
        return now - self._heard[trial.number][1] > (TAKING_SECONDS if host is None else GRACE_SECONDS)

    # -- work --------------------------------------------------------------------------------------------------------

    def work_on_next(self, work: Callable[[Cell, Report], float]) -> bool:
        """Takes one waiting cell and works on it; false where none waits. A cell that fails is recorded.

        Raises:
            Interrupted, InputError: from ``work``; the cell is queued again.
        """
        trial = self._retry(self._take)
        if trial is None:
            return False
        cell = self.cells.get(trial.user_attrs.get("cell", ""))
        if cell is None:
            self._refuse(trial)
            return True
        try:
            state, value = self._work_on(cell, trial, work)
        except CellFailed:
            state, value = TrialState.FAIL, None
        except (InputError, Interrupted):
            self._give_back(cell, trial)
            raise
        finally:
            self._report_rest()
        self._close(trial.number, state, value)
        return True

    def _take(self) -> optuna.Trial | None:
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return None
        trial = self.study.ask()
        if trial.user_attrs.get("cell") in self.cells:
            for name, values in self.distributions.items():
                if isinstance(values, CategoricalDistribution):
                    trial.suggest_categorical(name, values.choices)
                elif isinstance(values, IntDistribution):
                    trial.suggest_int(name, values.low, values.high)
        return trial

    def _refuse(self, trial: optuna.Trial) -> None:
        """Closes a trial of no cell of this queue: Optuna made it up, as another worker was faster, or it is of an
        earlier design. Raises InputError where it is this worker that knows an earlier design alone."""
        cell_id = trial.user_attrs.get("cell")
        known = self.folder.read_design()[1]["cells"] if cell_id else []
        added = next((entry for entry in known if entry["id"] == cell_id), None)
        if added:
            params = {key: added[key] for key in ("dataset", "variant", "seed")} | {"draw": added.get("draw", 0)}
            self._retry(lambda: self.study.enqueue_trial(params, user_attrs={"cell": cell_id}))
        self._close(trial.number, TrialState.PRUNED)
        if added:
            raise InputError(f"{self.folder.design} has got more cells since this worker was started; start it again")

    def _work_on(
        self, cell: Cell, trial: optuna.Trial, work: Callable[[Cell, Report], float]
    ) -> tuple[TrialState, float | None]:
        """How the trial ends. Raises what ``work`` raises."""
        while not self.folder.is_over(cell.id):
            with self.folder.lock(cell.id) as mine:
                if mine and not self.folder.is_over(cell.id):
                    try:
                        self._retry(lambda: trial.set_user_attr("host", HOST))
                    except UpdateFinishedTrialError:  # taken for dead before it began; the cell is queued again
                        return TrialState.PRUNED, None
                    return TrialState.COMPLETE, work(cell, lambda value, epoch: self._report(trial, value, epoch))
            # Another worker holds it. If no trial but this one stands for that, this one has to: were it closed,
            # the cell would be lost if the other died.
            if self._others(cell, trial, TrialState.RUNNING):
                return TrialState.PRUNED, None
            if self.stop():
                raise Interrupted
            time.sleep(PAUSE_SECONDS)
        if not self.folder.is_finished(cell.id):
            return TrialState.FAIL, None
        if self._others(cell, trial, TrialState.COMPLETE):
            return TrialState.PRUNED, None
        return self._completed(cell)

    def _others(self, cell: Cell, trial: optuna.Trial, state: TrialState) -> bool:
        """Whether another trial of the cell is in that state."""
        found = self._retry(lambda: self.study.get_trials(deepcopy=False, states=(state,)))
        return any(t.user_attrs.get("cell") == cell.id and t.number != trial.number for t in found)

    def _give_back(self, cell: Cell, trial: optuna.Trial) -> None:
        """Queues a cell again whose work was broken off."""
        with suppress(InputError):  # where the storage is lost, the next to come finds the cell without a holder
            if not self.folder.is_over(cell.id):
                self._retry(lambda: self._enqueue(cell))  # first, so that the cell is in the queue all the time
            self._close(trial.number, TrialState.FAIL)

    def _close(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Ends a trial; leaves it as it is where another process was faster."""

        def tell() -> None:
            with suppress(UpdateFinishedTrialError):
                self.study.tell(number, value, state=state, skip_if_finished=True)

        self._retry(tell)

    # -- reports: they are for people who watch, and never keep the training waiting ---------------------------------

    def _report(self, trial: optuna.Trial, value: float, epoch: int) -> None:
        self._unreported.append((trial, value, epoch))
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._report_all()
        except Exception as error:
            if not is_storage_error(error):
                raise
            self._retry.forget_session()
            self._quiet_until = time.monotonic() + QUIET_SECONDS

    def _report_rest(self) -> None:
        """At the end of a cell, as the storage is needed then anyway."""
        with suppress(InputError):  # closing the trial will say that the storage is lost
            self._retry(self._report_all)
        self._unreported.clear()

    def _report_all(self) -> None:
        while self._unreported:
            trial, value, epoch = self._unreported[0]
            with suppress(UpdateFinishedTrialError):  # taken for dead; the cell goes on all the same
                trial.report(value, epoch)
            del self._unreported[0]

    # -- trials ------------------------------------------------------------------------------------------------------

    def _enqueue(self, cell: Cell) -> None:
        self.study.enqueue_trial(self._parameters(cell), user_attrs={"cell": cell.id})

    def _enter_finished(self, cell: Cell) -> None:
        state, value = self._completed(cell)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params=self._parameters(cell),
                distributions=self.distributions,
                user_attrs={"cell": cell.id},
            )
        )

    def _completed(self, cell: Cell) -> tuple[TrialState, float]:
        record = self.folder.card(cell.id)
        return TrialState.COMPLETE, record["outcome"]["validation"]

    def _parameters(self, cell: Cell) -> dict[str, Any]:
        found = {"dataset": cell.dataset, "variant": cell.arm.variant, "seed": cell.seed, "draw": cell.draw}
        return {key: found[key] for key in self.distributions}
