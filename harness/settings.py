"""Strict settings: an unknown key is an error that names its nearest neighbour."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import InputError, nearest, shortened, shown

S = TypeVar("S", bound=BaseModel)
MOST_PROBLEMS = 3
"""Named in one message."""


class Settings(BaseModel):
    """Base of every settings class: no unknown key, no change after it was made, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parse(kind: type[S], values: dict[str, Any], where: str, elsewhere: Mapping[str, str] | None = None) -> S:
    """``kind(**values)``, or an :class:`InputError` in one line that says which key of ``where`` is off.

    ``elsewhere``: a key that somebody may write here though it belongs elsewhere -> how to write it, and where.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected keys and values, found {shown(values)}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # A key that is unknown comes first: one that is missing may be the same, misspelt.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")[:MOST_PROBLEMS]
        raise InputError("; ".join(_explain(kind, problem, where, elsewhere or {}) for problem in problems)) from None


def from_pairs(kind: type[S], pairs: Iterable[str], where: str, option: str = "--set") -> S:
    """``kind`` from ``key=value`` texts of a command line; a dot in a key leads into nested settings."""
    from harness.reading.yaml_text import yaml_value

    values: dict[str, Any] = {}
    for pair in pairs:
        path, sign, text = pair.partition("=")
        if not sign:
            raise InputError(f"{option} {shortened(pair, 80)}: write it as key=value")
        place = values
        *outer, last = path.strip().split(".")
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(
                    f"{option} {shortened(pair, 80)}: '{part}' is set to a value before; give it one or the other"
                )
        place[last] = yaml_value(text, f"{option} {shortened(pair, 80)}")
    return parse(kind, values, where)


def _explain(kind: type[BaseModel], problem: ErrorDetails, where: str, elsewhere: Mapping[str, str]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _keys(kind, location[:-1])
        return f"{where}: unknown key '{shortened(key, 80)}'; {_suggestion(location[-1], known, elsewhere)}"
    if problem["type"] == "missing":
        return f"{where}: the key '{key}' is missing"
    message = shortened(problem["msg"].removeprefix("Value error, "), 300)
    return (
        f"{where}: '{shortened(key, 80)}': {message} (found {shown(problem['input'])})"
        if key
        else f"{where}: {message}"
    )


def _suggestion(word: str, known: list[str], elsewhere: Mapping[str, str]) -> str:
    """The tail of an error about an unknown key: the place of that key, or of the one most like it."""
    others = [key for key in elsewhere if key not in known]
    # From elsewhere only what is hardly another word, or is abbreviated by its initials (lr, wd).
    same = [key for key in others if key == word or ("_" in key and "".join(p[:1] for p in key.split("_")) == word)]
    far = same or difflib.get_close_matches(word[:200], others, n=1, cutoff=0.75)
    if same or (far and difflib.get_close_matches(word[:200], [*known, *far], n=1)[0] == far[0]):
        return f"did you mean {elsewhere[far[0]]}?"
    return nearest(word, known)


def _keys(kind: Any, path: list[str]) -> list[str]:
    """The keys that the settings class at ``path`` below ``kind`` knows."""
    for part in path:
        fields = getattr(kind, "model_fields", None)
        kind = fields[part].annotation if fields and part in fields else _value_type(kind)
    found = kind if hasattr(kind, "model_fields") else _settings_within(kind)
    return list(getattr(found, "model_fields", {}))


def _value_type(kind: Any) -> Any:
    """What a mapping's values are: the type that its last argument names."""
    arguments = getattr(kind, "__args__", ())
    return arguments[-1] if arguments else kind


def _settings_within(kind: Any) -> Any:
    return next((c for c in getattr(kind, "__args__", ()) if hasattr(c, "model_fields")), kind)
