from __future__ import annotations

import json
import shutil

import pytest

from harness.analysis.report import write_report
from harness.analysis.rows import load_run
from harness.analysis.verify import trace, verify
from harness.errors import InputError


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    from benchmarks.synthetic_run import write_run

    folder = write_run(tmp_path_factory.mktemp("verify") / "ablations", users=60, seeds=2, attention=False)
    write_report(folder)
    return folder


@pytest.fixture
def folder(reported, tmp_path):
    shutil.copytree(reported, tmp_path / "ablations")
    return tmp_path / "ablations"


def _problems(folder):
    return {check.name: check.problem for check in verify(folder) if not check.ok}


def test_an_untouched_run_is_well(folder):
    assert _problems(folder) == {}
    assert len(verify(folder)) == 8 + 4 * 4  # cells, and four tables in four forms


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.99])
def test_one_changed_byte_names_the_cell(folder, place):
    cell = load_run(folder).ids("ml-100k", "no-mi-loss")[1]
    path = folder / "cells" / cell / "rows.parquet"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(bytes(data))
    assert "rows.parquet is not the file" in _problems(folder)[f"cell {cell}"]


def test_metrics_that_are_not_those_of_the_rows(folder):
    cell = load_run(folder).ids("ml-100k", "fair")[0]
    path = folder / "cells" / cell / "metrics.json"
    path.write_text(json.dumps({"test": {"unseen": {"ndcg@10": 0.5}, "all": {}}}))
    assert "metrics.json says 0.5 for test, unseen, ndcg@10" in _problems(folder)[f"cell {cell}"]


def test_an_edited_table_is_named_with_its_line(folder):
    path = folder / "tables" / "main.md"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace("FAIR", "FAIR!")
    path.write_text("\n".join(lines) + "\n")
    assert list(_problems(folder)) == ["tables/main.md"]
    assert "line 5" in _problems(folder)["tables/main.md"]


def test_a_cell_that_came_or_went_since_the_report(folder):
    cell = load_run(folder).ids("ml-100k", "fair")[0]
    shutil.rmtree(folder / "cells" / cell)
    problems = _problems(folder)
    assert "is gone" in problems[f"cell {cell}"]
    assert "tables/main.csv" in problems


def test_nothing_to_verify_without_a_report(folder):
    (folder / "evidence.json").unlink()
    with pytest.raises(InputError, match="write its report first"):
        verify(folder)


def test_trace_leads_to_the_cells_whose_mean_is_printed(folder):
    found = trace(folder, "main", "w/o MI loss", "NDCG@10")
    assert [source.seed for source in found.sources] == [0, 1]
    assert {source.variant for source in found.sources} == {"no-mi-loss"}
    assert sum(source.value for source in found.sources) / 2 == pytest.approx(found.value)
    assert found.printed.startswith(f"{found.value:.4f} ± ")
    assert all((source.path / "rows.parquet").exists() for source in found.sources)


def test_trace_of_a_difference_and_of_a_cost(folder):
    assert len(trace(folder, "differences", "no-mi-loss", "p_holm").sources) == 4
    cost = trace(folder, "cost", "fair", "train_seconds")
    assert sum(source.value for source in cost.sources) / 2 == pytest.approx(cost.value)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("mian", "fair", "NDCG@10"), "did you mean 'main'"),
        (("main", "fare", "NDCG@10"), "no row 'fare'; known: fair, no-focused"),
        (("main", "fair", "NDCG@7"), "no column 'NDCG@7'"),
    ],
)
def test_trace_names_what_there_is(folder, where, message):
    with pytest.raises(InputError, match=message):
        trace(folder, *where)


def test_trace_in_a_table_with_blocks_needs_the_data_set(wide_dir):
    with pytest.raises(InputError, match="more than one row 'fair'"):
        trace(wide_dir, "main", "fair", "ndcg@10")
    found = trace(wide_dir, "main", "amazon_beauty/fair", "ndcg@10")
    assert {source.dataset for source in found.sources} == {"amazon_beauty"}
    assert sum(source.value for source in found.sources) / 3 == pytest.approx(found.value)
