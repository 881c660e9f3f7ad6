"""A small catalogue: three kinds of goods, texts that differ, users who buy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from harness.data.splits import Split

KINDS = {
    "tea": ["green", "black", "herbal", "white", "leaf", "pot", "cup"],
    "bike": ["wheel", "chain", "brake", "saddle", "road", "city", "gear"],
    "lamp": ["desk", "floor", "light", "bulb", "led", "shade", "switch"],
}


def make_catalogue(n_items: int = 60, n_users: int = 30, seed: int = 0) -> tuple[SimpleNamespace, SimpleNamespace]:
    """What item codes need of a log and of a split. The last two items are bought only after training."""
    rng = np.random.default_rng(seed)
    kinds = [list(KINDS)[i % 3] for i in range(n_items)]
    titles = [" ".join([kind, *rng.choice(KINDS[kind], 3, replace=False)]) for kind in kinds]
    table = pd.DataFrame({"title": titles, "kind": kinds, "note": ""}, index=range(1, n_items + 1))
    offsets = np.arange(n_users + 1) * 6
    item = rng.integers(1, n_items - 1, n_users * 6)
    trained_on = np.flatnonzero(np.arange(len(item)) % 6 < 4)
    item[trained_on[: n_items - 2]] = np.arange(1, n_items - 1)
    item[offsets[1:] - 2], item[offsets[1:] - 1] = n_items - 1, n_items
    log = SimpleNamespace(
        items=np.array(["", *(f"i{i}" for i in range(1, n_items + 1))]),
        item=item,
        offsets=offsets,
        item_table=table,
        text_fields=("title", "kind"),
        fingerprint="log",
    )
    split = SimpleNamespace(offsets=offsets, train_end=offsets[1:] - 2, fingerprint="split")
    ends = {"valid_end": offsets[1:] - 1, "test_end": offsets[1:], "fingerprint": "split"}
    # Tests change the ends.
    split.events = lambda part: Split("leave-one-out", offsets, split.train_end, **ends).events(part)
    return log, split


@pytest.fixture
def catalogue() -> tuple[SimpleNamespace, SimpleNamespace]:
    return make_catalogue()


@pytest.fixture(scope="session")
def clouds() -> np.ndarray:
    """(600, 16) float32: correlated normal vectors around 12 centres, in no convenient axes."""
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((16, 16)) * np.geomspace(3, 0.1, 16)
    return ((rng.standard_normal((12, 16))[rng.integers(0, 12, 600)] + rng.standard_normal((600, 16))) @ mixing).astype(
        np.float32
    )
