"""What a training step of each action model costs against the length of the sequences and the width.

    python -m benchmarks.efficiency --out DIR [--lengths 64,128,...] [--dims 64,128] [--events 8192] [--repeats 5]

All arms have the same width, depth, heads, embeddings, head and batch, and take turns within one run. A batch holds
``--events`` events whatever the length. A step is loss, gradient and AdamW. In steps of their own its parts are
timed apart by cutting the graph at their borders: embeddings (lookup, action encoder and their gradients), backbone,
head with loss, optimizer. Beside them stand the ways to give AttnMVP's mixed values their diagonal, forward and
backward, against one plain call of the fused kernel, which has no such diagonal. FLOPs are those of the kernels that
run, forward and backward. Peak memory is what a step adds to the model and its optimizer: of the GPU, or of a
process of its own per arm. Writes efficiency.csv and efficiency.json.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import machine, options
from harness.files import whole_file, write_json
from harness.interface import Batch, Schema
from harness.memory import PeakMemory
from harness.registry import load_model
from models.blocks.causal_union import Part, attend, attend_masked
from models.blocks.ranker import Ranker

N_ITEMS, ACTIONS, CONTROL = 10_000, ("like", "love", "dislike"), "interleaved"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "item-only": ("item-only", {}),
    "lagged-action": ("lagged-action", {}),
    "item-action-sum": ("item-action-sum", {}),
    CONTROL: ("interleaved", {}),
    "interleaved-untrimmed": ("interleaved", {"last_layer": "all"}),
    "attn-lfa": ("attn-lfa", {}),
    "attn-mvp": ("attn-mvp", {}),
}
PARTS = ("embedding", "backbone", "head", "optimizer")


class Arm:
    """One model with its optimizer on one invented batch of full-length sequences."""

    def __init__(self, name: str, length: int, settings: dict[str, Any], events: int, device: torch.device) -> None:
        torch.manual_seed(0)
        rows = max(1, events // length)
        model, own = ARMS[name]
        kind = load_model(model)
        schema = Schema(N_ITEMS, rows, length, actions=ACTIONS)
        self.model: Ranker = kind(kind.Config(**settings, **own), schema).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.batch = Batch(
            items=torch.randint(1, N_ITEMS + 1, (rows, length)),
            lengths=torch.full((rows,), length),
            users=torch.arange(rows),
            valid=torch.arange(rows * length),
            actions=torch.randint(0, 2, (rows, length, len(ACTIONS))).float(),
        ).to(device)
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.tokens = rows * length * self.model.tokens_per_event
        self.seconds: list[float] = []
        self.part_seconds: list[dict[str, float]] = []

    def loss(self) -> Tensor:
        return torch.stack(list(self.model.losses(self.batch).values())).sum()

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()

    def clock(self) -> float:
        self.wait()
        return time.perf_counter()

    def time_step(self) -> None:
        started = self.clock()
        self.step()
        self.seconds.append(self.clock() - started)

    def time_parts(self) -> None:
        """One step with the graph cut where a part ends, so that each part's backward pass runs by itself."""
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

        modules = (self.model.item_embedding, self.model.action_encoder)
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
        timed("embedding", lambda: torch.autograd.backward(*map(list, zip(*reached, strict=True))))
        timed("optimizer", self.optimizer.step)
        self.part_seconds.append(spent)

    def flops(self) -> int:
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


def measure(
    dim: int, length: int, shape: dict[str, int], events: int, repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    """One row per arm. The arms take turns, each repeat starting with another one."""
    arms = {name: Arm(name, length, {"dim": dim, **shape}, events, device) for name in ARMS}
    names = list(arms)
    for repeat in range(-1, repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            arms[name].time_step()
            arms[name].time_parts()
            if repeat < 0:  # warm-up
                arms[name].seconds.clear()
                arms[name].part_seconds.clear()
    rows = []
    for name, arm in arms.items():
        seconds = median(arm.seconds)
        ratios = [a / b for a, b in zip(arm.seconds, arms[CONTROL].seconds, strict=True)]
        rows.append(
            {
                "arm": name,
                "dim": dim,
                "length": length,
                "batch": len(arm.batch.items),
                "step_seconds": seconds,
                "step_seconds_lowest": min(arm.seconds),
                "step_seconds_highest": max(arm.seconds),
                "relative_to_interleaved": median(ratios),
                "relative_lowest": min(ratios),
                "relative_highest": max(ratios),
                **{f"{part}_seconds": median(times[part] for times in arm.part_seconds) for part in PARTS},
                "events_per_second": arm.batch.items.numel() / seconds,
                "tokens_per_second": arm.tokens / seconds,
                "flops": arm.flops(),
                "peak_memory_bytes": arm.peak_memory() if device.type == "cuda" else None,
            }
        )
    return rows


def mixing_forms(
    dim: int, length: int, heads: int, events: int, repeats: int, device: torch.device
) -> dict[str, float | int]:
    """Median seconds, forward and backward, of each form of attention over mixed values."""
    shape = (4, max(1, events // length), heads, length, dim // heads)
    drawn = torch.randn(shape, device=device, requires_grad=True)
    query, key, items, actions = drawn.unbind(0)
    forms: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: attend(query, [Part(key, items + actions, False)]),
        "merged": lambda: attend(query, [Part(key, items + actions, True)], (key, items)),
        "masked": lambda: attend_masked(query, [Part(key, items + actions, True)], (key, items)),
    }
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(-1, repeats):
        for name, form in forms.items():
            wait()
            started = time.perf_counter()
            torch.autograd.grad(form().sum(), drawn)
            wait()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {"dim": dim, "length": length, **{name: median(times) for name, times in seconds.items()}}


def memory_of(name: str, dims: list[int], lengths: list[int], shape: dict[str, int], events: int) -> list[int]:
    """Peak memory per width and length, in a process whose large blocks go back to the system as they are freed."""
    code = (
        "import json, sys, torch; from benchmarks.efficiency import Arm; name, dims, lengths, shape, events = "
        "json.loads(sys.argv[1]); torch.set_num_threads(1); print(json.dumps([Arm(name, n, {'dim': d, **shape}, "
        "events, torch.device('cpu')).peak_memory() for d in dims for n in lengths]))"
    )
    given = json.dumps([name, dims, lengths, shape, events])
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code, given], env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--out", type=Path, required=True, help="folder of efficiency.csv and efficiency.json")
    parser.add_argument("--lengths", type=numbers, default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--dims", type=numbers, default=[64, 128])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--events", type=int, default=8192, help="events in a batch")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape, device = {"layers": given.layers, "heads": given.heads}, torch.device(given.device)
    rows: list[dict[str, Any]] = []
    mixing = []
    for dim in given.dims:
        for length in given.lengths:
            rows += measure(dim, length, shape, given.events, given.repeats, device)
            mixing.append(mixing_forms(dim, length, given.heads, given.events, given.repeats, device))
            for row in rows[-len(ARMS) :]:
                parts = "  ".join(f"{part} {row[f'{part}_seconds'] * 1e3:6.1f}" for part in PARTS)
                print(
                    f"dim {dim:4d}  length {length:5d}  {row['arm']:22s} {row['step_seconds'] * 1e3:8.1f} ms "
                    f"({row['relative_to_interleaved']:.2f} of interleaved)  {parts}",
                    flush=True,
                )
    if device.type != "cuda":
        for name in ARMS:
            measured = memory_of(name, given.dims, given.lengths, shape, given.events)
            own = [row for row in rows if row["arm"] == name]
            for row, value in zip(own, measured, strict=True):
                row["peak_memory_bytes"] = value
    setting = {**shape, "events": given.events, "items": N_ITEMS, "actions": len(ACTIONS), "repeats": given.repeats}
    described = {"machine": machine(), "device": str(device), **setting}
    write_json(given.out / "efficiency.json", {**described, "rows": rows, "mixing": mixing})
    with whole_file(given.out / "efficiency.csv") as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
