"""Tables and figures of the report as registered extensions, and the walk over all that are registered.

A table is a subclass of :class:`ReportTable`, a figure one of :class:`ReportFigure` or, where each data set has its
own, :class:`DatasetFigure`; ``docs/guides`` shows how to add one. One that fails becomes a line of the report.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.analysis.rows import Run
from harness.analysis.style import COLUMN, FULL
from harness.analysis.table import Table
from harness.analysis.tuning import load_tuning, mark_unequal
from harness.errors import InputError
from harness.files import as_file_name
from harness.registry import REGISTRIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "SECTIONS",
    "Artefact",
    "DatasetFigure",
    "Failure",
    "Failures",
    "Picture",
    "ReportFigure",
    "ReportTable",
    "make_tables",
    "pictures",
    "registered",
    "tables_of",
]

SECTIONS = {
    "claims": "Claims",
    "results": "Results",
    "attention": "Attention",
    "noise": "Noise in the history",
    "decoding": "Decoding",
    "training": "Training",
    "tuning": "Tuning",
    "cost": "Cost",
    "efficiency": "Efficiency",
}
"""Sections of the report in their order, with their headings. A section of another name follows behind them."""


class Artefact(ABC):  # noqa: B024 (its subclasses have the abstract methods)
    """What tables and figures have in common. ``name`` is the one that it is registered by."""

    section: ClassVar[str] = "results"
    """Where in the report it stands: a key of :data:`SECTIONS`, or a new one."""
    order: ClassVar[int] = 500
    """Where in its section: smaller numbers first, then by name. What ships has numbers below 100."""
    subject: ClassVar[type] = Run
    """What it is made from: a run of cells, or :class:`harness.analysis.efficiency.Efficiency`."""

    def __init__(self, name: str) -> None:
        self.name = name


class ReportTable(Artefact):
    """A table of the report, or several of a kind."""

    compares: ClassVar[bool] = False
    """Whether its lines are variants whose results are compared; one that was tuned with fewer trials is then marked.
    Such a table is a function of the rows and the design alone."""
    page_only: ClassVar[bool] = False
    """Whether it stands on the page alone, and has no files that `harness verify` would derive again."""

    def applies(self, run: Any) -> bool:
        """Whether the run has what the table shows."""
        return True

    @abstractmethod
    def make(self, run: Any) -> Table | Iterable[Table]:
        """The table, such as :func:`harness.analysis.table.from_frame` makes of a DataFrame."""


class ReportFigure(Artefact):
    """A figure of the report."""

    def applies(self, run: Any) -> bool:
        """Whether the run has what the figure shows."""
        return True

    @abstractmethod
    def caption(self, run: Any) -> str:
        """What it shows, as plain text, with all that a reader needs to read it alone."""

    @abstractmethod
    def make(self, run: Any, width: float) -> Figure:
        """The figure, ``width`` inches wide: ``style.FULL`` for the page, ``style.COLUMN`` for a column of a paper."""


class DatasetFigure(Artefact):
    """A figure that each data set has one of."""

    def applies(self, run: Run, dataset: str) -> bool:
        """Whether the run has what the figure shows of that data set."""
        return True

    @abstractmethod
    def caption(self, run: Run, dataset: str) -> str:
        """As :meth:`ReportFigure.caption`; the data set is named where the run has more than one, see :meth:`on`."""

    @abstractmethod
    def make(self, run: Run, dataset: str, width: float) -> Figure:
        """As :meth:`ReportFigure.make`."""

    @staticmethod
    def on(run: Run, dataset: str) -> str:
        """`` on DATASET`` where the run has more than one."""
        return f" on {dataset}" if len(run.datasets) > 1 else ""


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the report."""

    name: str
    """Of its files."""
    section: str
    order: int
    caption: str
    figure: Figure
    """As wide as the page."""
    narrow: Figure
    """As wide as one column of a paper with two."""


@dataclass(frozen=True)
class Failure:
    """A part of the report that could not be made."""

    what: str
    """Such as ``figure differences``."""
    kind: str
    """Class of the error."""
    message: str
    """One line."""
    trace: str
    """The traceback, for a file beside the report."""

    @property
    def file(self) -> str:
        """Where the traceback is kept, below the run's folder."""
        return f"failures/{as_file_name(self.what)}.txt"

    def __str__(self) -> str:
        return f"{self.what}: {self.kind}: {self.message}" if self.message else f"{self.what}: {self.kind}"


class Failures(list[Failure]):
    """What failed so far."""

    @contextmanager
    def kept(self, what: str) -> Iterator[None]:
        """Keeps an error of the block, which makes ``what``, and goes on behind it."""
        try:
            yield
        except Exception as error:
            message = " ".join(str(error).split())[:300]
            self.append(Failure(what, type(error).__name__, message, traceback.format_exc()))


def registered(kind: str, failures: Failures) -> list[Any]:
    """One object of each registered table or figure (``kind`` is "tables" or "figures"), in the report's order."""
    registry, found = REGISTRIES[kind], []
    bases = (ReportTable,) if kind == "tables" else (ReportFigure, DatasetFigure)
    for name in registry.names():
        with failures.kept(f"{registry.noun} {name}"):
            made = registry.load(name)
            if not (isinstance(made, type) and issubclass(made, bases)):
                expected = " or ".join(base.__name__ for base in bases)
                raise InputError(f"{registry.names()[name]} is not a subclass of {__name__}.{expected}")
            found.append(made(name))
    sections = list(SECTIONS)
    return sorted(
        found,
        key=lambda a: (
            sections.index(a.section) if a.section in sections else len(sections), a.section, a.order, a.name
        ),
    )  # fmt: skip


def make_tables(subject: Any, failures: Failures, *, filed: bool = False) -> list[tuple[ReportTable, Table]]:
    """Every table that applies, or only those with files, in the report's order; each with what made it."""
    found: list[tuple[ReportTable, Table]] = []
    for maker in registered("tables", failures):
        if not isinstance(subject, maker.subject) or (filed and maker.page_only):
            continue
        with failures.kept(f"table {maker.name}"):
            if maker.applies(subject):
                made = maker.make(subject)
                for table in [made] if isinstance(made, Table) else made:
                    _check_name(table.name, [t.name for _, t in found])
                    tuned = load_tuning(subject) if maker.compares else []
                    found.append((maker, mark_unequal(subject, tuned, table) if tuned else table))
    return found


def tables_of(subject: Any) -> list[Table]:
    """The tables that have files, in the report's order.

    Raises:
        InputError: a table could not be made.
    """
    failures = Failures()
    found = [table for _, table in make_tables(subject, failures, filed=True)]
    if failures:
        raise InputError(str(failures[0]))
    return found


def pictures(subject: Any, failures: Failures) -> list[Picture]:
    """Every figure that applies, in the report's order."""
    found: list[Picture] = []
    for maker in registered("figures", failures):
        if not isinstance(subject, maker.subject):
            continue
        for dataset in subject.datasets if isinstance(maker, DatasetFigure) else [None]:
            parts = () if dataset is None else (dataset,)
            alone = dataset is None or len(subject.datasets) == 1
            name = maker.name if dataset is None or alone else f"{maker.name}-{as_file_name(dataset)}"
            with failures.kept(f"figure {name}"):
                if maker.applies(subject, *parts):
                    _check_name(name, [picture.name for picture in found])
                    figures = [maker.make(subject, *parts, width) for width in (FULL, COLUMN)]
                    caption = maker.caption(subject, *parts)
                    found.append(Picture(name, maker.section, maker.order, caption, *figures))
    return found


def _check_name(name: str, taken: list[str]) -> None:
    if name != as_file_name(name):
        raise InputError(f"'{name}' can't be the name of a file; use letters, digits, '-', '_' and '.'")
    if name in taken:
        raise InputError(f"there is one called '{name}' already; give it another name")
