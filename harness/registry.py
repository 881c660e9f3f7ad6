"""Names of everything that can be extended, resolved lazily: nothing is imported before it is used.

There is one registry per kind. An installed package adds to it through the kind's entry-point group; what the harness
ships is registered in its own pyproject.toml in the same way::

    [project.entry-points."harness.models"]
    my-model = "my_package.my_model:MyModel"
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from harness.errors import InputError, nearest

if TYPE_CHECKING:
    from harness.interface import Recommender

__all__ = ["REGISTRIES", "Registry", "is_family", "load_model", "model_names"]


class Registry:
    """The names of one kind of extension and what they stand for.

    ``noun`` names one of them in messages, ``kind`` all of them: the entry-point group is ``harness.<kind>``.
    """

    def __init__(self, kind: str, noun: str, purpose: str) -> None:
        self.kind = kind
        self.noun = noun
        self.purpose = purpose
        self.group = f"harness.{kind}"

    def names(self) -> dict[str, str]:
        """Name -> ``module:attribute`` of everything that is registered, sorted by name.

        Raises:
            InputError: two packages register different things under one name.
        """
        from importlib.metadata import entry_points

        found: dict[str, str] = {}
        for point in sorted(entry_points(group=self.group), key=lambda p: (p.name, p.value)):
            if found.setdefault(point.name, point.value) != point.value:
                raise InputError(
                    f"the {self.noun} '{point.name}' is registered twice, as {found[point.name]} and {point.value}; "
                    "uninstall one of the two packages, or rename its entry point"
                )
        return found

    def load(self, name: str) -> Any:
        """What ``name`` stands for.

        Raises:
            InputError: no such name, or the module it stands for can't be imported.
        """
        known = self.names()
        if name not in known:
            raise InputError(f"unknown {self.noun} '{name}'; {nearest(name, known)}")
        module_name, _, attribute = known[name].partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{self.noun} '{name}' can't be loaded from {known[name]}: {error}") from error


REGISTRIES = {
    registry.kind: registry
    for registry in (
        Registry("models", "model", "recommenders that a variant can name"),
        Registry("metrics", "metric", "what is computed from a cell's ranks, lists or labels"),
        Registry("datasets", "data set", "logs of events that are known by name"),
        Registry("splitters", "split", "how a log is cut into training, validation and test part"),
        Registry("probes", "probe", "what else is measured on a trained model"),
        Registry("tables", "table", "tables of a report"),
        Registry("figures", "figure", "figures of a report"),
        Registry("executors", "executor", "where the workers of a run are started"),
        Registry("trackers", "tracker", "where the training of cells can be followed"),
    )
}
"""Every kind of extension, by its name in ``harness list KIND`` and in the entry-point group."""

_MODELS = REGISTRIES["models"]


def model_names() -> dict[str, str]:
    """Name -> ``module:Class`` of every registered model, sorted by name."""
    return _MODELS.names()


def is_family(name: str) -> bool:
    """Whether a registered name stands for many models, each asked for as ``name:Member``."""
    return hasattr(_MODELS.load(name), "member")


def load_model(name: str) -> type[Recommender]:
    """The :class:`harness.interface.Recommender` subclass that ``name`` stands for.

    A name of the form ``family:Member`` asks the family's class for a member (``recbole:GRU4Rec``): the
    registered class has a ``member(name)`` class method that returns the class of that member.

    Raises:
        InputError: no such name, or the module it stands for can't be imported.
    """
    family, _, member = name.partition(":")
    if family not in _MODELS.names():
        raise InputError(f"unknown model '{name}'; {nearest(family, _MODELS.names())}")
    found = _MODELS.load(family)

    from harness.interface import Recommender

    if hasattr(found, "member"):
        if not re.fullmatch(r"\w+", member):
            raise InputError(f"model '{family}' is a family: name a member, as in '{family}:{found.example}'")
        found = found.member(member)
    elif member:
        raise InputError(f"model '{family}' is not a family, so '{name}' means nothing; write '{family}'")
    if not (isinstance(found, type) and issubclass(found, Recommender)):
        place = _MODELS.names()[family]
        raise InputError(f"model '{name}' ({place}) is not a subclass of harness.interface.Recommender")
    return found
