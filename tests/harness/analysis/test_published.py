from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.artefacts import tables_of
from harness.analysis.published import load_published, published_folder, published_table
from harness.errors import InputError

HEAD = "dataset,model,metric,value,source,protocol,candidates\n"


def test_published_numbers_stand_beside_ours(run, tmp_path):
    (tmp_path / "a.csv").write_text(
        HEAD + "ml-100k,fair,recall@5,0.1,Someone 2024,history kept,all\n"
        "ml-100k,HSTU,recall@5,0.2,Someone 2024,,all\n"
        "ml-1m,FAIR,recall@5,0.3,Someone 2024,,all\n"
        "ml-100k,FAIR,recall@50,0.3,Someone 2024,,all\n"
    )
    table = published_table(run, load_published(tmp_path))
    assert [line.label for line in table.lines] == [*map(run.label, run.variants), "fair", "HSTU"]
    assert {line.group for line in table.lines} == {"ml-100k"}
    cells = {line.label: dict(zip([c.key for c in table.columns], line.entries, strict=True)) for line in table.lines}
    ours = run.metric_table("recall@5", candidates="all")["recall@5"].loc["ml-100k", "fair"]
    shown_first = run.metric_table("recall@5")["recall@5"].loc["ml-100k", "fair"]
    assert ours.mean() != shown_first.mean()  # the study shows the other protocol first
    own, theirs = cells[run.label("fair")], cells["fair"]
    assert own["recall@5"].value == pytest.approx(ours.mean())
    assert own["recall@5"].spread_value == pytest.approx(ours.std())
    assert own["source"].text == "here"
    assert theirs["recall@5"].value == 0.1
    assert theirs["recall@5/share"].value == pytest.approx(ours.mean() / 0.1)
    assert theirs["recall@5/share"].cells == tuple(run.ids("ml-100k", "fair"))
    assert cells["HSTU"]["recall@5/share"].text == ""  # none of ours to compare with
    assert table.notes[:2] == ("(a) Someone 2024. There: history kept.", "(b) Someone 2024.")
    assert (theirs["source"].text, cells["HSTU"]["source"].text) == ("a", "b")


def test_each_way_to_treat_the_history_is_a_block_of_its_own(run, tmp_path):
    (tmp_path / "a.csv").write_text(
        HEAD + "ml-100k,HSTU,recall@5,0.2,Someone 2024,,all\nml-100k,HSTU,recall@5,0.3,Someone 2024,,unseen\n"
    )
    table = published_table(run, load_published(tmp_path))
    assert [c.key for c in table.columns] == ["recall@5", "source"]  # no model of ours, so no shares
    blocks = {group: [x for x in table.lines if x.group == group] for group in ("ml-100k", "ml-100k, history removed")}
    assert sum(map(len, blocks.values())) == len(table.lines)
    for candidates, lines in zip(("all", "unseen"), blocks.values(), strict=True):
        ours = run.metric_table("recall@5", candidates=candidates)["recall@5"].loc["ml-100k", run.variants[0]]
        assert lines[0].entries[0].value == pytest.approx(ours.mean())
    assert [lines[-1].entries[0].value for lines in blocks.values()] == [0.2, 0.3]


def test_nothing_published_no_table(run, tmp_path):
    assert load_published(tmp_path / "none").empty
    assert published_table(run, load_published(tmp_path)) is None
    assert "published" not in {table.name for table in tables_of(run)}


def test_numbers_that_ship_unless_there_are_some_beside_the_run(run, tmp_path):
    there = replace(run, path=tmp_path / "mine" / "run")
    shipped = load_published(published_folder(there))
    assert {"amazon-beauty", "amazon-sports", "amazon-toys", "amazon-cds"} <= set(shipped["dataset"])
    (tmp_path / "mine" / "published").mkdir(parents=True)
    assert published_folder(there) == tmp_path / "mine" / "published"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,model\n", "lacks the column 'metric'"),
        (HEAD + "a,b,c,x,s,,all\n", "line 2: no number as value"),
        (HEAD + "a,b,c,0.1,s,,all\na,b,c,0.1,,,all\n", "line 3: no source"),
        (HEAD + "a,b,c,0.1,s,,all\na,b,c,0.2,s,,all\n", "line 3: the same number a second time"),
        (HEAD + "a,b,c,0.1,s,,seen\n", "line 2: candidates are 'all' or 'unseen'"),
    ],
)
def test_a_file_that_is_off_is_one_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_published(tmp_path)
