"""Two processes that train one cell: the result is that of one process with the same batches."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.splits import make_split
from harness.errors import InputError
from harness.processes import Processes
from harness.registry import load_model
from harness.settings import parse
from harness.study.executors import local
from harness.study.ranks import Ranks, join
from harness.tasks.retrieval import Retrieval
from harness.training import CHECKPOINT, checkpoint_state, fit
from harness.training_config import Budget, TrainingConfig
from tests.forks import Fork

STUDY = """
study: pair
datasets: ["synthetic-sessions:users=20,items=10"]
seeds: 1
variants:
  sasrec: {model: sasrec, set: {dim: 4, layers: 1, heads: 1, inner: 4}}
metrics: [ndcg@10]
primary: ndcg@10
budget: {epochs: 1}
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, as Linux has them")

SASREC = {"dim": 8, "layers": 1, "heads": 1, "inner": 8, "dropout": 0.0, "attention_dropout": 0.0}
FAIR = {
    "dim": 8, "layers": 1, "heads": 1, "inner": 8, "embedding_dropout": 0.0, "attention_dropout": 0.0,
    "noise_mask": 0.0, "noise_replace": 0.0, "mi_weight": 0.0, "attention_bias": False,
}  # fmt: skip
"""Without what a process draws by itself, and without what it compares within its part. A bias of the keys has no
gradient but rounding errors, which Adam would make steps of."""


@pytest.fixture(scope="module")
def data():
    log = load("synthetic-sessions:users=22,items=30", DataConfig())
    return Retrieval(log, make_split(log, DataConfig()), max_length=10, metrics=["ndcg@10"])


def train(data, name, settings, folder, *, epochs=2, should_stop=lambda: False, **training):
    model_class = load_model(name)
    codes = torch.randint(0, 4, (31, 2), generator=torch.Generator().manual_seed(0)).numpy()
    codes[0] = 0
    schema = data.schema(codes, (4, 4)) if model_class.needs.codes else data.schema()
    torch.manual_seed(0)
    model = model_class(parse(model_class.Config, settings, name), schema)
    folder.mkdir(exist_ok=True)
    options = {"batch_size": 7, "learning_rate": 0.01, "clip_norm": 1.0, "optimizer": "adam"} | training
    fitted = fit(
        model,
        data,
        training=TrainingConfig(**options),
        budget=Budget(epochs=epochs),
        primary="ndcg@10",
        seed=3,
        folder=folder,
        should_stop=should_stop,
    )
    return model, fitted


def fork(work) -> int:
    """The process id of a fork that does ``work`` and ends with 0 if that went well."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def together(size, store, work):
    """``work(rank)`` in ``size`` forks that are joined into a group; the exit code of each."""

    def member(rank):
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        work(rank)

    return [exit_code(pid) for pid in [fork(lambda rank=rank: member(rank)) for rank in range(size)]]


def weights(path: Path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize(("name", "settings"), [("sasrec", SASREC), ("fair", FAIR)])
def test_two_processes_end_as_one_does(data, tmp_path, name, settings):
    _, alone = train(data, name, settings, tmp_path / "one")

    def work(rank):
        _, fitted = train(data, name, settings, tmp_path / "two")
        assert Processes.joined() == Processes(rank, 2)
        assert fitted.best_epoch == alone.best_epoch
        assert len(fitted.history) == (2 if rank == 0 else 0)
        for row, expected in zip(fitted.history, alone.history, strict=rank == 0):
            shared = {key for key in expected if key.startswith(("loss", "valid"))}
            assert [row[key] for key in shared] == pytest.approx([expected[key] for key in shared], abs=1e-5)
        if rank == 0:
            assert fitted.cost["events_per_second"] > 0

    assert together(2, tmp_path / "store", work) == [0, 0]
    one, two = (weights(tmp_path / side / CHECKPOINT) for side in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        if not key.startswith("optimizer/"):
            torch.testing.assert_close(two[key], one[key], atol=1e-5, rtol=0)


def lead(data, folder, patch, *, last_step=None):
    """In a fork: trains with another process, which is killed before its step ``last_step``."""
    settings = SASREC | {"dropout": 0.3}  # each process draws for itself

    def start(command, log, environment):
        steps = []

        def should_stop():
            steps.append(1)
            if len(steps) == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        def member():
            cell, rank, size, store = command[-4:]
            join((cell, int(rank), int(size), Path(store)), "cpu")
            train(data, "sasrec", settings, folder, should_stop=should_stop)

        return Fork(fork(member))

    patch.setattr(local, "start_process", start)

    def leader():
        with Ranks(2, (), folder / "logs").together("cell"):
            train(data, "sasrec", settings, folder)

    return leader


def test_a_killed_process_ends_the_cell_in_one_line_and_the_same_training_goes_on(data, tmp_path, monkeypatch):
    assert exit_code(fork(lead(data, tmp_path / "whole", monkeypatch))) == 0
    broken = lead(data, tmp_path / "parts", monkeypatch, last_step=6)  # in the second epoch, of four steps

    def ends_in_one_line():
        with pytest.raises(InputError, match=r"process 2 of the 2 .* died \(SIGKILL\); the same command goes on"):
            broken()
        assert not dist.is_initialized()

    assert exit_code(fork(ends_in_one_line)) == 0
    assert checkpoint_state(tmp_path / "parts" / CHECKPOINT)["epoch"] == 1
    assert exit_code(fork(lead(data, tmp_path / "parts", monkeypatch))) == 0
    whole, parts = (weights(tmp_path / side / CHECKPOINT) for side in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_run_trains_its_cells_with_two_processes(harness, tmp_path, refused):
    (tmp_path / "pair.yaml").write_text(STUDY, encoding="utf-8")
    words = ("run", "--study", "pair.yaml", "--workers", "1", "--executor-set")
    done = harness(*words, "processes_per_cell=2")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "out" / "pair"
    (card,) = run.glob("cells/*/cell.json")
    assert json.loads(card.read_text())["processes"] == {"count": 2, "compared_within_a_part": []}
    assert [log.read_text() for log in (run / "logs").glob("*-rank-1.log")] == [""]
    assert "processes_per_cell" in refused(*words, "processes_per_cell=0")
