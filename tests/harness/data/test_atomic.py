from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.atomic import read_atomic, read_atomic_log, write_atomic_log
from harness.data.config import Columns, DataConfig
from harness.data.log import RawLog, build_log, encode
from harness.errors import InputError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
GOOD = (HEADER, "u1\ta\t5\t10", "u2\tb\t4.5\t5", "u1\tb\t1\t3")


def test_events_are_read_with_ids_in_order_of_first_appearance(atomic):
    raw = read_atomic_log(atomic(*GOOD), None)
    assert raw.users[raw.user].tolist() == ["u1", "u2", "u1"]
    assert raw.items[raw.item].tolist() == ["a", "b", "b"]
    assert raw.users.tolist() == ["u1", "u2"]
    assert raw.time.tolist() == [10, 5, 3]
    assert raw.columns["rating"].tolist() == [5, 4.5, 1]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_the_last_line_break_does_not_matter(atomic, end):
    assert len(read_atomic_log(atomic(*GOOD, end=end), None).item) == 3


def test_windows_line_breaks_and_byte_order_mark(atomic, tmp_path):
    path = atomic(*GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    raw = read_atomic_log(path, None)
    assert raw.time.tolist() == [10, 5, 3]
    assert list(raw.columns) == ["rating"]


def test_quotes_and_other_columns_are_plain_text(atomic):
    path = atomic("user_id:token\titem_id:token\ttags:token_seq\tw:float_seq", 'u"1\t"a\tx "y\t1 2.5', "u2\tb\t\t")
    table = read_atomic(path)
    assert table.data["user_id"].to_pylist() == ['u"1', "u2"]
    assert table.data["tags"].to_pylist() == ['x "y', ""]
    assert table.types["w"] == "float_seq"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (GOOD[1:], r"line 1 is not a typed header \('u1' has no type\)"),
        ((HEADER.replace("rating:float", "rating:flaot"), *GOOD[1:]), "unknown type 'flaot'; did you mean 'float'"),
        ((HEADER.replace("rating:", "item_id:"), *GOOD[1:]), "names the column 'item_id' twice"),
        ((HEADER.replace("item_id", "itemm_d"), *GOOD[1:]), "no column 'item_id'; did you mean 'itemm_d'"),
        ((*GOOD, "u3\ta\tfive\t3"), r"line 5, column 'rating': 'five' is not a number"),
        ((*GOOD, "u3\ta\t1_0\t3"), r"line 5, column 'rating': '1_0' is not a number"),
        ((*GOOD, "u3\ta\t5\r5\t3"), r"line 5 holds a carriage return in its middle"),
        ((*GOOD, "u3\0\ta\t5\t3"), r"line 5, column 'user_id': .* holds a NUL byte"),
        ((*GOOD, "u3\ta\t\t3"), r"line 5, column 'rating': '' is not a number"),
        ((*GOOD, "u3\ta\t5\tnan"), r"line 5, column 'timestamp': 'nan' is not finite"),
        ((*GOOD, "u3\ta\tinf\t3"), r"line 5, column 'rating': 'inf' is not finite"),
        ((*GOOD, "", "u3\ta\t5\t-3"), r"line 6, column 'timestamp': '-3' is negative"),
        ((*GOOD, "\ta\t5\t3"), r"line 5, column 'user_id': '' is not an id"),
        ((*GOOD, "u3\ta\t5\t3\t7"), "line 5 has 5 fields instead of 4"),
        ((HEADER,), "has no rows"),
        (("",), "is empty or begins with a blank line"),
    ],
)
def test_bad_files_are_refused_in_one_line(atomic, lines, message):
    path = atomic(*lines)
    with pytest.raises(InputError, match=message) as caught:
        read_atomic_log(path, None)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused(atomic):
    with pytest.raises(InputError, match="is empty"):
        read_atomic(atomic("", end=""))


def test_a_truncated_file_is_refused(atomic):
    with pytest.raises(InputError, match=r"line 5 has 2 fields instead of 4 and ends without a line break.*truncated"):
        read_atomic(atomic(*GOOD, "u3\tb", end=""))


@pytest.mark.parametrize("line", [1, 3])
def test_a_file_that_is_not_utf8_is_refused(atomic, line):
    path = atomic(*GOOD)
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = lines[line - 1].replace(b"u", b"\xe9", 1)
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=f"line {line} is not UTF-8"):
        read_atomic(path)


def test_repeated_rows_are_refused(atomic):
    raw = read_atomic_log(atomic(*GOOD, "u2\tb\t4.5\t5"), None)
    with pytest.raises(InputError, match="line 5 repeats line 3 exactly"):
        build_log("toy", raw, DataConfig(), rules={})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_atomic(tmp_path / "no.inter")


def test_item_texts(atomic):
    item = atomic("item_id:token\ttitle:token_seq\tprice:float", "b\tThe B\t1.50", "c\tThe C\t", name="toy.item")
    log = build_log("toy", read_atomic_log(atomic(*GOOD), item), DataConfig(), rules={}, text_fields=("title",))
    assert log.item_table.to_dict("index") == {1: {"title": "", "price": ""}, 2: {"title": "The B", "price": "1.50"}}
    assert set(log.files) == {"toy.inter", "toy.item"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b\tagain\t3", "line 3 describes item 'b' a second time"),
        ("c\tC\tcheap", "line 3, column 'price': 'cheap' is not a number"),
    ],
)
def test_bad_item_files_are_refused(atomic, line, message):
    item = atomic("item_id:token\ttitle:token_seq\tprice:float", "b\tThe B\t1.50", line, name="toy.item")
    with pytest.raises(InputError, match=message):
        read_atomic_log(atomic(*GOOD), item)


@pytest.mark.parametrize(("unit", "ticks"), [("000", 1_000), ("000000", 1_000_000), ("", 1)])
def test_times_too_large_for_seconds_are_scaled(atomic, unit, ticks):
    path = atomic(HEADER, f"u\ta\t5\t1300000002{unit}", f"u\tb\t5\t1300000001{unit}")
    log = build_log("toy", read_atomic_log(path, None), DataConfig(), rules={})
    assert log.time.tolist() == [1300000001, 1300000002]
    assert any(f"1/{ticks}" in note for note in log.notes) == (ticks > 1)


@pytest.mark.parametrize("name", ["time", "Timestamp", "date", "unixReviewTime"])
def test_a_time_column_of_another_name_orders_the_events_and_is_said(atomic, name):
    header = HEADER.replace("timestamp", name)
    log = build_log("toy", read_atomic_log(atomic(header, *GOOD[1:]), None), DataConfig(), rules={})
    assert log.time.tolist() == [3, 10, 5]
    assert log.notes == (f"toy.inter: took '{name}' as time",)


def test_a_time_column_that_is_not_recognised_is_said_and_can_be_named(atomic):
    path = atomic(HEADER.replace("timestamp", "moment"), *GOOD[1:])
    assert "no column is known to hold times (there are 'moment')" in " ".join(read_atomic_log(path, None).notes)
    raw = read_atomic_log(path, None, Columns(time="moment"))
    assert (raw.time.tolist(), raw.notes) == ([10, 5, 3], ())


def test_rows_that_stand_for_sequences_are_refused(atomic):
    """Read as one event each, a and b of user u would vanish."""
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    path = atomic(header, "u\ta b\tc", "v\tc\td")
    with pytest.raises(
        InputError, match=r"line 2, column 'item_id_list': the history holds item 'a', which is not an event"
    ):
        read_atomic_log(path, None)


def test_a_history_that_repeats_events_is_left_out_and_said(atomic):
    header = "user_id:token\thistory:token_seq\titem_id:token"
    raw = read_atomic_log(atomic(header, "u\t\ta", "u\ta\tb", "u\ta b\tc"), None)
    assert raw.items[raw.item].tolist() == ["a", "b", "c"]
    assert "repeats the events before a row" in raw.notes[-1]


def test_descriptions_of_other_ids_are_refused_with_examples(atomic):
    item = atomic("item_id:token\ttitle:token_seq", "005\tFive", "006\tSix", name="toy.item")
    raw = read_atomic_log(atomic(HEADER, "u\t5\t1\t1", "u\t6\t1\t2"), item)
    with pytest.raises(InputError, match=r"toy\.inter: .*ids such as '5', '6', descriptions such as '005', '006'"):
        build_log("toy", raw, DataConfig(), rules={})


ID = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5)
TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=10)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)


@given(st.data())
def test_any_log_survives_atomic_files(tmp_path_factory, data):
    events = data.draw(st.lists(st.tuples(ID, ID, st.integers(10**8, 2**31), FLOAT), min_size=1, max_size=20))
    user, users = encode(pa.array([e[0] for e in events]))
    item, items = encode(pa.array([e[1] for e in events]))
    raw = RawLog(Path("made-up"), user, users, item, items, np.array([e[2] for e in events]))
    raw.columns = {"rating": np.array([e[3] for e in events]), "kind": items[item]}
    titles = data.draw(st.lists(TEXT, min_size=len(items), max_size=len(items)))
    raw.item_table = pd.DataFrame({"title": titles}, index=items)
    inter = tmp_path_factory.mktemp("atomic") / "x.inter"
    write_atomic_log(raw, inter)
    back = read_atomic_log(inter, inter.with_suffix(".item"))

    assert back.columns["rating"].tolist() == raw.columns["rating"].tolist()
    assert back.columns["kind"].tolist() == raw.columns["kind"].tolist()
    assert back.item_table["title"].tolist() == [" ".join(title.split()) for title in titles]
    config, rules = DataConfig(duplicates="keep"), {"like": "rating >= 4"}
    assert build_log("x", back, config, rules=rules).fingerprint == build_log("x", raw, config, rules=rules).fingerprint


def test_movielens_equals_a_plain_reading_of_its_lines(movielens):
    """Against Python's own sort and a loop over the lines."""
    rows = [line.split("\t") for line in (movielens / "ml-100k.inter").read_text().splitlines()[1:]]
    users = list(dict.fromkeys(row[0] for row in rows))
    rank = {user: place for place, user in enumerate(users)}
    rows.sort(key=lambda row: (rank[row[0]], int(row[3])))
    raw = read_atomic_log(movielens / "ml-100k.inter", movielens / "ml-100k.item")
    log = build_log("ml-100k", raw, DataConfig(), rules={"like": "rating >= 4"})
    assert np.repeat(log.users, log.lengths).tolist() == [row[0] for row in rows]
    assert log.items[log.item].tolist() == [row[1] for row in rows]
    assert log.time.tolist() == [int(row[3]) for row in rows]
    assert log.actions[:, 0].tolist() == [int(row[2]) >= 4 for row in rows]
    assert log.item_table.loc[log.items.tolist().index("1"), "movie_title"] == "Toy Story"


def test_user_files_are_read_too(movielens):
    table = read_atomic(movielens / "ml-100k.user")
    assert table.data.num_rows == 943
    assert table.types["occupation"] == "token"
