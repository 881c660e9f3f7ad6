from __future__ import annotations

import pytest

from harness.analysis.published import load_published, published_table
from harness.analysis.study_tables import study_tables
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
    assert [line.label for line in table.lines] == ["fair", "HSTU"]
    values = {c.key: entry for c, entry in zip(table.columns, table.lines[0].entries, strict=True)}
    ours = run.metric_table("recall@5", candidates="all")["recall@5"].loc["ml-100k", "fair"]
    shown_first = run.metric_table("recall@5")["recall@5"].loc["ml-100k", "fair"]
    assert ours.mean() != shown_first.mean()  # the study shows the other protocol first
    assert values["ours"].value == pytest.approx(ours.mean())
    assert values["share"].value == pytest.approx(ours.mean() / 0.1)
    assert values["protocol"].text == "history kept"
    assert table.lines[1].entries[1].text == "–"


def test_nothing_published_no_table(run, tmp_path):
    assert load_published(tmp_path / "none").empty
    assert published_table(run, load_published(tmp_path)) is None
    assert "published" not in {table.name for table in study_tables(run)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,model\n", "lacks the column 'metric'"),
        (HEAD + "a,b,c,x,s,,all\n", "line 2: no number as value"),
        (HEAD + "a,b,c,0.1,s,,all\na,b,c,0.1,,,all\n", "line 3: no source"),
        (HEAD + "a,b,c,0.1,s,,seen\n", "line 2: candidates are 'all' or 'unseen'"),
    ],
)
def test_a_file_that_is_off_is_one_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_published(tmp_path)
