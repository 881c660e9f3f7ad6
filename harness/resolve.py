"""What both doors, Python and the command line, resolve in the same way: a study, a run's folder, a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError, nearest, shortened

if TYPE_CHECKING:
    from harness.study.design import Study

__all__ = [
    "NO_RUN", "as_pairs", "default_workers", "existing", "existing_run", "read_study", "run_folder", "run_name",
    "usable_device",
]  # fmt: skip

NO_RUN = "start one with `harness run`, or check --out, --preset and --name"


def as_pairs(changes: Mapping[str, Any] | Iterable[str] | None) -> tuple[str, ...]:
    """Changes of a study as ``key=value`` texts, whose values are YAML."""
    if not isinstance(changes, Mapping):
        return tuple(changes or ())
    return tuple(f"{key}={_as_yaml(value)}" for key, value in changes.items())


def _as_yaml(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()  # the end of a document, behind a bare scalar


def read_study(
    study: str | Path,
    preset: str = "default",
    seeds: str | int | Iterable[int] | None = None,
    datasets: Iterable[str] | None = None,
    changes: Mapping[str, Any] | Iterable[str] | None = None,
) -> Study:
    """A study by its name or file, with the changes laid over it. Raises InputError as ``load_study`` does."""
    from harness.study.loading import load_study

    settings = as_pairs(changes)
    if seeds is not None and not isinstance(seeds, (str, int)):
        settings, seeds = (*settings, f"seeds={list(seeds)}"), None
    seeds = None if seeds is None else str(seeds)
    return load_study(str(study), preset=preset, settings=settings, seeds=seeds, datasets=tuple(datasets or ()))


def existing(folder: Path, file: str, remedy: str) -> Path:
    if not (folder / file).is_file():
        what = "no run" if file == "study.yaml" else f"no {file}"
        raise InputError(f"{folder} holds {what}; {remedy}")
    return folder / file


def existing_run(study: str, preset: str, name: str | None, out: Path) -> Path:
    """The folder of a run that a study's name, a study file or the run's own name stands for."""
    from harness.study.loading import study_files

    if name is None and preset == "default" and Path(study).name == study and not study.endswith((".yaml", ".yml")):
        if study not in {"", ".."} and (out / study / "study.yaml").is_file():
            return out / study
        studies = study_files()
        if study not in studies:
            known = [*studies, *(path.parent.name for path in out.glob("*/study.yaml"))]
            raise InputError(f"unknown study '{study}', and no run of that name in {out}; {nearest(study, known)}")
    return existing(run_folder(study, preset, name, out), "study.yaml", NO_RUN).parent


def run_folder(study: str, preset: str, name: str | None, out: Path) -> Path:
    """The run's folder. A file that a run left (its design, or its tuned study) stands for that run."""
    from harness.study.loading import study_name

    path = Path(study)
    beside = {"study.yaml": ("cells", "efficiency.json"), "tuned.yaml": ("tuning.json",)}.get(path.name, ())
    if name is None and any((path.parent / file).exists() for file in beside):
        return path.parent
    return out / run_name(study_name(study), preset, name)


def run_name(study: str, preset: str, name: str | None) -> str:
    chosen = name or (study if preset == "default" else f"{study}-{preset}")
    if chosen in {".", ".."} or "/" in chosen or chosen.startswith("-") or len(chosen.encode()) > 200:
        raise InputError(f"--name {shortened(chosen, 60)}: a run's name is the name of one folder below --out")
    return chosen


def usable_device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise InputError(f"--device {name}: expected cpu, cuda, cuda:N or auto") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this PyTorch sees no CUDA device; use --device cpu")
    try:
        if torch.ones(1, device=name).item() != 1:
            raise RuntimeError("it does not compute")
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--device {name} can't be used here ({reason[:200]}); use --device cpu") from None
    return name


def default_workers(device: str, processes: int = 1) -> int:
    """One worker per core, or per so many cores as processes train a cell together; one where there is a GPU."""
    from harness.provenance import cores

    return max(1, cores() // processes) if device == "cpu" else 1
