"""What several commands do: find a run's folder, read a study, choose a device, write the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError, nearest

if TYPE_CHECKING:
    from harness.study.design import Study

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
NO_RUN = "start one with `harness run`, or check --out, --preset and --name"


def command_line() -> str:
    """What was typed, for the record, which is no place for a password."""
    from harness.study.storage import without_passwords

    return without_passwords(shlex.join(["harness", *sys.argv[1:]]))


def report_on(folder: Path) -> None:
    from harness.analysis.efficiency import is_efficiency
    from harness.analysis.report import write_report
    from harness.analysis.rows import load_run
    from harness.analysis.warnings import warnings_of

    for path in write_report(folder):
        print(path)
    if not is_efficiency(folder):
        for sentence in warnings_of(load_run(folder)):
            say(f"warning: {sentence}")


def existing(folder: Path, file: str, mend: str) -> Path:
    if not (folder / file).is_file():
        what = "no run" if file == "study.yaml" else f"no {file}"
        raise InputError(f"{folder} holds {what}; {mend}")
    return folder / file


def existing_run(study: str, preset: str, name: str | None, out: Path) -> Path:
    """The folder of a run that a study's name, a study file or the run's own name stands for."""
    from harness.study.design import study_files

    if name is None and preset == "default" and Path(study).name == study and not study.endswith((".yaml", ".yml")):
        if study not in {"", ".."} and (out / study / "study.yaml").is_file():
            return out / study
        studies = study_files()
        if study not in studies:
            known = [*studies, *(path.parent.name for path in out.glob("*/study.yaml"))]
            raise InputError(f"unknown study '{study}', and no run of that name in {out}; {nearest(study, known)}")
    return existing(run_folder(study, preset, name, out), "study.yaml", NO_RUN).parent


def study_of(
    study: str, preset: str, seeds: str | None, datasets: list[str] | None, settings: list[str] | None
) -> Study:
    from harness.study.design import load_study

    return load_study(study, preset=preset, settings=tuple(settings or ()), seeds=seeds, datasets=tuple(datasets or ()))


def run_folder(study: str, preset: str, name: str | None, out: Path) -> Path:
    """The run's folder. A file that a run left (its design, or its tuned study) stands for that run."""
    from harness.study.design import study_name

    path = Path(study)
    beside = {"study.yaml": ("cells", "efficiency.json"), "tuned.yaml": ("tuning.json",)}.get(path.name, ())
    if name is None and any((path.parent / file).exists() for file in beside):
        return path.parent
    return out / run_name(study_name(study), preset, name)


def run_name(study: str, preset: str, name: str | None) -> str:
    chosen = name or (study if preset == "default" else f"{study}-{preset}")
    if chosen in {".", ".."} or "/" in chosen or chosen.startswith("-"):
        raise InputError(f"--name {chosen}: a run's name is the name of one folder below --out")
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


def default_workers(device: str) -> int:
    from harness.provenance import cores

    return cores() if device == "cpu" else 1


def say(line: str) -> None:
    print(line, file=sys.stderr)
