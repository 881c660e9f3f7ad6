"""What main does around its workers: how it starts them, what it makes of their deaths, what it leaves behind."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from harness.errors import InputError
from harness.files import write_json
from harness.resolve import usable_device
from harness.study import worker
from harness.study.crew import MAX_DEATHS, Crew, _Started
from harness.study.design import Study
from harness.study.executors import Worker
from harness.study.executors.local import Local
from harness.study.folder import HOST, RunFolder
from harness.study.loading import load_study
from harness.study.progress import Display
from harness.study.runner import Settings, prepare
from harness.study.stopping import noted_signals

SECRET = "postgresql+psycopg://me:s3cret@127.0.0.1/db"


@pytest.fixture
def started(monkeypatch):
    """The workers that main starts, as the arguments of Popen; none is started."""
    calls = []

    def start(command, **options):
        calls.append((command, options["env"]))
        return SimpleNamespace(poll=lambda: None)

    monkeypatch.setattr(subprocess, "Popen", start)
    return calls


def queued(study_file: Path, tmp_path: Path, **options):
    study = load_study(str(study_file), preset="default", settings=(), seeds=None, datasets=())
    settings = Settings(out=tmp_path / "out", name="tiny", **options)
    return study, settings, *prepare(study, settings, Display())


def crew(folder: Path, **options) -> Crew:
    return Crew(Local(Local.Options()), RunFolder(folder), folder / "cache", **options)


class TestStart:
    def test_a_password_stands_in_no_command_line(self, started, tmp_path):
        crew(tmp_path, storage=SECRET)._start(0)
        ((command, environment),) = started
        assert not any("s3cret" in word for word in command)
        assert environment["HARNESS_STORAGE"] == SECRET

    def test_a_password_stands_in_no_record(self, monkeypatch):
        from harness.cli.common import command_line

        monkeypatch.setattr("sys.argv", ["harness", "run", "--storage", SECRET, f"--storage={SECRET}"])
        assert "s3cret" not in command_line()
        assert "postgresql+psycopg://me:***@127.0.0.1/db" in command_line()

    def test_a_worker_starts_where_the_folder_holds_another_harness(self, started, tmp_path, monkeypatch):
        crew(tmp_path)._start(0)
        monkeypatch.undo()
        ((command, _),) = started
        for name in ("namespace", "package"):
            other = tmp_path / name / "harness"
            other.mkdir(parents=True)
            if name == "package":
                (other / "__init__.py").write_text("raise ImportError('the wrong harness')")
            start = [*command[: command.index("worker") + 1], "--help"]
            done = subprocess.run(start, cwd=other.parent, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("device", ["mps:0", "xla", "meta", "cuda:99", "nonsense"])
    def test_a_device_that_is_not_there(self, device):
        with pytest.raises(InputError, match=f"--device {device}"):
            usable_device(device)


class Dead(Worker):
    """A worker that ended before anybody looked at it."""

    def __init__(self, code: int) -> None:
        self.code = code

    def exit_code(self) -> int:
        return self.code

    def stop(self) -> None: ...

    def end(self) -> None: ...


class TestDeath:
    def bury(self, code: int, of: Crew, cells=(), over=frozenset()) -> None:
        log = of.folder.path / "worker-0.log"
        log.write_text("error: last words\n")
        shared = SimpleNamespace(is_over=lambda cell_id: cell_id in over)
        give_up = functools.partial(worker.record_failure, of.folder)
        of._bury(_Started(0, "dead", log, Dead(code)), code, shared, cells, give_up)

    def test_of_a_worker_without_a_cell_is_passed_over(self, tmp_path):
        said: list[str] = []
        some = crew(tmp_path, say=said.append)
        for _ in range(MAX_DEATHS - 1):
            self.bury(-signal.SIGKILL, some)
        assert "without a task; another takes its place" in said[-1]
        with pytest.raises(InputError, match=r"SIGKILL.*worker-0\.log"):
            self.bury(-signal.SIGKILL, some)

    def test_by_a_signal_that_asks_it_to_stop(self, tmp_path):
        said: list[str] = []
        some = crew(tmp_path, say=said.append)
        for _ in range(2 * MAX_DEATHS):
            self.bury(130, some)
        assert said[-1] == "a worker was stopped; another takes its place"

    def test_by_its_own_input_or_a_bug_ends_the_run(self, tmp_path):
        with pytest.raises(InputError, match="last words"):
            self.bury(2, crew(tmp_path))
        with pytest.raises(InputError, match="exit code 1"):
            self.bury(1, crew(tmp_path))

    def test_of_several_workers_at_one_cell_gives_it_up(self, study_file, tmp_path):
        _, settings, cells, queue = queued(study_file, tmp_path)
        folder = settings.folder
        for cell, name in zip(cells, ("dead", "alive", "dead"), strict=False):
            write_json(folder.running(cell.id) / "worker.json", {"host": HOST, "process": 1, "worker": name})
        some = crew(folder.path)
        for _ in range(MAX_DEATHS):
            assert folder.failure(cells[0].id) is None
            self.bury(-signal.SIGKILL, some, cells, over={cells[2].id})
        assert "died 3 times" in folder.failure(cells[0].id)["reason"]
        assert set(some.deaths) == {cells[0].id}
        assert queue.synchronise() == len(cells) - 1


class TestFolder:
    def test_what_killed_processes_left_is_removed(self, tmp_path):
        folder = RunFolder(tmp_path)
        left = [
            tmp_path / "tables" / ".main.csv.ab12cd_9.csv",
            tmp_path / "tables" / "two-column" / ".main.tex.ab12cd_9.tex",
            tmp_path / "catalogues" / ".a.parquet.ab12cd_9.parquet",
            tmp_path / ".summary.json.ab12cd_9.json",
        ]
        kept = [
            tmp_path / "tables" / "main.csv",
            tmp_path / "tables" / ".own.csv",
            tmp_path / "figures" / ".main.pdf.ab12cd_9.pdf",  # of a process that is at work
            folder.running("b") / "checkpoint.safetensors",
        ]
        for path in [*left, *kept, folder.running("a") / "lock", folder.cell("a") / "cell.json"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for path in [*left, *kept[:2]]:
            os.utime(path, (1000, 1000))
        folder.tidy(before=2000)
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)
        assert not folder.running("a").exists()

    def test_a_lock_ends_with_its_process(self, tmp_path):
        code = (
            "import sys; from pathlib import Path; from harness.study.folder import RunFolder\n"
            f"lock = RunFolder(Path({str(tmp_path)!r}), 'theirs').lock('a')\n"
            "print(lock.__enter__(), flush=True); sys.stdin.read(1)"
        )
        folder = RunFolder(tmp_path, "ours")
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"True\n"
            assert folder.is_held("a")
            assert folder.holder("a") == "theirs"
            with folder.lock("a") as mine:
                assert not mine
            assert folder.holder("a") == "theirs"
            process.kill()
        assert not folder.is_held("a")
        with folder.lock("a") as mine:
            assert mine
            assert folder.holder("a") == "ours"

    def test_signals_are_handled_as_before_once_the_workers_are_gone(self):
        before = signal.getsignal(signal.SIGINT)
        with noted_signals(second_ends=True) as asked:
            signal.raise_signal(signal.SIGINT)
            assert asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is before

    def test_ctrl_c_while_the_report_is_written(self, finished_run, study_file, call, tmp_path, monkeypatch):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        shutil.copytree(finished_run, tmp_path / "out" / "tiny")
        monkeypatch.setattr("harness.analysis.report.write_report", lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            ended = call("run", "--study", study_file)
        finally:
            signal.signal(signal.SIGINT, before)
        assert ended.code == 130
        assert ended.err.splitlines()[-1] == "interrupted; give the same command again", ended.err


class TestName:
    def test_the_queue_is_found_from_another_mount_point(self, study_file, tmp_path):
        _, _, _, queue = queued(study_file, tmp_path)
        name = queue.study.study_name
        (tmp_path / "out").rename(tmp_path / "mounted")
        moved = RunFolder(tmp_path / "mounted" / "tiny")
        assert moved.queue_name(*moved.read_design()) == name

    def test_a_run_goes_on_under_its_name_unless_it_is_widened(self, study_file, tmp_path):
        _, _, _, first = queued(study_file, tmp_path)
        _, _, _, same = queued(study_file, tmp_path)
        assert same.study.study_name == first.study.study_name
        study_file.write_text(
            study_file.read_text().replace("\nbudget:", "\n  more: {model: sasrec, set: {dim: 16}}\nbudget:", 1)
        )
        _, _, cells, wider = queued(study_file, tmp_path)
        assert wider.study.study_name != first.study.study_name
        assert wider.left() == len(cells) == 6

    def test_runs_from_before_the_name_was_written_still_open(self, study_file, tmp_path):
        study, settings, _, queue = queued(study_file, tmp_path)
        folder = settings.folder
        _, extra = folder.read_design()
        old = {key: value for key, value in extra.items() if key not in {"queue", "started_in"}}
        folder.write_design(study, old)
        name = folder.queue_name(*folder.read_design())
        assert name.startswith("tiny-")
        assert name != queue.study.study_name
        optuna.create_study(study_name=name, storage=settings.storage_url)
        _, _, _, again = queued(study_file, tmp_path)
        assert again.study.study_name == name


class TestHelpers:
    def test_wait_for_a_run(self, tmp_path, monkeypatch):
        folder = RunFolder(tmp_path / "tiny")
        with pytest.raises(InputError, match=r"holds no run; start it .* --wait SECONDS"):
            worker.wait_for_run(folder, 0)

        def write(seconds: float) -> None:
            folder.path.mkdir()
            folder.design.touch()

        monkeypatch.setattr(worker.time, "sleep", write)
        worker.wait_for_run(folder, 60)

    def test_a_run_that_only_queues(self, study_file, call, tmp_path, started):
        ended = call("run", "--study", study_file, "--queue-only")
        assert ended.code == 0, ended.err
        assert "4 cells wait for `harness worker out/tiny`" in ended.err
        assert started == []
        assert not (tmp_path / "out" / "tiny" / "cells").exists()

    def test_a_helper_finds_relative_paths_from_anywhere(self, call, tmp_path, monkeypatch):
        place = tmp_path / "project"
        data = place / "in" / "x"
        data.mkdir(parents=True)
        events = [f"{user}\t{(user + step) % 7}\t{step}" for user in range(9) for step in range(6)]
        (data / "x.inter").write_text(
            "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *events]) + "\n", encoding="utf-8"
        )
        (place / "study.yaml").write_text(
            "{study: s, datasets: [in/x/], seeds: 1, variants: {p: {model: popularity}}, metrics: [ndcg@5], "
            "primary: ndcg@5}"
        )
        monkeypatch.chdir(place)
        ended = call("run", "--study", "study.yaml", "--out", "out", "--queue-only")
        assert ended.code == 0, ended.err
        monkeypatch.chdir(tmp_path)
        ended = call("worker", place / "out" / "s")
        assert ended.code == 0, ended.err
        (cell,) = (place / "out" / "s" / "cells").iterdir()
        assert json.loads((cell / "cell.json").read_text())["dataset"] == "in/x"

    @pytest.mark.parametrize("spelling", ["in/x/", "./in/x", "in//x", "in/x"])
    def test_a_path_is_one_data_set_however_it_is_spelt(self, spelling):
        study = Study(
            study="s",
            datasets=[spelling],
            seeds=1,
            variants={"a": {"model": "sasrec"}},
            metrics=["ndcg@10"],
            primary="ndcg@10",
        )
        assert list(study.datasets) == ["in/x"]


class TestFailed:
    def test_a_failed_run_says_where_to_look_and_what_to_do(self, study_file, call, tmp_path):
        _, settings, cells, _ = queued(study_file, tmp_path)
        for cell in cells:
            worker.record_failure(settings.folder, cell, "NaN")
        ended = call("run", "--study", study_file)
        assert ended.code == 1
        assert ended.err.count("failed before, not tried again") == 4
        assert "FAILED" not in ended.err
        assert "--retry-failed" in ended.err
        assert "out/tiny/failed/*/failure.json" in ended.err
        assert "out/tiny/logs" in ended.err

    def test_retrying_shows_no_old_failure(self, study_file, call, tmp_path):
        _, settings, cells, _ = queued(study_file, tmp_path)
        worker.record_failure(settings.folder, cells[0], "NaN")
        ended = call("run", "--study", study_file, "--queue-only", "--retry-failed")
        assert "NaN" not in ended.err
        assert "4 cells wait" in ended.err
