"""JSON from outside: each key once, finite numbers of 64 bits, bounded in size and depth, of the shape asked for."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.errors import InputError, shortened, shown
from harness.reading.bounds import JSON_BYTES, LARGEST, first_odd, read_bytes

__all__ = ["RESTORE", "check_shape", "parse_json", "read_json"]

RESTORE = "delete it, or restore it from a copy"


def read_json(path: str | Path, shape: Any = None, remedy: str = RESTORE) -> Any:
    """What the file ``path`` holds, checked against ``shape``, such as one of :mod:`harness.reading.shapes`.

    ``remedy``: how to go on from a damaged file, for the end of the message.

    Raises:
        InputError: the file is missing, truncated, no JSON, over a bound, or of another shape.
    """
    path = Path(path)
    try:
        text = read_bytes(path, JSON_BYTES, remedy).decode("utf-8-sig")
        found = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({shortened(str(error), 120)}); {remedy}") from None
    if shape is not None:
        check_shape(found, shape, path, remedy)
    return found


def parse_json(text: str) -> Any:
    """The value of ``text``. Raises ValueError with what is off."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("too many lists and mappings inside each other") from None
    if "\\u" in text and (odd := first_odd(json.dumps(found, ensure_ascii=False))):
        raise ValueError(f"it holds the character U+{ord(odd[0]):04X}, which no text may")
    return found


def check_shape(found: Any, shape: Any, path: Path, remedy: str) -> None:
    """Raises InputError, which names the place, unless ``found``, read from ``path``, is of ``shape``."""
    try:
        _adapter(shape).validate_python(found)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].replace("Value error, ", "")
        if problem["type"] in {"model_type", "dict_type"}:  # else it would name a class of ours
            said = "Input should be a mapping"
        what = shortened(f"'{shortened(place, 80)}': {said}" if place else said)
        raise InputError(f"{path} is damaged ({what}, found {shown(problem['input'])}); {remedy}") from None


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} stands there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"the number {shortened(text, 40)} is beyond 64 bits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shortened(text, 40)} is not a finite number")
    return number
