"""Tables, sentences and figures of a measurement of speed, from invented seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from scipy import stats

from harness.analysis.artefacts import Failures, pictures
from harness.analysis.claims import Claim, evaluate
from harness.analysis.efficiency import PARTS, efficiency_tables, is_efficiency, load_efficiency, sentences
from harness.analysis.report import write_report
from harness.errors import InputError

SECONDS = {"two-tokens": (4.0, 8.0, 2.0), "one-token": (1.0, 4.0, 1.5)}
"""Of three turns: the ratios are 0.25, 0.5 and 0.75."""
SHARES = np.array([0.59, 0.6, 0.61])


@pytest.fixture
def folder(tmp_path):
    study = {
        "study": "efficiency", "title": "Speed", "question": "", "task": "efficiency", "control": "two-tokens",
        "common": {"layers": 2}, "variants": {"one-token": {"label": "One"}, "two-tokens": {"label": None}},
        "lengths": [64, 128], "dims": [16, 32], "events": 256, "repeats": 3, "items": 10, "actions": 3,
    }  # fmt: skip
    measurements = [
        {
            "variant": variant, "dim": dim, "length": length, "batch": 256 // length, "events": 256,
            "tokens": 256 * (1 + (variant == "two-tokens")), "parameters": 100, "flops": 10**9 * dim,
            "peak_memory_bytes": 2**20 * len(variant),
            "turns": [{"step": s} | dict(zip(PARTS, (s / 10, s * 0.6, s / 5, s / 10), strict=True)) for s in seconds],
        }
        for dim in study["dims"]
        for length in study["lengths"]
        for variant, seconds in SECONDS.items()
    ]  # fmt: skip
    record = {
        "study": study, "command": "harness run --study efficiency", "git": None,
        "versions": {"harness": "0.1", "torch": "2"},
        "hardware": {"cpu": "a chip", "cores": 4, "threads": 1, "device": "cpu", "memory_bytes": None},
        "measurements": measurements,
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "efficiency.json").write_text(json.dumps(record))
    return tmp_path


def test_ratios_are_taken_within_a_turn(folder):
    row = load_efficiency(folder).frame.query("variant == 'one-token'").iloc[0]
    assert (row["relative_lowest"], row["relative"], row["relative_highest"]) == (0.25, 0.5, 0.75)
    assert row["step_seconds"] == 1.5  # of which the ratio of medians would be 0.375
    assert row["relative_backbone"] == pytest.approx(0.6 * 0.5)
    assert row["tokens_per_second"] == row["events_per_second"] == 256 / 1.5


def test_tables_keep_the_order_in_which_the_variants_were_measured(folder):
    relative, *full = efficiency_tables(load_efficiency(folder))
    assert [line.key for line in relative.lines] == ["two-tokens", "one-token"]
    assert [entry.text for entry in relative.lines[1].entries] == ["0.50"] * 4
    assert [table.name for table in full] == ["efficiency-16", "efficiency-32"]
    values = dict(zip((c.key for c in full[1].columns), full[1].lines[0].entries, strict=True))
    assert (values["step_seconds"].text, values["step_seconds"].value) == ("4000.0", 4.0)
    assert (values["flops"].text, values["peak_memory_bytes"].text) == ("32.00", "10.0")


@pytest.mark.parametrize(("by", "verdict"), [(30, "supported"), (100, "contradicted")])
def test_a_claim_on_speed_is_judged_at_the_length_that_speaks_least_for_it(folder, by, verdict):
    record = json.loads((folder / "efficiency.json").read_text())
    (slower,) = (m for m in record["measurements"] if (m["variant"], m["dim"], m["length"]) == ("one-token", 32, 128))
    for turn, control, share in zip(slower["turns"], SECONDS["two-tokens"], SHARES, strict=True):
        turn["step"] = control * share
    (folder / "efficiency.json").write_text(json.dumps(record))
    claim = Claim(
        id="speed", paper="p", claim="c", study="efficiency", quantity="step_seconds", arm="one-token",
        than="two-tokens", expect="lower", by=by,
    )  # fmt: skip
    usual, slow = evaluate([claim], [], [load_efficiency(folder)])
    assert (usual.estimate, slow.estimate) == (pytest.approx(-50), pytest.approx(-40))
    assert slow.dataset == "width 32, length 128"
    assert slow.interval == pytest.approx(tuple(stats.ttest_1samp(100 * SHARES - 100, 0).confidence_interval()))
    assert slow.verdict == verdict


def test_sentences_say_the_range_over_lengths(folder):
    assert sentences(load_efficiency(folder))[0] == (
        "At width 16, a training step of One takes 0.50 times as long as one of two-tokens (lengths 64 to 128), with "
        "1.00 times its FLOPs and 0.90 times its memory."
    )


def test_figures_draw_medians_and_parts_that_add_up(folder):
    curves, bars = pictures(load_efficiency(folder), Failures())
    assert len(curves.figure.axes) == 4 * 2
    steps = curves.figure.axes[1]
    assert [list(line.get_ydata()) for line in steps.lines] == [[4000, 4000], [1500, 1500]]
    assert (steps.get_xscale(), steps.get_yscale()) == ("log", "log")
    panel = bars.figure.axes[0]
    ends = [
        max(bar.get_x() + bar.get_width() for bar in panel.patches if round(bar.get_y() + 0.36) == i) for i in (0, 1)
    ]
    assert ends == pytest.approx([1, 0.5])
    low, high = panel.get_xlim()
    assert low == 0
    assert high > 1


def test_page_and_files(folder):
    names = {path.relative_to(folder).as_posix() for path in write_report(folder).paths}
    assert {"tables/training-time.tex", "tables/efficiency-32.csv", "figures/efficiency.png", "evidence.json"} <= names
    page = (folder / "report.html").read_text()
    assert "harness run --study efficiency" in page
    assert page.count("data:image/svg+xml") == 2
    assert page.count('<figure class="table"') == 3


def test_damage_is_one_line(folder):
    path = folder / "efficiency.json"
    record = json.loads(path.read_text())
    del record["measurements"][0]["turns"]
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"efficiency\.json is damaged \('measurements.0.turns': Field required"):
        load_efficiency(folder)
    path.unlink()
    with pytest.raises(InputError, match="run the study first"):
        load_efficiency(folder)
    assert is_efficiency(folder)
    (folder / "study.yaml").write_text("task: action")
    assert not is_efficiency(folder)
