from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer

from harness.data.cooccurrence import ppmi
from harness.errors import InputError
from harness.items import encoders
from harness.items.config import Cooccurrence, Fused, ItemsConfig, RandomVectors, SentenceEncoder, TfidfSvd, WordLlama
from harness.items.encoders import ItemData, embed
from harness.items.text import item_texts

SMALL = TfidfSvd(dim=8, min_items=1)


def vectors(texts, train, encoder, *, seed=0, **options):
    """Of items with these texts, ``train`` being those of the training part; the first text is that of padding."""
    data = SimpleNamespace(
        ids=[f"i{i}" for i in range(1, len(texts))],
        texts=list(texts[1:]),
        fitted_on=np.asarray(train),
        config=ItemsConfig(seed=seed),
    )
    return embed(data, encoder, **options)


@pytest.fixture
def texts(catalogue) -> list[str]:
    return item_texts(catalogue[0], ItemsConfig())


def test_tfidf_svd_keeps_the_cosines_of_the_closest_low_rank_matrix(texts):
    """Truncated SVD against numpy's full one."""
    train = np.arange(1, 51)
    words = TfidfVectorizer(min_df=1, sublinear_tf=True, stop_words="english").fit([texts[i] for i in train])
    every, fitted = words.transform(texts[1:]).toarray(), words.transform([texts[i] for i in train]).toarray()
    axes = np.linalg.svd(fitted, full_matrices=False)[2][:8]
    expected = every @ axes.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = vectors(texts, train, SMALL)
    assert found.dtype == np.float32
    assert found.shape == (60, 8)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)


def test_only_training_items_decide_the_fit(texts):
    train = np.arange(1, 51)
    before = vectors(texts, train, SMALL)
    changed = [*texts[:51], *("words that nobody else has" for _ in texts[51:])]
    np.testing.assert_array_equal(vectors(changed, train, SMALL)[:50], before[:50])


def test_too_few_items_or_terms(texts):
    with pytest.raises(InputError, match=r"set items\.encoder\.dim: 4 or less"):
        vectors(texts, np.arange(1, 6), TfidfSvd(dim=64, min_items=1))
    with pytest.raises(InputError, match=r"items\.encoder\.min_items"):
        vectors(texts, np.arange(1, 6), TfidfSvd(dim=2, min_items=5, ngrams=(3, 3)))


def test_random_vectors_hang_on_the_seed_alone(texts):
    control = RandomVectors(dim=5)
    first = vectors(texts, np.arange(1, 61), control, seed=1)
    np.testing.assert_array_equal(first, vectors([""] * 61, np.arange(1, 3), control, seed=1))
    assert not np.allclose(first, vectors(texts, np.arange(1, 61), control, seed=2))


@pytest.fixture
def behaviour(catalogue) -> ItemData:
    return ItemData(*catalogue, ItemsConfig())


def test_cooccurrence_keeps_the_cosines_of_the_closest_low_rank_matrix(behaviour):
    """Truncated SVD against numpy's full one; the last two items have no training event."""
    rows = ppmi(behaviour.log, behaviour.split).toarray()[1:, 1:]
    left, values, _ = np.linalg.svd(rows)
    expected = (left * values)[:, :50]  # so many that the randomised SVD is exact
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    found = embed(behaviour, Cooccurrence(dim=50))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:58] @ found[:58].T, expected[:58] @ expected[:58].T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1] * 58 + [0] * 2, atol=1e-6)


def test_more_dimensions_than_items_with_companions(behaviour):
    with pytest.raises(InputError, match=r"items\.encoder\.dim is 128, but only 58 items.*set items\.encoder\.dim: 57"):
        embed(behaviour, Cooccurrence())
    behaviour.split.train_end = behaviour.log.offsets[:-1] + 1
    with pytest.raises(InputError, match=r"only 0 items have companions.*take an encoder that reads texts"):
        embed(behaviour, Cooccurrence())


def test_fused_parts_stand_side_by_side(behaviour, tmp_path):
    parts = (SMALL, Cooccurrence(dim=20), RandomVectors(dim=5))
    found = embed(behaviour, Fused(parts=parts, weights=(1, 0.5, 2)), cache=tmp_path)
    assert found.shape == (60, 33)
    lengths = [np.linalg.norm(block, axis=1) for block in np.split(found, [8, 28], axis=1)]
    np.testing.assert_allclose(lengths[0], 1, atol=1e-6)
    np.testing.assert_allclose(lengths[1], [0.5] * 58 + [0] * 2, atol=1e-6)
    np.testing.assert_allclose(lengths[2], 2, atol=1e-6)
    np.testing.assert_allclose(found[:, 8:28], 0.5 * embed(behaviour, parts[1]), atol=1e-6)
    control = embed(behaviour, parts[2])
    np.testing.assert_allclose(found[:, 28:], 2 * control / np.linalg.norm(control, axis=1, keepdims=True), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 2  # a part's entry serves it alone and in any company


def test_a_part_is_named_in_its_errors(behaviour):
    with pytest.raises(
        InputError, match=r"items\.encoder\.parts\[1\]\.dim is 128.*set items\.encoder\.parts\[1\]\.dim: 57"
    ):
        embed(behaviour, Fused(parts=(SMALL, Cooccurrence())))


CHINESE = [  # the second of each pair is the first one's neighbour; no two titles share a word between spaces
    "无线蓝牙耳机", "蓝牙运动耳机", "不锈钢保温杯", "儿童保温杯", "机械键盘", "静音键盘",
    "龙井绿茶", "明前龙井茶", "男士跑步鞋", "女士跑步鞋", "登山背包", "防水背包",
]  # fmt: skip


def neighbours(found: np.ndarray) -> list[int]:
    likeness = found @ found.T
    np.fill_diagonal(likeness, -2)
    return likeness.argmax(1).tolist()


def test_titles_without_spaces_find_their_neighbours_by_characters():
    expected = [place ^ 1 for place in range(12)]
    texts, train = ["", *CHINESE], range(1, 13)
    for analyzer in ("auto", "char"):
        found = vectors(texts, train, TfidfSvd(dim=8, min_items=1, analyzer=analyzer))
        assert neighbours(found) == expected
    by_word = vectors(texts, train, TfidfSvd(dim=8, min_items=1, analyzer="word"))
    assert sum(a == b for a, b in zip(neighbours(by_word), expected, strict=True)) < 6


def test_the_script_of_most_titles_decides(texts):
    """Auto is by word where most titles have spaces, and leaves the entry in the cache as it was before."""
    train = np.arange(1, 61)
    mixed = [*texts[:32], *(f"{title} 保温杯" for title in texts[32:])]
    for titles, kind in ((texts, "word"), (mixed, "word"), ([f"{title} 保温杯" for title in texts], "char")):
        chosen = TfidfSvd(dim=8, min_items=1, analyzer=kind)
        np.testing.assert_array_equal(vectors(titles, train, SMALL), vectors(titles, train, chosen))


def test_terms_of_one_item_only_are_warned_of(texts, tmp_path):
    said: list[str] = []
    by_word = TfidfSvd(dim=8, min_items=1, analyzer="word")
    for _ in range(2):  # made, then found in the cache
        vectors(["", *CHINESE], range(1, 13), by_word, cache=tmp_path, warn=said.append)
    assert said[0] == said[1]
    assert "100% of the words of the items' texts stand in one item only" in said[0]
    assert "set analyzer: char" in said[0]
    vectors(["", *CHINESE], range(1, 13), SMALL, warn=pytest.fail)
    vectors(texts, np.arange(1, 61), SMALL, warn=pytest.fail)


def test_a_minority_of_titles_without_spaces_is_warned_of(texts):
    mixed = [*texts[:41], *(f"{title} 保温杯" for title in texts[41:])]
    said: list[str] = []
    vectors(mixed, np.arange(1, 61), SMALL, warn=said.append)
    assert len(said) == 1
    assert said[0].startswith("TF-IDF: 33% of the items' texts are in a script without spaces")


def test_word_llama_is_the_mean_of_token_vectors():
    """Against the package's own table and tokenizer, with the network cut off."""
    package = Path(pytest.importorskip("wordllama", reason="the extra harness[wordllama] is not installed").__file__)
    table = load_file(package.parent / "weights/l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(package.parent / "tokenizers/l2_supercat_tokenizer_config.json"))
    texts = ["", "green tea", "a longer text about a road bike's brakes", "", "black tea"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
        level, handlers = logging.root.level, logging.root.handlers[:]
        found = vectors(texts, [1], WordLlama())
        narrow = vectors(texts, [1], WordLlama(dim=64))
        assert (logging.root.level, logging.root.handlers) == (level, handlers)
    for row, text in zip(found, texts[1:], strict=True):
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        np.testing.assert_allclose(row, table[tokens].mean(0) if tokens else np.zeros(256), atol=1e-5)
    np.testing.assert_array_equal(narrow, found[:, :64])


def test_missing_word_llama_names_the_extra(texts, monkeypatch, tmp_path):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    for cache in (None, tmp_path):
        with pytest.raises(InputError, match=r"package wordllama.*pip install 'harness\[wordllama\]'"):
            vectors(texts, [1], WordLlama(), cache=cache)


def test_cache_is_hit_by_equal_content_alone(texts, tmp_path, monkeypatch):
    train = np.arange(1, 61)
    first = vectors(texts, train, SMALL, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    vectors([*texts[:-1], "another text"], train, SMALL, cache=tmp_path)
    vectors(texts, train[1:], SMALL, cache=tmp_path)
    vectors(texts, train, SMALL, seed=1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(encoders, "_encode", lambda *_: pytest.fail("made again"))
    assert vectors(texts, train, SMALL, cache=tmp_path).tobytes() == first.tobytes()
    entry.write_bytes(entry.read_bytes()[:100])
    monkeypatch.undo()
    assert vectors(texts, train, SMALL, cache=tmp_path).tobytes() == first.tobytes()


def test_missing_sentence_transformers_names_the_extra(texts, monkeypatch):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'harness\[text\]'") as raised:
        vectors(texts, np.arange(1, 61), SentenceEncoder())
    assert "\n" not in str(raised.value)


def test_sentence_encoder_is_asked_for_items_in_order(texts, monkeypatch):
    """With a stand-in for the package, so that this is tested where it is not installed."""
    asked = {}

    class StandIn:
        def __init__(self, model, revision, device):
            asked.update(model=model, revision=revision, device=device)

        def encode(self, sentences, batch_size, show_progress_bar, convert_to_numpy):
            asked.update(sentences=sentences, batch_size=batch_size, bar=show_progress_bar)
            return np.array([[len(sentence), 1.0] for sentence in sentences])

    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = StandIn
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(encoders, "_require", lambda *_: None)
    found = vectors(texts, np.arange(1, 3), SentenceEncoder(model="some/model", revision="v1", batch_size=7))
    assert asked.pop("sentences") == texts[1:]
    assert asked == {"model": "some/model", "revision": "v1", "device": "cpu", "batch_size": 7, "bar": True}
    np.testing.assert_array_equal(found[:, 0], [len(text) for text in texts[1:]])


@pytest.fixture(scope="module")
def local_model(tmp_path_factory):
    """A tiny untrained BERT; sentence-transformers puts mean pooling on top of a plain network."""
    pytest.importorskip("sentence_transformers", reason="the extra harness[text] is not installed")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    words = ["tea", "bike", "lamp", "green", "black", "desk", "floor", "wheel", "chain"]
    vocabulary = tmp_path_factory.mktemp("words") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tokenizer = BertTokenizerFast(vocab=str(vocabulary))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertModel(BertConfig(vocab_size=len(words) + 5, **sizes))
    bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_sentence_transformers_model(local_model, tmp_path):
    """Against the mean of the same network's last hidden states, computed with transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["", "green tea", "black bike chain", "desk lamp"]
    config = SentenceEncoder(model=str(local_model), batch_size=2)
    found = vectors(texts, np.arange(1, 4), config, cache=tmp_path)
    network, tokenizer = AutoModel.from_pretrained(local_model).eval(), AutoTokenizer.from_pretrained(local_model)
    for row, text in zip(found, texts[1:], strict=True):
        with torch.no_grad():
            expected = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert vectors(texts, np.arange(1, 3), config, cache=tmp_path).tobytes() == found.tobytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_is_not_there(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra harness[text] is not installed")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="can't be loaded") as raised:
        vectors(["", "a"], np.arange(1, 2), SentenceEncoder(model=str(empty)))
    assert "\n" not in str(raised.value)
