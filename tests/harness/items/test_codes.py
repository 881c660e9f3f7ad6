from __future__ import annotations

import errno
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from harness.errors import InputError
from harness.items import codes as module
from harness.items.codes import ItemCodes, item_codes
from harness.items.config import (
    Cooccurrence,
    FileCodes,
    FileVectors,
    Fused,
    ItemsConfig,
    OptimisedProduct,
    Product,
    RandomVectors,
    ResidualKMeans,
    ResidualVAE,
    TfidfSvd,
)
from harness.items.encoders import ItemData, embed, training_items
from harness.items.index_file import write_index

ENCODER = TfidfSvd(dim=12, min_items=1)
KINDS = {
    "opq": OptimisedProduct(levels=3, size=8, rotations=3),
    "pq": Product(levels=3, size=6),
    "rkmeans": ResidualKMeans(size=4),
    "rkmeans, distinct": ResidualKMeans(size=4, last_level="distinct"),
    "rqvae": ResidualVAE(size=4, hidden=(16,), latent=4, epochs=3, last_level="nearest"),
}


BEHAVIOUR = {
    "cooccurrence": Cooccurrence(dim=12),
    "near": Cooccurrence(dim=12, window=1),
    "fused": Fused(parts=(ENCODER, Cooccurrence(dim=12))),
}


def config(kind: str = "rkmeans", **more) -> ItemsConfig:
    return ItemsConfig(encoder=ENCODER, quantiser=KINDS[kind], **more)


def make(catalogue, settings: ItemsConfig, *, unique: bool = False, cache: Path | None = None) -> ItemCodes:
    return item_codes(*catalogue, settings, unique=unique, cache=cache)


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_form(catalogue, kind):
    found = make(catalogue, config(kind))
    assert found.codes.dtype == np.int64
    assert found.codes.shape == (61, 3)
    assert found.sizes == (KINDS[kind].size,) * 3
    assert not found.codes[0].any()
    assert (found.codes >= 0).all()
    assert (found.codes < found.sizes).all()
    assert found.quality["fitted_on"] == 58
    assert 0 < found.quality["error"] < (2 if kind == "rqvae" else 1)  # three epochs teach a network little
    assert found.quality["residual"] == kind.startswith("r")


def test_training_items_are_those_of_the_training_part(catalogue):
    log, split = catalogue
    expected = set()
    for start, end in zip(log.offsets[:-1], split.train_end, strict=True):
        expected |= set(log.item[start:end].tolist())
    np.testing.assert_array_equal(training_items(log, split), sorted(expected))
    assert 60 not in expected
    split.train_end = log.offsets[:-1].copy()  # a user, or all, may have no training part
    split.train_end[2] += 1
    assert training_items(log, split).tolist() == [log.item[log.offsets[2]]]


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_on_training_items_ignores_the_texts_of_others(catalogue, kind):
    log, _ = catalogue
    before = make(catalogue, config(kind)).codes
    everything = make(catalogue, config(kind, fit_on="all"))
    assert everything.quality["fitted_on"] == 60
    log.item_table.loc[60, "title"] = "chain saddle desk teapot"
    np.testing.assert_array_equal(make(catalogue, config(kind)).codes[:60], before[:60])


@pytest.mark.parametrize("encoder", BEHAVIOUR)
@pytest.mark.parametrize("fit_on", ["train", "all"])
def test_validation_and_test_events_decide_nothing(catalogue, encoder, fit_on):
    """The events after the training part are poisoned: other items, in other orders."""
    log, split = catalogue
    settings = ItemsConfig(encoder=BEHAVIOUR[encoder], quantiser=KINDS["opq"], fit_on=fit_on)
    before = make(catalogue, settings)
    vectors = embed(ItemData(log, split, settings), settings.encoder)
    held_out = np.setdiff1d(np.arange(len(log.item)), split.events("train")[1])
    assert len(held_out) == 60
    log.item[held_out] = np.random.default_rng(1).integers(1, 61, 60)
    assert embed(ItemData(log, split, settings), settings.encoder).tobytes() == vectors.tobytes()
    assert make(catalogue, settings).fingerprint == before.fingerprint
    log.item[split.events("train")[1][:60]] = 3  # the training part does decide
    assert make(catalogue, settings).fingerprint != before.fingerprint


def test_behaviour_needs_no_text(catalogue, tmp_path):
    log, _ = catalogue
    log.item_table, log.text_fields = None, ()
    settings = ItemsConfig(encoder=BEHAVIOUR["cooccurrence"], quantiser=KINDS["opq"])
    found = make(catalogue, settings, cache=tmp_path)
    assert make(catalogue, settings, cache=tmp_path).fingerprint == found.fingerprint
    with pytest.raises(InputError, match=r"no item text.*items\.encoder\.kind: cooccurrence"):
        make(catalogue, ItemsConfig(encoder=BEHAVIOUR["fused"], quantiser=KINDS["opq"]))


def test_ready_vectors_are_told_apart_by_content(catalogue, tmp_path):
    log, _ = catalogue
    log.item_table = None
    rows = np.random.default_rng(0).standard_normal((60, 12)).astype(np.float32)
    (tmp_path / "vectors.txt").write_text("\n".join(log.items[:0:-1]))  # the last item first
    settings = ItemsConfig(encoder=FileVectors(path=str(tmp_path / "vectors.npy")), quantiser=KINDS["opq"])
    prints = []
    for content in (rows, rows[::-1], rows):
        np.save(tmp_path / "vectors.npy", content)
        np.testing.assert_array_equal(embed(ItemData(*catalogue, settings), settings.encoder), content[::-1])
        prints.append(make(catalogue, settings, cache=tmp_path / "cache").fingerprint)
    assert prints[0] == prints[2] != prints[1]
    assert len(entries(tmp_path / "cache")) == 2


def test_collision_level_numbers_equal_codes_in_item_order(catalogue):
    plain = make(catalogue, config()).codes
    found = make(catalogue, config(collisions="level", collision_size=50))
    np.testing.assert_array_equal(found.codes[:, :3], plain)
    assert found.sizes == (4, 4, 4, 50)
    assert found.quality["collision_level"]
    seen: dict[tuple, int] = defaultdict(int)
    for row in found.codes[1:].tolist():
        assert row[3] == seen[tuple(row[:3])]
        seen[tuple(row[:3])] += 1
    assert max(seen.values()) > 1
    assert len(np.unique(found.codes[1:], axis=0)) == 60


@pytest.mark.parametrize("kind", KINDS)
def test_unique_codes_are_unique(catalogue, kind):
    found = make(catalogue, config(kind), unique=True)
    assert found.codes.shape == (61, 4)
    assert len(np.unique(found.codes[1:], axis=0)) == 60


def test_few_items_with_codes_of_their_own_are_warned_of(catalogue, tmp_path):
    said: list[str] = []
    few = ItemsConfig(encoder=ENCODER, quantiser=Product(levels=2, size=3))
    for _ in range(2):  # made, then found in the cache
        found = item_codes(*catalogue, few, unique=False, cache=tmp_path, progress=said.append)
    (warning,) = found.quality["warnings"]
    assert said == [f"warning: {warning}"] * 2
    _, holders = np.unique(found.codes[1:], axis=0, return_counts=True)
    assert f"only {(holders == 1).sum() / 60:.1%} of 60 items" in warning
    assert f"up to {holders.max()} share" in warning
    assert make(catalogue, few.model_copy(update={"collisions": "level"})).quality["warnings"] == []
    enough = ItemsConfig(encoder=RandomVectors(dim=16), quantiser=Product(levels=8, size=8))
    assert make(catalogue, enough).quality["warnings"] == []


def test_codes_stored_before_there_were_warnings(catalogue, tmp_path, monkeypatch):
    few = ItemsConfig(encoder=ENCODER, quantiser=Product(levels=2, size=3))
    monkeypatch.setattr(module, "_store", lambda path, made, store=module._store: store(path, without(made)))

    def without(made):
        return ItemCodes(made.codes, made.sizes, {k: v for k, v in made.quality.items() if k != "warnings"})

    first = make(catalogue, few, cache=tmp_path)
    assert make(catalogue, few, cache=tmp_path).quality["warnings"] == first.quality["warnings"] != []


def test_more_collisions_than_the_level_holds(catalogue):
    log, _ = catalogue
    log.item_table.loc[[5, 8, 11, 14], ["title", "kind"]] = ["bike chain", "bike"]
    with pytest.raises(InputError, match=r"items have the codes of item 'i\d+'.*tells 3 apart; raise items.collision_"):
        make(catalogue, config(collision_size=3), unique=True)


def test_more_codes_than_training_items(catalogue):
    with pytest.raises(InputError, match=r"items\.quantiser\.size: 32 or less"):
        make(catalogue, ItemsConfig(encoder=ENCODER))


def test_controls_need_no_text(catalogue, tmp_path):
    log, _ = catalogue
    control = ItemsConfig(encoder=RandomVectors(dim=16), quantiser=Product(levels=4, size=8))
    log.item_table, log.text_fields = None, ()
    found = make(catalogue, control, cache=tmp_path)
    assert found.codes.shape == (61, 4)
    assert make(catalogue, control, cache=tmp_path).fingerprint == found.fingerprint
    assert make(catalogue, control.model_copy(update={"seed": 1})).fingerprint != found.fingerprint
    with pytest.raises(InputError, match="no item text"):
        make(catalogue, config())


@pytest.mark.parametrize("kind", KINDS)
def test_cache_hit_is_byte_identical_and_makes_nothing(catalogue, kind, tmp_path, monkeypatch):
    first = make(catalogue, config(kind), cache=tmp_path)
    files = {path: path.read_bytes() for path in entries(tmp_path)}
    assert len(files) == 2
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("made again"))
    second = make(catalogue, config(kind), cache=tmp_path)
    assert second.codes.tobytes() == first.codes.tobytes()
    assert (second.sizes, second.quality, second.fingerprint) == (first.sizes, first.quality, first.fingerprint)
    assert {path: path.read_bytes() for path in entries(tmp_path)} == files


def test_whatever_decides_the_codes_is_in_the_key(catalogue, tmp_path, monkeypatch):
    log, split = catalogue
    for settings in (
        config(),
        config(seed=1),
        config(fit_on="all"),
        config("pq"),
        config(collisions="level"),
        config(missing_text="empty"),  # the same texts come out: the same entry
    ):
        make(catalogue, settings, cache=tmp_path)
    make(catalogue, config(), unique=True, cache=tmp_path)
    log.item_table.loc[1, "title"] += " more"
    make(catalogue, config(), cache=tmp_path)
    split.train_end = split.train_end - 2
    make(catalogue, config(), cache=tmp_path)
    monkeypatch.setattr(module, "_version", lambda package: "another")
    make(catalogue, config(), cache=tmp_path)
    assert len(entries(tmp_path / "codes")) == 9


@pytest.mark.parametrize(
    ("raised", "seen", "part"),
    [(KeyboardInterrupt(), KeyboardInterrupt, None), (OSError(errno.ENOSPC, "full"), InputError, "the disk is full")],
)
def test_interrupted_write_leaves_nothing(catalogue, tmp_path, monkeypatch, raised, seen, part):
    whole = Path.write_bytes

    def half(path, data):
        whole(path, data[: len(data) // 2])
        raise raised

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(seen, match=part):
        make(catalogue, config(), cache=tmp_path)
    assert entries(tmp_path) == []
    monkeypatch.undo()
    make(catalogue, config(), cache=tmp_path)
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_damaged_entry_is_made_again(catalogue, tmp_path, damage):
    first = make(catalogue, config(), cache=tmp_path)
    (entry,) = entries(tmp_path / "codes")
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert make(catalogue, config(), cache=tmp_path).fingerprint == first.fingerprint
    assert entry.read_bytes() == whole


def test_fingerprint_tells_codes_and_forms_apart():
    base = np.arange(12).reshape(6, 2)
    prints = {
        ItemCodes(base, (12, 12)).fingerprint,
        ItemCodes(base, (12, 13)).fingerprint,
        ItemCodes(base.reshape(4, 3), (12, 12, 12)).fingerprint,
        ItemCodes(base[::-1], (12, 12)).fingerprint,
    }
    assert len(prints) == 4
    assert ItemCodes(np.asfortranarray(base), (12, 12)).fingerprint == ItemCodes(base, (12, 12)).fingerprint


def test_codes_of_a_file(catalogue, tmp_path):
    log, _ = catalogue
    path = tmp_path / "some.index.json"
    made = make(catalogue, config())
    write_index(path, log.items, made.codes)
    settings = ItemsConfig(quantiser=FileCodes(path=str(path), size=4))
    found = make(catalogue, settings, cache=tmp_path / "cache")
    assert found.fingerprint == made.fingerprint
    assert "error" not in found.quality
    assert found.quality["levels"] == made.quality["levels"]

    with pytest.raises(InputError, match=r"have the same codes.*set items.collisions: level"):
        make(catalogue, settings, unique=True)
    numbered = make(catalogue, settings.model_copy(update={"collisions": "level"}), unique=True)
    np.testing.assert_array_equal(numbered.codes, make(catalogue, config(), unique=True).codes)

    write_index(path, log.items, numbered.codes)  # the same path, other content, and now unique
    wider = ItemsConfig(quantiser=FileCodes(path=str(path)))
    taken = make(catalogue, wider, unique=True, cache=tmp_path / "cache")
    assert taken.sizes == (256,) * 4
    assert not taken.quality["collision_level"]
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        make(catalogue, wider, cache=tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amazon-scientific", "amazon-beauty"])
def test_rqvae_keeps_its_codebooks_on_real_texts(name, tmp_path, real):
    """The field's health check: at least 80 % of each codebook in use, at least 85 % unique triples."""
    from harness.data.config import DataConfig
    from harness.data.datasets import load
    from harness.data.splits import make_split

    log = load(name, DataConfig(), real())
    settings = ItemsConfig(quantiser=ResidualVAE(epochs=20))
    quality = item_codes(log, make_split(log, DataConfig()), settings, unique=False, cache=tmp_path).quality
    assert min(level["use"] for level in quality["levels"]) >= 0.8
    assert quality["distinct"] >= 0.85
    assert quality["moved"] < 0.5  # ... of which most are the nearest codes
