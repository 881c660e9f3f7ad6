"""Codes (semantic IDs) of every item of a catalogue, made once and stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from harness.errors import InputError
from harness.files import digest, file_digest, whole_file
from harness.items.config import FileCodes, ItemsConfig, ResidualKMeans, ResidualVAE
from harness.items.encoders import ItemData, embed, embedding_key
from harness.items.index_file import read_index
from harness.items.quality import code_quality, loss_quality, shared_codes
from harness.reading.tensors import read_metadata, read_tensors

if TYPE_CHECKING:
    from harness.data.log import EventLog
    from harness.data.splits import Split

__all__ = ["ItemCodes", "item_codes"]

_VERSION = 1
"""Counts changes of this package that change codes, so that no cached ones of before are taken."""


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """m codes per item. Level k has the values 0..sizes[k]-1."""

    codes: np.ndarray
    """(I + 1, m) int64; row 0 belongs to padding and is all zero."""
    sizes: tuple[int, ...]
    """Per level. The collision level, where there is one, is the last."""
    quality: dict[str, Any] = field(default_factory=dict)
    """``quantiser`` (its kind); what :func:`harness.items.quality.code_quality` says of the quantiser's own
    levels, so without the collision level; ``residual`` (whether a level refines those before it);
    ``collision_level`` (whether there is one); ``warnings`` (a list of sentences); and where a quantiser was
    fitted here, not read from a file, ``fitted_on`` (items), ``error`` and ``cosine`` of
    :func:`harness.items.quality.loss_quality`."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the sizes and of the codes as little-endian int64."""
        sha = hashlib.sha256(json.dumps([list(self.codes.shape), list(self.sizes)]).encode())
        sha.update(np.ascontiguousarray(self.codes, dtype="<i8").tobytes())
        return sha.hexdigest()


def item_codes(
    log: EventLog,
    split: Split,
    config: ItemsConfig,
    *,
    unique: bool,
    cache: Path | None,
    progress: Callable[[str], None] | None = None,
) -> ItemCodes:
    """The codes of every item of ``log``, fitted on the items that ``config.fit_on`` names.

    Codes are stored whole or not at all in ``cache/codes/<key>.safetensors``, where the key is the hash of all that
    decides them: texts, settings, training items, library versions. They are stored because they can't be relied
    upon to come out again: faiss changes its OPQ between versions, and sums depend on the processor.

    Args:
        unique: no two items may have the same codes. Fitted codes then always get a collision level, even where
            nobody collides, so that their form does not depend on an accident of the data. Codes of a file are
            taken as they are if they are unique.
        progress: told a line from time to time while a quantiser trains, and each of the codes' warnings.

    Raises:
        InputError: an item without text, codes of a file that don't fit the catalogue or collide where they must
            not, more colliding items than the collision level holds, too few items for the codebooks.
    """
    data = ItemData(log, split, config)
    path = None
    if cache is not None:
        path = Path(cache) / "codes" / f"{_key(data, unique)}.safetensors"
    made = None if path is None else _load(path)
    if made is None:
        made = _make(data, unique, cache, progress)
        if path is not None:
            _store(path, made)
    if progress is not None:
        for line in made.quality["warnings"]:
            progress(f"warning: {line}")
    return made


def _key(data: ItemData, unique: bool) -> str:
    config = data.config
    settings = config.model_dump(mode="json", include={"quantiser", "fit_on", "collisions", "collision_size", "seed"})
    made_from: dict[str, Any] = {"version": _VERSION, "settings": settings, "unique": unique}
    if isinstance(config.quantiser, FileCodes):
        made_from |= {"items": ["", *data.ids], "file": _digest_of(config.quantiser.path)}
    else:
        made_from["vectors"] = embedding_key(data, config.encoder)
        made_from["train"] = digest(data.fitted_on.tolist())
        libraries = ("faiss-cpu", "numpy", "scikit-learn", "scipy", "torch")
        made_from["libraries"] = {name: _version(name) for name in libraries}
    return digest(made_from)


def _version(package: str) -> str:
    if package == "faiss-cpu":  # the GPU build goes by another name
        import faiss

        return faiss.__version__
    return version(package)


def _digest_of(path: str) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(
            f"items.quantiser.path {path}: {(error.strerror or str(error)).lower()}; give an existing file"
        ) from None


def _store(path: Path, made: ItemCodes) -> None:
    text = json.dumps({"sizes": made.sizes, "quality": made.quality, "fingerprint": made.fingerprint})
    small = made.codes.astype(np.min_scalar_type(max(made.sizes) - 1))  # mostly a byte a code
    with whole_file(path) as aside:
        aside.write_bytes(save({"codes": small}, metadata={"json": text}))


def _load(path: Path) -> ItemCodes | None:
    """What was stored, or None if there is nothing or it was damaged since: then it is made again."""
    try:
        codes, rest = read_tensors(path, "", only=["codes"])["codes"], read_metadata(path, "json", "")
        rest["quality"].setdefault("warnings", shared_codes(rest["quality"]))  # stored before there were any
        found = ItemCodes(codes.astype(np.int64), tuple(rest["sizes"]), rest["quality"])
        return found if found.fingerprint == rest["fingerprint"] else None
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _make(data: ItemData, unique: bool, cache: Path | None, progress: Callable[[str], None] | None) -> ItemCodes:
    log, config = data.log, data.config
    quantiser = config.quantiser
    extra: dict[str, Any] = {"quantiser": quantiser.kind, "fit_on": config.fit_on}
    warnings: list[str] = []
    if isinstance(quantiser, FileCodes):
        codes = read_index(log.items, quantiser)  # (I, m)
        extra = {"quantiser": "file", "residual": True}
    else:
        from harness.items.quantisers import quantise

        where = None if cache is None else Path(cache) / "vectors"
        vectors = embed(data, config.encoder, cache=where, warn=warnings.append)
        made = quantise(vectors, data.fitted_on - 1, quantiser, seed=config.seed, progress=progress)
        codes = made.codes  # (I, m)
        extra |= {"fitted_on": len(data.fitted_on), "residual": isinstance(quantiser, (ResidualKMeans, ResidualVAE))}
        extra |= {"moved": made.moved, **loss_quality(made.input, made.reconstruction)}
    sizes = (quantiser.size,) * codes.shape[1]
    quality = code_quality(codes, sizes) | extra

    colliding = quality["distinct"] < 1
    if config.collisions == "level" or (unique and not isinstance(quantiser, FileCodes)):
        codes = np.column_stack([codes, _collision_level(codes, config.collision_size, log)])  # (I, m + 1)
        sizes = (*sizes, config.collision_size)
    elif isinstance(quantiser, FileCodes) and unique and colliding:
        raise InputError(_collision_message(codes, log, quantiser))
    quality["collision_level"] = len(sizes) > len(quality["levels"])
    quality["warnings"] = [*warnings, *shared_codes(quality)]
    return ItemCodes(np.concatenate([np.zeros_like(codes[:1]), codes]), sizes, quality)


def _collision_level(codes: np.ndarray, size: int, log: EventLog) -> np.ndarray:
    """(I,) int64: 0, 1, 2, ... among the items with equal codes, by ascending dense id."""
    _, group = np.unique(codes, axis=0, return_inverse=True)  # (I,)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    most = int(lengths.max())
    if most > size:
        first = log.items[1 + order[starts[lengths.argmax()]]]
        raise InputError(
            f"items: {most} items have the codes of item '{first}', but the collision level tells {size} apart; raise "
            "items.collision_size, add levels to items.quantiser, or give the items texts that differ more"
        )
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return numbers


def _collision_message(codes: np.ndarray, log: EventLog, quantiser: FileCodes) -> str:
    _, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    first, second = np.flatnonzero(group == counts.argmax())[:2] + 1
    return (
        f"items.quantiser.path {quantiser.path}: items '{log.items[first]}' and '{log.items[second]}' have the same "
        f"codes ({counts[counts > 1].sum()} items collide), but this model needs unique ones; "
        "set items.collisions: level"
    )
