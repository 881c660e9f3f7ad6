"""Any file either yields exactly the events that it holds, or is refused with its name, the line and what to do."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from harness.data.config import Columns, DataConfig
from harness.data.formats import read_events
from harness.data.log import build_log
from harness.data.rows import raw_log
from harness.errors import InputError

ID = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=6)
EVENT = st.tuples(ID, ID, st.integers(10**9, 2 * 10**9), WORDS)
EVENTS = st.lists(EVENT, min_size=1, max_size=8)
NAMES = ("userId", "movieId", "timestamp", "tag")


def read(path, columns=None):
    return raw_log([read_events(path, columns)], columns)


def events_of(raw):
    return list(zip(raw.users[raw.user].tolist(), raw.items[raw.item].tolist(), raw.time.tolist(), strict=True))


def is_one_line_on(path, message):
    assert message.startswith(str(path))
    assert "\n" not in message


def packed(path, content: bytes):
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def delimited(events, separator=",", end="\n"):
    text = io.StringIO()
    quoting = csv.QUOTE_MINIMAL if separator != "\t" else csv.QUOTE_NONE
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(NAMES)
    writer.writerows(events)
    return text.getvalue().encode()


def without_quotes(events):
    """Tab-separated text knows none."""
    return [tuple(v.replace('"', "'") if isinstance(v, str) else v for v in event) for event in events]


@settings(max_examples=60)
@given(EVENTS, st.sampled_from([",", ";", "|"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", ".gz", ".zst"]))
def test_delimited_text_holds_its_events(tmp_path_factory, events, separator, end, packing):
    path = packed(tmp_path_factory.mktemp("x") / f"log.csv{packing}", delimited(events, separator, end))
    assert events_of(read(path)) == [event[:3] for event in events]


@settings(max_examples=30)
@given(EVENTS, st.sampled_from(["", ".gz", ".zst"]))
def test_tab_separated_text_json_lines_and_parquet_hold_their_events(tmp_path_factory, events, packing):
    folder = tmp_path_factory.mktemp("x")
    expected = [event[:3] for event in events]
    lines = "\n\n".join(json.dumps(dict(zip(NAMES, event, strict=True))) for event in events)
    assert events_of(read(packed(folder / f"log.jsonl{packing}", lines.encode()))) == expected
    frame = pd.DataFrame(events, columns=NAMES)
    frame.to_parquet(folder / "log.parquet")
    frame.astype({"userId": "category"}).to_parquet(folder / "sorted.parquet")
    for name in ("log", "sorted"):
        raw = read(folder / f"{name}.parquet")
        assert events_of(raw) == expected
        assert raw.users.tolist() == list(dict.fromkeys(event[0] for event in events))
        assert raw.columns["tag"].tolist() == [event[3] for event in events]
    plain = without_quotes(events)
    tabs = packed(folder / f"log.tsv{packing}", delimited(plain, "\t"))
    assert events_of(read(tabs)) == [event[:3] for event in plain]


def reference(content: bytes, quoted: bool):
    """Python's own reading of the rows below the header; None where a row is off."""
    try:
        text = io.StringIO(content.decode(), newline="")
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        rows = csv.reader(text, delimiter="," if quoted else "\t", quoting=quoting, strict=True)
        return [(user, item, int(time)) for user, item, time, _ in [row for row in rows if row][1:]]
    except (ValueError, csv.Error):
        return None


DAMAGE = [b"", b"\0", b"\xff", b'"', b',"', b'"x', b",", b"\t", b"\n", b"\r", b"-", b"nan", b"\n\n", b"0"]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_exactly_or_refused_with_its_line(tmp_path_factory, data):
    quoted, events = data.draw(st.booleans()), data.draw(EVENTS)
    content = delimited(events) if quoted else delimited(without_quotes(events), "\t")
    start = content.index(b"\n") + 1
    for _ in range(data.draw(st.integers(1, 3))):
        place, cut = data.draw(st.integers(start, max(start, len(content)))), data.draw(st.integers(0, 3))
        content = content[:place] + data.draw(st.sampled_from(DAMAGE)) + content[place + cut :]
    path = tmp_path_factory.mktemp("x") / ("log.csv" if quoted else "log.tsv")
    path.write_bytes(content)
    try:
        found = events_of(read(path))
    except InputError as error:
        message = str(error)
        is_one_line_on(path, message)
        assert "line " in message or "has no rows" in message
        assert ";" in message  # what to do
    else:
        assert found == reference(content, quoted)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_cut_file_is_refused_or_a_whole_number_of_its_lines(tmp_path_factory, data):
    events = data.draw(st.lists(EVENT, min_size=2, max_size=8))
    kind = data.draw(st.sampled_from(["log.jsonl", "log.jsonl.gz", "log.csv.gz", "log.csv.zst", "log.parquet"]))
    path = tmp_path_factory.mktemp("x") / kind
    if kind == "log.parquet":
        pd.DataFrame(events, columns=NAMES).to_parquet(path)
    elif "csv" in kind:
        packed(path, delimited(events))
    else:
        packed(path, "\n".join(json.dumps(dict(zip(NAMES, event, strict=True))) for event in events).encode())
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        found = events_of(read(path))
    except InputError as error:
        is_one_line_on(path, str(error))
    else:
        assert kind == "log.jsonl"
        assert found == [event[:3] for event in events][: len(found)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv is empty; restore"),
        ("a.csv", b"\n\n", "a.csv is empty; restore"),
        ("a.csv", b"user,item\n", "has no rows"),
        ("a.csv", b"user,item,item\nu,i,j\n", "line 1 names the column 'item' twice; rename one"),
        ("a.csv", b"user,item\nu,a\nu,b,c\n", "line 3 has 3 fields instead of 2"),
        ("a.csv", b"user,item\nu,a\n\xff,b\n", "line 3 is not UTF-8; convert"),
        ("a.csv", "user,item\nu,a\n".encode("utf-16"), "line 1 is not UTF-8; convert"),
        ("a.csv", b"user,item\nu,a\nu\0,b\n", "line 3, column 'user': .* holds a NUL byte"),
        ("a.csv", b"user,item\nu,a\n,b\n", "line 3, column 'user': '' is not an id"),
        ("a.csv", b"user,item,time\nu,a,1700000000\nu,b,nan\n", "line 3, column 'time': 'nan' is not finite"),
        ("a.csv", b"user,item,time\nu,a,1700000000\nu,b,\n", "line 3, column 'time': '' is not a number"),
        ("a.csv", b'user,item\nu,a\nu,"b\n', "line 3 can't be split into fields"),
        ("a.csv", b'user,item,time\nu,a,1700000000\nu,b,"1700000001\n', "line 3 can't be split into fields"),
        ("a.csv", b"user,thing\nu,a\n", r"no column that is known to hold the items \('user', 'thing'\).*--item NAME"),
        ("a.csv", b"u1,a,3\nu1,b,4\n", r"line 1 is not a header .*--user 1 --item 2 --time 4"),
        ("a.jsonl", b'{"user": 1, "item": 2}\n{"user": 1, "item": "x"}\n', "line 2, column 'item': 'x' is not of the"),
        ("a.jsonl", b'{"user": 1, "item": 2}\n{"user": 1}\n', "line 2, column 'item': the id is missing"),
        ("a.jsonl", b'{"user": 1, "item": 2}\n[1]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"user": 1, "item": 2.5}\n', "line 1, column 'item': 2.5 is not an id"),
        ("a.json", b'{"user": 1,\n "item": 2}\n', "line 1 is not JSON .*one object a line"),
        ("a.parquet", b"PAR1", "is damaged or not what its name says"),
        ("a.csv.gz", b"user,item\nu,a\n", "is damaged or not what its name says"),
        ("a.xlsx", b"PK", r"its name must end in one of \.csv"),
    ],
)
def test_what_is_refused_and_how(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    is_one_line_on(path, str(caught.value))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("user_id,item_id,timestamp", ()),
        ("user_id:token,item_id:token,timestamp:float", ()),
        ("userId,movieId,timestamp", ("a.csv: took 'userId' as user, 'movieId' as item",)),
        ("reviewerID,parent_asin,Date", ("a.csv: took 'reviewerID' as user, 'parent_asin' as item, 'Date' as time",)),
    ],
)
def test_guessed_columns_are_said(tmp_path, header, said):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nu,b,1700000001\nu,a,1700000000\n")
    raw = read(path)
    assert raw.notes == said
    assert events_of(raw) == [("u", "b", 1700000001), ("u", "a", 1700000000)]


def test_of_two_candidates_the_other_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,asin,parent_asin\nu,a,p\n")
    raw = read(path)
    assert raw.items.tolist() == ["p"]
    assert raw.notes[0] == "a.csv: took 'user' as user, 'parent_asin' as item (not 'asin')"
    assert read(path, Columns(item="asin")).items.tolist() == ["a"]


@pytest.mark.parametrize("given", [None, Columns(user=1, item=2, time=4, rating="3")])
def test_without_a_header(tmp_path, given):
    """MovieLens-100K's u.data."""
    path = tmp_path / "u.data"
    path.write_text("196\t242\t3\t881250949\n186\t302\t4\t891717742\n")
    raw = read(path, given)
    assert events_of(raw) == [("196", "242", 881250949), ("186", "302", 891717742)]
    assert raw.columns["rating" if given else "3"].tolist() == [3, 4]
    assert "line 1 is" in raw.notes[0]


def test_columns_of_numbers_and_of_words_serve_rules(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,item,stars,kind\nu,a,5,buy\nu,b,2.5,view\n")
    raw = read(path, Columns(rating="stars"))
    log = build_log("a", raw, DataConfig(), rules={"like": "rating >= 4", "buy": "kind == buy", "low": "stars < 3"})
    assert log.actions.tolist() == [[1, 1, 0], [0, 0, 1]]
    path.write_text("user,item,stars\nu,a,5\nu,b,none\n")
    with pytest.raises(InputError, match="line 3, column 'stars': the rating 'none' is not a number"):
        read(path, Columns(rating="stars"))


def test_a_repeated_row_is_named_by_its_line_though_texts_span_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('user,item,text\nu,a,"two\nlines"\nu,b,x\nu,b,x\n')
    with pytest.raises(InputError, match="line 5 repeats line 4 exactly"):
        build_log("a", read(path), DataConfig(), rules={})


def test_an_arrow_time_keeps_its_unit(tmp_path):
    table = pa.table({"user": [1, 1], "item": [1, 2], "time": pa.array([1_700_000_000_001, 5], pa.timestamp("ms"))})
    parquet.write_table(table, tmp_path / "a.parquet")
    raw = read(tmp_path / "a.parquet")
    assert (raw.time.tolist(), raw.ticks) == ([1_700_000_000_001, 5], 1000)
