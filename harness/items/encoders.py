"""Item texts -> vectors."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from harness.errors import InputError
from harness.files import digest, file_digest, whole_file
from harness.items.config import RandomVectors, SentenceEncoder, TfidfSvd

__all__ = ["embed", "text_digest"]

Encoder = TfidfSvd | SentenceEncoder | RandomVectors

_VERSION = 1
"""Counts changes of this module that change vectors, so that no cached ones of before are taken."""


def embed(
    texts: Sequence[str], train: np.ndarray, config: Encoder, *, seed: int = 0, cache: Path | None = None
) -> np.ndarray:
    """(I, d) float32 vectors of items 1..I; row i belongs to item i + 1.

    Args:
        texts: (I + 1) texts, the first one of padding.
        train: (n,) dense ids, ascending, of the items that TF-IDF and SVD are fitted on.
        cache: folder of finished vectors; an entry is named by the hash of all that decides it.

    Raises:
        InputError: too few items or terms for the width asked for, or the encoder can't be loaded.
    """
    path = None
    if cache is not None and not isinstance(config, RandomVectors):
        path = Path(cache) / f"{embedding_key(texts, train, config, seed)}.safetensors"
        try:
            return load_file(path)["vectors"]
        except (FileNotFoundError, SafetensorError, KeyError):
            pass  # never made, or damaged since: made (again) below
    vectors = np.ascontiguousarray(_encode(texts, train, config, seed), dtype=np.float32)  # (I, d)
    if path is not None:
        with whole_file(path) as aside:
            aside.write_bytes(save({"vectors": vectors}))
    return vectors


def text_digest(texts: Sequence[str]) -> str:
    """SHA-256 of a list of texts."""
    return digest(list(texts))


def embedding_key(texts: Sequence[str], train: np.ndarray, config: Encoder, seed: int) -> str:
    """The hash of everything that decides the vectors, library versions included."""
    made_from: dict[str, Any] = {"version": _VERSION, "encoder": config.model_dump(mode="json")}
    if isinstance(config, RandomVectors):
        made_from |= {"items": len(texts) - 1, "seed": seed}
    else:
        made_from["texts"] = text_digest(texts)
    if isinstance(config, TfidfSvd):
        made_from |= {"train": digest(train.tolist()), "seed": seed}
        made_from["libraries"] = {name: version(name) for name in ("numpy", "scikit-learn", "scipy")}
    if isinstance(config, SentenceEncoder):
        _require_sentence_transformers()
        made_from["libraries"] = {name: version(name) for name in ("sentence-transformers", "torch", "transformers")}
        folder = Path(config.model)
        if folder.is_dir():  # its name says nothing about its content
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            made_from["model"] = {str(file.relative_to(folder)): file_digest(file) for file in files}
    return digest(made_from)


def _encode(texts: Sequence[str], train: np.ndarray, config: Encoder, seed: int) -> np.ndarray:
    if isinstance(config, RandomVectors):
        return np.random.default_rng(seed).standard_normal((len(texts) - 1, config.dim), dtype=np.float32)
    if isinstance(config, TfidfSvd):
        return _tfidf_svd(texts, train, config, seed)
    return _sentences(texts, config)


def _tfidf_svd(texts: Sequence[str], train: np.ndarray, config: TfidfSvd, seed: int) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

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
            f"items.encoder: TF-IDF finds no terms ({error}); lower items.encoder.min_items or use other text fields"
        ) from None
    room = min(fitted.shape) - 1
    if config.dim > room:
        remedy = f"set items.encoder.dim: {room} or less" if room else "give the items texts that differ"
        raise InputError(
            f"items.encoder.dim is {config.dim}, but {fitted.shape[0]} items to fit on with {fitted.shape[1]} terms "
            f"allow at most {room}; {remedy}"
        )
    with threadpool_limits(1):  # the order of a sum must not depend on the number of threads
        svd = TruncatedSVD(config.dim, n_iter=7, random_state=seed).fit(fitted)
        return normalize(svd.transform(words.transform(texts[1:])))  # (I, d), rows of length 1 (or 0: no known term)


def _require_sentence_transformers() -> None:
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError(
            "items.encoder.kind 'sentence-transformer' needs the package sentence-transformers; "
            "install it with: pip install 'harness[text]'"
        )


def _sentences(texts: Sequence[str], config: SentenceEncoder) -> np.ndarray:
    _require_sentence_transformers()
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(config.model, revision=config.revision, device=config.device)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"items.encoder.model '{config.model}' can't be loaded ({reason}); "
            "check the name and the connection, or give the folder of a downloaded model"
        ) from None
    return model.encode(list(texts[1:]), batch_size=config.batch_size, show_progress_bar=True, convert_to_numpy=True)
