"""Benchmarks and ablations of generative recommenders, from a study file to a paper's evidence."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import CellFailed, InputError, Interrupted, Run, compare, load_run, run
    from harness.export.hub import load_model

__all__ = ["CellFailed", "InputError", "Interrupted", "Run", "__version__", "compare", "load_model", "load_run", "run"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The Python door of :mod:`harness.api`, imported once it is asked for."""
    if name == "load_model":
        from harness.export import hub

        return hub.load_model
    if name in __all__:
        from harness import api

        return getattr(api, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
