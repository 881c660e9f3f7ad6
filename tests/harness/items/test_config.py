from __future__ import annotations

import subprocess
import sys

import pytest

from harness.errors import InputError
from harness.items import config as settings
from harness.items.config import ItemsConfig
from harness.settings import parse

QUANTISERS = [
    settings.OptimisedProduct(levels=16),
    settings.Product(size=100, dim=96),
    settings.ResidualKMeans(last_level="distinct"),
    settings.ResidualVAE(sinkhorn=0.01, hidden=()),
    settings.FileCodes(path="codes.index.json", offset=1),
]
ENCODERS = [
    settings.TfidfSvd(ngrams=(1, 3)),
    settings.SentenceEncoder(model="here"),
    settings.WordLlama(dim=64),
    settings.RandomVectors(dim=8),
    settings.Cooccurrence(window=3),
    settings.FileVectors(path="vectors.npy"),
    settings.Fused(parts=(settings.RandomVectors(), settings.FileVectors(path="v.npy")), weights=(1, 0.5)),
]


@pytest.mark.parametrize("quantiser", QUANTISERS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_dump_and_parse_give_the_same_settings_back(quantiser, encoder):
    config = ItemsConfig(encoder=encoder, quantiser=quantiser)
    assert parse(ItemsConfig, config.model_dump(mode="json"), "items") == config


def test_the_first_kind_is_taken_where_none_is_named():
    config = parse(ItemsConfig, {"quantiser": {"levels": 32}, "encoder": {"dim": 64}}, "items")
    assert config.quantiser == settings.OptimisedProduct(levels=32)
    assert config.encoder == settings.TfidfSvd(dim=64)


def test_parts_are_read_by_their_kinds():
    written = {"kind": "fused", "parts": [{"kind": "cooccurrence", "dim": 8}, {"dim": 4}]}
    parts = (settings.Cooccurrence(dim=8), settings.TfidfSvd(dim=4))
    assert parse(ItemsConfig, {"encoder": written}, "items").encoder == settings.Fused(parts=parts)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"quantiser": {"kind": "rqvea"}}, "did you mean 'rqvae'?"),
        ({"quantiser": {"kind": "rqvae", "betta": 1}}, "did you mean 'beta'?"),
        ({"quantiser": {"kind": "opq", "levels": 8, "dim": 100}}, "'dim' 100 is not a multiple of 'levels' 8"),
        ({"quantiser": {"kind": "opq", "size": 100}}, "power of two"),
        ({"quantiser": {"kind": "file"}}, "the key 'path' is missing"),
        ({"quantiser": "opq"}, "expected keys and values such as {kind: opq}"),
        ({"quantizer": {}}, "did you mean 'quantiser'?"),
        ({"encoder": {"kind": "tfidf-svd", "ngrams": [2, 1]}}, "swap the two"),
        ({"encoder": {"kind": "fused", "parts": [{"kind": "tfidf-svd"}]}}, "parts"),
        ({"encoder": {"kind": "fused", "weights": [1, 2, 3]}}, "2 'parts' and 3 'weights'"),
        ({"encoder": {"kind": "fused", "parts": [{"kind": "fused"}, {}]}}, "unknown kind 'fused'"),
        ({"encoder": {"kind": "fused", "parts": [{"dims": 3}, {}]}}, "did you mean 'dim'?"),
        ({"encoder": {"char_ngrams": [3, 2]}}, "'char_ngrams' is [shortest, longest]"),
        ({"text": {"fields": ["title"], "template": "{title}"}}, "exclude each other"),
        ({"collisions": "digit"}, "collisions"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(values, part):
    with pytest.raises(InputError) as raised:
        parse(ItemsConfig, values, "study.yaml: items")
    assert part in str(raised.value)
    assert str(raised.value).startswith("study.yaml: items")
    assert "\n" not in str(raised.value)


def test_reading_settings_loads_no_numerical_library():
    check = (
        "import sys, harness.items.config; "
        "print(sorted({'torch', 'faiss', 'sklearn', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
