"""Several processes that train one cell together: the same weights in each, and a part of every batch.

Whoever starts the processes joins them into a group (torch.distributed: gloo on CPUs, NCCL on CUDA devices; torchrun or
:mod:`harness.study.ranks`) before the training begins. Without a group the one process does everything.

A loss term is a mean over supervised positions, so each process weighs its own by its share of the batch's positions:
the sum of the gradients is then that of one process with the whole batch. Two things differ from one process. What is
drawn in a step (dropout, negatives) is drawn by each process for its part, and a loss term that compares the positions
of a batch with each other (:attr:`Recommender.in_batch`) compares those of a part.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.interface import Batch

__all__ = ["Losses", "Processes"]

Losses = Callable[[Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Processes:
    """The group that this process is in. The first one (rank 0) evaluates and writes; the others only train."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Processes:
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def shared(self, model: nn.Module, losses: Losses) -> Losses:
        """``losses`` whose backward pass leaves the gradient of the whole batch in every process. Their values are
        those of this process's part, times its share and the number of processes: their mean is that of the batch."""
        if self.size == 1:
            return losses
        step = _Step(model, losses, self.size)
        with warnings.catch_warnings():  # PyTorch 2.13 has another name for broadcast_buffers, which older ones lack
            warnings.simplefilter("ignore", FutureWarning)
            # Unused parameters are found in the first step; buffers are the same everywhere and need not be sent.
            return DistributedDataParallel(
                step, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
            )

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean over the processes of scalars, by name."""
        if self.size == 1:
            return values
        sums = self.total(torch.stack([value.double() for value in values.values()]))
        return dict(zip(values, sums / self.size, strict=True))

    def agreed(self, value: float, device: torch.device) -> float:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        sent = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(sent, src=0)
        return float(sent)


class _Step(nn.Module):
    """The losses as the forward pass of a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, losses: Losses, size: int) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.size = size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # DistributedDataParallel divides the sum of the gradients by the number of processes.
        return {name: term * (batch.share * self.size) for name, term in self.losses(batch).items()}
