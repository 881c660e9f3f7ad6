from __future__ import annotations

import pytest

from harness.analysis.published import load_published, published_table
from harness.analysis.study_tables import study_tables
from harness.errors import InputError

HEAD = "dataset,model,metric,value,source,protocol\n"


def test_published_numbers_stand_beside_ours(run, tmp_path):
    (tmp_path / "a.csv").write_text(
        HEAD + "ml-100k,fair,recall@5,0.1,Someone 2024,history kept\n"
        "ml-100k,HSTU,recall@5,0.2,Someone 2024,\n"
        "ml-1m,FAIR,recall@5,0.3,Someone 2024,\n"
        "ml-100k,FAIR,recall@50,0.3,Someone 2024,\n"
    )
    table = published_table(run, load_published(tmp_path))
    assert [line.label for line in table.lines] == ["fair", "HSTU"]
    values = {c.key: entry for c, entry in zip(table.columns, table.lines[0].entries, strict=True)}
    ours = run.by_seed("ml-100k", "fair", "recall@5")
    assert values["ours"].value == pytest.approx(sum(ours.values()) / 5)
    assert values["share"].value == pytest.approx(sum(ours.values()) / 5 / 0.1)
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
        (HEAD + "a,b,c,x,s,\n", "line 2: no number as value"),
        (HEAD + "a,b,c,0.1,s,\na,b,c,0.1,,\n", "line 3: no source"),
    ],
)
def test_a_file_that_is_off_is_one_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_published(tmp_path)
