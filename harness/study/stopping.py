"""Signals that ask a process to stop: they are noted, and heeded where it is safe to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["noted_signals"]

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""The last is what submitit has Slurm send before a job's time is over."""


@contextmanager
def noted_signals(*, second_ends: bool = False) -> Iterator[list[int]]:
    """A list that becomes true once somebody asked to stop. ``second_ends``: a second signal ends at once."""
    asked: list[int] = []

    def remember(number: int, frame: Any) -> None:
        if asked and second_ends:
            raise KeyboardInterrupt
        asked.append(number)

    before = {name: signal.signal(name, remember) for name in STOPPING}
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
