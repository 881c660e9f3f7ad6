"""Fit one cell: one loop for every model, on CPU and CUDA, resumable after any epoch.

On a CPU a resumed cell ends with the same bytes as one that was never interrupted; on CUDA some kernels add up in an
order of their own.

Everything random in an epoch is drawn from generators seeded by (seed, epoch), so that a run that was
interrupted and resumed sees what an uninterrupted one does, and variants of one seed see the same data order.
Several processes that train a cell together (:mod:`harness.processes`) run this loop in step; the first one evaluates
and writes.
"""

from __future__ import annotations

import json
import math
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from harness.diagnostics import Diagnostics
from harness.errors import CellFailed, InputError, Interrupted, in_one_line, shortened
from harness.files import whole_file
from harness.interface import Recommender
from harness.memory import PeakMemory, keep_freed_memory
from harness.metrics import lower_is_better
from harness.processes import Losses, Processes
from harness.reading.tensors import read_metadata, read_tensors
from harness.tasks.base import Predictions, TaskData
from harness.training_config import Budget, TrainingConfig

__all__ = ["CHECKPOINT", "LAST_STATE", "NEEDS_TOTAL", "Fitted", "checkpoint_state", "fit", "keep_last_state"]

CHECKPOINT = "checkpoint.safetensors"
RESTORE = "restore it from a copy"
LAST_STATE = "last_state.safetensors"
"""The last checkpoint of a finished cell, where its study keeps it."""
SECONDS = ("data_seconds", "train_seconds", "evaluation_seconds")


@dataclass
class Fitted:
    """What a training left behind; the model holds the weights of the best epoch."""

    best_epoch: int
    epochs: int
    stopped: Literal["patience", "budget"]
    history: list[dict[str, Any]]
    cost: dict[str, Any]
    validation: Predictions | None = None
    """What the best epoch predicted of the validation part; None where that epoch lies before a resumption."""
    origin: str = ""
    """The cell with a smaller budget whose last state the training began with."""


@dataclass
class _State:
    """All that a checkpoint holds besides tensors."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    total_steps: int = 0
    supervised: int = 0
    read: int = 0
    peak_memory: int = 0
    resumed: int = 0
    flops: float | None = None
    made_with: str = ""
    origin: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    model: Recommender,
    data: TaskData,
    *,
    training: TrainingConfig,
    budget: Budget,
    primary: str,
    seed: int,
    folder: Path,
    made_with: str = "",
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    on_step: Callable[[float], None] = lambda part: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Trains ``model`` until its budget or patience ends; keeps a checkpoint in ``folder`` after each epoch.

    ``on_epoch`` hears the history's row of each epoch, ``on_step`` before each step the part of its epoch that is done.

    ``made_with`` names the code, versions and hardware that the bits of the result depend on: a checkpoint made with
    others is left aside, and the cell starts anew. A model without parameters is left as it is, after no epoch.

    Raises:
        CellFailed: a loss or a score is not finite.
        Interrupted: ``should_stop`` said so; calling again with the same ``folder`` goes on.
    """
    if not any(p.requires_grad for p in model.parameters()):
        return Fitted(0, 0, "budget", [], {"parameters": 0, "epochs": 0, **dict.fromkeys(SECONDS, 0.0)})
    keep_freed_memory()
    optimizer = _optimizer(model, training)
    state, best = _resume(folder, model, optimizer, made_with, data.device)
    plain = torch.compile(model.losses, dynamic=True) if training.compile else model.losses
    better = operator.lt if lower_is_better(primary) else operator.gt
    memory = PeakMemory(data.device)
    state.flops = state.flops or _flops_per_event(model, data, training)
    team = Processes.joined()
    losses = team.shared(model, plain)
    diagnostics = Diagnostics(model, data, training)
    validation: Predictions | None = None
    while state.epoch < budget.epochs and not _out_of_patience(state, budget):
        epoch = state.epoch + 1
        row = _train_epoch(model, losses, data, optimizer, training, budget, state, seed, team, on_step, should_stop)
        started = time.perf_counter()
        if epoch % budget.eval_every == 0 or epoch == budget.epochs:
            predicted, value, tracked = _validate(model, data, primary, team)
            row |= tracked
            if state.best_value is None or better(value, state.best_value):
                validation, state.best_value, state.best_epoch = predicted, value, epoch
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        row["evaluation_seconds"] = time.perf_counter() - started
        state.epoch = epoch
        if team.leads:
            row |= diagnostics.measure()
            state.history.append(row)
            state.peak_memory = max(state.peak_memory, memory.bytes())
            _save(folder, state, model, optimizer, best)
            on_epoch(row)

    model.load_state_dict(best)
    stopped: Literal["budget", "patience"] = "budget" if state.epoch >= budget.epochs else "patience"
    return Fitted(state.best_epoch, state.epoch, stopped, state.history, _cost(model, state), validation, state.origin)


def _validate(
    model: Recommender, data: TaskData, primary: str, team: Processes
) -> tuple[Predictions | None, float, dict[str, float | None]]:
    """Predictions on the validation part, their primary metric, and what the history keeps of them. Those who do not
    lead hear the metric alone."""
    if not team.leads:
        return None, team.agreed(math.nan, data.device), {}
    predicted = data.predict(model, "valid")
    summary = data.summarise(predicted.rows)
    tracked = {f"valid/{metric}": value for metric, value in data.tracked(summary).items()}
    return predicted, team.agreed(data.value(summary, primary), data.device), tracked


def _cost(model: Recommender, state: _State) -> dict[str, Any]:
    seconds = {part: sum(row[part] for row in state.history) for part in SECONDS}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_flops_per_event": state.flops,
        **seconds,
        "events_per_second": state.supervised / seconds["train_seconds"] if seconds["train_seconds"] else None,
        **_tokens(model, state.read, seconds["train_seconds"]),
        "peak_memory_bytes": state.peak_memory,
        "epochs": state.epoch,
        "resumed": state.resumed,
    }


def _tokens(model: Recommender, events: int, seconds: float) -> dict[str, float | None]:
    """Tokens that the model makes of an event, and those that it read in a second; of models that say so."""
    tokens = getattr(model, "tokens_per_event", None)
    if tokens is None:
        return {}
    return {"tokens_per_event": tokens, "tokens_per_second": events * tokens / seconds if seconds else None}


def _train_epoch(
    model: Recommender,
    losses: Losses,
    data: TaskData,
    optimizer: torch.optim.Optimizer,
    training: TrainingConfig,
    budget: Budget,
    state: _State,
    seed: int,
    team: Processes,
    on_step: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """One pass over the training windows; returns the history row but for the validation's part."""
    epoch = state.epoch + 1
    device = data.device
    started = time.perf_counter()
    torch.manual_seed(_derive(seed, epoch, *([team.rank] if team.rank else [])))
    n_batches, batches = data.training_epoch(
        rows=model.needs_with(model.config).rows,
        batch_size=training.batch_size,
        rng=np.random.default_rng([seed, epoch]),
        stride=training.stride,
        share=training.prefixes,
        seed=seed,
        epoch=epoch,
        part=(team.rank, team.size),
    )
    state.total_steps = state.total_steps or n_batches * budget.epochs
    data_seconds = time.perf_counter() - started
    totals: dict[str, Tensor] = {}
    read, supervised = torch.zeros((), dtype=torch.int64, device=device), 0
    rate = training.learning_rate
    model.train()
    for done, (batch, waited) in enumerate(_timed(batches)):
        data_seconds += waited
        on_step(done / n_batches)
        if should_stop():
            raise Interrupted
        rate = _learning_rate(training, state.step, state.total_steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            terms = losses(batch)
            loss = torch.stack(list(terms.values())).sum()
        _update(model, optimizer, loss, rate, training.clip_norm)
        state.step += 1
        supervised += len(batch.positions())
        read += batch.lengths.sum()
        for name, term in terms.items():
            totals[name] = totals.get(name, 0) + term.detach()
    means = _finite_means(team.mean(totals), n_batches, epoch)  # waits for the device
    state.read += int(team.total(read))
    state.supervised += int(team.total(torch.tensor(supervised, device=device)))
    return {
        "epoch": epoch,
        "loss": sum(means.values()),
        **{f"loss/{name}": value for name, value in means.items()},
        "learning_rate": rate,
        "data_seconds": data_seconds,
        "train_seconds": time.perf_counter() - started - data_seconds,
    }


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip_norm: float | None
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


def _out_of_patience(state: _State, budget: Budget) -> bool:
    return (
        budget.patience is not None
        and state.best_value is not None
        and state.epoch % budget.eval_every == 0
        and state.epoch - state.best_epoch >= budget.patience
    )


def _derive(*numbers: int) -> int:
    """A seed for torch's generator that no other (seed, epoch) shares, nor (seed, epoch, rank)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    # Only matrices decay: a decayed gain or bias has no reason to be small.
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[training.optimizer]
    return kind(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        fused=True,
    )


NEEDS_TOTAL = ("linear", "cosine")
"""Schedules whose learning rate depends on the number of steps in all."""


def _learning_rate(training: TrainingConfig, step: int, total: int) -> float:
    """Linear warm-up to the learning rate, then the schedule; the inverse square root starts at the warm-up's end."""
    warmup = training.warmup_steps
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "inverse-sqrt": math.sqrt(max(warmup, 1) / max(step, warmup, 1)),
    }[training.schedule]
    return training.learning_rate * factor


def _timed(batches: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Each batch with the seconds it took to make."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _finite_means(totals: dict[str, Tensor], n_batches: int, epoch: int) -> dict[str, float]:
    means = {name: float(total) / n_batches for name, total in totals.items()}
    for name, value in means.items():
        if not math.isfinite(value):
            raise CellFailed(f"the loss term '{name}' is {value} in epoch {epoch}; lower training.learning_rate")
    return means


def _flops_per_event(model: Recommender, data: TaskData, training: TrainingConfig) -> float:
    """Floating-point operations of one training step (forward and backward) per supervised event."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    n_batches, batches = data.training_epoch(
        rows=model.needs_with(model.config).rows,
        batch_size=min(training.batch_size, 64),
        rng=np.random.default_rng(0),
        stride=training.stride,
    )
    if not n_batches:
        raise InputError(f"data set '{data.log.name}' has no training target; its users are too short")
    batch = next(batches)
    model.train()
    # Fused attention kernels hide their operations from the counter, plain ones do not.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        torch.stack(list(model.losses(batch).values())).sum().backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(batch.positions())


def _save(
    folder: Path, state: _State, model: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
) -> None:
    """One file, written aside and renamed: tensors and state can't disagree."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    # Tied weights share memory, which the format refuses: each name gets its own copy.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with whole_file(folder / CHECKPOINT) as aside:
        aside.write_bytes(save(tensors, metadata={"state": json.dumps(state.__dict__)}))


def checkpoint_state(path: Path) -> dict[str, Any]:
    """What a checkpoint holds besides tensors. Raises InputError where it can't be read."""
    return read_metadata(path, "state", RESTORE)


def keep_last_state(checkpoint: Path, target: Path, cell: str) -> None:
    """Copies the last checkpoint of the finished ``cell``, for a training with a larger budget to go on from."""
    tensors, state = read_tensors(checkpoint, RESTORE, "pt"), checkpoint_state(checkpoint) | {"origin": cell}
    with whole_file(target) as aside:
        aside.write_bytes(save(tensors, metadata={"state": json.dumps(state)}))


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, made_with: str, device: torch.device
) -> tuple[_State, dict[str, Tensor]]:
    path = folder / CHECKPOINT
    fresh = _State(made_with=made_with)
    if not path.exists():
        return fresh, {}
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    remedy = f"delete {folder} to train this cell anew"
    try:
        state = _State(**read_metadata(path, "state", remedy, _State))
        if state.made_with != made_with:
            return fresh, {}
        for key, tensor in read_tensors(path, remedy, "pt").items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        model.load_state_dict(parts["model"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, slot = name.partition("/")
            slots.setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    except Exception as error:  # whatever a damaged file raises, the remedy is the same
        raise InputError(f"{path} can't be read ({shortened(in_one_line(error), 120)}); {remedy}") from error
    state.resumed += 1
    return state, {name: tensor.to(device) for name, tensor in parts["best"].items()}
