"""Settings of item codes. Imports no numerical library, so that a study file is checked in no time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from harness.errors import InputError, nearest
from harness.settings import Settings, parse

__all__ = [
    "Cooccurrence",
    "FileCodes",
    "FileVectors",
    "Fused",
    "ItemsConfig",
    "OptimisedProduct",
    "Product",
    "RandomVectors",
    "ResidualKMeans",
    "ResidualVAE",
    "SentenceEncoder",
    "TextConfig",
    "TfidfSvd",
    "WordLlama",
]


def _by_kind(*kinds: type[Settings]) -> BeforeValidator:
    """Picks the settings class that the key ``kind`` names; the first one where there is no such key.

    pydantic's own discriminated unions demand the key and put the class's name into the path of every error.
    """
    named = {kind.model_fields["kind"].default: kind for kind in kinds}

    def choose(value: Any) -> Any:
        if isinstance(value, kinds):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"expected keys and values such as {{kind: {next(iter(named))}}}")
        name = value.get("kind", next(iter(named)))
        if not isinstance(name, str) or name not in named:
            raise ValueError(f"unknown kind '{name}'; {nearest(str(name), named)}")
        try:
            return parse(named[name], value, f"kind '{name}'")
        except InputError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(choose)


class TextConfig(Settings):
    """Which columns of the item table make an item's text, and how. By default as the data set says."""

    fields: tuple[str, ...] | None = None
    """Columns, joined by ". " in this order, missing ones left out. None: the data set's own choice."""
    template: str | None = None
    """A sentence with columns in braces, ``"{title}, made by {brand}"``; a missing value leaves a gap."""

    @model_validator(mode="after")
    def _one_of_them(self) -> TextConfig:
        if self.fields is not None and self.template is not None:
            raise ValueError("'fields' and 'template' exclude each other; keep one")
        return self


class TfidfSvd(Settings):
    """TF-IDF of words or characters, reduced by a truncated SVD (latent semantic analysis). Needs no download."""

    kind: Literal["tfidf-svd"] = "tfidf-svd"
    dim: PositiveInt = 256
    ngrams: tuple[PositiveInt, PositiveInt] = (1, 1)
    """Shortest and longest word sequence that counts as a term. Pairs of words let the categories, which many
    items share word for word, drown the rest."""
    analyzer: Literal["word", "char", "auto"] = "auto"
    """Terms are words, or sequences of characters within words; auto: characters where most texts are in a script
    that puts no spaces between words (Chinese, Japanese, Thai, ...), words otherwise."""
    char_ngrams: tuple[PositiveInt, PositiveInt] = (1, 3)
    """Shortest and longest sequence of characters that counts as a term, in place of ``ngrams``. One Chinese
    character is a word or half of one; for alphabets take [3, 5]."""
    min_items: PositiveInt = 2
    """A term counts if at least this many items have it."""
    max_terms: PositiveInt | None = 50_000
    """Keep this many of the most frequent terms; null keeps all."""

    @model_validator(mode="after")
    def _ordered(self) -> TfidfSvd:
        for name in ("ngrams", "char_ngrams"):
            shortest, longest = getattr(self, name)
            if shortest > longest:
                raise ValueError(f"'{name}' is [shortest, longest]; swap the two")
        return self


class SentenceEncoder(Settings):
    """Any sentence-transformers model. Needs the extra ``harness[text]``."""

    kind: Literal["sentence-transformer"] = "sentence-transformer"
    model: str = "sentence-transformers/sentence-t5-base"
    """Name on the Hugging Face hub, or a local folder."""
    revision: str | None = None
    """Commit or tag on the hub; null takes the newest, which may change."""
    device: str = "cpu"
    batch_size: PositiveInt = 64


class WordLlama(Settings):
    """Means of the token vectors that the package wordllama carries, so no download. Needs ``harness[wordllama]``."""

    kind: Literal["wordllama"] = "wordllama"
    dim: Literal[64, 128, 256] = 256
    """The vectors are trained so that their first 64 or 128 numbers do on their own (Matryoshka)."""


class RandomVectors(Settings):
    """Control: vectors, and so codes, that know nothing of the text."""

    kind: Literal["random"] = "random"
    dim: PositiveInt = 128


class Cooccurrence(Settings):
    """Which items the same users have: PPMI over the training part, reduced by a truncated SVD. Needs no text."""

    kind: Literal["cooccurrence"] = "cooccurrence"
    dim: PositiveInt = 128
    context: PositiveInt = 100
    """A user's last so many training events count."""
    window: PositiveInt | None = None
    """Two items co-occur if they are at most so many events apart; null: any two of the context."""


class FileVectors(Settings):
    """Vectors that somebody else made (of images, say), matched by the data's own item ids."""

    kind: Literal["file"] = "file"
    path: str
    """``.npy``: (n, d) numbers. ``.safetensors``: the tensor ``vectors``. ``.parquet``: one column of lists, or else
    all columns of numbers but that of the ids."""
    ids: str | None = None
    """``.npy`` and ``.safetensors``: a text file with the item id of each row, one a line; null: the file of the same
    name that ends in ``.txt``, and for safetensors ``ids`` within (a tensor of whole numbers, or a JSON list in the
    metadata). ``.parquet``: the column of ids; null: ``item_id``."""
    missing: Literal["error", "zero"] = "error"
    """What to do with an item without a vector: refuse, or give it zeros."""
    extra_items: Literal["error", "ignore"] = "error"
    """What to do with ids that are not items of the data."""


_SINGLE = (TfidfSvd, SentenceEncoder, WordLlama, RandomVectors, Cooccurrence, FileVectors)
_Single = Annotated[
    TfidfSvd | SentenceEncoder | WordLlama | RandomVectors | Cooccurrence | FileVectors, _by_kind(*_SINGLE)
]


class Fused(Settings):
    """Several encoders side by side: each part's rows are scaled to length 1, then by the part's weight."""

    kind: Literal["fused"] = "fused"
    parts: tuple[_Single, ...] = Field(default=(TfidfSvd(dim=128), Cooccurrence(dim=128)), min_length=2)
    weights: tuple[PositiveFloat, ...] | None = None
    """Of the parts, in their order; null: all 1. A quantiser that whitens undoes them but for the components that
    its PCA drops."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Fused:
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(f"{len(self.parts)} 'parts' and {len(self.weights)} 'weights'; give each part one weight")
        return self


class _Product(Settings):
    levels: PositiveInt = 8
    """Codes per item, m."""
    size: PositiveInt = 256
    """Codes per level."""
    dim: PositiveInt | None = None
    """Width after the PCA, a multiple of ``levels``; null: the largest one up to 256 that the vectors allow."""
    whiten: bool = True
    """Scale the principal components to variance 1 (RPG, Hou et al., KDD 2025, whose vectors are so made)."""
    iterations: PositiveInt = 25
    """Of each k-means."""

    @model_validator(mode="after")
    def _divisible(self) -> _Product:
        if self.dim is not None and self.dim % self.levels:
            raise ValueError(f"'dim' {self.dim} is not a multiple of 'levels' {self.levels}; change one of them")
        return self


class OptimisedProduct(_Product):
    """Optimised product quantisation (Ge et al., CVPR 2013), by faiss: RPG's parallel codes."""

    kind: Literal["opq"] = "opq"
    rotations: PositiveInt = 50
    """Alternations of rotation and codebooks, from the principal axes on."""

    @model_validator(mode="after")
    def _power_of_two(self) -> OptimisedProduct:
        if self.size.bit_count() != 1:
            raise ValueError(f"faiss's OPQ needs a power of two as 'size', not {self.size}; kind 'pq' takes any")
        return self


class Product(_Product):
    """Product quantisation (Jegou et al., TPAMI 2011): a k-means in each slice of the vector."""

    kind: Literal["pq"] = "pq"


class _Residual(Settings):
    levels: PositiveInt = 3
    size: PositiveInt = 256
    last_level: Literal["nearest", "distinct"] = "nearest"
    """Each item's nearest code; or, among items that agree in all levels before, different codes at the least
    total distance (what LC-Rec, Zheng et al., ICDE 2024, approximates by Sinkhorn). This is how items are encoded
    and changes nothing in what is fitted, but with "distinct" a code depends on who else is in the catalogue."""


class ResidualKMeans(_Residual):
    """Each level is a k-means of what the levels before it left over."""

    kind: Literal["rkmeans"] = "rkmeans"
    iterations: PositiveInt = 50
    restarts: PositiveInt = 1
    """Runs of each k-means, of which the best is kept."""


class ResidualVAE(_Residual):
    """RQ-VAE (Lee et al., CVPR 2022; item codes: Rajput et al., NeurIPS 2023)."""

    kind: Literal["rqvae"] = "rqvae"
    last_level: Literal["nearest", "distinct"] = "distinct"
    hidden: tuple[PositiveInt, ...] = ()
    """Widths of the encoder's hidden layers; the decoder mirrors them. Empty: both are linear maps, whose codes
    keep more neighbours than those of TIGER's (512, 256, 128) with a latent of 32 (:mod:`harness.items.rqvae`)."""
    latent: PositiveInt = 256
    beta: PositiveFloat = 0.25
    """Weight of the commitment term."""
    epochs: PositiveInt = 60
    batch_size: PositiveInt = 1024
    learning_rate: PositiveFloat = 1e-3
    """Of AdamW, at the start of a cosine down to zero."""
    weight_decay: float = Field(default=1e-4, ge=0)
    sinkhorn: PositiveFloat | None = None
    """Trains the last level on a balanced assignment, with this entropic regularisation; null: on the nearest code."""
    sinkhorn_iterations: PositiveInt = 50
    device: str = "cpu"


class FileCodes(Settings):
    """Codes that somebody else made, in the field's ``*.index.json`` form."""

    kind: Literal["file"] = "file"
    path: str
    size: PositiveInt = 256
    """Codes per level; a larger code in the file is an error."""
    offset: int = 0
    """What to add to a key of the file to get the item's id in the data (1: keys from 0, ids from 1)."""
    extra_items: Literal["error", "ignore"] = "error"
    """What to do with keys that are not items of the data."""


class ItemsConfig(Settings):
    """From what is known of an item to its codes."""

    encoder: Annotated[_Single | Fused, _by_kind(*_SINGLE, Fused)] = TfidfSvd()
    text: TextConfig = TextConfig()
    missing_text: Literal["error", "empty"] = "error"
    """What to do with an item without text: refuse, or encode the empty text."""
    quantiser: Annotated[
        OptimisedProduct | Product | ResidualKMeans | ResidualVAE | FileCodes,
        _by_kind(OptimisedProduct, Product, ResidualKMeans, ResidualVAE, FileCodes),
    ] = OptimisedProduct()
    fit_on: Literal["train", "all"] = "train"
    """Items that vectorisers and quantisers are fitted on: those of the training part, or all. All are encoded."""
    collisions: Literal["keep", "level"] = "keep"
    """Items with equal codes: leave them, or number them in one more level (TIGER's fourth digit)."""
    collision_size: PositiveInt = 256
    """How many items with equal codes that level can tell apart."""
    seed: int = Field(default=0, ge=0)
