"""The efficiency benchmark does the work that it says it times. Its times are asserted nowhere."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import torch

from benchmarks import efficiency
from benchmarks.efficiency import ARMS, PARTS, Arm

SHAPE = {"dim": 16, "layers": 2, "heads": 2}


def made(name: str) -> Arm:
    return Arm(name, 12, SHAPE, 36, torch.device("cpu"))


@pytest.mark.parametrize("name", ARMS)
def test_a_step_cut_into_parts_trains_as_a_whole_one(name):
    whole, parts = made(name), made(name)
    for arm, step in ((whole, whole.step), (parts, parts.time_parts)):
        torch.manual_seed(1)
        step()
        step()
        assert arm.model.item_embedding.weight.grad is not None
    for (label, ours), theirs in zip(parts.model.named_parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda text, label=label: f"{label}: {text}")
    assert set(parts.part_seconds[0]) == set(PARTS)
    assert min(parts.part_seconds[0].values()) > 0


def test_flops_of_the_item_tower_follow_the_closed_form():
    arm = made("item-only")
    rows, length, dim, heads = 3, 12, 16, 2
    tokens, hidden = rows * length, 48
    linear = 2 * tokens * (4 * dim**2 + 3 * dim * hidden)  # Q, K, V, output; SwiGLU
    attention = 2 * rows * heads * length**2 * (dim // heads)  # one of its matrix products
    head = 2 * tokens * (dim**2 + dim * 3)
    # Backward: two products per linear one; five for attention, whose scores are computed again.
    assert arm.flops() == 2 * (3 * linear + (2 + 5) * attention) + 3 * head


def test_files_hold_a_row_per_arm_width_and_length(tmp_path, monkeypatch):
    arguments = ["--out", str(tmp_path), "--lengths", "8,16", "--dims", "8", "--events", "32", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["efficiency", *arguments, "--threads", "1"])
    monkeypatch.setattr(efficiency, "ARMS", {name: ARMS[name] for name in ("interleaved", "attn-mvp")})
    assert efficiency.main() == 0
    written = json.loads((tmp_path / "efficiency.json").read_text())
    rows = written["rows"]
    assert [form["length"] for form in written["mixing"]] == [8, 16]
    assert [(row["length"], row["arm"]) for row in rows] == [
        (8, "interleaved"), (8, "attn-mvp"), (16, "interleaved"), (16, "attn-mvp")
    ]  # fmt: skip
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(row["events_per_second"] * (1 + (row["arm"] == "interleaved")))
        assert row["peak_memory_bytes"] >= 0
        assert row["relative_lowest"] <= row["relative_to_interleaved"] <= row["relative_highest"]
    with open(tmp_path / "efficiency.csv", newline="") as file:
        assert [line["arm"] for line in csv.DictReader(file)] == [row["arm"] for row in rows]
