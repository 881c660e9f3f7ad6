"""What a training does besides its loss, once per epoch: how hard each loss term pulls, and whether states collapse.

Measured on one batch and on users that are drawn once, the same in every epoch and for every seed.
Measuring changes no byte of the training: the random state, the modules' buffers and modes are put back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from harness.data.batches import training_windows
from harness.interface import Recommender
from harness.tasks.base import TaskData
from harness.training_config import TrainingConfig

__all__ = ["Diagnostics", "gradient_shares", "has_user_states", "mean_cosine"]

WINDOWS = 64
"""Training windows whose gradient is measured; fewer where a batch holds fewer."""
USERS = 256
"""Users whose states are compared."""
SEED = 0


def has_user_states(model: Recommender) -> bool:
    """Whether the model answers ``user_states``."""
    return type(model).user_states is not Recommender.user_states


class Diagnostics:
    """The fixed batch and users of a training, and what is measured on them after an epoch."""

    def __init__(self, model: Recommender, data: TaskData, training: TrainingConfig) -> None:
        self.model = model
        self.device = data.device
        self.bfloat16 = training.precision == "bfloat16"
        rng = np.random.default_rng(SEED)
        windows = training_windows(
            data.log,
            data.split,
            data.task,
            rows=model.needs_with(model.config).rows,
            max_length=data.max_length,
            stride=training.stride,
            rng=rng,
        )
        rows = _draw(rng, len(windows), min(WINDOWS, training.batch_size))
        self.batch = data.sequences.batch(windows.take(rows), data.task, supervise=True)
        self.histories = []
        if has_user_states(model):
            # Up to the validation target: no event of the test part is read.
            users = data.histories("valid")
            users = users.take(_draw(rng, len(users), USERS))
            groups = data.sequences.groups(users, WINDOWS)
            batches = data.sequences.batches(users, groups, data.task, supervise=False)
            self.histories = [batch for batch, _ in batches]

    def measure(self) -> dict[str, float | None]:
        """``gradient/<term>`` as :func:`gradient_shares`, ``state_cosine`` as :func:`mean_cosine` of models that have
        user states, and ``diagnostics_seconds``."""
        started = time.perf_counter()
        model = self.model
        cosine = {}
        with _undisturbed(model, self.device):
            if self.histories:  # before the batch below moves running statistics
                model.eval()
                with torch.inference_mode():
                    cosine["state_cosine"] = mean_cosine(torch.cat([model.user_states(b) for b in self.histories]))
            torch.manual_seed(SEED)  # the same dropout and negatives in every epoch
            model.train()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                terms = model.losses(self.batch)
            shares = gradient_shares(terms, model.parameters())
        row = {f"gradient/{name}": value for name, value in shares.items()} | cosine
        return row | {"diagnostics_seconds": time.perf_counter() - started}


def gradient_shares(terms: dict[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, float | None]:
    """How hard each loss term pulls at what it shares with the main loss, which is the first.

    Of the main loss the norm of its gradient over all parameters; of each other term the norm of its gradient over
    the norm of the main loss', both over the parameters that both depend on. None where they share no parameter or
    the main loss has no gradient there.
    """
    parameters = [p for p in parameters if p.requires_grad]
    gradients = ((name, _gradient(term, parameters)) for name, term in terms.items())
    main, of_main = next(gradients)
    found: dict[str, float | None] = {main: float(get_total_norm([g for g in of_main if g is not None]))}
    for name, own in gradients:
        shared = [(a, b) for a, b in zip(own, of_main, strict=True) if a is not None and b is not None]
        pull, bar = (float(get_total_norm(side)) for side in zip(*shared, strict=True)) if shared else (0.0, 0.0)
        found[name] = pull / bar if bar else None
    return found


def mean_cosine(states: Tensor) -> float | None:
    """Mean cosine over all pairs of distinct rows of ``states`` (n, d), in time n d; None where n < 2.

    With unit vectors u the pairs' sum is |sum u|^2 - sum |u|^2. A row of zeros has cosine 0 with every other.
    """
    count = len(states)
    if count < 2:
        return None
    unit = F.normalize(states.double(), dim=-1)  # (n, d)
    pairs = unit.sum(dim=0).square().sum() - unit.square().sum()
    return float(pairs) / (count * (count - 1))


def _gradient(term: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """The gradient of ``term``, None for parameters that it does not depend on. The graph is kept."""
    if not term.requires_grad or not parameters:
        return (None,) * len(parameters)
    return torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)


def _draw(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """At most ``most`` of the numbers below ``count``, without replacement, ascending."""
    return np.sort(rng.permutation(count)[:most])


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back the random state, every buffer (running statistics) and every module's mode."""
    modes = [(part, part.training) for part in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    for part, training in modes:
        part.training = training
