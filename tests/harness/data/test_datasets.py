from __future__ import annotations

import shutil

import numpy as np
import pytest

from harness.data import datasets
from harness.data.config import DataConfig
from harness.data.datasets import Counts, data_root, dataset_names, known, load, overview
from harness.data.splits import make_split
from harness.errors import InputError


def counts(log) -> Counts:
    return Counts(log.n_users, log.n_items, log.n_events)


ML_100K_LOG = "26d39e214b99bcec7832c287e241c50bb7b598f1878952055320af73aa4a8d75"
ML_100K_SPLIT = "0933ad1543d494f05a4226a0144855811d9eb7643cb924c4c4af43c590c300b2"


def test_movielens_comes_with_recbole_and_has_its_golden_fingerprints(movielens, tmp_path):
    log = load("ml-100k", DataConfig(), tmp_path)
    assert counts(log) == Counts(943, 1682, 100_000)
    assert log.action_names == ("like", "love", "dislike")
    assert np.allclose(log.actions.mean(axis=0), [0.55375, 0.21201, 0.1748])
    assert log.fingerprint == ML_100K_LOG
    assert make_split(log, DataConfig()).fingerprint == ML_100K_SPLIT


def test_a_data_root_comes_before_recbole(movielens, tmp_path):
    lines = (movielens / "ml-100k.inter").read_text().splitlines(keepends=True)
    (tmp_path / "ml-100k.inter").write_text("".join(lines[:101]))
    assert load("ml-100k", DataConfig(), tmp_path).n_events == 100


@pytest.mark.parametrize("name", ["amazon-beauty", "amazon-sports", "amazon-scientific", "retailrocket"])
def test_real_data_sets_have_the_published_counts(real_data, name):
    log = load(name, DataConfig(), real_data)
    _, files = datasets.find_files(known()[name], real_data)
    assert counts(log) == known()[name].forms[0].published
    assert set(log.files) == {path.name for path in files.values()}
    assert not any("not the bytes" in note for note in log.notes)


def test_kuairand_has_the_published_counts_before_its_repeats_are_dropped(real_data):
    assert counts(load("kuairand", DataConfig(duplicates="keep"), real_data)) == Counts(664, 9359, 41_828)
    log = load("kuairand", DataConfig(), real_data)
    assert log.n_events == 41_828 - 116
    assert log.action_names == ("like", "follow", "comment", "forward", "long_view")
    with pytest.raises(InputError, match=r"repeats line \d+ exactly \(116 such rows\)"):
        load("kuairand", DataConfig(duplicates="error"), real_data)


@pytest.mark.parametrize(("name", "share"), [("amazon-beauty", 0.435), ("amazon-sports", 0.451)])
def test_share_of_test_targets_that_hang_on_a_tie(real_data, name, share):
    log = load(name, DataConfig(), real_data)
    last = log.offsets[1:] - 1
    assert np.mean(log.time[last] == log.time[last - 1]) == pytest.approx(share, abs=5e-4)
    assert np.array_equal(log.tied[last], log.time[last] == log.time[last - 1])


def test_beauty_keeps_the_order_of_the_published_sequences(real_data):
    log = load("amazon-beauty", DataConfig(), real_data)
    lines = (real_data / "amazon2014" / "Beauty.txt").read_text().splitlines()
    found = [log.items[log.item[a:b]].tolist() for a, b in zip(log.offsets, log.offsets[1:], strict=False)]
    assert found == [line.split()[1:] for line in lines]


def test_retailrocket_has_exactly_one_action_an_event(real_data):
    log = load("retailrocket", DataConfig(), real_data)
    assert (log.actions.sum(axis=1) == 1).all()
    with pytest.raises(InputError, match=r"data\.short_users"):
        make_split(log, DataConfig())


def test_random_ties_change_the_test_item_of_many_users(real_data):
    logs = [load("amazon-beauty", config, real_data) for config in (DataConfig(), DataConfig(ties="random"))]
    last = [log.item[log.offsets[1:] - 1] for log in logs]
    assert 0.2 < np.mean(last[0] != last[1]) < 0.435


@pytest.mark.parametrize("place", [".", "amazon-scientific", "anything"])
def test_files_are_found_in_the_root_and_one_level_below(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / "Scientific.inter.json").write_text('{"1": [1, 2, 3]}')
    assert load("amazon-scientific", DataConfig(), tmp_path).n_events == 3


def test_the_folder_of_the_name_comes_first(tmp_path):
    for folder, text in (("a", '{"1": [1]}'), ("amazon-scientific", '{"1": [1, 2]}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Scientific.inter.json").write_text(text)
    log = load("amazon-scientific", DataConfig(), tmp_path)
    assert log.n_events == 2
    assert any("not the bytes" in note for note in log.notes)


def test_an_unknown_name_names_its_neighbour(tmp_path):
    with pytest.raises(InputError, match="unknown data set 'amazon-beuty'; did you mean 'amazon-beauty'"):
        load("amazon-beuty", DataConfig(), tmp_path)


def test_a_missing_data_set_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"harness data get amazon-beauty.*Beauty\.txt.*--data-root"):
        load("amazon-beauty", DataConfig(), tmp_path)
    with pytest.raises(InputError, match=r"put processed_standard_kcore_15\.csv there") as caught:
        load("kuairand", DataConfig(), tmp_path / "nowhere")
    assert "data get" not in str(caught.value)


def test_movielens_without_recbole_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="install recbole"):
        load("ml-100k", DataConfig(), tmp_path)


def test_the_data_root_is_the_argument_or_the_variable_or_the_folder_data(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_DATA", "/elsewhere")
    assert data_root(tmp_path) == tmp_path
    assert str(data_root()) == "/elsewhere"
    monkeypatch.delenv("HARNESS_DATA")
    assert str(data_root()) == "data"


LINES = ("user_id:token\titem_id:token\tstars:float", "u\ta\t5", "u\tb\t1", "u\tc\t4")


def test_atomic_files_by_path(atomic, tmp_path):
    inter = atomic(*LINES)
    by_file, by_folder = load(str(inter), DataConfig()), load(str(inter.parent), DataConfig())
    assert by_file.fingerprint == by_folder.fingerprint
    assert (by_file.name, by_file.actions) == ("toy", None)
    labelled = load(str(inter), DataConfig(actions={"like": "stars >= 4"}))
    assert labelled.actions[:, 0].tolist() == [1, 0, 1]


def test_atomic_items_are_found_beside_their_events(atomic):
    inter = atomic(*LINES)
    atomic("item_id:token\ttitle:token_seq\tyear:token", "a\tThe A\t1999", name="toy.item")
    log = load(str(inter), DataConfig())
    assert log.text_fields == ("title", "year")
    assert log.item_table.loc[1].tolist() == ["The A", "1999"]


def test_paths_that_lead_nowhere_are_refused(atomic, tmp_path):
    inter = atomic(*LINES)
    shutil.copy(inter, inter.with_name("other.inter"))
    assert load(str(inter.parent), DataConfig()).name == "toy"  # the file of the folder's name
    inter.rename(inter.with_name("third.inter"))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "data.csv").write_text("a")
    for path, message in (
        (inter.parent, "holds 2 .inter files"),
        (empty, r"empty/data\.csv has no rows"),
        (tmp_path, r"holds no file of events"),
        (inter.with_name("third.png"), "does not exist"),
        (empty / "no.inter", "does not exist"),
        (empty / "no" / "folder", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            load(str(path), DataConfig())


def test_every_name_is_listed_with_its_title():
    names = dataset_names()
    assert {"ml-100k", "amazon-cds", "kuairand", "synthetic-clusters"} <= set(names)
    assert all(names.values())


def test_default_rules_fit_the_settings():
    for spec in known().values():
        DataConfig(actions=spec.actions)


def test_the_overview_says_what_is_there(tmp_path):
    (tmp_path / "Scientific.inter.json").write_text('{"1": [1, 2, 3]}')
    entries = {entry["dataset"]: entry for entry in overview(tmp_path)}
    assert list(entries) == list(dataset_names())
    states = [entries[name]["state"] for name in ("amazon-scientific", "ml-1m", "kuairand", "synthetic-sessions")]
    assert states == ["ready", "get", "by hand", "ready"]
    assert entries["amazon-beauty"]["items"] == 12_101
    assert entries["retailrocket"]["actions"] == ["view", "cart", "buy"]
    assert len({tuple(entry) for entry in entries.values()}) == 1  # one table
