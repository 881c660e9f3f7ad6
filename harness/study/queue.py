"""Optuna's storage as the queue of cells: who works on what, what is left, what died.

The cell directories hold the evidence; the queue is bookkeeping that can be made again from them. A cell is a
trial whose parameters are its data set, variant and seed, so that ``optuna-dashboard`` shows the study.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from harness.errors import CellFailed, InputError, Interrupted
from harness.files import digest, read_json
from harness.study.cells import Cell
from harness.study.design import Study
from harness.study.folder import RunFolder

__all__ = ["HOST", "Queue"]

HOST = socket.gethostname()
HEARTBEAT_SECONDS = 20
GRACE_SECONDS = 120
"""A worker on another machine that has not been heard of for so long is taken for dead."""
LIVE = (TrialState.WAITING, TrialState.RUNNING)


class Queue:
    """The queue of one run.

    Raises:
        InputError: the storage can't be reached or opened.
    """

    def __init__(self, url: str, run: str, study: Study, cells: list[Cell], folder: RunFolder) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.cells = {cell.id: cell for cell in cells}
        self.folder = folder
        self.distributions = {
            "dataset": CategoricalDistribution(list(study.datasets)),
            "variant": CategoricalDistribution(list(study.variants)),
            "seed": IntDistribution(0, 2**31),
        }
        # Optuna holds the choices of a categorical parameter fixed within one study, so a design that was
        # widened goes on under a new name; finished cells are entered there as completed.
        choices = digest([list(study.datasets), list(study.variants), str(folder.path.resolve())])[:6]
        self.study = _open(
            url,
            lambda storage: optuna.create_study(
                study_name=f"{run}-{choices}",
                storage=storage,
                direction="maximize" if study.higher_is_better else "minimize",
                sampler=optuna.samplers.RandomSampler(seed=0),
                load_if_exists=True,
            ),
            self._requeue,
        )
        self.study.set_metric_names([f"validation {study.primary}"])

    def synchronise(self, *, retry_failed: bool = False) -> None:
        """Makes the queue agree with the folder: finished cells completed, each other one queued once.

        Trials of workers of this machine that are no longer alive are queued again at once; those of other
        machines after their grace period.
        """
        trials: dict[str, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            trials.setdefault(trial.user_attrs.get("cell", ""), []).append(trial)
        for cell in self.cells.values():
            known = trials.get(cell.id, [])
            live = [trial for trial in known if trial.state in LIVE]
            for trial in [t for t in live if t.state == TrialState.RUNNING and self._is_dead(t, cell)]:
                self.study.tell(trial.number, state=TrialState.FAIL)
                live.remove(trial)
            if self.folder.is_finished(cell.id):
                self.folder.check(cell.id)
                if not any(trial.state == TrialState.COMPLETE for trial in known):
                    self._enter_finished(cell)
            elif not live and (retry_failed or self.folder.failure(cell.id) is None):
                self._enqueue(cell)

    def left(self) -> tuple[int, int]:
        """How many cells wait, and how many are being worked on."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False, states=LIVE)]
        return states.count(TrialState.WAITING), states.count(TrialState.RUNNING)

    def work_on_next(self, work: Callable[[Cell, optuna.Trial], float]) -> None:
        """Takes one waiting cell and works on it. A cell that fails is recorded; other errors pass through."""
        # Trials that another process closed, since it took this worker for dead; what counts is the cell's folder.
        closed: list[int] = []

        def objective(trial: optuna.Trial) -> float:
            cell = self.cells.get(trial.user_attrs.get("cell", ""))
            if cell is None:  # another worker was faster, and Optuna made up a trial of its own
                raise optuna.TrialPruned
            for name in ("dataset", "variant"):
                trial.suggest_categorical(name, self.distributions[name].choices)
            trial.suggest_int("seed", 0, self.distributions["seed"].high)
            if self.folder.is_finished(cell.id):
                return self._stored_value(cell)
            with self.folder.lock(cell.id) as mine:
                if not mine:  # its first worker lives after all
                    raise optuna.TrialPruned
                trial.set_user_attr("host", HOST)  # from here on a free lock means that this worker is dead
                value = work(cell, trial)
            if self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                closed.append(trial.number)
                raise optuna.TrialPruned
            return value

        try:
            self.study.optimize(objective, n_trials=1, catch=(CellFailed,))
        except (InputError, Interrupted):
            raise
        except Exception as error:
            if closed:
                return
            if _is_storage_error(error):
                raise InputError(f"the storage was lost ({_first_line(error)}); run the same command again") from error
            raise

    def reclaim(self) -> None:
        """Queues the cells of workers that were not heard of for the grace period."""
        optuna.storages.fail_stale_trials(self.study)

    def _enqueue(self, cell: Cell) -> None:
        self.study.enqueue_trial(_parameters(cell), user_attrs={"cell": cell.id})

    def _requeue(self, study: optuna.Study, trial: FrozenTrial) -> None:
        cell = self.cells.get(trial.user_attrs.get("cell", ""))
        if cell is not None and not self.folder.is_finished(cell.id):
            self._enqueue(cell)

    def _is_dead(self, trial: FrozenTrial, cell: Cell) -> bool:
        if trial.user_attrs.get("host") != HOST:
            return False
        with self.folder.lock(cell.id) as mine:
            return mine

    def _enter_finished(self, cell: Cell) -> None:
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=self._stored_value(cell),
                params=_parameters(cell),
                distributions=self.distributions,
                user_attrs={"cell": cell.id},
            )
        )

    def _stored_value(self, cell: Cell) -> float:
        return read_json(self.folder.cell(cell.id) / "cell.json")["outcome"]["validation"]


def _parameters(cell: Cell) -> dict[str, Any]:
    return {"dataset": cell.dataset, "variant": cell.arm.variant, "seed": cell.seed}


def _open(url: str, create: Callable[[Any], optuna.Study], stale: Callable[..., None]) -> optuna.Study:
    try:
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=stale,
        )
        if url.startswith("sqlite"):
            _lock_before_reading(storage.engine)
        return create(storage)
    except Exception as error:
        if isinstance(error, (ImportError, ValueError, RuntimeError, OSError)) or _is_storage_error(error):
            raise InputError(
                f"the storage {_without_password(url)} can't be opened ({_first_line(error)}); "
                "check --storage, its server and its driver"
            ) from error
        raise


def _lock_before_reading(engine: sqlalchemy.Engine) -> None:
    """Makes each transaction of SQLite exclusive from its first statement on.

    Optuna takes a waiting trial by reading its state and then writing it. Other databases lock the row in between
    (``SELECT ... FOR UPDATE``); SQLite has no such clause, so that two workers could take the same cell.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before the listeners


def _is_storage_error(error: BaseException) -> bool:
    return isinstance(error, (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError))


def _first_line(error: BaseException) -> str:
    return (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]


def _without_password(url: str) -> str:
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url
