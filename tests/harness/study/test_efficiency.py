"""A measurement of speed does the work that it says it times. Times are asserted nowhere."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from harness.errors import InputError
from harness.study.efficiency import PARTS, Arm, _memory_error, run_efficiency
from harness.study.loading import load_efficiency, study_files

TINY = ("dims=[16]", "lengths=[12]", "events=36")
ARMS = tuple(load_efficiency("efficiency").variants)
HALF = "variants={interleaved: {model: interleaved, label: Interleaved GR}, attn-mvp: {model: attn-mvp}}"


def made(variant: str) -> Arm:
    return Arm(load_efficiency("efficiency", settings=TINY), variant, 16, 12, torch.device("cpu"))


@pytest.fixture
def small(tmp_path):
    """A study file of two variants at two lengths."""
    raw = yaml.safe_load(study_files()["efficiency"].read_text())
    raw |= {"variants": yaml.safe_load(HALF.partition("=")[2]), "presets": {}}
    raw |= {"lengths": [8, 16], "dims": [16], "events": 32, "repeats": 1}
    path = tmp_path / "speed.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


class TestArm:
    @pytest.mark.parametrize("variant", ARMS)
    def test_a_step_cut_into_parts_trains_as_a_whole_one(self, variant):
        whole, parts = made(variant), made(variant)
        for arm, step in ((whole, whole.step), (parts, parts.part_seconds)):
            torch.manual_seed(1)
            step()
            spent = step()
            assert arm.model.item_embedding.weight.grad is not None
        for (label, ours), theirs in zip(parts.model.named_parameters(), whole.model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=lambda text, label=label: f"{label}: {text}")
        assert set(spent) == set(PARTS)
        assert min(spent.values()) > 0

    def test_flops_of_the_item_tower_follow_the_closed_form(self):
        rows, length, dim, heads = 3, 12, 16, 2
        tokens, hidden = rows * length, 48
        linear = 2 * tokens * (4 * dim**2 + 3 * dim * hidden)  # Q, K, V, output; SwiGLU
        attention = 2 * rows * heads * length**2 * (dim // heads)  # one of its matrix products
        head = 2 * tokens * (dim**2 + dim * 3)
        # Backward: two products per linear one; five for attention, whose scores are computed again.
        assert made("item-only").flops() == 2 * (3 * linear + (2 + 5) * attention) + 3 * head

    def test_two_tokens_per_event_are_counted_where_there_are_two(self):
        assert made("interleaved").described()["tokens"] == 2 * made("attn-lfa").described()["tokens"] == 72


class TestCommand:
    def test_measures_reports_and_derives_it_all_again(self, call, refuses, small, tmp_path):
        run = tmp_path / "out" / "efficiency"
        ended = call("run", "--study", small, "--device", "cpu")
        assert ended.code == 0, ended
        record = json.loads((run / "efficiency.json").read_text())
        found = [(m["length"], m["variant"], len(m["turns"])) for m in record["measurements"]]
        assert found == [(n, v, 1) for n in (8, 16) for v in ("interleaved", "attn-mvp")]
        assert all(set(m["turns"][0]) == {"step", *PARTS} for m in record["measurements"])
        assert all(m["flops"] > 0 and m["peak_memory_bytes"] >= 0 for m in record["measurements"])
        assert record["hardware"]["cpu"]
        assert record["versions"]["torch"] == torch.__version__

        assert f"Report: {run.relative_to(tmp_path)}/report.html" in ended.out
        written = [
            run / "report.html",
            run / "evidence.json",
            *(run / "tables").rglob("*.*"),
            *(run / "figures").rglob("*.*"),
        ]
        paths = [path for path in written if path.is_file()]
        before = {path: path.read_bytes() for path in paths}
        names = {path.relative_to(run).as_posix() for path in paths}
        assert {"tables/efficiency.tex", "figures/efficiency.pdf", "figures/training-time.png", "report.html"} <= names
        for path in paths:
            path.unlink()
        assert call("report", "--study", small).code == 0
        assert {path: path.read_bytes() for path in paths} == before
        assert call("verify", "--study", small).code == 0

        again = call("run", "--study", small, "--device", "cpu")
        assert "is there already" in again.err
        assert json.loads((run / "efficiency.json").read_text()) == record
        assert "another design" in refuses("run", "--study", small, "--device", "cpu", "--set", "lengths=8")
        assert "no cells to trace" in refuses("trace", "--study", small, "main", "attn-mvp", "step")

        path = run / "efficiency.json"
        path.write_text(path.read_text().replace('"events": 32', '"events": 64'))
        changed = call("verify", "--study", small)
        assert changed.code == 1
        assert "is not the file that the report was derived from" in changed.out
        assert "tables/efficiency.csv: line 2" in changed.out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--set", "lengths=[0]"), "'lengths': give different whole numbers from 1 on"),
            (("--set", "dims=[16, 16]"), "'dims': give different whole numbers from 1 on"),
            (("--set", "repeats=0"), "'repeats'"),
            (("--set", "repeat=1"), "unknown key 'repeat'"),
            (("--set", "dims=6"), "variant 'interleaved': dim (6) must be an even multiple of heads"),
            (("--set", "dim=8"), "'dim' is what 'dims' lists"),
            (("--set", "control=attn-mpv"), "control 'attn-mpv' is not a variant; did you mean 'attn-mvp'"),
            (("--set", "variants.x.model=attn-mpv"), "unknown model 'attn-mpv'; did you mean 'attn-mvp'"),
            (("--set", "variants.x.model=sasrec"), "variant 'x': model 'sasrec' can't be measured here"),
            (("--seeds", "2"), "no seeds and no data sets"),
            (("--out", "speed.yaml/out"), "a part of the path is a file"),
        ],
    )
    def test_bad_input_is_one_line_before_anything_is_measured(self, refuses, small, words, message, monkeypatch):
        monkeypatch.setattr("harness.study.efficiency.measure", lambda *given: pytest.fail("measured"))
        assert message in refuses("run", "--study", small, "--device", "cpu", *words)

    def test_commands_that_need_cells_say_what_takes_it(self, refuses):
        assert "measures speed and trains nothing" in refuses("plan", "--study", "efficiency")

    def test_a_report_without_measurements(self, refuses, small, tmp_path):
        (tmp_path / "out" / "efficiency").mkdir(parents=True)
        (tmp_path / "out" / "efficiency" / "study.yaml").write_text(small.read_text())
        assert "no efficiency.json yet; run the study first" in refuses("report", "--study", small)


def test_a_memory_that_is_too_small_names_the_place():
    with pytest.raises(InputError, match="too small at dim 8"), _memory_error("dim 8"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    with pytest.raises(RuntimeError, match="shape"), _memory_error("dim 8"):
        raise RuntimeError("shape")


def test_a_failed_memory_process_names_the_variant(small, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.efficiency.sys.executable", "false")
    with pytest.raises(InputError, match="memory of 'interleaved' can't be measured"):
        run_efficiency(load_efficiency(str(small)), tmp_path / "run", command="harness run")
