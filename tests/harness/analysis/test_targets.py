"""Runs in which a user has several targets: each counts once, and users stay the unit of what is said of new ones."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats
from statsmodels.formula.api import ols

from benchmarks.synthetic_run import write_run
from harness.analysis.comparisons import comparisons
from harness.analysis.provenance import provenance
from harness.analysis.rows import by_user, load_run
from harness.analysis.slices import by_history
from harness.analysis.tables.numbers import metric_column

USERS, TARGETS = 60, 240


def owners():
    return np.sort(np.random.default_rng(0).integers(0, USERS, TARGETS))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A run whose 240 test targets belong to some 60 users, under ``data.targets: all``."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "several", users=TARGETS, seeds=3, attention=False)
    for path in folder.glob("cells/*/rows.parquet"):
        rows = pq.read_table(path).to_pandas()
        test = rows["phase"] == "test"
        rows.loc[test, "user"] = [f"u{user:03}" for user in owners()[: test.sum()]]
        rows.to_parquet(path, index=False)
    study = yaml.safe_load((folder / "study.yaml").read_text())
    study["data"] |= {"split": "temporal", "targets": "all"}
    for path in folder.glob("cells/*/cell.json"):
        card = json.loads(path.read_text())
        path.write_text(json.dumps(card | {"data": study["data"]}))
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return load_run(folder)


def clustered(values, owner):
    """statsmodels' standard error of a mean, robust to clusters."""
    frame = pd.DataFrame({"value": values})
    return float(ols("value ~ 1", frame).fit(cov_type="cluster", cov_kwds={"groups": owner}).bse.iloc[0])


def test_the_mean_is_that_of_targets_and_the_error_that_of_clusters():
    owner = owners()
    values = np.random.default_rng(1).normal(size=TARGETS) + 0.3 * owner / USERS
    found = by_user(values, owner)
    assert len(found) == len({*owner.tolist()})
    assert found.mean() == pytest.approx(values.mean())
    assert stats.sem(found) == pytest.approx(clustered(values, owner))


def test_one_target_each_changes_nothing_and_undefined_ones_do_not_count():
    values = np.random.default_rng(2).normal(size=5)
    assert by_user(values, np.arange(5)) == pytest.approx(values)
    found = by_user(np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 1, 2]))
    assert found[:2] == pytest.approx([1.0, 3.0])
    assert np.isnan(found[2])


def test_metrics_errors_and_differences_of_a_run(several):
    run, owner = several, owners()
    rows = [run.row_values(cell, "ndcg@10") for cell in run.ids("ml-100k", "fair")]
    assert run.metric(run.ids("ml-100k", "fair")[0], "ndcg@10") == pytest.approx(rows[0].mean())
    entry = metric_column(run, "ml-100k", "ndcg@10", ["fair"], {}, errors=True)["fair"]
    assert entry.error_value == pytest.approx(clustered(np.mean(rows, axis=0), owner))
    differences = run.differences("ml-100k", "no-mi-loss", "fair", "ndcg@10")
    assert differences.shape == (len({*owner.tolist()}), 3)
    other = [run.row_values(cell, "ndcg@10") for cell in run.ids("ml-100k", "no-mi-loss")]
    for column, a, b in zip(differences.T, other, rows, strict=True):
        assert column.mean() == pytest.approx((a - b).mean())
        assert stats.sem(column) == pytest.approx(clustered(a - b, owner))
    c = comparisons(run)["ml-100k", "no-mi-loss", "fair"]
    assert c.difference == pytest.approx(differences.mean())
    assert c.interval_users is not None


def test_slices_count_users_and_cluster_their_targets(several):
    run, owner = several, owners()
    history = run.rows(run.ids()[0], ["history"])["history"].to_numpy()
    values = np.mean([run.row_values(cell, "ndcg@10") for cell in run.ids("ml-100k", "fair")], axis=0)
    found = {part.label: part for part in by_history(run, "ml-100k", "fair")}
    inside = (history >= 20) & (history < 50)
    part, users = found["20–49"], len({*owner[inside].tolist()})
    assert (part.users, part.mean) == (users, pytest.approx(values[inside].mean()))
    error = clustered(values[inside], owner[inside])
    assert part.half == pytest.approx(stats.t.ppf(0.975, users - 1) * error)


def test_the_footer_says_which_events_are_targets(several, run):
    assert "Targets: every test event, each from all events before it (all)." in " ".join(
        provenance(several, several.datasets, several.variants)
    )
    assert "Targets" not in " ".join(provenance(run, run.datasets, run.variants))
