"""Two processes that train one cell: the result is that of one process with the same batches."""

from __future__ import annotations

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
from harness.errors import CellFailed, Interrupted
from harness.processes import Processes
from harness.registry import load_model
from harness.settings import parse
from harness.tasks.retrieval import Retrieval
from harness.training import CHECKPOINT, fit
from harness.training_config import Budget, TrainingConfig

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, as Linux has them")

SASREC = {"dim": 8, "layers": 1, "heads": 1, "inner": 8, "dropout": 0.0, "attention_dropout": 0.0}
FAIR = {
    "dim": 8, "layers": 1, "heads": 1, "inner": 8, "embedding_dropout": 0.0, "attention_dropout": 0.0,
    "noise_mask": 0.0, "noise_replace": 0.0, "mi_weight": 0.0, "attention_bias": False,
}  # fmt: skip
"""Without what a process draws by itself, and without what it compares within its part. A bias of the keys has no gradient
but rounding errors, which Adam would make steps of."""


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


def together(size, store, work):
    """``work(rank)`` in ``size`` forks that are joined into a group; the exit code of each."""
    children = []
    for rank in range(size):
        if pid := os.fork():
            children.append(pid)
            continue
        code = 1
        try:
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
            work(rank)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


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
