"""TIGER's beam search over a trie against Hugging Face's `generate` with a prefix function, same weights.

    python -m benchmarks.decoding [--threads 2] [--repeats 5] [--size published] [--beams 20] [--device cpu]

Both sides answer the same users' lists, which are compared before anything is timed. Beside the ratio of users
per second stands the share of the arithmetic limit that each side reaches: the operations of its matrix
products, counted, over what the device makes in large ones, measured in the same run. On a GPU another limit comes
first: the kernels that the host launches, so these are counted too. Histories are those of a length bucket over
invented items with four codes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hugging_face import generate, inputs, invented, prefix_function, same_t5
from benchmarks.measuring import Comparison, alternate, machine, options, table
from harness.baselines.tiger import SIZES, TIGER, TIGERConfig

LENGTHS = (8, 20)
"""Events of the longest history in a batch: the mean of the Amazon sets, and TIGER's limit."""


@dataclass(frozen=True)
class Decoding:
    length: int
    same_lists: float
    """Share of users for whom both sides answer the same items in the same order."""
    operations: tuple[float, float]
    """Floating-point operations of the matrix products per user, ours and the peer's."""
    launches: tuple[int, int]
    """Operations on tensors that the host launches for a batch, ours and the peer's."""
    speed: Comparison
    """Users per second."""

    def share(self, peak: float) -> tuple[float, float]:
        """What each side reaches of ``peak`` operations per second."""
        ours, peer = median(self.speed.ours), median(self.speed.peer)
        return ours * self.operations[0] / peak, peer * self.operations[1] / peak


def operations(call: Callable[[], object]) -> int:
    """Of the matrix products of ``call``; attention is computed by plain ones meanwhile, to be counted."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


class _Launches(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aliases = [result.alias_info for result in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):  # a view launches nothing
            self.count += 1
        return func(*args, **(kwargs or {}))


def launches(call: Callable[[], object]) -> int:
    """Operations of ``call`` that write a tensor or read one number: on a GPU each is a kernel or a copy, at least."""
    with _Launches() as counter:
        call()
    return counter.count


def rate(call: Callable[[], object], amount: float, device: torch.device) -> Callable[[], float]:
    """A call that answers ``amount`` per second of ``call``."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def measure() -> float:
        wait()
        started = time.perf_counter()
        call()
        wait()
        return amount / (time.perf_counter() - started)

    return measure


def peak_operations(device: torch.device, n: int = 2048) -> float:
    """Operations per second of square matrix products in float32: the best of ten."""
    a, b = torch.randn(2, n, n, device=device)
    measure = rate(lambda: a @ b, 2 * n**3, device)
    return max(measure() for _ in range(10))


def compare(size: str, users: int, beams: int, n_items: int, repeats: int, device: torch.device) -> list[Decoding]:
    found = []
    for length in LENGTHS:
        schema, batch = invented(n_items, users, length)
        torch.manual_seed(0)
        model = TIGER(TIGERConfig(**SIZES[size], beams=beams), schema).to(device).eval()
        batch = batch.to(device)
        peer, given, allowed = same_t5(model), inputs(model, batch), prefix_function(model)

        def ours(model=model, batch=batch):
            return model.generate(batch, beams)

        def theirs(peer=peer, given=given, allowed=allowed, levels=model.levels):
            return generate(peer, given, levels, beams, allowed)

        same = (model.tokens[ours().items] == theirs()[0]).flatten(1).all(1).float().mean()
        counted = operations(ours) / users, operations(theirs) / users
        launched = launches(ours), launches(theirs)
        what = f"histories up to {length} events, beam {beams}"
        speed = alternate(what, "users/s", rate(ours, users, device), rate(theirs, users, device), repeats)
        found.append(Decoding(length, float(same), counted, launched, speed))
    return found


def report(found: list[Decoding], peak: float) -> str:
    lines = [table([d.speed for d in found], "TIGER", "Hugging Face T5"), ""]
    lines.append(f"Square matrix products: {peak / 1e9:,.0f} GFLOP/s")
    for d in found:
        ours, peer = d.operations
        share, peer_share = d.share(peak)
        lines.append(
            f"Up to {d.length} events: {ours / 1e9:.2f} against {peer / 1e9:.2f} GFLOP a user ({peer / ours:.1f} times "
            f"fewer); {share:.0%} against {peer_share:.0%} of the arithmetic limit; same lists for {d.same_lists:.1%}; "
            f"{d.launches[0]:,} against {d.launches[1]:,} operations launched a batch"
        )
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--size", choices=SIZES, default="published")
    parser.add_argument("--users", type=int, default=64, help="users in a batch")
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--device", type=torch.device, default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = compare(chosen.size, chosen.users, chosen.beams, chosen.items, chosen.repeats, chosen.device)
    print(machine())
    print(report(found, peak_operations(chosen.device)))


if __name__ == "__main__":
    main()
