"""Decoding of semantic IDs: a trie of the valid codes as tensors, beam search, and the scores of all items.

A node of depth d is a prefix of d codes that at least one item has. The nodes of each depth are numbered
from 0 in lexicographic order, so the children of a run of nodes are a run of nodes, and the children of one
node are found by its two entries in a table of starts. Depth 0 is the root, depth m are the items.
Shapes: B sequences, W beams, m code levels, C codes of a level, F the largest number of children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import InputError

__all__ = ["Beams", "Step", "Trie", "beam_search", "score_catalogue"]

State = TypeVar("State")

Step = Callable[[State, int, Tensor | None, Tensor | None], tuple[Tensor, State]]
"""``step(state, level, parents, codes) -> (log_probs, state)``: one level of a model's decoder.

``parents`` (B, W) says which beam of the previous level each beam continues, ``codes`` (B, W) with which code
of level ``level - 1``; both are None at level 0, where W is 1. ``log_probs`` (B, W, C): log-probability of each
code of ``level``. The state that was given stays usable: one state may be continued several times.
"""


class Trie(nn.Module):
    """The codes of a catalogue as a prefix tree. Its tables move with the model and are not saved with it."""

    def __init__(self, codes: Tensor, sizes: tuple[int, ...]) -> None:
        """
        Args:
            codes: (n_items + 1, m) as in :class:`harness.interface.Schema`; row 0 belongs to padding.
            sizes: how many codes each level has.

        Raises:
            InputError: no items, a code outside its level, or two items with the same codes.
        """
        super().__init__()
        table = codes[1:].cpu().numpy()
        n_items, self.levels = table.shape
        _check(table, sizes)
        self.sizes = tuple(sizes)
        order = np.lexsort(table.T[::-1])  # item - 1 of each leaf
        table = table[order]
        new = np.zeros(n_items, dtype=bool)  # rows whose prefix differs from the row before
        new[0] = True
        node = np.zeros(n_items, dtype=np.int64)  # node of depth d that each row passes
        self.starts: list[list[int]] = []
        """Per depth d < m: the first child of each node, and the number of nodes of depth d + 1 at the end."""
        self.fanout: list[int] = []
        for level in range(self.levels):
            parent = node
            new[1:] |= table[1:, level] != table[:-1, level]
            node = np.cumsum(new) - 1
            first = np.flatnonzero(new)  # the first row of each child
            starts = np.searchsorted(parent[first], np.arange(parent[-1] + 2))
            lowest = np.minimum.reduceat(order, first) + 1
            self.starts.append(starts.tolist())
            self.fanout.append(int(np.diff(starts).max()))
            self._keep("start", level, starts)
            self._keep("code", level, table[first, level])
            self._keep("parent", level, parent[first])
            self._keep("lowest", level, lowest)
        same = np.flatnonzero(~new)
        if len(same):
            one, other = sorted((order[same[0] - 1] + 1, order[same[0]] + 1))
            raise InputError(
                f"items {one} and {other} have the same codes {tuple(table[same[0]].tolist())}; "
                "append a collision level to the codes so that they tell items apart"
            )

    def _keep(self, name: str, level: int, values: np.ndarray) -> None:
        self.register_buffer(f"{name}{level}", torch.from_numpy(values.astype(np.int64)), persistent=False)

    def nodes(self, depth: int) -> int:
        """How many nodes of ``depth`` there are."""
        return self.starts[depth - 1][-1] if depth else 1

    def start(self, depth: int) -> Tensor:
        """(nodes + 1,) the first child of each node of ``depth``."""
        return getattr(self, f"start{depth}")

    def code(self, depth: int) -> Tensor:
        """(nodes,) the last code of each node of ``depth`` >= 1."""
        return getattr(self, f"code{depth - 1}")

    def parent(self, depth: int) -> Tensor:
        """(nodes,) the parent of each node of ``depth`` >= 1."""
        return getattr(self, f"parent{depth - 1}")

    def lowest(self, depth: int) -> Tensor:
        """(nodes,) the lowest item id below each node of ``depth`` >= 1; at depth m, the item itself."""
        return getattr(self, f"lowest{depth - 1}")

    def below(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Children of ``nodes`` (...) of ``depth``: (..., F) node ids of depth + 1, and which of them exist."""
        starts = self.start(depth)
        first, end = starts[nodes], starts[nodes + 1]
        candidates = first.unsqueeze(-1) + torch.arange(self.fanout[depth], device=nodes.device)  # (..., F)
        exists = candidates < end.unsqueeze(-1)
        return torch.where(exists, candidates, first.unsqueeze(-1)), exists

    def find(self, codes: Tensor) -> Tensor:
        """(...) the item that has ``codes`` (..., m), 0 where there is none."""
        node = torch.zeros_like(codes[..., 0])
        known = torch.ones_like(node, dtype=torch.bool)
        for level, size in enumerate(self.sizes):
            keys = self.parent(level + 1) * size + self.code(level + 1)  # ascending, as the nodes are sorted
            wanted = node * size + codes[..., level]
            node = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            known &= keys[node] == wanted
        return torch.where(known, self.lowest(self.levels)[node], 0)


def _check(table: np.ndarray, sizes: tuple[int, ...]) -> None:
    n_items, levels = table.shape
    if not n_items or levels != len(sizes) or not levels:
        raise InputError(
            f"codes of {n_items} items and {levels} levels, with {len(sizes)} code sizes: nothing to decode"
        )
    wrong = np.argwhere((table < 0) | (table >= np.asarray(sizes)))
    if len(wrong):
        row, level = wrong[0]
        raise InputError(
            f"item {row + 1} has code {table[row, level]} at level {level}, which has codes 0 to {sizes[level] - 1}; "
            "make codes and code sizes from one code file"
        )


class Beams(NamedTuple):
    """Hypotheses of a beam search, best first."""

    codes: Tensor
    """(B, W, m) int64."""
    scores: Tensor
    """(B, W): sum of log-probabilities."""
    items: Tensor | None
    """(B, W) the item of each hypothesis of a constrained search; 0 where its score is -inf."""


def beam_search(step: Step, state: Any, sizes: tuple[int, ...], width: int, trie: Trie | None = None) -> Beams:
    """The best code sequences that a beam of ``width`` finds, level by level (no loop over users or beams).

    With a ``trie`` only codes of items are followed, and equal scores go to the lowest item id below; without,
    every combination of codes is, and equal scores go to the lowest position. W of the result is ``width``, or
    the number of possible sequences where that is smaller. A width that covers the catalogue misses nothing.
    """
    parents = taken = path = None
    for level, size in enumerate(sizes):
        log_probs, state = step(state, level, parents, taken)  # (B, W, C)
        if path is None:
            total = torch.zeros_like(log_probs[..., 0])  # (B, 1)
            nodes = torch.zeros_like(total, dtype=torch.int64)
            path = nodes.new_zeros(*nodes.shape, 0)  # (B, W, level)
        if trie is None:
            scores = total.unsqueeze(-1) + log_probs  # (B, W, C)
            most = scores[0].numel()
            order = torch.arange(most, device=nodes.device)
        else:
            children, exists = trie.below(level, nodes)  # (B, W, F)
            codes = trie.code(level + 1)[children]  # (B, W, F)
            scores = total.unsqueeze(-1) + log_probs.gather(-1, codes)  # (B, W, F)
            scores = scores.masked_fill(~exists, -torch.inf)
            most = min(scores[0].numel(), trie.nodes(level + 1))
            order = trie.lowest(level + 1)[children].flatten(1)
        chosen = _best(scores.flatten(1), order, min(width, most))  # (B, W')
        total = scores.flatten(1).gather(1, chosen)
        parents = chosen // scores.shape[-1]
        if trie is None:
            taken = chosen % size
        else:
            taken = codes.flatten(1).gather(1, chosen)
            nodes = children.flatten(1).gather(1, chosen)
        before = path.gather(1, parents.unsqueeze(-1).expand(-1, -1, level))
        path = torch.cat([before, taken.unsqueeze(-1)], dim=-1)
    items = None if trie is None else torch.where(total > -torch.inf, trie.lowest(len(sizes))[nodes], 0)
    assert path is not None, "there is no level to decode"
    return Beams(codes=path, scores=total, items=items)


def _best(scores: Tensor, order: Tensor, k: int) -> Tensor:
    """(B, k) positions of the k largest ``scores`` (B, n); equal ones by ascending ``order`` (n,) or (B, n).

    The float's bits, made monotonic, and the negated order share one integer: top-k alone leaves the order of
    equal values open, and a stable sort of all candidates costs several times as much.
    """
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    monotonic = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ((monotonic.long() << 32) - order).topk(k, dim=-1).indices


def score_catalogue(step: Step, state: Any, trie: Trie, beams: int = 8192) -> Tensor:
    """(B, n_items) log-probability of every item's codes: the whole trie, each prefix once per sequence.

    The trie is walked depth first in runs of neighbouring nodes, so that at most ``beams`` prefixes (over all
    sequences; at least one per sequence) are in work on each level.
    """
    log_probs, state = step(state, 0, None, None)  # (B, 1, C)
    batch = log_probs.shape[0]
    result = log_probs.new_empty(batch, trie.nodes(trie.levels))
    chunk = max(1, beams // batch)

    def visit(depth: int, low: int, total: Tensor, log_probs: Tensor, state: Any) -> None:
        """Nodes low, low + 1, ... of ``depth`` with their scores (B, n) and their next level (B, n, C)."""
        starts = trie.starts[depth]
        for first, end in _runs(starts[low], starts[low + total.shape[1]], chunk):
            parents = trie.parent(depth + 1)[first:end] - low  # (c,)
            codes = trie.code(depth + 1)[first:end]  # (c,)
            below = total[:, parents] + log_probs[:, parents, codes]  # (B, c)
            if depth + 1 == trie.levels:
                result[:, trie.lowest(trie.levels)[first:end] - 1] = below
            else:
                following = step(state, depth + 1, parents.expand(batch, -1), codes.expand(batch, -1))
                visit(depth + 1, first, below, *following)

    visit(0, 0, log_probs.new_zeros(batch, 1), log_probs, state)
    return result


def _runs(start: int, end: int, length: int) -> Iterator[tuple[int, int]]:
    for first in range(start, end, length):
        yield first, min(first + length, end)
