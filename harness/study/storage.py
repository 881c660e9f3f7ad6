"""Optuna's storage: opening it, telling its failures from others, and trying again while it can't be reached."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage

from harness.errors import InputError
from harness.passwords import without_passwords

__all__ = [
    "PATIENCE_SECONDS",
    "Retry",
    "absolute",
    "is_storage_error",
    "open_storage",
    "reason_of",
]

T = TypeVar("T")
PATIENCE_SECONDS = 300
"""So long a storage may be away before a process gives up; what was trained until then stands all the same."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0


def open_storage(url: str, call: Callable[[Callable[[], RDBStorage]], RDBStorage] = lambda act: act()) -> RDBStorage:
    """The storage behind an SQLAlchemy URL. Raises InputError where it can't be reached or is of another kind.

    ``call`` makes the connection; a :class:`Retry` there waits for a storage that is away.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    is_sqlite = url.startswith("sqlite")
    try:
        engine = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
        storage = call(lambda: RDBStorage(url, engine_kwargs=engine))
    except Exception as error:
        if isinstance(error, (ImportError, ValueError, RuntimeError, OSError)) or is_storage_error(error):
            raise InputError(
                f"the storage {without_passwords(url)} can't be opened ({reason_of(error)}); "
                "check --storage, its server and its driver"
            ) from error
        raise
    if is_sqlite:
        _lock_before_reading(storage.engine)
    return storage


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


def absolute(url: str) -> str:
    """The URL with the path of an SQLite file made absolute, so that it holds in any folder."""
    try:
        parts = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # opening it will say so
        return url
    if not parts.drivername.startswith("sqlite") or parts.database in {None, "", ":memory:"}:
        return url
    return parts.set(database=str(Path(parts.database).absolute())).render_as_string(hide_password=False)


class Retry:
    """Calls what needs the storage, again and again with growing pauses while the storage can't be reached.

    Args:
        say: told once of each loss.
        stop: asked before each further try; true gives up.
    """

    def __init__(self, say: Callable[[str], None], stop: Callable[[], bool]) -> None:
        self.storage: RDBStorage | None = None
        """Its session is dropped after a failure, so that the next try begins with a new connection."""
        self.say = say
        self.stop = stop
        self.patience = PATIENCE_SECONDS

    def __call__(self, act: Callable[[], T]) -> T:
        """What ``act`` returns. Raises InputError if the storage stays away for :data:`PATIENCE_SECONDS`."""
        started, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                done = act()
            except Exception as error:
                if not is_storage_error(error):
                    raise
                self.forget_session()
                if self.stop() or time.monotonic() - started >= self.patience:
                    self.patience = 0  # what a process still tries while it ends must not wait as long again
                    raise InputError(
                        f"the storage was lost ({reason_of(error)}); run the same command again"
                    ) from error
                if pause == FIRST_PAUSE:
                    self.say(f"the storage can't be reached ({reason_of(error)}); trying again")
            else:
                self.patience = PATIENCE_SECONDS
                return done
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def forget_session(self) -> None:
        if self.storage is not None:
            with suppress(sqlalchemy.exc.SQLAlchemyError):
                self.storage.remove_session()


def is_storage_error(error: BaseException | None) -> bool:
    """Whether an error is the storage's, or came about while Optuna dealt with one of the storage's.

    Optuna's own handling of a lost storage can fail in turn, with an AssertionError or UnboundLocalError that has
    the storage's error behind it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def reason_of(error: BaseException) -> str:
    """The first line of what lies at the bottom of a storage's error."""
    return without_passwords((str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0])
