"""Logs as people have them, from the command line to a described data set; and splits of one's own."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from harness.data.config import Columns, DataConfig
from harness.data.datasets import load
from harness.data.importing import import_log
from harness.data.splits import make_split
from harness.errors import InputError
from harness.study.cells import Inputs

DOCS = Path(__file__).parents[3] / "docs" / "data.md"
START = 1_600_000_000


@pytest.fixture(autouse=True)
def _own_data_root(monkeypatch, tmp_path):
    """An import writes into the data root, which must not be the one with the real data."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))


def write_table(path: Path, header, rows) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def events(users=6, items=8, length=5):
    """(user, item, time), the latest first, as no log should be relied on to be sorted."""
    rows = [(u, (3 * u + t) % items, START + 100 * t + u) for u in range(users) for t in range(length)]
    return [(u + 1, i + 1, t) for u, i, t in reversed(rows)]


@pytest.fixture
def movies(tmp_path):
    """MovieLens's ratings.csv and movies.csv."""
    rows = [(u, i, 0.5 + (u + i) % 9 / 2, t) for u, i, t in events()]
    write_table(tmp_path / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), rows)
    titles = [(i, f'Film "{i}", The (199{i})', "Drama|Comedy") for i in range(1, 9)]
    write_table(tmp_path / "movies.csv", ("movieId", "title", "genres"), titles)
    return tmp_path


def amazon(folder: Path, header=("user_id", "parent_asin", "rating", "timestamp"), ending="csv") -> Path:
    """Amazon 2023's published leave-last-out: three files, milliseconds."""
    rows = sorted((f"U{u}", f"B00{i}", 5.0, 1000 * t) for u, i, t in events())
    parts = {"train": [], "valid": [], "test": []}
    for user in dict.fromkeys(row[0] for row in rows):
        *train, valid, test = sorted((row for row in rows if row[0] == user), key=lambda row: row[3])
        parts["train"] += train
        parts["valid"].append(valid)
        parts["test"].append(test)
    for part, lines in parts.items():
        if ending == "csv":
            write_table(folder / f"Books.{part}.csv", header, lines)
        else:
            folder.mkdir(exist_ok=True)
            text = "\n".join("\t".join(map(str, line)) for line in [header, *lines])
            (folder / f"x.{part}.inter").write_text(text + "\n")
    return folder


def test_movielens_in_two_commands(harness, movies):
    done = harness("data", "import", "ratings.csv", "--items", "movies.csv", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "note: ratings.csv: took 'userId' as user, 'movieId' as item" in done.stderr
    assert "note: movies.csv: took 'movieId' as item, described by 'title', 'genres'" in done.stderr
    shown = harness("data", "show", "mine", "--set", "actions={like: rating >= 4}", "--json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert (found["users"], found["items"], found["events"]) == (6, 8, 30)
    assert found["text_fields"] == ["title", "genres"]
    assert found["items_without_text"] == 0
    assert 0 < found["actions"]["like"] < 1
    assert found["notes"][0] == "ratings.csv: took 'userId' as user, 'movieId' as item"
    assert "note: ratings.csv: took 'userId' as user" in shown.stderr


def test_sequences_in_one_command(harness, tmp_path):
    (tmp_path / "mine.txt").write_text("7 3 1 2 5\n9 2 3 4\n")
    done = harness("data", "show", "mine.txt", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(done.stdout)[key] for key in ("users", "items", "events")] == [2, 5, 7]
    assert "note: mine.txt: a line is taken as a user and its items" in done.stderr
    assert "note: the source has no times" in done.stderr


def test_pairs_in_a_text_file_are_events(tmp_path):
    """SASRec's own files: a user and an item a line."""
    (tmp_path / "mine.txt").write_text("1 3\n1 1\n1 2\n2 3\n")
    log = load(str(tmp_path / "mine.txt"), DataConfig())
    assert (log.users.tolist(), log.lengths.tolist()) == (["1", "2"], [3, 1])
    assert any("took column 1 as user, column 2 as item" in note for note in log.notes)


def test_amazons_own_split_in_one_command(harness, tmp_path):
    amazon(tmp_path / "books")
    done = harness("data", "show", "books", "--set", "split=given", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["users"], found["events"]) == (6, 30)
    assert [found["split"][part]["events"] for part in ("train", "valid", "test")] == [18, 6, 6]
    anew = harness("data", "show", "books", "--json")
    assert "the leave-one-out split is that of the data set's own files" in anew.stderr
    temporal = harness("data", "show", "books", "--set", "split=temporal")
    assert "were joined and split anew (temporal); set data.split to 'given'" in temporal.stderr


def test_every_command_of_the_docs_works_to_the_letter(harness, movies):
    (movies / "sequences.txt").write_text("7 3 1 2 5\n9 2 3 4\n")
    amazon(movies / "amazon")
    write_table(movies / "shop.csv", ("customer", "sku", "stars", "bought_at"), [(u, i, 3, t) for u, i, t in events()])
    (movies / "plain.tsv").write_text("".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in events()))
    blocks = re.findall(r"```console\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        program, *words = shlex.split(command)
        done = harness(*words)
        assert (program, done.returncode) == ("harness", 0), f"{command}: {done.stderr}"


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_an_import_is_the_same_data_set(movies, ending):
    import gzip

    import pandas as pd

    path = movies / f"ratings{ending}"
    if ending == ".csv.gz":
        path.write_bytes(gzip.compress((movies / "ratings.csv").read_bytes()))
    if ending == ".parquet":
        pd.read_csv(movies / "ratings.csv").to_parquet(path)
    source = load(str(path), DataConfig(actions={"like": "rating >= 4"}))
    import_log(path, movies / "root", name="mine")
    back = load("mine", DataConfig(actions={"like": "rating >= 4"}), movies / "root")
    assert back.fingerprint == source.fingerprint
    assert back.item_table.to_dict() == source.item_table.to_dict()
    assert np.array_equal(back.time, np.sort(back.time.reshape(6, 5), axis=1).ravel())


def test_an_import_keeps_a_split(tmp_path):
    folder, config = amazon(tmp_path / "books"), DataConfig(split="given")
    imported = import_log(folder, tmp_path / "root")
    assert sorted(path.name for path in imported.folder.iterdir()) == [
        *("books.test.parquet", "books.train.parquet", "books.valid.parquet")
    ]
    assert imported.parts == {"train": 18, "valid": 6, "test": 6}
    source, back = load(str(folder), config), load("books", config, tmp_path / "root")
    assert make_split(back, config).fingerprint == make_split(source, config).fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml-1m", "'ml-1m' is the name of a known data set; choose another"),
        ("../x", "can't be a data set's name"),
        ("", "can't be a data set's name"),
        ("taken", "exists already; choose another name with --name"),
    ],
)
def test_names_that_an_import_refuses(movies, name, message):
    (movies / "root" / "taken").mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        import_log(movies / "ratings.csv", movies / "root", name=name)
    assert [path.name for path in (movies / "root").iterdir()] == ["taken"]


def test_a_folder_of_the_data_root_by_its_name(movies):
    root = movies.parent
    log = load(movies.name, DataConfig(), root)
    assert (log.name, log.n_events, log.text_fields) == (movies.name, 30, ("title", "genres"))
    with pytest.raises(InputError, match=f"did you mean '{movies.name}'"):
        load(movies.name[:-1] + "_", DataConfig(), root)


def test_named_columns_come_before_guesses(movies):
    plain = load(str(movies / "ratings.csv"), DataConfig())
    named = load(str(movies / "ratings.csv"), DataConfig(columns=Columns(user="movieId", item="userId", time=4)))
    assert (plain.n_users, named.n_users) == (6, 8)
    assert not any("took 'userId'" in note for note in named.notes)
    with pytest.raises(InputError, match=r"has no column 'movie' for the items; did you mean 'movieId'"):
        load(str(movies / "ratings.csv"), DataConfig(columns=Columns(item="movie")))
    with pytest.raises(InputError, match="column 'userId' is named for both item and user"):
        load(str(movies / "ratings.csv"), DataConfig(columns=Columns(user="userId", item="userId")))
    with pytest.raises(InputError, match=r"the columns of data set 'ml-1m' are known"):
        load("ml-1m", DataConfig(columns=Columns(item="movie")))


def test_notes_reach_a_run(movies):
    """What `harness run` says before it trains."""
    said: list[str] = []
    inputs = Inputs(None, movies / "cache", said.append)
    config = DataConfig(split="within-user", valid_fraction=0.2, test_fraction=0.4)
    for _ in range(2):  # each is said once
        inputs.split(str(movies / "ratings.csv"), config)
    assert len(said) == len(set(said))
    assert said[0].endswith("ratings.csv: took 'userId' as user, 'movieId' as item")
    assert said[-1].endswith("the last alone is ranked: 6 of 12 test events are targets")


def test_settings_that_are_not_set_are_not_part_of_a_cell():
    assert "columns" not in DataConfig().model_dump(mode="json")
    config = DataConfig(columns=Columns(user="u"))
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


def test_recboles_benchmark_files(tmp_path):
    header = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    folder, config = amazon(tmp_path / "x", header, "inter"), DataConfig(split="given")
    log = load(str(folder), config)
    split = make_split(log, config)
    assert (log.name, log.n_events) == ("x", 30)
    assert np.array_equal(split.valid_end + 1, split.test_end)
    with pytest.raises(
        InputError, match=r"is one part of a split, beside x\.test\.inter, x\.valid\.inter: name the folder"
    ):
        load(str(folder / "x.train.inter"), config)
    (folder / "x.valid.inter").unlink()
    with pytest.raises(
        InputError, match=r"one file of training, one of validation and one of test events.*x\.train\.inter"
    ):
        load(str(folder), config)


def test_parts_that_overlap_are_refused(tmp_path):
    folder = amazon(tmp_path / "books")
    train, test = folder / "Books.train.csv", folder / "Books.test.csv"
    test.write_text(test.read_text() + train.read_text().splitlines()[1] + "\n")
    with pytest.raises(
        InputError, match=r"Books\.test\.csv, line 8 holds the same event as Books\.train\.csv, line 2: "
    ):
        load(str(folder), DataConfig(split="given"))


def test_parts_out_of_order_are_refused(tmp_path):
    folder, config = amazon(tmp_path / "books"), DataConfig(split="given")
    train, test = folder / "Books.train.csv", folder / "Books.test.csv"
    content = train.read_text(), test.read_text()
    train.write_text(content[1])
    test.write_text(content[0])
    log = load(str(folder), config)
    with pytest.raises(InputError, match=r"user 'U1' has a test event at 2020-.* before a test|validation event at"):
        make_split(log, config)


def test_a_given_split_needs_its_files(movies):
    with pytest.raises(
        InputError, match=r"no files of training, validation and test events.*choose another data\.split"
    ):
        load(str(movies / "ratings.csv"), DataConfig(split="given"))


def test_of_several_test_events_the_last_alone_is_ranked(movies):
    config = DataConfig(split="within-user", valid_fraction=0.2, test_fraction=0.4)
    split = make_split(load(str(movies / "ratings.csv"), config), config)
    assert split.notes == ("of a user's test events the last alone is ranked: 6 of 12 test events are targets",)
    assert make_split(load(str(movies / "ratings.csv"), DataConfig()), DataConfig()).notes == ()


@pytest.mark.parametrize(
    ("titles", "message"),
    [
        ([("001", "A"), ("002", "B")], "events have ids such as '4', '3', '2', descriptions such as '001', '002'"),
        ([("1", "A"), ("1", "B")], r"movies\.csv: line 3 describes item '1' a second time"),
        ([("1", "A"), ("", "B")], r"movies\.csv: line 3, column 'movieId': the item has no id"),
        ([("1", "A"), ("2", "B", "C")], r"movies\.csv: line 3 has 3 fields instead of 2"),
    ],
)
def test_descriptions_that_are_refused(movies, titles, message):
    write_table(movies / "movies.csv", ("movieId", "title"), titles)
    with pytest.raises(InputError, match=message):
        load(str(movies / "ratings.csv"), DataConfig())


def test_users_with_two_events_are_one_clear_line(refused, movies):
    path = movies / "ratings.csv"
    path.write_text(path.read_text() + "99,1,3,1600000000\n99,2,3,1600000001\n")
    line = refused("data", "show", "ratings.csv")
    assert "user '99' has 2" in line
    assert "data.short_users" in line
