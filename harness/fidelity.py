"""A model's fidelity card as plain data, with each open choice's option and default filled in from its Config."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic_core import to_jsonable_python

from harness.errors import InputError
from harness.interface import Recommender

__all__ = ["card"]


def card(model: type[Recommender]) -> dict[str, Any]:
    """The card as JSON-ready data.

    Raises:
        InputError: a choice names an option that the Config lacks.
    """
    found = asdict(model.fidelity)
    for choice in found["choices"]:
        if choice["option"] not in model.Config.model_fields:
            raise InputError(
                f"the fidelity card of {model.__module__}.{model.__name__} names the option '{choice['option']}', "
                "which its Config does not have; correct the card"
            )
        field = model.Config.model_fields[choice["option"]]
        choice["default"] = to_jsonable_python(field.get_default(call_default_factory=True))
    return to_jsonable_python(found)
