"""Reports on item codes: those that a study's variants use, or those of settings that are being tried out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.analysis.figures.codes import code_usage
from harness.analysis.style import save
from harness.data.config import DataConfig
from harness.data.log import EventLog
from harness.data.splits import Split
from harness.errors import InputError
from harness.files import as_file_name, write_text
from harness.items.codes import ItemCodes, item_codes
from harness.items.config import ItemsConfig
from harness.items.report import codes_markdown, example_items
from harness.items.text import item_texts
from harness.settings import Settings, from_pairs
from harness.study.cells import Inputs, draws_of, make_arm
from harness.study.design import Study

__all__ = ["Codes", "codes_of_datasets", "codes_of_study", "write_item_report"]


@dataclass(frozen=True, eq=False)
class Codes:
    """Item codes and what they were made from."""

    log: EventLog
    split: Split
    config: ItemsConfig
    codes: ItemCodes


def codes_of_study(study: Study, inputs: Inputs) -> Iterator[Codes]:
    """Each set of codes that some variant of the study uses, once.

    Raises:
        InputError: no model of the study reads codes, or they can't be made.
    """
    seen: set[tuple[str, str]] = set()
    for dataset in study.datasets:
        for variant in study.variants:
            arm = make_arm(study, dataset, variant)
            for draw in range(draws_of(study, arm)):
                codes = inputs.codes(dataset, arm, draw)
                if codes is not None and (dataset, codes.fingerprint) not in seen:
                    seen.add((dataset, codes.fingerprint))
                    yield Codes(*inputs.split(dataset, arm.data), arm.items, codes)
    if not seen:
        raise InputError(f"no model of study '{study.study}' reads item codes; name a data set with --dataset")


class _Choice(Settings):
    data: DataConfig = DataConfig()
    items: ItemsConfig = ItemsConfig()


def codes_of_datasets(datasets: list[str], settings: list[str], inputs: Inputs) -> Iterator[Codes]:
    """The codes of data sets under ``key=value`` settings such as ``items.quantiser.levels=4``."""
    chosen = from_pairs(_Choice, settings, "settings")
    for dataset in datasets:
        log, split = inputs.split(dataset, chosen.data)
        codes = item_codes(log, split, chosen.items, unique=False, cache=inputs.cache, progress=inputs.say)
        yield Codes(log, split, chosen.items, codes)


def write_item_report(found: Codes, folder: Path, examples: int) -> list[Path]:
    """Writes the report and its figure below ``folder / NAME``, called by the kind and the fingerprint of the codes.

    ``examples``: of so many items, frequent to rare, the report shows the nearest by code.
    """
    log, codes = found.log, found.codes
    counts = np.zeros(len(log.items), dtype=np.int64)
    np.add.at(counts, log.item, 1)
    try:
        texts = item_texts(log, found.config)
    except InputError:  # the codes were made without
        texts = None
    place = folder / as_file_name(log.name)
    name = f"{codes.quality['quantiser']}-{codes.fingerprint[:8]}"
    markdown = codes_markdown(
        codes, [str(item) for item in log.items], title=log.name, texts=texts, examples=example_items(counts, examples)
    )
    write_text(place / f"{name}.md", markdown)
    return [place / f"{name}.md", *save(code_usage(codes.quality, log.name), place, name)]
