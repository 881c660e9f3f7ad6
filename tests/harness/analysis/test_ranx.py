"""Rank metrics against ranx's (Bassani 2022), both reading the same TREC run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.predictions import Truth, rank_predictions
from harness.metrics.ranking import per_user

METRICS = {
    "recall@1": "hit_rate@1",
    "recall@5": "hit_rate@5",
    "recall@10": "hit_rate@10",
    "ndcg@5": "ndcg@5",
    "ndcg@10": "ndcg@10",
    "mrr@10": "mrr@10",
    "mrr": "mrr",
}
"""Ours -> ranx's. With one target per user, recall and hit rate are one."""


def test_rank_metrics_equal_those_of_ranx(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # its kernels compile for most of a minute; read when ranx is imported
    ranx = pytest.importorskip("ranx", reason="ranx is not installed; pip install 'harness[test]' brings it")
    rng = np.random.default_rng(0)
    users, items, listed = 200, 60, 20
    truth = Truth(
        name="toy",
        phase="test",
        users=np.array([f"u{i:03d}" for i in range(users)]),  # ranx sorts by id
        items=np.array(["", *(f"i{i:02d}" for i in range(items))]),
        offsets=np.arange(users + 1) * 4,
        item=np.concatenate([rng.choice(items, size=4, replace=False) + 1 for _ in range(users)]),
        who=np.arange(users),
        target=np.arange(users) * 4 + 3,
    )
    lists = np.stack([rng.choice(items, size=listed, replace=False) + 1 for _ in range(users)])
    entries = pd.DataFrame(
        {
            "user": np.repeat(truth.users, listed),
            "q0": "Q0",
            "item": truth.items[lists.ravel()],
            "rank": np.tile(np.arange(1, listed + 1), users),
            "score": -np.sort(-rng.random((users, listed)), axis=1).ravel(),
            "tag": "them",
        }
    )
    entries.to_csv(tmp_path / "all.trec", sep=" ", header=False, index=False)
    history = truth.item.reshape(users, 4)[:, :3]
    seen = (lists[:, :, None] == history[:, None, :]).any(-1).ravel()
    entries[~seen].to_csv(tmp_path / "unseen.trec", sep=" ", header=False, index=False)

    rows = rank_predictions(tmp_path / "all.trec", truth).rows
    targets = truth.items[truth.item[truth.target]]
    qrels = ranx.Qrels({user: {item: 1} for user, item in zip(truth.users.tolist(), targets.tolist(), strict=True)})
    for candidates in ("all", "unseen"):
        run = ranx.Run.from_file(str(tmp_path / f"{candidates}.trec"), kind="trec")
        theirs = ranx.evaluate(qrels, run, list(METRICS.values()), return_mean=False)
        rank = rows[f"rank_{candidates}"].to_numpy(zero_copy_only=False).astype(float)
        assert np.isnan(rank).any()
        for name, metric in METRICS.items():
            np.testing.assert_allclose(per_user(name, rank), theirs[metric], atol=1e-12, err_msg=name)
