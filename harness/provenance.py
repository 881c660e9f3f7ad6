"""What a result was made with: versions, git state, hardware."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness

__all__ = ["cores", "git_state", "hardware", "versions"]

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "faiss-cpu", "optuna", "recbole")


@functools.cache
def versions() -> dict[str, str]:
    """Python's, the harness's, and those of the libraries that a number may depend on."""
    found = {"python": platform.python_version(), "harness": harness.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout that this code runs from; None where it is not a checkout."""
    here = Path(harness.__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    # The package must itself be tracked: an environment inside somebody's checkout is not that checkout.
    if commit is None or git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    code = ["harness", "models", "baselines", "studies"]
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--", *(f":/{name}" for name in code)))}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(device: str) -> dict[str, Any]:
    """Processor, cores, threads, device and memory of this machine."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
    return {
        "cpu": cpu,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": name,
        "memory_bytes": memory,
    }
