"""Names of models, resolved lazily: no model is imported before it is used.

Outside packages add models through the entry-point group ``harness.models``::

    [project.entry-points."harness.models"]
    my-model = "my_package.my_model:MyModel"
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points

from harness.errors import InputError, nearest

__all__ = ["GROUP", "is_family", "load_model", "model_names"]

GROUP = "harness.models"
"""Our own models are registered in pyproject.toml through the same group as anybody else's."""


def model_names() -> dict[str, str]:
    """Name -> ``module:Class`` of every registered model, sorted by name.

    Raises:
        InputError: two packages register different models under one name.
    """
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        if found.setdefault(point.name, point.value) != point.value:
            raise InputError(
                f"the model '{point.name}' is registered twice, as {found[point.name]} and {point.value}; uninstall "
                "one of the two packages, or rename its entry point"
            )
    return found


def is_family(name: str) -> bool:
    """Whether a registered name stands for many models, each asked for as ``name:Member``."""
    return hasattr(_load(name, model_names()[name]), "member")


def load_model(name: str) -> type:
    """The :class:`harness.interface.Recommender` subclass that ``name`` stands for.

    A name of the form ``family:Member`` asks the family's class for a member (``recbole:GRU4Rec``): the
    registered class has a ``member(name)`` class method that returns the class of that member.

    Raises:
        InputError: no such name, or the module it stands for can't be imported.
    """
    family, _, member = name.partition(":")
    known = model_names()
    if family not in known:
        raise InputError(f"unknown model '{name}'; {nearest(family, known)}")
    found = _load(name, known[family])

    from harness.interface import Recommender

    if hasattr(found, "member"):
        if not re.fullmatch(r"\w+", member):
            raise InputError(f"model '{family}' is a family: name a member, as in '{family}:{found.example}'")
        found = found.member(member)
    elif member:
        raise InputError(f"model '{family}' is not a family, so '{name}' means nothing; write '{family}'")
    if not (isinstance(found, type) and issubclass(found, Recommender)):
        raise InputError(f"model '{name}' ({known[family]}) is not a subclass of harness.interface.Recommender")
    return found


def _load(name: str, place: str) -> type:
    module_name, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"model '{name}' can't be loaded from {place}: {error}") from error
