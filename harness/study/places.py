"""Where each setting stands in a study file, for messages about one that stands, or is looked for, elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from harness.data.config import DataConfig
from harness.items.config import ItemsConfig
from harness.study.design import Study
from harness.training_config import Budget, TrainingConfig

__all__ = ["in_file", "in_variant"]

OF_VARIANTS = ", under 'common' or a variant's 'set'"
OF_THE_FILE = ", a key of the study file"


@cache
def in_file() -> Mapping[str, str]:
    """A key that the top of a study file does not know -> how it is written, and where."""
    found = {key: f"'{part}.{key}'" for part, keys in _parts().items() for key in keys}
    found |= {key: f"'training.{key}'{OF_VARIANTS}" for key in TrainingConfig.model_fields}
    return found | {"training": f"'training.KEY'{OF_VARIANTS}"}


@cache
def in_variant() -> Mapping[str, str]:
    """A key that a model's ``Config`` does not know -> how it is written, and where."""
    found = {key: f"'{key}'{OF_THE_FILE}" for key in Study.model_fields}
    found |= {part: f"'{part}.KEY'" for part in ("training", "data", "items")}
    for part, keys in _parts().items():
        found |= {key: f"'{part}.{key}'" + (OF_THE_FILE if part == "budget" else "") for key in keys}
    return found | {key: f"'training.{key}'" for key in TrainingConfig.model_fields}


def _parts() -> dict[str, list[str]]:
    """Place -> the keys that stand there, the nearest to the top of the file last."""
    found = {
        f"items.{part}": _keys_of_kinds(ItemsConfig.model_fields[part].annotation) for part in ("encoder", "quantiser")
    }
    return found | {
        "items": list(ItemsConfig.model_fields),
        "data": list(DataConfig.model_fields),
        "budget": list(Budget.model_fields),
    }


def _keys_of_kinds(annotation: Any) -> list[str]:
    """The keys of all settings classes that ``annotation`` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.model_fields)
    return [key for part in get_args(annotation) for key in _keys_of_kinds(part)]
