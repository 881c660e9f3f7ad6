"""What a probe is: a measurement on a trained model whose result a cell keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.errors import InputError
from harness.registry import REGISTRIES
from harness.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.interface import Recommender
    from harness.tasks.base import TaskData

__all__ = ["Findings", "Probe", "find_probe"]

Findings = Mapping[str, Any]
"""Name of a file in the cell's folder -> what it holds: a ``pyarrow.Table`` (NAME.parquet) or what JSON can hold
(NAME.json)."""


class Probe(ABC):
    """A measurement on a trained model. It changes neither the model nor its training.

    A study asks for it under ``probes: {NAME: {OPTION: ...}}``; what it finds lies in the cell's folder, from where a
    registered table or figure reads it (``Run.probe``).
    """

    Options: ClassVar[type[Settings]] = Settings
    """What a study can set."""
    tasks: ClassVar[frozenset[Literal["retrieval", "action"]]] = frozenset({"retrieval", "action"})
    meaning: ClassVar[str]
    """One line for ``harness list probes``."""

    def applies(self, model: Recommender) -> bool:
        """Whether the model shows what is measured; a cell whose model does not keeps no file."""
        return True

    @abstractmethod
    def measure(self, model: Recommender, data: TaskData, options: Any) -> Findings | pa.Table:
        """What is found on the test part; a table alone is kept as ``NAME.parquet``."""


def find_probe(name: str) -> Probe:
    """The probe that is registered as ``name``.

    Raises:
        InputError: there is none, or it is not a probe.
    """
    kind = REGISTRIES["probes"].load(name)
    if not (isinstance(kind, type) and issubclass(kind, Probe)):
        raise InputError(
            f"probe '{name}' ({REGISTRIES['probes'].names()[name]}) is not a subclass of harness.probes.Probe"
        )
    return kind()
