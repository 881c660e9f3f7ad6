"""What is known of items -> vectors."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from harness.data.cooccurrence import ppmi
from harness.data.log import fingerprint
from harness.errors import InputError
from harness.files import digest, file_digest, whole_file
from harness.items.config import (
    Cooccurrence,
    FileVectors,
    Fused,
    ItemsConfig,
    RandomVectors,
    SentenceEncoder,
    TfidfSvd,
)
from harness.items.text import item_texts
from harness.items.vector_file import read_vectors, vector_files

if TYPE_CHECKING:
    from harness.data.log import EventLog
    from harness.data.splits import Split

__all__ = ["ItemData", "embed", "embedding_key", "training_items"]

Encoder = TfidfSvd | SentenceEncoder | RandomVectors | Cooccurrence | FileVectors | Fused

_VERSION = 1
"""Counts changes of this module that change vectors, so that no cached ones of before are taken."""


def training_items(log: EventLog, split: Split) -> np.ndarray:
    """(n,) int64, ascending: the dense ids of the items that occur in the training part."""
    _, positions = split.events("train")
    return np.unique(log.item[positions])


@dataclass(frozen=True, eq=False)
class ItemData:
    """What encoders read of a data set. Each part is made when it is first asked for, so that a data set may lack
    what no chosen encoder reads."""

    log: EventLog
    split: Split
    config: ItemsConfig

    @property
    def ids(self) -> list[str]:
        """(I) item ids as in the data."""
        return [str(item) for item in self.log.items[1:]]

    @cached_property
    def texts(self) -> list[str]:
        """(I) texts. Raises InputError as :func:`harness.items.text.item_texts` does."""
        return item_texts(self.log, self.config)[1:]

    @cached_property
    def fitted_on(self) -> np.ndarray:
        """(n,) int64, ascending: the dense ids of the items that ``config.fit_on`` names."""
        if self.config.fit_on == "train":
            return training_items(self.log, self.split)
        return np.arange(1, len(self.log.items))

    @cached_property
    def events(self) -> str:
        """A hash of the events of the training part."""
        users, positions = self.split.events("train")
        return fingerprint(users, self.log.item[positions])


def embed(data: ItemData, config: Encoder, *, cache: Path | None = None, where: str = "items.encoder") -> np.ndarray:
    """(I, d) float32 vectors of items 1..I; row i belongs to item i + 1.

    Args:
        cache: folder of finished vectors; an entry is named by the hash of all that decides it.
        where: what errors call the encoder.

    Raises:
        InputError: too few items, terms or events for the width asked for, an item that the encoder finds nothing
            on, or an encoder or a file that can't be loaded.
    """
    path = None
    if cache is not None and not isinstance(config, (RandomVectors, FileVectors, Fused)):  # as quickly made as read
        path = Path(cache) / f"{embedding_key(data, config)}.safetensors"
        try:
            return load_file(path)["vectors"]
        except (FileNotFoundError, SafetensorError, KeyError):
            pass  # never made, or damaged since: made (again) below
    vectors = np.ascontiguousarray(_encode(data, config, cache, where), dtype=np.float32)  # (I, d)
    if path is not None:
        with whole_file(path) as aside:
            aside.write_bytes(save({"vectors": vectors}))
    return vectors


def embedding_key(data: ItemData, config: Encoder) -> str:
    """The hash of everything that decides the vectors, library versions included."""
    made_from: dict[str, Any] = {"version": _VERSION, "encoder": config.model_dump(mode="json")}
    if isinstance(config, Fused):
        made_from["parts"] = [embedding_key(data, part) for part in config.parts]
    if isinstance(config, RandomVectors):
        made_from |= {"items": len(data.ids), "seed": data.config.seed}
    if isinstance(config, FileVectors):
        made_from |= {"items": data.ids, "files": [file_digest(file) for file in vector_files(config)]}
    if isinstance(config, (TfidfSvd, SentenceEncoder)):
        made_from["texts"] = digest(["", *data.texts])
    if isinstance(config, TfidfSvd):
        made_from["train"] = digest(data.fitted_on.tolist())
    if isinstance(config, Cooccurrence):
        made_from |= {"items": len(data.ids), "events": data.events}
    if isinstance(config, (TfidfSvd, Cooccurrence)):
        made_from["seed"] = data.config.seed
        made_from["libraries"] = {name: version(name) for name in ("numpy", "scikit-learn", "scipy")}
    if isinstance(config, SentenceEncoder):
        _require_sentence_transformers()
        made_from["libraries"] = {name: version(name) for name in ("sentence-transformers", "torch", "transformers")}
        folder = Path(config.model)
        if folder.is_dir():  # its name says nothing about its content
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            made_from["model"] = {str(file.relative_to(folder)): file_digest(file) for file in files}
    return digest(made_from)


def _encode(data: ItemData, config: Encoder, cache: Path | None, where: str) -> np.ndarray:
    if isinstance(config, Fused):
        return _side_by_side(data, config, cache, where)
    if isinstance(config, RandomVectors):
        return np.random.default_rng(data.config.seed).standard_normal((len(data.ids), config.dim), dtype=np.float32)
    if isinstance(config, FileVectors):
        return read_vectors(data.ids, config, where)
    if isinstance(config, Cooccurrence):
        return _cooccurrence(data, config, where)
    if isinstance(config, TfidfSvd):
        return _tfidf_svd(data.texts, data.fitted_on - 1, config, data.config.seed, where)
    return _sentences(data.texts, config, where)


def _side_by_side(data: ItemData, config: Fused, cache: Path | None, where: str) -> np.ndarray:
    from sklearn.preprocessing import normalize

    weights = config.weights or (1.0,) * len(config.parts)
    return np.concatenate(
        [
            weight * normalize(embed(data, part, cache=cache, where=f"{where}.parts[{number}]"))
            for number, (part, weight) in enumerate(zip(config.parts, weights, strict=True))
        ],
        axis=1,
    )  # (I, sum of widths)


def _cooccurrence(data: ItemData, config: Cooccurrence, where: str) -> np.ndarray:
    rows = ppmi(data.log, data.split, config.context, config.window)[1:, 1:]  # (I, I)
    room = int((np.diff(rows.indptr) > 0).sum()) - 1
    if config.dim > room:
        remedy = f"set {where}.dim: {room}" if room > 0 else "take an encoder that reads texts"
        raise InputError(
            f"{where}.dim is {config.dim}, but only {room + 1} items have companions in the users' training events, "
            f"which allow at most {max(room, 0)}; {remedy}"
        )
    return _svd(rows, rows, config.dim, data.config.seed)


def _svd(fitted: Any, rows: Any, dim: int, seed: int) -> np.ndarray:
    """Sparse ``rows`` (I, D) on the ``dim`` main axes of ``fitted`` (n, D), scaled to length 1 (or 0: an empty row)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the order of a sum must not depend on the number of threads
        return normalize(TruncatedSVD(dim, n_iter=7, random_state=seed).fit(fitted).transform(rows))  # (I, dim)


def _tfidf_svd(texts: Sequence[str], train: np.ndarray, config: TfidfSvd, seed: int, where: str) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        ngram_range=config.ngrams,
        min_df=config.min_items,
        max_features=config.max_terms,
        sublinear_tf=True,
        stop_words="english",
        dtype=np.float64,
    )
    try:
        fitted = words.fit_transform([texts[item] for item in train])  # (n, terms)
    except ValueError as error:
        raise InputError(
            f"{where}: TF-IDF finds no terms ({error}); lower {where}.min_items or use other text fields"
        ) from None
    room = min(fitted.shape) - 1
    if config.dim > room:
        remedy = f"set {where}.dim: {room} or less" if room else "give the items texts that differ"
        raise InputError(
            f"{where}.dim is {config.dim}, but {fitted.shape[0]} items to fit on with {fitted.shape[1]} terms "
            f"allow at most {room}; {remedy}"
        )
    return _svd(fitted, words.transform(texts), config.dim, seed)  # (I, d)


def _require_sentence_transformers() -> None:
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError(
            "items.encoder.kind 'sentence-transformer' needs the package sentence-transformers; "
            "install it with: pip install 'harness[text]'"
        )


def _sentences(texts: Sequence[str], config: SentenceEncoder, where: str) -> np.ndarray:
    _require_sentence_transformers()
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(config.model, revision=config.revision, device=config.device)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{where}.model '{config.model}' can't be loaded ({reason}); "
            "check the name and the connection, or give the folder of a downloaded model"
        ) from None
    return model.encode(list(texts), batch_size=config.batch_size, show_progress_bar=True, convert_to_numpy=True)
