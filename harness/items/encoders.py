"""What is known of items -> vectors."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

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
    WordLlama,
)
from harness.items.text import item_texts
from harness.items.vector_file import read_vectors, vector_files
from harness.reading.tensors import read_metadata, read_tensors

if TYPE_CHECKING:
    from harness.data.log import EventLog
    from harness.data.splits import Split

__all__ = ["ItemData", "embed", "embedding_key", "main_axes", "training_items"]

Encoder = TfidfSvd | SentenceEncoder | WordLlama | RandomVectors | Cooccurrence | FileVectors | Fused

_VERSION = 1
"""Counts changes of this module that change vectors, so that no cached ones of before are taken."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]{2}"
)
"""Two letters in a row of a script without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


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


def embed(
    data: ItemData,
    config: Encoder,
    *,
    cache: Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
    where: str = "items.encoder",
) -> np.ndarray:
    """(I, d) float32 vectors of items 1..I; row i belongs to item i + 1.

    Args:
        cache: folder of finished vectors; an entry is named by the hash of all that decides it.
        warn: told of vectors that tell little, a line each; of finished ones, too.
        where: what errors call the encoder.

    Raises:
        InputError: too few items, terms or events for the width asked for, an item that the encoder finds nothing
            on, or an encoder or a file that can't be loaded.
    """
    if isinstance(config, Fused):
        return _side_by_side(data, config, cache, warn, where)
    if isinstance(config, FileVectors):
        return read_vectors(data.ids, config, where)
    if isinstance(config, RandomVectors):
        return np.random.default_rng(data.config.seed).standard_normal((len(data.ids), config.dim), dtype=np.float32)
    path = None if cache is None else Path(cache) / f"{embedding_key(data, config)}.safetensors"
    found = None if path is None else _load(path)
    if found is None:
        warnings: list[str] = []
        made = _encode(data, config, warnings.append, where)
        found = np.ascontiguousarray(made, dtype=np.float32), warnings
        if path is not None:
            with whole_file(path) as aside:
                aside.write_bytes(save({"vectors": found[0]}, metadata={"warnings": json.dumps(warnings)}))
    for line in found[1]:
        warn(line)
    return found[0]


def _load(path: Path) -> tuple[np.ndarray, list[str]] | None:
    """Stored vectors and the warnings of when they were made; None where there are none, or damaged ones."""
    try:
        vectors = read_tensors(path, "", only=["vectors"])["vectors"]
    except InputError:
        return None
    try:
        return vectors, read_metadata(path, "warnings", "", list[str])
    except InputError:  # stored before there were any
        return vectors, []


def embedding_key(data: ItemData, config: Encoder) -> str:
    """The hash of everything that decides the vectors, library versions included."""
    settings = config.model_dump(mode="json", exclude={"analyzer", "char_ngrams"})
    made_from: dict[str, Any] = {"version": _VERSION, "encoder": settings}
    if isinstance(config, Fused):
        made_from["parts"] = [embedding_key(data, part) for part in config.parts]
    if isinstance(config, RandomVectors):
        made_from |= {"items": len(data.ids), "seed": data.config.seed}
    if isinstance(config, FileVectors):
        made_from |= {"items": data.ids, "files": [file_digest(file) for file in vector_files(config)]}
    if isinstance(config, (TfidfSvd, SentenceEncoder, WordLlama)):
        made_from["texts"] = digest(["", *data.texts])
    if isinstance(config, TfidfSvd):
        made_from["train"] = digest(data.fitted_on.tolist())
        if _by_characters(_fitted_texts(data), config):
            settings["char_ngrams"] = config.char_ngrams
    if isinstance(config, WordLlama):
        _require("wordllama", "wordllama", config)
        made_from["libraries"] = {name: version(name) for name in ("numpy", "tokenizers", "wordllama")}
    if isinstance(config, Cooccurrence):
        made_from |= {"items": len(data.ids), "events": data.events}
    if isinstance(config, (TfidfSvd, Cooccurrence)):
        made_from["seed"] = data.config.seed
        made_from["libraries"] = {name: version(name) for name in ("numpy", "scikit-learn", "scipy")}
    if isinstance(config, SentenceEncoder):
        _require("sentence_transformers", "text", config)
        made_from["libraries"] = {name: version(name) for name in ("sentence-transformers", "torch", "transformers")}
        folder = Path(config.model)
        if folder.is_dir():  # its name says nothing about its content
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            made_from["model"] = {str(file.relative_to(folder)): file_digest(file) for file in files}
    return digest(made_from)


def _encode(data: ItemData, config: Encoder, warn: Callable[[str], None], where: str) -> np.ndarray:
    if isinstance(config, Cooccurrence):
        return _cooccurrence(data, config, where)
    if isinstance(config, TfidfSvd):
        return _tfidf_svd(data.texts, _fitted_texts(data), config, data.config.seed, warn, where)
    if isinstance(config, WordLlama):
        return _word_llama(data.texts, config)
    assert isinstance(config, SentenceEncoder), "the other kinds are not computed from the data alone"
    return _sentences(data.texts, config, where)


def _side_by_side(
    data: ItemData, config: Fused, cache: Path | None, warn: Callable[[str], None], where: str
) -> np.ndarray:
    from sklearn.preprocessing import normalize

    weights = config.weights or (1.0,) * len(config.parts)
    blocks = [
        weight * normalize(embed(data, part, cache=cache, warn=warn, where=f"{where}.parts[{number}]"))
        for number, (part, weight) in enumerate(zip(config.parts, weights, strict=True))
    ]
    return np.concatenate(blocks, axis=1, dtype=np.float32)  # (I, sum of widths)


def _cooccurrence(data: ItemData, config: Cooccurrence, where: str) -> np.ndarray:
    rows = ppmi(data.log, data.split, config.context, config.window)[1:, 1:]  # (I, I)
    room = int((np.diff(rows.indptr) > 0).sum()) - 1
    if config.dim > room:
        remedy = f"set {where}.dim: {room}" if room > 0 else "take an encoder that reads texts"
        raise InputError(
            f"{where}.dim is {config.dim}, but only {room + 1} items have companions in the users' training events, "
            f"which allow at most {max(room, 0)}; {remedy}"
        )
    return main_axes(rows, rows, config.dim, data.config.seed)


def main_axes(fitted: Any, rows: Any, dim: int, seed: int) -> np.ndarray:
    """Sparse ``rows`` (I, D) on the ``dim`` main axes of ``fitted`` (n, D), scaled to length 1 (or 0: an empty row)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the order of a sum must not depend on the number of threads
        return normalize(TruncatedSVD(dim, n_iter=7, random_state=seed).fit(fitted).transform(rows))  # (I, dim)


def _fitted_texts(data: ItemData) -> list[str]:
    return [data.texts[item - 1] for item in data.fitted_on]


def _by_characters(texts: Sequence[str], config: TfidfSvd) -> bool:
    """Whether terms are sequences of characters, not words."""
    return _unspaced_share(texts) > 0.5 if config.analyzer == "auto" else config.analyzer == "char"


def _unspaced_share(texts: Sequence[str]) -> float:
    """The share of texts in a script without spaces between words."""
    return sum(_UNSPACED.search(text) is not None for text in texts) / max(1, len(texts))


def _tfidf_svd(
    texts: Sequence[str],
    train: Sequence[str],
    config: TfidfSvd,
    seed: int,
    warn: Callable[[str], None],
    where: str,
) -> np.ndarray:
    """(I, dim) vectors of ``texts`` (I), fitted on the texts ``train`` (n)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    characters = _by_characters(train, config)
    words = TfidfVectorizer(
        analyzer="char_wb" if characters else "word",
        ngram_range=config.char_ngrams if characters else config.ngrams,
        min_df=config.min_items,
        max_features=config.max_terms,
        sublinear_tf=True,
        stop_words=None if characters else "english",
        dtype=np.float64,
    )
    if not characters:
        analyse = words.build_analyzer()
        items = Counter(term for text in train for term in set(analyse(text)))  # word -> items that have it
        # Of occurrences, not of words: about half of the words of any collection occur once (Zipf), and do no harm.
        rare = sum(count == 1 for count in items.values()) / max(1, items.total())
        if rare <= 0.5 and (unspaced := _unspaced_share(train)) > 0.05:
            warn(
                f"TF-IDF: {unspaced:.0%} of the items' texts are in a script without spaces between words, where a "
                "whole phrase counts as one word, so their vectors say little; set analyzer: char"
            )
        if rare > 0.5:
            warn(
                f"TF-IDF: {rare:.0%} of the words of the items' texts stand in one item only, so the vectors say "
                "little of which items are alike; set analyzer: char, name more columns in items.text.fields, or take "
                "items.encoder.kind: cooccurrence"
            )
    try:
        fitted = words.fit_transform(train)  # (n, terms)
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
    return main_axes(fitted, words.transform(texts), config.dim, seed)  # (I, d)


def _require(package: str, extra: str, config: Encoder) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"items.encoder.kind '{config.kind}' needs the package {package.replace('_', '-')}; "
            f"install it with: pip install 'harness[{extra}]'"
        )


def _word_llama(texts: Sequence[str], config: WordLlama) -> np.ndarray:
    _require("wordllama", "wordllama", config)
    level, handlers = logging.root.level, logging.root.handlers[:]
    import wordllama

    logging.root.setLevel(level)  # which the package changes for everybody
    logging.root.handlers[:] = handlers
    # It looks for its own tokenizer in a folder of another name, and would download it; as a cache its folder fits.
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, trunc_dim=config.dim, disable_download=True)
    return model.embed(list(texts))  # (I, dim)


def _sentences(texts: Sequence[str], config: SentenceEncoder, where: str) -> np.ndarray:
    _require("sentence_transformers", "text", config)
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
