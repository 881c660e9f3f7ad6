"""Item codes that somebody else made, and codes that can't be had, through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.items.config import Cooccurrence, Fused, RandomVectors, TfidfSvd
from harness.settings import parse
from harness.study.cells import Inputs, make_arm, make_cells
from harness.study.design import Study
from harness.study.loading import load_study
from harness.study.run_cell import build_model, task_data

ITEMS = 8
TINY = {
    "tiger": {"dim": 8, "heads": 1, "head_dim": 8, "feed_forward": 8, "encoder_layers": 1, "decoder_layers": 1},
    "fair": {"dim": 8, "heads": 1, "inner": 8},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten users, eight items with texts."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [f"u{u}\ti{(u * 3 + t) % ITEMS}\t{100 + t}" for u in range(10) for t in range(6)]
    (folder / "mine.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")
    words = ["red cup", "red hat", "blue cup", "blue hat", "green cup", "green hat", "old cup", "old hat"]
    titles = [f"i{number}\t{title}" for number, title in enumerate(words)]
    (folder / "mine.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")
    return folder


@pytest.fixture
def study(tmp_path: Path, data: Path):
    """Writes a study of these models with these settings of the codes; returns its path."""

    def write(*models: str, **items: object) -> Path:
        design = {
            "study": "codes",
            "datasets": [str(data)],
            "seeds": 1,
            "data": {"max_length": 5},
            "items": items,
            "variants": {model: {"model": model, "set": TINY[model]} for model in models},
            "budget": {"epochs": 1},
            "metrics": ["ndcg@10"],
            "primary": "ndcg@10",
        }
        path = tmp_path / "codes.yaml"
        path.write_text(yaml.safe_dump(design))
        return path

    return write


def codes_file(folder: Path, entries: dict[str, list[int]]) -> dict[str, object]:
    path = folder / "mine.index.json"
    tokens = {
        key: [f"<{letter}_{code}>" for letter, code in zip("abc", codes, strict=True)] for key, codes in entries.items()
    }
    path.write_text(json.dumps(tokens))
    return {"quantiser": {"kind": "file", "path": str(path), "size": 8}}


def test_exported_codes_are_read_back(call, refuses, study, tmp_path, data):
    settings = ("--set", "items.encoder.dim=4", "--set", "items.quantiser={kind: rkmeans, levels: 2, size: 4}")
    ended = call("items", "export", data, "theirs.index.json", *settings)
    assert ended.code == 0, ended.err
    exported = json.loads((tmp_path / "theirs.index.json").read_text())
    assert sorted(exported) == sorted(OWN)
    quantiser = {"kind": "file", "path": str(tmp_path / "theirs.index.json"), "size": 4}
    (fair,) = make_cells(
        load_study(str(study("fair", quantiser=quantiser))), inputs := Inputs(None, tmp_path / "cache")
    )
    codes, log = inputs.codes(str(data), fair.arm), inputs.log(str(data), fair.arm.data)
    tokens = [
        [f"<{letter}_{code}>" for letter, code in zip("ab", row, strict=True)] for row in codes.codes[1:].tolist()
    ]
    assert dict(zip(map(str, log.items[1:]), tokens, strict=True)) == exported
    assert "whole numbers" in refuses("items", "export", data, "theirs.index.json", *settings, "--offset", "1")


OWN = {f"i{number}": [number // 4, number % 4, 1] for number in range(ITEMS)}


def test_models_train_on_a_file_of_codes(call, study, tmp_path):
    ended = call("run", "--study", study("tiger", "fair", **codes_file(tmp_path, OWN)), "--workers", "1")
    assert ended.code == 0, ended.err
    cells = [json.loads(path.read_text()) for path in tmp_path.glob("out/codes/cells/*/cell.json")]
    assert {cell["variant"] for cell in cells} == {"tiger", "fair"}
    assert len({cell["fingerprints"]["codes"] for cell in cells}) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({f"B00{number}": codes for number, codes in enumerate(OWN.values())}, "another catalogue"),
        ({key: codes for key, codes in OWN.items() if key != "i3"}, "1 of 8 items have no codes (the first: 'i3')"),
        (OWN | {"i9": [1, 1, 2]}, "set items.quantiser.extra_items: ignore"),
        (OWN | {"i5": OWN["i2"]}, "items 'i2' and 'i5' have the same codes"),
        (OWN | {"i5": [1, 9, 1]}, "<b_9> lies outside 0..7"),
    ],
    ids=["another catalogue", "an item without codes", "a stranger", "duplicate codes", "a code too large"],
)
def test_a_file_that_does_not_fit_is_refused(refuses, study, tmp_path, entries, message):
    line = refuses("run", "--study", study("tiger", **codes_file(tmp_path, entries)), "--workers", "1")
    assert message in line
    assert "mine.index.json" in line
    assert nothing_is_left(tmp_path)


def test_more_collisions_than_the_level_holds(refuses, study, tmp_path, data):
    rows = [f"i{number}\t{'red cup' if number % 2 else 'blue hat'}" for number in range(ITEMS)]
    (data / "mine.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *rows]) + "\n")
    items = {"encoder": {"dim": 1}, "quantiser": {"kind": "rkmeans", "levels": 1, "size": 2}, "collision_size": 3}
    line = refuses("run", "--study", study("tiger", **items), "--workers", "1")
    assert "the collision level tells 3 apart; raise items.collision_size" in line
    assert nothing_is_left(tmp_path)


ENCODERS = {
    "text": {"items.encoder.min_items": 1},
    "behaviour": {"items.encoder.kind": "cooccurrence", "items.encoder.dim": 3},
    "both": {
        "items.encoder.kind": "fused",
        "items.encoder.parts": [{"kind": "tfidf-svd", "dim": 2, "min_items": 1}, {"kind": "cooccurrence", "dim": 3}],
        "items.encoder.weights": [1, 0.5],
    },
    "chance": {"items.encoder": {"kind": "random", "dim": 4}},
}


def test_variants_switch_the_encoder(data, tmp_path):
    """What a data set or the study sets for one kind of encoder is not carried over to another kind."""
    design = {
        "study": "encoders",
        "datasets": {str(data): {"items.encoder.ngrams": [1, 2]}},
        "seeds": 1,
        "data": {"max_length": 5},
        "items": {"encoder": {"dim": 4}, "quantiser": {"kind": "rkmeans", "levels": 2, "size": 4}},
        "variants": {name: {"model": "fair", "set": TINY["fair"] | items} for name, items in ENCODERS.items()},
        "metrics": ["ndcg@10"],
        "primary": "ndcg@10",
    }
    (tmp_path / "encoders.yaml").write_text(yaml.safe_dump(design))
    chosen = load_study(str(tmp_path / "encoders.yaml"), settings=("items.quantiser.size=3",))
    cells = make_cells(chosen, inputs := Inputs(None, tmp_path / "cache"))
    assert {cell.arm.variant: cell.arm.items.encoder for cell in cells} == {
        "text": TfidfSvd(dim=4, min_items=1, ngrams=(1, 2)),
        "behaviour": Cooccurrence(dim=3),
        "both": Fused(parts=(TfidfSvd(dim=2, min_items=1), Cooccurrence(dim=3)), weights=(1, 0.5)),
        "chance": RandomVectors(dim=4),
    }
    assert len({inputs.codes(str(data), cell.arm).fingerprint for cell in cells}) == 4
    only = load_study(str(tmp_path / "encoders.yaml"), settings=("variants.text.set={items.encoder.kind: fused}",))
    assert make_arm(only, str(data), "text").items.encoder == Fused()


def test_items_that_share_codes_differ_for_fair_with_a_collision_level(study, data, tmp_path):
    """Eight items, four pairs of codes, and a level of another size than the others."""
    rows = [f"i{number}\t{['red cup', 'blue hat'][number % 2]}" for number in range(ITEMS)]
    (data / "mine.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *rows]) + "\n")
    encoder, quantiser = {"dim": 1}, {"kind": "rkmeans", "levels": 2, "size": 2}
    told: list[str] = []
    for collisions, different in (("keep", 2), ("level", ITEMS)):
        items = {"encoder": encoder, "quantiser": quantiser, "collisions": collisions, "collision_size": 5}
        design, inputs = load_study(str(study("fair", **items))), Inputs(None, tmp_path / "cache", told.append)
        (cell,) = make_cells(design, inputs)
        tasks = task_data(design, cell, inputs, "cpu")
        model = build_model(cell, tasks, inputs)
        assert model.schema.code_sizes == ((2, 2) if collisions == "keep" else (2, 2, 5))
        some_steps(model, tasks, 3)
        _, batches = tasks.training_epoch(rows=model.needs.rows, batch_size=2, rng=np.random.default_rng(0))
        scores = model.eval().score_items(next(batches))
        assert scores.isfinite().all()
        assert {len(row.unique()) for row in scores} == {different}
    assert sum(line.startswith("warning: only 0.0% of 8 items") for line in told) == 1  # of "keep" alone


def test_an_encoder_that_is_not_installed(refuses, study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    line = refuses("run", "--study", study("tiger", encoder={"kind": "sentence-transformer"}), "--workers", "1")
    assert "harness[text]" in line
    assert nothing_is_left(tmp_path)


def nothing_is_left(folder: Path) -> bool:
    """No codes, and no file that was begun; vectors of texts that are whole may stay."""
    cached = [path for path in folder.glob("out/cache/**/*") if path.is_file()]
    return all(path.parent.name == "vectors" and not path.name.startswith(".") for path in cached)


@pytest.mark.parametrize(("name", "first"), [("Beauty", 1), ("Scientific", 0)])
def test_published_files_train(tmp_path, real, name, first):
    for path in sorted(real("semantic_ids", name).glob("*.index.json")):
        design = {
            "study": "published",
            "datasets": [f"amazon-{name.lower()}"],
            "seeds": 1,
            "data": {"max_length": 10},
            "items": {"quantiser": {"kind": "file", "path": str(path), "offset": first}, "collisions": "level"},
            "variants": {model: {"model": model, "set": settings} for model, settings in TINY.items()},
            "metrics": ["ndcg@10"],
            "primary": "ndcg@10",
        }
        parsed, inputs = parse(Study, design, "the study"), Inputs(real(), tmp_path / "cache")
        for cell in make_cells(parsed, inputs):
            data = task_data(parsed, cell, inputs, "cpu")
            model = build_model(cell, data, inputs)
            losses = some_steps(model, data, 12)
            assert losses[-1] < losses[0], (path.name, cell.arm.variant)


def some_steps(model, data, steps: int) -> list[float]:
    """The loss of one batch before each step upon it."""
    _, batches = data.training_epoch(
        rows=model.needs_with(model.config).rows, batch_size=32, rng=np.random.default_rng(0)
    )
    batch = next(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = sum(model.losses(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
