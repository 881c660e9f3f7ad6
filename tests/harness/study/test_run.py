"""Studies through the command line: running, resuming, widening, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import optuna
import psutil
import pyarrow.parquet as pq
import pytest


def tables(run: Path) -> dict[str, bytes]:
    """All tables but the one that holds seconds."""
    files = sorted(path for path in (run / "tables").rglob("*") if path.is_file())
    found = {path.relative_to(run).as_posix(): path.read_bytes() for path in files if path.stem != "cost"}
    assert found
    return found


def rows(run: Path) -> dict[str, bytes]:
    return {cell.name: (cell / "rows.parquet").read_bytes() for cell in sorted((run / "cells").iterdir())}


def kill_tree(pid: int) -> None:
    """kill -9 for a process and all that it started, as a machine's end would."""
    parent = psutil.Process(pid)
    family = [*parent.children(recursive=True), parent]
    for process in family:
        process.kill()
    psutil.wait_procs(family)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)


def test_a_run_leaves_whole_cells_and_a_report(finished_run):
    cells = sorted((finished_run / "cells").iterdir())
    assert len(cells) == 4
    for cell in cells:
        record = json.loads((cell / "cell.json").read_text())
        assert record["id"] == cell.name
        assert {"python", "torch"} <= set(record["versions"])
        assert {p.name for p in cell.iterdir()} == {
            "cell.json",
            "history.csv",
            "rows.parquet",
            "lists.parquet",
            "metrics.json",
            "cost.json",
            "attention.parquet",
            "examples.json",
            "model.safetensors",
        }
        metrics = json.loads((cell / "metrics.json").read_text())
        table = pq.read_table(cell / "rows.parquet").to_pandas()
        test = table[table.phase == "test"]
        assert metrics["test"]["unseen"]["recall@5"] == pytest.approx((test.rank_unseen <= 5).mean())
    assert not any((finished_run / "running").iterdir())
    assert (finished_run / "report.html").is_file()
    summary = json.loads((finished_run / "summary.json").read_text())
    assert [c["status"] for c in summary["cells"]] == ["finished"] * 4


def test_a_run_watches_its_training_and_ends_with_warnings(study_file, call):
    ended = call("run", "--study", study_file, "--preset", "shorter", "--workers", "1")
    assert ended.code == 0, ended.err
    run = Path("out", "tiny-shorter")
    warned = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    late = "the best epoch lies in the last tenth of the budget"
    assert sum(late in line for line in warned) == 1
    for history in run.glob("cells/*/history.csv"):
        assert {"state_cosine", "diagnostics_seconds"} < set(history.read_text().splitlines()[0].split(","))
    assert (run / "figures" / "diagnostics.png").exists()
    assert late in (run / "report.html").read_text(encoding="utf-8")


def test_optuna_knows_every_cell(finished_run):
    storage = f"sqlite:///{finished_run / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert {t.user_attrs["cell"] for t in trials} == {c.name for c in (finished_run / "cells").iterdir()}
    for trial in trials:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert set(trial.params) == {"dataset", "variant", "seed"}
        metrics = json.loads((finished_run / "cells" / trial.user_attrs["cell"] / "metrics.json").read_text())
        assert trial.value == metrics["valid"]["unseen"]["ndcg@10"]
        assert len(trial.intermediate_values) == 4


def test_the_same_cell_twice_gives_identical_rows(finished_run, study_file, harness, tmp_path):
    done = harness("run", "--study", study_file, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "out" / "tiny") == rows(finished_run)
    assert tables(tmp_path / "out" / "tiny") == tables(finished_run)


def test_a_second_run_trains_nothing(finished_run, study_file, harness, tmp_path):
    shutil.copytree(finished_run, tmp_path / "out" / "tiny")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "tiny" / "cells").rglob("*")}
    done = harness("run", "--study", study_file)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "tiny" / "cells").rglob("*")} == before


LONG = ("--set", "budget.epochs=40", "--set", "training.batch_size=4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_three_times_and_resume(workers, study_file, harness, start_harness, tmp_path):
    words = ("run", "--study", study_file, *LONG, "--workers", str(workers))
    done = harness(*words, "--name", "calm")
    assert done.returncode == 0, done.stderr
    chance = random.Random(workers)
    run = tmp_path / "out" / "rough"
    for _ in range(3):
        process = start_harness(*words, "--name", "rough")
        wait_for(lambda p=process: list(run.glob("running/*/checkpoint.safetensors")) or p.poll() is not None)
        time.sleep(chance.uniform(0, 1.5))
        if process.poll() is None:
            kill_tree(process.pid)
    done = harness(*words, "--name", "rough")
    assert done.returncode == 0, done.stderr
    assert rows(run) == rows(tmp_path / "out" / "calm")
    rough, calm = tables(run), tables(tmp_path / "out" / "calm")
    assert rough == calm


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_cell_goes_on(study_file, harness, start_harness, tmp_path):
    words = ("run", "--study", study_file, *LONG, "--workers", "2")
    run = tmp_path / "out" / "tiny"
    process = start_harness(*words)
    wait_for(lambda: list(run.glob("running/*/checkpoint.safetensors")))
    (running, *_) = run.glob("running/*/checkpoint.safetensors")
    worker = json.loads((running.parent / "worker.json").read_text())["process"]
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "a worker died (SIGKILL" in errors
    cost = json.loads((run / "cells" / running.parent.name / "cost.json").read_text())
    assert cost["resumed"] == 1
    done = harness(*words, "--name", "calm")
    assert done.returncode == 0, done.stderr
    assert rows(run) == rows(tmp_path / "out" / "calm")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_says_so(number, study_file, harness, start_harness, tmp_path):
    words = ("run", "--study", study_file, "--set", "budget.epochs=400", "--workers", "1")
    run = tmp_path / "out" / "tiny"
    process = start_harness(*words)
    wait_for(lambda: list(run.glob("running/*/checkpoint.safetensors")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; the same command goes on" in errors
    assert "Traceback" not in errors
    assert list(run.glob("running/*/checkpoint.safetensors"))
    left = json.loads((run / "summary.json").read_text())["cells"]
    assert {c["status"] for c in left} <= {"finished", "unfinished"}


def test_a_study_is_widened_by_seeds_and_keeps_its_cells(finished_run, study_file, harness, tmp_path):
    run = tmp_path / "out" / "tiny"
    shutil.copytree(finished_run, run)
    before = rows(run)
    done = harness("run", "--study", study_file, "--seeds", "3")
    assert done.returncode == 0, done.stderr
    after = rows(run)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before


def test_a_changed_design_is_refused_and_nothing_is_lost(finished_run, study_file, harness, refused, tmp_path):
    run = tmp_path / "out" / "tiny"
    shutil.copytree(finished_run, run)
    line = refused("run", "--study", study_file, "--set", "budget.epochs=9")
    assert "budget.epochs was 4 and is 9" in line
    assert "--name" in line
    assert rows(run) == rows(finished_run)
    done = harness("run", "--study", study_file, "--set", "budget.epochs=1", "--accept-change")
    assert done.returncode == 0, done.stderr
    assert len(rows(run)) == 8


def test_a_preset_has_a_folder_of_its_own(study_file, harness, tmp_path):
    assert harness("run", "--study", study_file, "--preset", "shorter", "--seeds", "1").returncode == 0
    assert (tmp_path / "out" / "tiny-shorter" / "report.html").is_file()


def test_report_derives_everything_again_without_torch(finished_run, harness, tmp_path):
    run = tmp_path / "out" / "tiny"
    shutil.copytree(finished_run, run)
    for folder in ("tables", "figures"):
        shutil.rmtree(run / folder)
    hidden = tmp_path / "hidden" / "torch"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('the report must not need torch')")
    path = os.pathsep.join([str(hidden.parent), os.environ.get("PYTHONPATH", "")])
    done = harness("report", "--study", tmp_path / "tiny.yaml", env={"PYTHONPATH": path})
    assert done.returncode == 2  # the study file is not there, but its run is:
    (tmp_path / "tiny.yaml").write_text((run / "study.yaml").read_text())
    done = harness("report", "--study", tmp_path / "tiny.yaml", env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert tables(run) == tables(finished_run)


def test_a_cell_that_fails_is_told_and_the_others_stand(study_file, harness, tmp_path):
    done = harness("run", "--study", study_file, "--set", "variants.bce.set.training.learning_rate=1e30")
    assert done.returncode == 1, done.stderr
    assert "failed: synthetic-sessions" in done.stderr
    assert "lower" in done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "out" / "tiny"
    assert len(list((run / "cells").iterdir())) == 2
    failed = [json.loads(p.read_text()) for p in run.glob("failed/*/failure.json")]
    assert {f["variant"] for f in failed} == {"bce"}
    assert (run / "report.html").is_file()


class TestBadInput:
    def test_unknown_study(self, refused):
        assert "did you mean 'ablations'" in refused("run", "--study", "ablation")

    def test_unknown_option(self, refused, study_file):
        assert "--seeds" in refused("run", "--study", study_file, "--seed", "3")

    def test_unknown_model(self, refused, study_file):
        assert "did you mean 'sasrec'" in refused("run", "--study", study_file, "--set", "variants.ce.model=sasrek")

    def test_unknown_model_key(self, refused, study_file):
        line = refused("run", "--study", study_file, "--set", "layer=3")
        assert "unknown key 'layer'; did you mean 'layers'" in line
        assert "variant 'ce'" in line

    def test_unknown_variant_as_control(self, refused, study_file):
        assert "did you mean 'ce'" in refused("run", "--study", study_file, "--set", "control=cee")

    def test_unknown_metric(self, refused, study_file):
        assert "did you mean 'recall'" in refused("run", "--study", study_file, "--set", "metrics=[recal@5]")

    def test_unknown_dataset(self, refused, study_file):
        assert "did you mean 'ml-100k'" in refused("run", "--study", study_file, "--dataset", "ml-100")

    def test_two_equal_variants(self, refused, study_file):
        line = refused("run", "--study", study_file, "--set", "variants.bce.set.loss=ce")
        assert "'ce' and 'bce' are the same" in line

    def test_storage_that_can_not_be_reached(self, refused, study_file):
        line = refused("run", "--study", study_file, "--storage", "postgresql://me:secret@127.0.0.1:1/x")
        assert "can't be opened" in line
        assert "secret" not in line

    def test_storage_that_is_none(self, refused, study_file, tmp_path):
        (tmp_path / "db").write_text("no database at all")
        assert "can't be opened" in refused("run", "--study", study_file, "--storage", f"sqlite:///{tmp_path}/db")

    def test_out_is_a_file(self, refused, study_file, tmp_path):
        (tmp_path / "occupied").write_text("")
        assert "cannot write" in refused("run", "--study", study_file, "--out", tmp_path / "occupied")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
    def test_out_may_not_be_written(self, refused, study_file, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "permissions" in refused("run", "--study", study_file, "--out", tmp_path / "closed")

    def test_out_is_read_only(self, refused, study_file):
        if not Path("/proc/self").exists():
            pytest.skip("there is no /proc to stand for a folder that nobody can write")
        assert "cannot write" in refused("run", "--study", study_file, "--out", "/proc/self/fdinfo")

    def test_disk_full_while_training(self, study_file, refused, tmp_path, small_disk):
        line = refused("run", "--study", study_file, "--set", "dim=256", "--out", small_disk)
        assert "the disk is full" in line

    def test_cell_directory_half_written(self, finished_run, refused, study_file, tmp_path):
        run = tmp_path / "out" / "tiny"
        shutil.copytree(finished_run, run)
        cell = next((run / "cells").iterdir())
        (cell / "rows.parquet").unlink()
        line = refused("run", "--study", study_file)
        assert "rows.parquet does not exist; delete the folder of cell" in line
        assert cell.name in line
        assert len(list((run / "cells").iterdir())) == 4

    def test_rows_cut_short(self, finished_run, refused, study_file, tmp_path):
        run = tmp_path / "out" / "tiny"
        shutil.copytree(finished_run, run)
        path = next((run / "cells").iterdir()) / "rows.parquet"
        path.write_bytes(path.read_bytes()[:200])
        assert path.parent.name in refused("report", "--study", study_file)

    def test_damaged_design(self, finished_run, refused, study_file, tmp_path):
        run = tmp_path / "out" / "tiny"
        shutil.copytree(finished_run, run)
        (run / "study.yaml").write_text("study: [")
        assert "damaged" in refused("run", "--study", study_file)

    def test_report_of_nothing(self, refused, study_file):
        assert "holds no run" in refused("report", "--study", study_file)

    def test_two_runs_in_one_folder(self, refused, start_harness, study_file, tmp_path):
        words = ("run", "--study", study_file, "--set", "budget.epochs=400", "--workers", "1")
        process = start_harness(*words)
        try:
            wait_for((tmp_path / "out" / "tiny" / "study.db").exists)
            assert "another `harness run` is working" in refused(*words)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=300)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that holds 2 MiB."""
    import subprocess

    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small tmpfs can't be mounted here; run as root to test a full disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
