"""safetensors and NumPy files from outside: tensors and the JSON in their metadata; never pickles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from harness.errors import InputError, in_one_line, shortened
from harness.reading.bounds import check_size
from harness.reading.json_text import check_shape, parse_json

__all__ = ["FAULTS", "read_array", "read_metadata", "read_tensors"]

BYTES = 256 << 30
FAULTS = (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError, OverflowError, MemoryError)
"""What the library raises of files that are not as they should be; the last ones of types that a framework lacks."""


def read_tensors(
    path: Path, remedy: str, framework: str = "numpy", only: Iterable[str] | None = None
) -> dict[str, Any]:
    """Tensors by name, all of them or ``only`` those.

    Raises:
        InputError: the file is missing or damaged, or lacks one of them.
    """
    check_size(path, BYTES, remedy)
    try:
        with safe_open(path, framework=framework) as file:
            there = set(file.keys())
            wanted = there if only is None else list(only)
            lacking = [name for name in wanted if name not in there]
            if lacking:
                raise ValueError(f"no tensor '{lacking[0]}'")
            return {name: file.get_tensor(name) for name in wanted}
    except FAULTS as error:
        raise InputError(f"{path} is damaged ({shortened(in_one_line(error), 120)}); {remedy}") from None


def read_metadata(path: Path, key: str, remedy: str, shape: Any = None) -> Any:
    """The JSON under ``key`` of the file's metadata; ``shape`` and errors as of :func:`harness.reading.read_json`."""
    check_size(path, BYTES, remedy)
    try:
        with safe_open(path, framework="numpy") as file:
            found = parse_json((file.metadata() or {})[key])
    except FAULTS as error:
        raise InputError(f"{path} is damaged ({shortened(in_one_line(error), 120)}); {remedy}") from None
    if shape is not None:
        check_shape(found, shape, path, remedy)
    return found


def read_array(path: Path) -> np.ndarray:
    """The one array of a NumPy file. Raises ValueError where it is missing, damaged, of objects, or claims more than it
    holds."""
    try:
        check_size(path, BYTES)
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(file)
            if math.prod(shape) * kind.itemsize > path.stat().st_size:
                raise ValueError(f"it claims the shape {shape}, but has {path.stat().st_size:,} bytes")
        return np.load(path, allow_pickle=False)
    except (InputError, OSError, EOFError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(in_one_line(error)) from None
