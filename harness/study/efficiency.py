"""What a training step of each variant costs against the length of the sequences and the width.

All variants have the same width and catalogue, and take turns within one run on invented sequences of full length. A
batch holds the same number of events whatever the length. A step is loss, gradient and AdamW. In steps of their own
its parts are timed apart by cutting the graph at their borders: embeddings (lookup, action encoder and their
gradients), backbone, head with loss, optimizer. FLOPs are those of the matrix products and attention kernels that
run, forward and backward. Peak memory is what a step adds to the model and its optimizer: of the GPU, or of a
process of its own per variant.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.analysis.efficiency import MEASUREMENTS, PARTS
from harness.errors import InputError
from harness.files import read_json, write_json, write_text
from harness.interface import Batch, Recommender, Schema, Task
from harness.memory import PeakMemory
from harness.provenance import git_state, hardware, versions
from harness.reading import shapes
from harness.registry import load_model
from harness.settings import Settings, parse
from harness.study.efficiency_design import EfficiencyStudy

__all__ = ["Arm", "measure", "run_efficiency"]

FORMAT = 1
EMBEDDINGS = ("item_embedding", "action_encoder")
"""Modules whose time is the embeddings', in models that have them."""


class Arm:
    """One variant's model with its optimizer on one invented batch of full-length sequences."""

    def __init__(self, study: EfficiencyStudy, variant: str, dim: int, length: int, device: torch.device) -> None:
        torch.manual_seed(0)
        rows = max(1, study.events // length)
        kind, config = _model(study, variant, dim)
        actions = tuple(f"action {number}" for number in range(1, study.actions + 1))
        # Of any type, as it is asked for `states`, which the interface does not have.
        self.model: Any = kind(config, Schema(study.items, rows, length, actions=actions)).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.batch = Batch(
            items=torch.randint(1, study.items + 1, (rows, length)),
            lengths=torch.full((rows,), length),
            users=torch.arange(rows),
            valid=torch.arange(rows * length),
            actions=torch.randint(0, 2, (rows, length, study.actions)).float(),
        ).to(device)
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def loss(self) -> Tensor:
        return torch.stack(list(self.model.losses(self.batch).values())).sum()

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()

    def clock(self) -> float:
        self.wait()
        return time.perf_counter()

    def step_seconds(self) -> float:
        started = self.clock()
        self.step()
        return self.clock() - started

    def part_seconds(self) -> dict[str, float]:
        """Seconds of each part of a step, of which the graph is cut where a part ends.

        So each part's backward pass runs by itself; the gradients are those of a whole step.
        """
        spent = dict.fromkeys(PARTS, 0.0)
        cuts: list[tuple[Tensor, Tensor]] = []
        began = [0.0]

        def enter(_module: Any, _given: Any) -> None:
            began[0] = self.clock()

        def leave(_module: Any, _given: Any, output: Tensor) -> Tensor:
            spent["embedding"] += self.clock() - began[0]
            return cut(output)

        def cut(output: Tensor) -> Tensor:
            cuts.append((output, output.detach().requires_grad_()))
            return cuts[-1][1]

        def states(*given: Any, **named: Any) -> Tensor:
            started = self.clock()
            output = type(self.model).states(self.model, *given, **named)
            spent["backbone"] = self.clock() - started - spent["embedding"]
            return cut(output)

        def timed(part: str, work: Callable[[], Any]) -> None:
            started = self.clock()
            work()
            spent[part] += self.clock() - started

        modules = [found for name in EMBEDDINGS if isinstance(found := getattr(self.model, name, None), nn.Module)]
        hooks = [module.register_forward_pre_hook(enter) for module in modules]
        hooks += [module.register_forward_hook(leave) for module in modules]
        self.model.states = states
        self.optimizer.zero_grad(set_to_none=True)
        started = self.clock()
        loss = self.loss()
        spent["head"] = self.clock() - started - spent["backbone"] - spent["embedding"]
        del self.model.states
        for hook in hooks:
            hook.remove()
        *embedded, (output, leaf) = cuts
        timed("head", loss.backward)
        timed("backbone", lambda: output.backward(leaf.grad))
        reached = [(out, cut_leaf.grad) for out, cut_leaf in embedded if cut_leaf.grad is not None]
        if reached:
            outputs, gradients = map(list, zip(*reached, strict=True))
            timed("embedding", lambda: torch.autograd.backward(outputs, gradients))
        timed("optimizer", self.optimizer.step)
        return spent

    def flops(self) -> int:
        """Of loss and gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        with FlopCounterMode(display=False) as counter:
            self.loss().backward()
        return counter.get_total_flops()

    def peak_memory(self) -> int:
        """Bytes that a step adds to what is there between steps."""
        self.step()
        self.optimizer.zero_grad(set_to_none=True)
        peak = PeakMemory(self.batch.items.device)
        before = peak.bytes()
        self.step()
        return peak.bytes() - before

    def described(self) -> dict[str, int]:
        events = self.batch.items.numel()
        return {
            "batch": len(self.batch.items),
            "events": events,
            "tokens": events * getattr(self.model, "tokens_per_event", 1),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "flops": self.flops(),
        }


def run_efficiency(
    study: EfficiencyStudy,
    folder: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    accept_change: bool = False,
    command: str,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Measures what the study asks for and writes its design and its measurements into ``folder``.

    A folder with the measurements of this very design is left as it is.

    Raises:
        InputError: a variant that can't be measured, a folder that can't be written or holds another design.
    """
    _check(study)
    path, design = folder / MEASUREMENTS, study.model_dump(mode="json")
    if path.exists() and not accept_change:
        if read_json(path, shapes.Measurements)["study"] != design:
            raise InputError(
                f"{path} was measured under another design; name another folder with --name, or measure again in "
                "this one with --accept-change"
            )
        say(f"{path} is there already; --accept-change measures again")
        return
    write_text(folder / "study.yaml", yaml.safe_dump(design, sort_keys=False, allow_unicode=True, width=110))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        started = datetime.now(UTC)
        measurements = measure(study, torch.device(device), say)
        record = {
            "format": FORMAT,
            "study": design,
            "command": command,
            "versions": versions(),
            "git": git_state(),
            "hardware": hardware(device),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "measurements": measurements,
        }
    finally:
        torch.set_num_threads(before)
    write_json(path, record)


def measure(
    study: EfficiencyStudy, device: torch.device, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """One entry per width, length and variant, with the seconds of every turn."""
    found = []
    for dim in study.dims:
        for length in study.lengths:
            where = f"dim {dim}, length {length}"
            say(f"{where}: time and FLOPs")
            with _memory_error(where):
                found += _setting(study, dim, length, device)
    if device.type != "cuda":
        for variant in study.variants:
            say(f"{variant}: memory")
            own = [entry for entry in found if entry["variant"] == variant]
            for entry, peak in zip(own, _memory_elsewhere(study, variant), strict=True):
                entry["peak_memory_bytes"] = peak
    return found


def _setting(study: EfficiencyStudy, dim: int, length: int, device: torch.device) -> list[dict[str, Any]]:
    """All variants at one width and length. They take turns, and each turn starts with another one."""
    arms = {variant: Arm(study, variant, dim, length, device) for variant in study.variants}
    names = list(arms)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(-1, study.repeats):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            seconds = {"step": arms[name].step_seconds()} | arms[name].part_seconds()
            if turn >= 0:  # the first one warms up
                turns[name].append(seconds)
    return [
        {
            "variant": name,
            "dim": dim,
            "length": length,
            **arm.described(),
            "peak_memory_bytes": arm.peak_memory() if device.type == "cuda" else None,
            "turns": turns[name],
        }
        for name, arm in arms.items()
    ]


def _memory_elsewhere(study: EfficiencyStudy, variant: str) -> list[int]:
    """Peak memory at each width and length, in a process whose large blocks go back to the system as they are freed."""
    given = json.dumps([study.model_dump(mode="json"), variant, torch.get_num_threads()])
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness.study.efficiency"],
        input=given, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise InputError(f"the memory of '{variant}' can't be measured ({said[-1]}); try shorter lengths")
    return json.loads(done.stdout)


def _print_memory() -> None:
    """What the process started by :func:`_memory_elsewhere` does."""
    design, variant, threads = json.load(sys.stdin)
    torch.set_num_threads(threads)
    study = EfficiencyStudy(**design)
    cpu = torch.device("cpu")
    print(json.dumps([Arm(study, variant, d, n, cpu).peak_memory() for d in study.dims for n in study.lengths]))


def _model(study: EfficiencyStudy, variant: str, dim: int) -> tuple[type[Recommender], Settings]:
    arm = study.variants[variant]
    kind = load_model(arm.model)
    return kind, parse(kind.Config, {**study.common, "dim": dim, **arm.set}, f"variant '{variant}'")


def _check(study: EfficiencyStudy) -> None:
    """Refuses what can't be measured before anything is."""
    for variant in study.variants:
        for dim in study.dims:
            kind, _ = _model(study, variant, dim)
            if Task.ACTION not in kind.tasks or not hasattr(kind, "states"):
                raise InputError(
                    f"variant '{variant}': model '{study.variants[variant].model}' can't be measured here; it takes an "
                    "action model whose method 'states' ends its backbone"
                )


@contextmanager
def _memory_error(where: str) -> Iterator[None]:
    """Words the end of the memory; PyTorch's allocator on CPU raises a plain RuntimeError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "memory" not in str(error):
            raise
        raise InputError(f"the memory is too small at {where}; give fewer 'events' or shorter 'lengths'") from error


if __name__ == "__main__":
    _print_memory()
