"""The queue under many workers at once, and when a worker, a signal or the storage fails at the worst instant."""

from __future__ import annotations

import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from harness.errors import CellFailed, InputError, Interrupted
from harness.files import write_json
from harness.study import queue as queue_module
from harness.study import storage as storage_module
from harness.study.cells import Inputs, make_cells
from harness.study.design import Study
from harness.study.folder import RunFolder
from harness.study.queue import Queue

SEEDS = 12
WORKERS = 4


class Killed(BaseException):
    """Stands for kill -9: nothing of the code under test may catch it."""


def killed(*_) -> None:
    raise Killed


def open_queue(path: Path, seeds: int = SEEDS, *, create: bool = True, **options) -> Queue:
    study = Study(
        study="queue",
        datasets={"synthetic-sessions:users=20,items=10": {}},
        seeds=seeds,
        metrics=["ndcg@10"],
        primary="ndcg@10",
        variants={"a": {"model": "sasrec"}, "b": {"model": "sasrec", "set": {"dim": 32}}},
    )
    cells = make_cells(study, Inputs(None, path / "cache"))
    url = f"sqlite:///{path / 'study.db'}"
    return Queue(url, "queue", study, cells, RunFolder(path), create=create, **options)


def finish(queue: Queue, cell) -> float:
    """Leaves a finished cell, as a worker's last step does."""
    staged = queue.folder.running(cell.id) / "staged"
    card = {"id": cell.id, "task": "retrieval", "dataset": cell.dataset, "model": "sasrec", "seed": cell.seed}
    outcome = {"best_epoch": None, "epochs": None, "stopped": None, "validation": 0.5}
    write_json(staged / "cell.json", card | {"fingerprints": {"log": "l", "split": "s"}, "outcome": outcome})
    for name in ("history.csv", "rows.parquet", "metrics.json", "cost.json"):
        (staged / name).touch()
    queue.folder.publish(cell.id, staged)
    return 0.5


def fail(queue: Queue, cell) -> None:
    write_json(queue.folder.failed(cell.id) / "failure.json", {"id": cell.id, "reason": "NaN"})


def work_off(queue: Queue) -> list[str]:
    """What a worker does; returns the cells that it was given."""
    taken = []

    def work(cell, report) -> float:
        taken.append(cell.id)
        return finish(queue, cell)

    while queue.left():
        if not queue.work_on_next(work):
            assert queue.synchronise() == 0, "no cell waits, yet some are left"
    return taken


def states(queue: Queue) -> Counter[str]:
    return Counter(trial.state.name for trial in queue.study.get_trials(deepcopy=False))


@pytest.fixture
def two(tmp_path):
    """A queue of two cells."""
    queue = open_queue(tmp_path, 1)
    assert queue.synchronise() == 2
    return queue


@pytest.fixture
def clock(monkeypatch):
    """The queue's clock, to be put forward by hand; nothing sleeps."""

    class Clock:
        now = 1000.0

        def __init__(self) -> None:
            self.slept: list[float] = []

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(queue_module, "time", clock)
    monkeypatch.setattr(storage_module, "time", clock)
    monkeypatch.setattr("optuna.storages._rdb.storage.time", clock)  # it has a few tries of its own
    return clock


@pytest.fixture
def lost_storage(monkeypatch):
    """Makes the storage raise what Optuna makes of a lost database; returns the switch."""

    class Switch:
        failures = 0
        """How many of the next calls fail."""

    switch = Switch()
    engine = sqlalchemy.engine.Engine

    def connect(self, *args, _connect=engine.connect, **kwargs):
        if switch.failures:
            switch.failures -= 1
            raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection"))
        return _connect(self, *args, **kwargs)

    monkeypatch.setattr(engine, "connect", connect)
    return switch


def take_all(path: Path, number: int) -> None:
    """Takes cells until none is left; leaves one line for each."""
    queue = open_queue(path, create=False)
    with open(path / f"taken-{number}", "w") as taken:

        def work(cell, report):
            taken.write(f"{cell.id}\n")
            taken.flush()
            time.sleep(0.002)
            return finish(queue, cell)

        while queue.left():
            if not queue.work_on_next(work):
                queue.synchronise()


def test_each_cell_is_taken_by_one_worker_only(tmp_path):
    queue = open_queue(tmp_path)
    queue.synchronise()
    context = get_context("spawn")  # as the runner's workers: nothing shared but the file
    workers = [context.Process(target=take_all, args=(tmp_path, number)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    taken = Counter(line for path in tmp_path.glob("taken-*") for line in path.read_text().split())
    assert taken == Counter(list(queue.cells))


def test_a_cell_that_fails_is_not_tried_again_until_asked_for(two):
    def work(cell, report):
        fail(two, cell)
        raise CellFailed("NaN")

    assert two.work_on_next(work)
    assert two.synchronise() == 1
    assert len(work_off(two)) == 1
    assert states(two) == {"FAIL": 1, "COMPLETE": 1}
    assert two.synchronise(retry_failed=True) == 1
    assert two.synchronise() == 1, "the retry outlives the process that asked for it"
    assert len(work_off(two)) == 1
    assert two.left() == 0


class TestDeath:
    def test_between_taking_a_trial_and_holding_its_cell(self, two, clock, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "lock", killed)
            with pytest.raises(Killed):
                two.work_on_next(killed)
        assert states(two) == {"RUNNING": 1, "WAITING": 1}
        other = open_queue(two.folder.path, 1)
        assert other.synchronise() == 2
        assert states(two)["RUNNING"] == 1  # it may be on its way to the cell
        clock.now += queue_module.TAKING_SECONDS + 1
        other.synchronise()
        assert states(two) == {"FAIL": 1, "WAITING": 2}
        assert sorted(work_off(other)) == sorted(other.cells)

    def test_before_the_trial_bears_its_host(self, two, clock, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(optuna.Trial, "set_user_attr", killed)
            with pytest.raises(Killed):
                two.work_on_next(killed)
        two.synchronise()
        clock.now += queue_module.TAKING_SECONDS + 1
        two.synchronise()
        assert sorted(work_off(two)) == sorted(two.cells)

    def test_in_mid_cell_on_this_machine(self, two):
        with pytest.raises(Killed):
            two.work_on_next(killed)
        assert two.synchronise() == 2
        assert states(two) == {"FAIL": 1, "WAITING": 2}

    def test_in_mid_cell_on_another_machine(self, two, clock, monkeypatch):
        monkeypatch.setattr(queue_module, "HOST", "elsewhere")
        with pytest.raises(Killed):
            two.work_on_next(killed)
        monkeypatch.setattr(queue_module, "HOST", "here")
        two.synchronise()
        clock.now += queue_module.GRACE_SECONDS - 1
        two.synchronise()
        assert states(two)["RUNNING"] == 1
        clock.now += 2
        two.synchronise()
        assert states(two) == {"FAIL": 1, "WAITING": 2}

    def test_a_sign_of_life_from_another_machine_counts(self, two, clock, monkeypatch):
        beats = iter([1.0, 2.0, 3.0])
        monkeypatch.setattr(RunFolder, "last_beat", lambda *_: next(beats))
        monkeypatch.setattr(queue_module, "HOST", "elsewhere")
        with pytest.raises(Killed):
            two.work_on_next(killed)
        monkeypatch.setattr(queue_module, "HOST", "here")
        for _ in range(3):
            two.synchronise()
            clock.now += queue_module.GRACE_SECONDS + 1
        assert states(two)["RUNNING"] == 1

    def test_between_the_last_file_and_the_end_of_the_trial(self, two, monkeypatch):
        def work(cell, report):
            finish(two, cell)
            raise Killed

        with pytest.raises(Killed):
            two.work_on_next(work)
        assert two.synchronise() == 1
        assert states(two) == {"COMPLETE": 1, "WAITING": 1}
        assert not any((two.folder.path / "running").iterdir())

    def test_a_worker_taken_for_dead_goes_on_and_no_cell_is_worked_on_twice(self, two, clock):
        other = open_queue(two.folder.path, 1)
        done = []

        def meanwhile(cell, report):
            done.append(cell.id)
            return finish(other, cell)

        def work(cell, report):
            running = two.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))[0]
            two.study.tell(running.number, state=TrialState.FAIL)
            other.synchronise()
            other.stop = lambda: len(done) == 1
            other.work_on_next(meanwhile)  # the other cell
            with pytest.raises(Interrupted):  # this one, which it waits for, since no other trial stands for it
                other.work_on_next(meanwhile)
            assert cell.id not in done
            report(0.4, 1)
            done.append(cell.id)
            return finish(two, cell)

        two.work_on_next(work)
        assert sorted(done) == sorted(two.cells)
        assert two.synchronise() == 0
        assert work_off(two) == []


class TestInterruption:
    @pytest.mark.parametrize("error", [Interrupted, InputError("the disk is full")])
    def test_a_cell_that_is_broken_off_stays_in_the_queue(self, two, error):
        def work(cell, report):
            raise error

        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            two.work_on_next(work)
        assert states(two) == {"FAIL": 1, "WAITING": 2}
        assert sorted(work_off(two)) == sorted(two.cells)

    def test_a_cell_that_no_trial_stands_for_comes_back(self, two):
        for trial in two.study.get_trials(deepcopy=False):
            two.study.ask()
            two.study.tell(trial.number, state=TrialState.FAIL)
        assert two.synchronise() == 2
        assert states(two) == {"FAIL": 2, "WAITING": 2}

    def test_a_trial_that_another_process_completed(self, two):
        """Main looks at the queue while a worker ends its cell."""

        def work(cell, report):
            value = finish(two, cell)
            assert open_queue(two.folder.path, 1).synchronise() == 1
            return value

        assert two.work_on_next(work)
        assert states(two) == {"COMPLETE": 1, "WAITING": 1}

    def test_a_trial_completed_after_it_was_read_as_running(self, two, monkeypatch):
        """Main has just read the trial as running, to close it, when its worker completes it."""

        with pytest.raises(Killed):
            two.work_on_next(killed)
        other = open_queue(two.folder.path, 1)
        cell = next(c for c in two.cells.values() if two.folder.last_beat(c.id))
        is_held = RunFolder.is_held

        def faster(folder, cell_id):
            if not folder.is_finished(cell.id):
                finish(two, cell)
                (running,) = two.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                two.study.tell(running.number, 0.5)
            return is_held(folder, cell_id)

        monkeypatch.setattr(RunFolder, "is_held", faster)
        assert other.synchronise() == 1
        assert states(two) == {"COMPLETE": 1, "WAITING": 1}


class TestLostStorage:
    def test_reports_neither_fail_nor_delay_a_cell(self, two, clock, lost_storage):
        def work(cell, report):
            lost_storage.failures = 2
            report(0.1, 1)
            report(0.2, 2)  # no second try so soon
            assert lost_storage.failures > 0
            assert clock.slept == []
            lost_storage.failures = 0
            return finish(two, cell)

        assert two.work_on_next(work)
        (done,) = two.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        assert done.intermediate_values == {1: 0.1, 2: 0.2}

    def test_the_end_of_a_cell_waits_for_the_storage(self, two, clock, lost_storage):
        def work(cell, report):
            lost_storage.failures = 5
            return finish(two, cell)

        assert two.work_on_next(work)
        assert clock.slept
        assert states(two) == {"COMPLETE": 1, "WAITING": 1}

    def test_every_step_survives_a_short_loss(self, tmp_path, clock, lost_storage):
        for failures in (1, 2, 3):
            lost_storage.failures = failures
            queue = open_queue(tmp_path, failures, patient=True)
            lost_storage.failures = failures
            queue.synchronise()
            lost_storage.failures = failures
            work_off(queue)
            lost_storage.failures = failures
            assert queue.synchronise() == 0

    def test_a_long_loss_ends_with_one_line_and_no_cell_is_lost(self, two, clock, lost_storage):
        def work(cell, report):
            lost_storage.failures = 10**9
            raise Interrupted

        with pytest.raises(Interrupted):
            two.work_on_next(work)
        assert sum(clock.slept) < 2 * storage_module.PATIENCE_SECONDS
        with pytest.raises(InputError, match=r"the storage was lost .*server closed the connection"):
            two.synchronise()
        lost_storage.failures = 0
        two.synchronise()
        assert sorted(work_off(two)) == sorted(two.cells)

    @pytest.mark.parametrize("kind", [AssertionError, UnboundLocalError])
    def test_what_optuna_makes_of_it_is_recognised(self, kind):
        def lose() -> None:
            try:
                raise sqlalchemy.exc.OperationalError("COMMIT", {}, Exception("gone"))
            finally:
                raise kind("Should not reach.")

        with pytest.raises(kind) as caught:
            lose()
        assert storage_module.is_storage_error(caught.value)
        assert not storage_module.is_storage_error(kind("of the code's own"))


def test_a_helper_that_finds_no_study_says_so(tmp_path):
    open_queue(tmp_path, 1)
    with pytest.raises(InputError, match="holds no study 'other'"):
        Queue(f"sqlite:///{tmp_path / 'study.db'}", "other", _study_of(tmp_path), [], RunFolder(tmp_path))


def _study_of(path: Path) -> Study:
    return Study(
        study="queue",
        datasets={"synthetic-sessions:users=20,items=10": {}},
        seeds=1,
        metrics=["ndcg@10"],
        primary="ndcg@10",
        variants={"a": {"model": "sasrec"}},
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:se:cr@t@host:5432/db", "postgresql://me:***@host:5432/db"),
        (
            "--storage mysql+pymysql://me:secret@host/db --workers 2",
            "--storage mysql+pymysql://me:***@host/db --workers 2",
        ),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("sqlite:////folder/a:b@c/study.db", "sqlite:////folder/a:b@c/study.db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
    ],
)
def test_passwords_are_hidden(text, shown):
    assert storage_module.without_passwords(text) == shown
