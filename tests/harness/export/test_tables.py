from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.predictions import rank_predictions
from harness.errors import InputError
from harness.export.tables import write_predictions, write_top_k
from harness.study.score import truth_of

READ = {".csv": pd.read_csv, ".tsv": lambda path: pd.read_csv(path, sep="\t"), ".parquet": pd.read_parquet}


@pytest.mark.parametrize("suffix", READ)
@pytest.mark.parametrize("candidates", ["unseen", "all"])
def test_top_k_lists_what_the_model_recommends(run, tmp_path, suffix, candidates):
    path = tmp_path / f"best{suffix}"
    rows = write_top_k(run, path, 4, variant="exact", seed=1, candidates=candidates)
    found = READ[suffix](path)
    assert list(found) == ["dataset", "variant", "seed", "user", "rank", "item", "score"]
    assert len(found) == rows == 60 * 4
    assert set(found["variant"]) == {"exact"}
    model = run.model("exact", 1)
    for user, best in list(found.groupby("user", sort=False))[:8]:
        history = model.events_of(user)["item"]
        asked = model.recommend(history, 4, exclude_seen=candidates == "unseen", user=user)
        assert best["item"].astype(str).tolist() == asked["item"].tolist()
        assert best["rank"].tolist() == [1, 2, 3, 4]
        assert best["score"].tolist() == pytest.approx(asked["score"].tolist(), rel=1e-5)


@pytest.mark.parametrize("variant", ["exact", "search"])
def test_scored_again_they_have_the_ranks_of_the_run(run, tmp_path, variant):
    write_top_k(run, tmp_path / "best.csv", 50, variant=variant, seed=0, candidates="all")
    data = run.model(variant, 0).data
    again = rank_predictions(tmp_path / "best.csv", truth_of(data.log, data.split)).rows.to_pandas()
    own = run.rows(variant, 0)
    assert again["user"].tolist() == own["user"].tolist()
    for rank in ("rank_all", "rank_unseen"):
        np.testing.assert_array_equal(again[rank].to_numpy(float), own[rank].to_numpy(float))


def test_without_a_choice_all_cells_are_written(run, told, tmp_path):
    write_top_k(run, tmp_path / "all.parquet")
    found = pd.read_parquet(tmp_path / "all.parquet")
    assert len(found[["variant", "seed"]].drop_duplicates()) == 8
    write_predictions(run, tmp_path / "all.csv", phase="valid")
    assert len(pd.read_csv(tmp_path / "all.csv")) == 8 * 60
    write_predictions(run, tmp_path / "one.parquet", variant="exact", seed=0)
    assert pd.read_parquet(tmp_path / "one.parquet").equals(run.rows("exact", 0))
    write_predictions(told, tmp_path / "told.csv")
    assert {"user", "item", "action", "label", "probability"} <= set(pd.read_csv(tmp_path / "told.csv"))


def test_what_is_refused_leaves_no_file(run, told, tmp_path):
    for to, options, message in (
        (tmp_path / "best.xlsx", {}, "name the file .csv, .tsv, .parquet"),
        (run.path / "best.csv", {}, "lies inside the run"),
        (tmp_path / "best.csv", {"k": 51}, "ask for 1 to 50"),
        (tmp_path / "best.csv", {"variant": "exat"}, "has no variant 'exat'; did you mean 'exact'"),
    ):
        with pytest.raises(InputError, match=message):
            write_top_k(run, to, **options)
    with pytest.raises(InputError, match="take `harness export predictions`"):
        write_top_k(told, tmp_path / "best.csv")
    assert not list(tmp_path.iterdir())
