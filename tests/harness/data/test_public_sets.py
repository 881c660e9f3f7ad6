"""Each data set is read from small files in the format that its publishers describe, on the pages which
harness/data/public_sets.py names. What is invented here are the values."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness.data import datasets, prepare
from harness.data.catalogue import Counts, DatasetSpec, RoundedCounts
from harness.data.config import DataConfig
from harness.data.datasets import known, load
from harness.data.splits import make_split
from harness.errors import InputError


def put(folder, name, text):
    """Writes ``text``, packed where the name says so."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def sequences(log) -> dict[str, list[str]]:
    """User -> items, oldest first."""
    bounds = zip(log.offsets, log.offsets[1:], strict=False)
    return {user: log.items[log.item[a:b]].tolist() for user, (a, b) in zip(log.users, bounds, strict=True)}


HEADER = "user_id,parent_asin,rating,timestamp\n"
META = [
    {
        "main_category": "Video Games",
        "title": "Dash 8-Bit",
        "average_rating": 2.7,
        "features": ["MULTIPLAYER", "ULTRA HIGH"],
        "description": [],
        "price": 29.5,
        "images": [{"thumb": "https://example.org/a.jpg", "variant": "MAIN"}],
        "store": "Dash",
        "categories": ["Video Games", "PC"],
        "details": {"Release date": "2017"},
        "parent_asin": "B1",
    },
    {"title": "Not in the 5-core", "parent_asin": "B9", "price": None, "features": [], "description": ["x"]},
]


def amazon(folder, *, split=True):
    rows = {
        "train": "AE1,B1,4.0,1588615855070\nAE1,B2,5.0,1588615855071\nAE2,B2,1.0,1588615855000\n",
        "valid": "AE1,B3,3.0,1588615855071\nAE2,B3,2.0,1588615856000\n",
        "test": "AE1,B4,3.0,1588615859000\nAE2,B1,2.0,1588615857000\n",
    }
    if split:
        for part, lines in rows.items():
            put(folder, f"Video_Games.{part}.csv.gz", HEADER + lines)
    else:
        put(folder, "Video_Games.csv.gz", HEADER + "".join(rows.values()))
    put(folder, "meta_Video_Games.jsonl.gz", "".join(json.dumps(row) + "\n" for row in META))


def test_amazon_2023(tmp_path):
    amazon(tmp_path / "amazon-2023-Video_Games")
    log = load("amazon-2023:Video_Games", DataConfig(), tmp_path)
    # Two events of AE1 have one time: the training part comes before the validation part.
    assert sequences(log) == {"AE1": ["B1", "B2", "B3", "B4"], "AE2": ["B2", "B3", "B1"]}
    assert log.time.tolist()[:2] == [1588615855, 1588615855]
    assert log.part.tolist() == [0, 0, 1, 2, 0, 1, 2]
    assert log.actions[:, log.action_names.index("like")].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert log.item_table.loc[1, ["title", "store", "categories", "price", "features"]].tolist() == [
        *("Dash 8-Bit", "Dash", "Video Games, PC", "29.5", "MULTIPLAYER, ULTRA HIGH")
    ]
    assert "description" not in log.item_table  # empty for each item of the log
    assert any("2 users instead of 94,800" in note for note in log.notes)
    assert not any("took" in note or "suggests" in note for note in log.notes)
    by_files = make_split(log, DataConfig(split="given"))
    assert "the leave-one-out split is that of the data set's own files" in make_split(log, DataConfig()).notes
    assert by_files.valid_end.tolist() == [3, 6]


def test_amazon_2023_in_one_file_and_unpacked(tmp_path):
    amazon(tmp_path, split=False)
    packed = tmp_path / "Video_Games.csv.gz"
    (tmp_path / "Video_Games.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    log = load("amazon-2023:Video_Games", DataConfig(), tmp_path)
    assert (log.n_users, log.n_items, log.n_events, log.part) == (2, 4, 7, None)


def test_a_part_that_is_missing_is_named(tmp_path):
    amazon(tmp_path)
    (tmp_path / "Video_Games.valid.csv.gz").unlink()
    with pytest.raises(InputError, match=r"holds Video_Games\.train\.csv\.gz .* but not Video_Games\.valid\.csv\.gz"):
        load("amazon-2023:Video_Games", DataConfig(), tmp_path)


def test_every_category_of_amazon_2023_has_a_name_and_another_is_answered_by_its_neighbour(tmp_path):
    names = [name for name in known() if name.startswith("amazon-2023:")]
    assert len(names) == 28  # so many are on the page of the 5-core files
    with pytest.raises(InputError, match="did you mean 'amazon-2023:Video_Games'"):
        load("amazon-2023:Video_Game", DataConfig(), tmp_path)


@pytest.mark.parametrize("name", ["ml-20m", "ml-32m"])
def test_movielens(tmp_path, name):
    put(tmp_path, f"{name}/ratings.csv", "userId,movieId,rating,timestamp\n1,17,4.0,944249077\n1,2,0.5,944249000\n")
    movies = (
        'movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n17,"Sense, and ""S"" (1995)",Drama\n9,Other,X\n'
    )
    put(tmp_path, f"{name}/movies.csv", movies)
    log = load(name, DataConfig(), tmp_path)
    assert sequences(log) == {"1": ["2", "17"]}
    assert log.item_table["title"].tolist() == ['Sense, and "S" (1995)', "Jumanji (1995)"]
    assert log.text_fields == ("title", "genres")
    assert log.action_names == ("like", "love", "dislike")


def test_files_of_common_names_are_not_taken_from_another_data_set(tmp_path):
    for place in ("ml-32m/ratings.csv", "ratings.csv"):
        put(tmp_path, place, "userId,movieId,rating,timestamp\n1,17,4.0,944249077\n")
    with pytest.raises(InputError, match=f"harness data get ml-20m.*into {tmp_path}/ml-20m"):
        load("ml-20m", DataConfig(), tmp_path)
    assert prepare.prepare("ml-20m", tmp_path / "root", tmp_path / "ml-32m").counts == Counts(1, 1, 1)


STEAM = (
    "{u'username': u'Chaos', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, "
    "u'date': u'2017-12-17', u'text': u\"It isn't 'date': u'2001-01-01'\", u'early_access': False, u'page': 1}",
    "{u'username': u\"O'Neil\", u'hours': 51.1, u'user_id': u'7656', u'product_id': u'328100', u'page_order': 1, "
    "u'date': u'2017-07-27', u'text': u'so, {u\\'username\\': u\\'x\\'}', u'early_access': True, u'page': 1}",
    "{u'username': u'Chaos', u'product_id': u'328100', u'date': u'2017-12-16', u'text': u''}",
    "{u'username': u'caf\\xe9', u'product_id': u'328100', u'date': u'2017-12-16', u'compensation': None}",
)


def test_steam(tmp_path):
    put(tmp_path, "steam_reviews.json.gz", "\n".join(STEAM) + "\n")
    games = (
        "{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost', u'id': u'725280'}\n"
        "{u'app_name': u'No id'}\n"
    )
    put(tmp_path, "steam_games.json.gz", games)
    log = load("steam", DataConfig(), tmp_path)
    assert sequences(log) == {"Chaos": ["328100", "725280"], "O'Neil": ["328100"], "café": ["328100"]}
    assert log.time.tolist() == [1513382400, 1513468800, 1501113600, 1513382400]
    assert log.item_table.loc[1].tolist() == ["Lost", "Action, Indie"]


def test_steam_names_the_line_of_a_review_without_a_product(tmp_path):
    put(tmp_path, "steam_reviews.json.gz", f"{STEAM[0]}\n{{u'username': u'x', u'date': u'2017-12-16'}}\n")
    with pytest.raises(InputError, match=r"line 2 has no 'product_id'"):
        load("steam", DataConfig(), tmp_path)
    put(tmp_path, "steam_reviews.json.gz", f"{STEAM[0]}\n{{u'username': u'x\n")
    with pytest.raises(InputError, match=r"line 2 is not a Python literal"):
        load("steam", DataConfig(), tmp_path)


def test_yelp(tmp_path):
    review = {"review_id": "r", "user_id": "mh_-eMZ6K5RLWhZyISBhwA", "business_id": "XQfwVwDr", "stars": 3.0}
    review |= {"useful": 0, "funny": 0, "cool": 0, "text": "If you decide\nto eat here", "date": "2018-07-07 22:09:11"}
    later = review | {"business_id": "YjUWPpI6", "stars": 5.0, "date": "2018-07-08 00:00:00"}
    put(tmp_path, "yelp_academic_dataset_review.json", "".join(json.dumps(row) + "\n" for row in (later, review)))
    business = {"business_id": "XQfwVwDr", "name": "Turning Point", "city": "North Wales", "categories": None}
    put(tmp_path, "yelp_academic_dataset_business.json", json.dumps(business | {"attributes": {"a": "b"}}) + "\n")
    log = load("yelp", DataConfig(), tmp_path)
    assert sequences(log) == {"mh_-eMZ6K5RLWhZyISBhwA": ["XQfwVwDr", "YjUWPpI6"]}
    assert log.time.tolist() == [1531001351, 1531008000]
    assert log.actions.tolist() == [[0, 0, 0], [1, 1, 0]]
    assert log.item_table["name"].tolist() == ["", "Turning Point"]


@pytest.mark.parametrize("header", ["", "item,title\n"])
def test_microlens(tmp_path, header):
    put(tmp_path, "MicroLens-100k_pairs.csv", "user,item,timestamp\n36121,9580,1583378629552\n36121,8,1583378629551\n")
    put(tmp_path, "MicroLens-100k_title_en.csv", f'{header}9580,"Sock, glove"\n8,Mother\n7,other\n')
    log = load("microlens-100k", DataConfig(), tmp_path)
    assert sequences(log) == {"36121": ["8", "9580"]}
    assert log.item_table["title"].tolist() == ["Sock, glove", "Mother"]


KUAIRAND = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)


@pytest.mark.parametrize("size", ["pure", "1k", "27k"])
def test_kuairand(tmp_path, size):
    halves = ("_part1", "_part2") if size == "27k" else ("",)
    moment = 1650485801301
    for days in ("4_08_to_4_21", "4_22_to_5_08"):
        for half in halves:
            row = f"0,{moment},20220421,400,{moment},1,0,0,0,0,0,1,15102,10440,0,0,0,0,1\n"
            put(tmp_path, f"KuaiRand/log_standard_{days}_{size}{half}.csv", KUAIRAND + row + row)
            moment += 1000
    put(tmp_path, f"KuaiRand/log_random_4_22_to_5_08_{size}.csv", KUAIRAND)
    log = load(f"kuairand-{size}", DataConfig(), tmp_path)
    assert log.n_events == 2 * len(halves)  # of two equal rows, one
    assert log.part is None
    assert (log.time[1:] - log.time[:-1] == 1).all()
    assert log.actions[0].tolist() == [1, 0, 0, 0, 0, 0, 1, 0]


def test_lastfm(tmp_path):
    lines = (
        "2\t52\t13\t1238536800000",
        "2\t52\t15\t1238536800000",
        "2\t63\t13\t1136073600000",
        "9\t1\t1\t-428720400000",
    )
    put(tmp_path, "user_taggedartists-timestamps.dat", "\r\n".join(["userID\tartistID\ttagID\ttimestamp", *lines, ""]))
    artists = (
        "id\tname\turl\tpictureURL\r\n52\tMorcheeba\thttp://x\thttp://y\r\n63\tMALICE MIZER\thttp://x\thttp://y\r\n"
    )
    put(tmp_path, "artists.dat", artists)
    log = load("lastfm", DataConfig(), tmp_path)
    assert sequences(log) == {"2": ["63", "52", "52"]}
    assert log.item_table["name"].tolist() == ["Morcheeba", "MALICE MIZER"]
    assert "events with impossible times, dropped: 1" in log.notes
    assert any("4 events instead of 186,479" in note for note in log.notes)
    put(tmp_path, "user_taggedartists-timestamps.dat", "userID\tartistID\ttagID\ttimestamp\n2\t52\t13\tnow\n")
    with pytest.raises(InputError, match=r"line 2, column 'timestamp': .*'now' is neither a number nor"):
        load("lastfm", DataConfig(), tmp_path)


def test_yambda(tmp_path):
    columns = {
        "uid": pa.array([100, 100, 300], pa.uint32()),
        "timestamp": pa.array([39420, 39420, 5], pa.uint32()),
        "item_id": pa.array([8326270, 8326270, 3], pa.uint32()),
        "is_organic": pa.array([0, 1, 1], pa.uint8()),
        "played_ratio_pct": pa.array([95, 49, 100], pa.uint16()),
        "track_length_seconds": pa.array([170, 105, 160], pa.uint32()),
    }
    (tmp_path / "yambda-50m").mkdir()
    parquet.write_table(pa.table(columns), tmp_path / "yambda-50m" / "listens.parquet")
    log = load("yambda-50m", DataConfig(), tmp_path)
    assert sequences(log) == {"100": ["8326270", "8326270"], "300": ["3"]}
    assert log.actions.tolist() == [[1, 0], [0, 1], [1, 1]]


def test_other_times_than_the_published_are_refused(tmp_path):
    put(tmp_path, "MicroLens-100k_pairs.csv", "user,item,timestamp\n36121,9580,1583378629\n")
    with pytest.raises(InputError, match=r"times are in 1/1000 of a second where published, here 1/1"):
        load("microlens-100k", DataConfig(), tmp_path)


def test_a_missing_column_is_refused(tmp_path):
    put(tmp_path, "log_standard_4_08_to_4_21_pure.csv", "user_id,video_id,time_ms\n1,2,1650485801301\n")
    put(tmp_path, "log_standard_4_22_to_5_08_pure.csv", "user_id,video_id,time_ms\n1,2,1650485801301\n")
    with pytest.raises(InputError, match=r"08_to_4_21_pure\.csv has no column 'is_click'"):
        load("kuairand-pure", DataConfig(), tmp_path)


def test_rounded_counts_differ_by_more_than_their_rounding():
    said = RoundedCounts(94_800, 356, 1_600_000)
    assert said.differences(Counts(94_762, 356, 1_555_000)) == {}
    assert said.differences(Counts(94_900, 357, 1_700_000)) == {
        "users": (94_800, 94_900),
        "items": (356, 357),
        "events": (1_600_000, 1_700_000),
    }


def test_every_entry_is_complete():
    for spec in known().values():
        assert all((spec.title, spec.url, spec.licence, spec.citation)), spec.name
        assert all("events" in form.files for form in spec.forms)
        DataConfig(actions=spec.actions)
        assert all(item.url.startswith(("https://", "http://")) for item in spec.downloads)
        members = {member.rpartition("/")[2] for item in spec.downloads for member in item.members}
        wanted = {name for form in spec.forms for part, name in form.files.items() if part not in datasets.OPTIONAL}
        assert not members or members >= wanted, spec.name


def packed(name: str, files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, text in files.items():
                archive.writestr(member, text)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for member, text in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def without_md5(monkeypatch):
    """A data set whose archive may hold anything."""

    def change(name: str) -> DatasetSpec:
        spec = known()[name]
        downloads = tuple(replace(item, md5=None) for item in spec.downloads)
        monkeypatch.setitem(known(), name, replace(spec, downloads=downloads))
        return spec

    return change


def test_an_archive_is_taken_from_disk(tmp_path, without_md5):
    row = "0,7,20220421,400,1650485801301,1,0,0,0,0,0,1,15102,10440,0,0,0,0,1\n"
    spec = without_md5("kuairand-pure")
    (item,) = spec.downloads
    archive = tmp_path / item.file
    archive.write_bytes(packed(item.file, {member: KUAIRAND + row for member in item.members}))
    done = prepare.prepare("kuairand-pure", tmp_path / "root", archive)
    assert (done.folder, done.counts) == (tmp_path / "root" / "kuairand-pure", Counts(1, 1, 2))
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match="is not an archive with KuaiRand-Pure/data"):
        prepare.prepare("kuairand-pure", tmp_path / "other", archive)


def test_an_archive_with_another_checksum_is_refused(tmp_path):
    (tmp_path / "ml-20m.zip").write_bytes(b"not the archive")
    with pytest.raises(InputError, match=r"ml-20m\.zip has the MD5 .* instead of cd245b17a1ae2cc31bb14903e1204af3"):
        prepare.prepare("ml-20m", tmp_path / "root", tmp_path / "ml-20m.zip")
    with pytest.raises(InputError, match=r"name the one that holds .* with --from, or its archive ml-20m\.zip"):
        prepare.prepare("ml-20m", tmp_path / "root", tmp_path / "none")


def test_a_data_set_that_may_not_be_downloaded_says_where_it_is(tmp_path):
    with pytest.raises(InputError, match=r"put yelp_academic_dataset_review\.json there \(see https://business\.yelp"):
        prepare.prepare("yelp", tmp_path)
