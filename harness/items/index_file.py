"""The field's file of item codes, ``NAME.index.json``: ``{"0": ["<a_183>", "<b_70>", "<c_232>"], ...}``.

A key is an item's id, often counted from 0 where the sequences of the same data count from 1. That difference
is an option, ``offset``, and is checked: keys and catalogue must be the same set, so a wrong offset can't pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError
from harness.files import read_json, write_text
from harness.items.config import FileCodes

__all__ = ["LETTERS", "read_index", "write_index"]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TOKEN = re.compile(r"<([a-z])_(\d+)>")


def read_index(items: Sequence[str] | np.ndarray, config: FileCodes) -> np.ndarray:
    """(I, m) int64 codes of the items ``items[1:]``, in that order.

    Raises:
        InputError: the file is not of that form, a code does not fit ``size``, an item has no codes, or a key is not an
            item (unless ``extra_items`` allows that).
    """
    where = f"items.quantiser.path {config.path}"
    entries = read_json(config.path)
    if not isinstance(entries, dict) or not entries:
        raise InputError(f'{where}: expected {{"item": ["<a_12>", "<b_7>"], ...}}; this is another kind of file')
    wanted = [str(item) for item in items[1:]]
    keys = _keys_of(wanted, config.offset, where)
    _check_catalogue(wanted, keys, entries, config, where)

    levels = len(entries[keys[0]]) if isinstance(entries[keys[0]], list) else 0
    codes = np.empty((len(wanted), levels), dtype=np.int64)
    for row, key in enumerate(keys):
        codes[row] = _parse(entries[key], levels, config.size, f"{where}: key '{key}'")
    return codes


def write_index(path: str | Path, items: Sequence[str] | np.ndarray, codes: np.ndarray, offset: int = 0) -> None:
    """Writes (I + 1, m) codes, row 0 of padding left out, so that :func:`read_index` reads them back.

    Raises:
        InputError: more levels than letters, or an ``offset`` for ids that are not whole numbers.
    """
    if codes.shape[1] > len(LETTERS):
        raise InputError(f"{path}: the form names levels by letters, so {codes.shape[1]} levels are too many for it")
    keys = _keys_of([str(item) for item in items[1:]], offset, str(path))
    lines = []
    for key, row in zip(keys, codes[1:].tolist(), strict=True):
        tokens = ", ".join(f'"<{letter}_{code}>"' for letter, code in zip(LETTERS, row, strict=False))
        lines.append(f"{json.dumps(key, ensure_ascii=False)}: [{tokens}]")
    write_text(path, "{" + ",\n".join(lines) + "}\n")


def _keys_of(ids: list[str], offset: int, where: str) -> list[str]:
    """The key of each item id: the id itself, or the number ``offset`` below it."""
    if offset == 0:
        return ids
    try:
        return [str(int(item) - offset) for item in ids]
    except ValueError:
        raise InputError(f"{where}: an offset needs item ids that are whole numbers; set offset: 0") from None


def _check_catalogue(
    wanted: list[str], keys: list[str], entries: dict[str, Any], config: FileCodes, where: str
) -> None:
    missing = [item for item, key in zip(wanted, keys, strict=True) if key not in entries]
    extra = entries.keys() - set(keys)
    if not missing and (not extra or config.extra_items == "ignore"):
        return
    # Keys counted from another number are the common case: say so where it would fit exactly.
    for offset in (0, 1, -1):
        if offset != config.offset and all(item.lstrip("-").isdigit() for item in wanted):
            shifted = {str(int(item) - offset) for item in wanted}
            if shifted == entries.keys():
                raise InputError(
                    f"{where}: with offset {config.offset} its keys are not the data's items, but with offset "
                    f"{offset} they are; set items.quantiser.offset: {offset}"
                )
    if missing:
        raise InputError(
            f"{where}: {len(missing)} of {len(wanted)} items have no codes (the first: '{missing[0]}') and "
            f"{len(extra)} keys are not items of the data; is it for another catalogue? give one with every item"
        )
    raise InputError(
        f"{where}: {len(extra)} of its {len(entries)} keys are not items of the data (the first: '{min(extra)}'); is "
        "it the file of another catalogue? If it is the right one, set items.quantiser.extra_items: ignore"
    )


def _parse(tokens: Any, levels: int, size: int, where: str) -> list[int]:
    if not isinstance(tokens, list) or len(tokens) != levels or not 1 <= levels <= len(LETTERS):
        raise InputError(f"{where}: expected a list of {levels or 'one or more'} tokens, as the first item has")
    row = []
    for letter, token in zip(LETTERS, tokens, strict=False):
        found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if found is None or found[1] != letter:
            raise InputError(f"{where}: expected a token such as <{letter}_12>, found {token!r}; correct the file")
        code = int(found[2])
        if code >= size:
            raise InputError(f"{where}: {token} lies outside 0..{size - 1}; set items.quantiser.size to its real size")
        row.append(code)
    return row
