from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from harness.data import readers
from harness.data.config import DataConfig
from harness.data.log import build_log
from harness.errors import InputError


def write(path, text: str):
    path.write_bytes(text.encode())
    return path


def rows(raw) -> list[tuple]:
    time = [None] * len(raw.item) if raw.time is None else raw.time.tolist()
    return list(zip(raw.users[raw.user].tolist(), raw.items[raw.item].tolist(), time, strict=True))


REVIEWS = [
    {"reviewerID": "A", "asin": "x", "overall": 5.0, "unixReviewTime": 20, "reviewText": 'a "b"\n c'},
    {"reviewerID": "B", "asin": "x", "overall": 2.0, "unixReviewTime": 10},
    {"reviewerID": "A", "asin": "y", "overall": 4.0, "unixReviewTime": 10},
    {"reviewerID": "A", "asin": "z", "overall": 1.0, "unixReviewTime": 20},
]
META = [
    {"asin": "x", "title": 'It\'s "x"', "price": 9.5, "categories": [["Beauty", "Hair"], ["Beauty", "Oil"]]},
    {"asin": "unknown", "title": "no review"},
    {"asin": "y", "description": "tells", "related": {"also_bought": ["x"]}},
]


@pytest.fixture
def amazon(tmp_path):
    files = {"events": tmp_path / "reviews_X_5.json.gz", "items": tmp_path / "meta_X.json.gz"}
    with gzip.open(files["events"], "wt") as file:
        file.writelines(json.dumps(review) + "\n" for review in REVIEWS)
    with gzip.open(files["items"], "wt") as file:
        file.writelines(repr(item) + "\n" for item in META)  # Python literals, as published
    return files


def test_amazon_reviews(amazon):
    raw = readers.amazon_reviews(amazon)
    assert rows(raw) == [(r["reviewerID"], r["asin"], r["unixReviewTime"]) for r in REVIEWS]
    log = build_log("x", raw, DataConfig(), rules={"like": "rating >= 4"}, text_fields=("title", "brand", "categories"))
    assert log.items[log.item].tolist() == ["y", "x", "z", "x"]  # x before z at the same time, as in the file
    assert log.actions[:, 0].tolist() == [1, 1, 0, 0]
    assert log.item_table.loc[1].to_dict() == {
        "title": 'It\'s "x"',
        "price": "9.5",
        "categories": "Beauty, Hair, Oil",
        "description": "",
    }
    assert log.text_fields == ("title", "categories")
    assert (log.item_table.loc[3] == "").all()  # no metadata


def test_amazon_reviews_without_metadata(amazon):
    assert readers.amazon_reviews({"events": amazon["events"]}).item_table is None


@pytest.mark.parametrize("part", ["events", "items"])
def test_a_truncated_download_is_refused(amazon, part):
    whole = amazon[part].read_bytes()
    amazon[part].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{amazon[part].name} is truncated"):
        readers.amazon_reviews(amazon)


def test_metadata_is_never_run_as_code(amazon, tmp_path):
    with gzip.open(amazon["items"], "wt") as file:
        file.write(f"{{'asin': 'x', 'title': open({str(tmp_path / 'made')!r}, 'w')}}\n")
    with pytest.raises(InputError, match="line 1 is not a Python literal"):
        readers.amazon_reviews(amazon)
    assert not (tmp_path / "made").exists()


def test_reviews_that_lack_a_field_are_refused(amazon):
    with gzip.open(amazon["events"], "at") as file:
        file.write('{"reviewerID": "A", "asin": "x", "overall": 5.0}\n')
    with pytest.raises(InputError, match="reviews without"):
        readers.amazon_reviews(amazon)


def test_text_sequences_with_times_and_texts(tmp_path):
    files = {
        "events": write(tmp_path / "X.txt", "1 1 2 3\n2 3 1\n"),
        "times": write(
            tmp_path / "X.inter.tsv", "user\titem\tunix_time\n1\t1\t5\n1\t2\t5\n1\t3\t6\n2\t3\t1\n2\t1\t2\n"
        ),
        "items": write(tmp_path / "X.items.tsv", 'item\tasin\tbrand\n1\tB1\t\n3\tB3\t5" Co\n'),
    }
    raw = readers.text_sequences(files)
    assert rows(raw) == [("1", "1", 5), ("1", "2", 5), ("1", "3", 6), ("2", "3", 1), ("2", "1", 2)]
    log = build_log("x", raw, DataConfig(), rules={}, text_fields=("brand",))
    assert log.item_table["brand"].tolist() == ["", "", '5" Co']
    assert set(log.files) == {"X.txt", "X.inter.tsv", "X.items.tsv"}
    assert rows(readers.text_sequences({"events": files["events"]}))[3] == ("2", "3", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n2\n", "line 2 has a user without items"),
        ("1 2 3\n1 4 5\n", "line 2 lists user '1' a second time after line 1"),
        ("\n", "holds no events"),
    ],
)
def test_bad_text_sequences_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        readers.text_sequences({"events": write(tmp_path / "X.txt", text)})


def test_times_of_other_events_are_refused(tmp_path):
    files = {
        "events": write(tmp_path / "X.txt", "1 1 2\n"),
        "times": write(tmp_path / "X.inter.tsv", "user\titem\tunix_time\n1\t2\t5\n1\t1\t5\n"),
    }
    with pytest.raises(InputError, match="does not hold the events of"):
        readers.text_sequences(files)


def test_json_sequences(tmp_path):
    files = {
        "events": write(tmp_path / "X.inter.json", '{"7": [3, 1, 3], "0": [1]}'),
        "items": write(tmp_path / "X.item.json", '{"1": {"title": "One", "tags": ["a", "b"]}, "3": {"title": null}}'),
    }
    raw = readers.json_sequences(files)
    assert rows(raw) == [("7", "3", None), ("7", "1", None), ("7", "3", None), ("0", "1", None)]
    log = build_log("x", raw, DataConfig(), rules={}, text_fields=("title", "tags"))
    assert log.item_table.to_dict("list") == {"title": ["", "One"], "tags": ["", "a, b"]}


@pytest.mark.parametrize("text", ["[1, 2]", '{"1": 5}', '{"1": []}'])
def test_json_of_another_shape_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="does not hold a list of items for every user"):
        readers.json_sequences({"events": write(tmp_path / "X.inter.json", text)})


def test_truncated_json_is_refused(tmp_path):
    with pytest.raises(InputError, match="not valid JSON"):
        readers.json_sequences({"events": write(tmp_path / "X.inter.json", '{"1": [1, 2')})


def test_movielens_dat(tmp_path):
    files = {
        "events": write(tmp_path / "ratings.dat", "1::20::5::978300760\n1::10::3::978300750\n"),
        "items": tmp_path / "movies.dat",
    }
    files["items"].write_bytes("10::Misérables, Les (1995)::Drama|Musical\n20::M: a film::Crime\n".encode("latin-1"))
    raw = readers.movielens_dat(files)
    log = build_log("ml", raw, DataConfig(), rules={"love": "rating == 5"})
    assert log.items[log.item].tolist() == ["10", "20"]
    assert log.actions[:, 0].tolist() == [0, 1]
    assert log.item_table.to_dict("records") == [
        {"movie_title": "M: a film", "release_year": "", "class": "Crime"},
        {"movie_title": "Misérables, Les", "release_year": "1995", "class": "Drama Musical"},
    ]


def test_truncated_movielens_is_refused(tmp_path):
    with pytest.raises(InputError, match="line 2 is not user::item::rating::time"):
        readers.movielens_dat({"events": write(tmp_path / "ratings.dat", "1::2::5::97\n1::3\n")})


def test_event_table_renames_its_actions(tmp_path):
    read = readers.EventTable(
        user="u", item="i", time="t", ticks=1000, separator=",", action="event", words={"addtocart": "cart"}
    )
    path = write(tmp_path / "e.csv", "t,u,event,i,x\n2500,1,view,7,\n1500,1,addtocart,8,q\n")
    raw = read({"events": path})
    assert rows(raw) == [("1", "7", 2500), ("1", "8", 1500)]
    assert raw.columns["action"].tolist() == ["view", "cart"]
    log = build_log("e", raw, DataConfig(), rules={"cart": "action == cart"})
    assert (log.time.tolist(), log.actions[:, 0].tolist()) == ([1, 2], [1, 0])


def test_event_table_without_a_column_is_refused(tmp_path):
    read = readers.EventTable(user="u", item="i", time="t")
    with pytest.raises(InputError, match="has no column 't'"):
        read({"events": write(tmp_path / "e.tsv", "u\ti\n1\t2\n")})


def test_event_table_with_a_bad_number_is_refused(tmp_path):
    read = readers.EventTable(user="u", item="i", time="t", numbers=("like",))
    with pytest.raises(InputError, match="line 3, column 'like': 'yes' is not a number"):
        read({"events": write(tmp_path / "e.tsv", "u\ti\tt\tlike\n1\t2\t3\t1\n1\t2\t4\tyes\n")})


def test_both_forms_of_one_data_set_hold_the_same_log(amazon, tmp_path):
    """Raw reviews, and the sequences that S3-Rec makes of them: equal up to the names of users and items."""
    order = {"A": [2, 0, 3], "B": [1]}  # by time, ties as in the file
    path = tmp_path / "X.txt"
    path.write_text("".join(f"{user} {' '.join(REVIEWS[r]['asin'] for r in row)}\n" for user, row in order.items()))
    raw = build_log("x", readers.amazon_reviews(amazon), DataConfig(), rules={})
    text = build_log("x", readers.text_sequences({"events": path}), DataConfig(), rules={})
    assert raw.items[raw.item].tolist() == text.items[text.item].tolist()
    assert np.array_equal(raw.offsets, text.offsets)
