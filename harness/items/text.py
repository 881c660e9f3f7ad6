"""The item table's columns -> one text per item."""

from __future__ import annotations

import string
from typing import Any, Protocol

import numpy as np
import pandas as pd

from harness.errors import InputError, nearest
from harness.items.config import ItemsConfig

__all__ = ["Catalogue", "has_text", "item_texts"]


class Catalogue(Protocol):
    """What this package reads of a :class:`harness.data.log.EventLog`."""

    @property
    def items(self) -> Any:
        """(I + 1,) external item ids; the first belongs to padding."""

    @property
    def item_table(self) -> pd.DataFrame | None:
        """Raw columns, indexed by dense item id 1..I."""

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The data set's own choice of columns."""


def has_text(log: Catalogue, config: ItemsConfig) -> bool:
    """Whether :func:`item_texts` has columns to work with."""
    chosen = config.text.fields or config.text.template or log.text_fields
    return log.item_table is not None and bool(len(log.item_table.columns)) and bool(chosen)


def item_texts(log: Catalogue, config: ItemsConfig) -> list[str]:
    """(I + 1) texts in the order of the dense item ids; the first, of padding, is empty.

    Raises:
        InputError: the data has no item text, a chosen column does not exist, or an item has no text in
            them and ``missing_text`` does not allow that.
    """
    described = log.item_table
    if described is None or not has_text(log, config):
        raise InputError(
            "items: the data set has no item text; name columns in items.text.fields, "
            "or take codes that need none (items.encoder.kind: cooccurrence or file, or items.quantiser.kind: file)"
        )
    template, fields = config.text.template, config.text.fields or tuple(log.text_fields)
    if template is not None:
        fields = _fields_of(template)
    known = [str(column) for column in described.columns]
    for field in fields:
        if field not in known:
            raise InputError(f"items.text: the item table has no column '{field}'; {nearest(field, known)}")

    table = described.reindex(np.arange(1, len(log.items)))
    columns = [[_plain(value) for value in table[field]] for field in fields]  # per field (I,)
    texts = [""]
    for values in zip(*columns, strict=True):
        present = any(values)
        if template is None:
            texts.append(". ".join(value for value in values if value))
        else:
            texts.append(template.format(**dict(zip(fields, values, strict=True))) if present else "")

    missing = [index for index in range(1, len(texts)) if not texts[index]]
    if missing and config.missing_text == "error":
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"items.text: item '{log.items[missing[0]]}'{more} has no text in {', '.join(fields)}; "
            "add other columns to items.text.fields, or set items.missing_text: empty"
        )
    return texts


def _fields_of(template: str) -> tuple[str, ...]:
    """The columns in a template's braces, each once."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"items.text.template: {error}; write columns as {{title}}, and braces twice") from None
    found = dict.fromkeys(name for _, name, _, _ in parts if name is not None)
    if not found or any(spec or conversion for _, name, spec, conversion in parts if name is not None):
        raise InputError("items.text.template: name at least one column, each as {title} with nothing but its name")
    return tuple(found)


def _plain(value: Any) -> str:
    """A cell as text: lists joined by commas, white space collapsed, missing values empty."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(filter(None, map(_plain, value)))
    return "" if pd.isna(value) else " ".join(str(value).split())
