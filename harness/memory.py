"""Memory of a process: its peak over a stretch of work, and how freed memory is kept."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import torch

__all__ = ["PeakMemory", "keep_freed_memory"]

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class PeakMemory:
    """Bytes at the highest point since this object was made: the GPU's on CUDA, else the process's."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _RESET.exists():
            # Linux: start the high-water mark anew. Where that is not allowed it covers the whole process.
            with contextlib.suppress(OSError):
                _RESET.write_text("5")

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if _STATUS.exists():
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> None:
    """Lets glibc keep freed blocks of up to 1 GiB for the next allocation; elsewhere this does nothing.

    By default it gives every freed block of more than a few MiB back to the kernel, and each new tensor then pays for
    fresh pages: element-wise operations of a training step take two to three times as long.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
