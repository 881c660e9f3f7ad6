"""Two runs side by side, against the comparisons within one run and against loops over rows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from harness.analysis.between import between_runs
from harness.analysis.comparisons import comparisons
from harness.analysis.rows import load_run
from harness.analysis.two_levels import two_level_interval
from harness.errors import InputError


@pytest.fixture
def run(finished_run):
    return load_run(finished_run)


@pytest.fixture
def copied(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "copy")


def change(run_dir, **values):
    """Lays values over a run's design."""
    path = run_dir / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def change_cards(run_dir, key, value):
    for path in run_dir.glob("cells/*/cell.json"):
        card = json.loads(path.read_text())
        card["fingerprints"][key] = value
        path.write_text(json.dumps(card))


def test_a_pair_across_runs_is_the_pair_within_one(run):
    (within,) = comparisons(run).values()  # bce against ce
    (line,) = between_runs(run, run, pairs=[("ce", "bce")], metrics=["ndcg@10"]).to_dict("records")
    assert (line["variant"], line["other"], line["seeds"], line["note"]) == ("ce", "bce", 2, "")
    assert (line["first"], line["second"]) == (pytest.approx(within.mean_b), pytest.approx(within.mean_a))
    assert line["difference"] == pytest.approx(within.difference)
    assert (line["low"], line["high"]) == pytest.approx(within.interval_users)
    assert line["percent"] == pytest.approx(within.percent)


def test_a_run_against_itself_differs_in_nothing(run):
    found = between_runs(run, run)
    assert found["variant"].tolist() == ["ce", "ce", "bce", "bce"]
    assert found["metric"].tolist() == ["ndcg@10", "recall@5"] * 2
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)


def test_only_common_seeds_are_paired(run, copied):
    kept = run.ids(variant="ce")
    shutil.rmtree(copied / "cells" / kept[1])
    other = load_run(copied)
    lines = between_runs(other, run, metrics=["ndcg@10"]).set_index("variant")
    assert lines.loc["ce", "note"] == "fewer than two seeds in common"
    assert lines.loc["ce", "seeds"] == 1
    assert lines.loc["ce", "difference"] == 0
    assert lines.loc["ce", "first"] == pytest.approx(run.metric(kept[0], "ndcg@10"))
    assert np.isnan(lines.loc["ce", "low"])
    assert lines.loc["bce", "note"] == ""


def test_changed_ranks_are_seen(run, copied):
    rng = np.random.default_rng(0)
    differences = []
    for cell in run.ids(variant="ce"):
        path = copied / "cells" / cell / "rows.parquet"
        table = pq.read_table(path).to_pandas()
        table["rank_unseen"] = rng.integers(1, 12, len(table)).astype("int32")
        table.to_parquet(path)
        before = run.ranks(cell) <= 5
        after = table.loc[table["phase"] == "test", "rank_unseen"].to_numpy() <= 5
        differences.append(after.astype(float) - before)
    line = between_runs(run, load_run(copied), pairs=[("ce", "ce")], metrics=["recall@5"]).iloc[0]
    expected = two_level_interval(np.stack(differences))
    assert line["difference"] == pytest.approx(expected.difference)
    assert (line["low"], line["high"]) == pytest.approx(expected.interval)


def test_other_users_have_no_paired_interval(run, copied):
    for cell in run.ids(variant="bce"):
        path = copied / "cells" / cell / "rows.parquet"
        table = pq.read_table(path).to_pandas()
        table["user"] = "x" + table["user"]
        table.to_parquet(path)
    lines = between_runs(run, load_run(copied), metrics=["ndcg@10"]).set_index("variant")
    assert lines.loc["bce", "note"] == "evaluated on different users or targets"
    assert lines.loc["bce", "difference"] == 0
    assert lines.loc["ce", "note"] == ""


@pytest.mark.parametrize(("kind", "what"), [("log", "the data of"), ("split", "the split of")])
def test_other_data_are_refused(run, copied, kind, what):
    change_cards(copied, kind, "f" * 64)
    with pytest.raises(InputError, match=f"{what} 'synthetic-sessions.*differ.*can't be compared"):
        between_runs(run, load_run(copied))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": ["mrr"], "primary": "mrr"}, r"no metric in common .*--metric"),
        ({"task": "action"}, "is about retrieval, .* is about action|another task"),
    ],
)
def test_studies_that_have_nothing_in_common(run, copied, values, message):
    change(copied, **values)
    with pytest.raises(InputError, match=message):
        between_runs(run, load_run(copied))


def test_no_variant_in_common(run, copied):
    design = yaml.safe_load((copied / "study.yaml").read_text())
    cells = [cell | {"variant": f"new-{cell['variant']}"} for cell in design["cells"]]
    variants = {f"new-{name}": variant for name, variant in design["variants"].items()}
    change(copied, cells=cells, variants=variants, control=f"new-{design['control']}")
    other = load_run(copied)
    with pytest.raises(InputError, match=r"no variant in common .*new-ce.*--pair ONE/OTHER"):
        between_runs(run, other)
    assert between_runs(run, other, pairs=[("ce", "new-ce")])["difference"].tolist() == [0, 0]
    with pytest.raises(InputError, match=r"copy has no variant 'new-cee'; did you mean 'new-ce'\?"):
        between_runs(run, other, pairs=[("ce", "new-cee")])


def test_no_data_set_in_common(run, copied):
    cells = [cell | {"dataset": "other"} for cell in yaml.safe_load((copied / "study.yaml").read_text())["cells"]]
    change(copied, cells=cells)
    for path in copied.glob("cells/*/cell.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": "other"}))
    with pytest.raises(InputError, match=r"no data set in common: .* has synthetic-sessions.* and .* has other"):
        between_runs(run, load_run(copied))
