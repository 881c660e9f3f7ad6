from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from harness.data import cache, datasets, readers
from harness.data.catalogue import DatasetSpec, Form
from harness.data.config import DataConfig
from harness.data.datasets import load
from harness.data.log import EventLog
from harness.files import SETTLED, file_digest, signature


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of its own, in which the smallest log is kept, too."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST", 0)
    return tmp_path / "cache" / "logs"


@pytest.fixture
def parses(monkeypatch):
    """One entry for each time that a log is parsed."""
    found = []
    read = datasets.read_own

    def counted(*args):
        found.append(args[0].name)
        return read(*args)

    monkeypatch.setattr(datasets, "read_own", counted)
    return found


ROWS = "user_id,item_id,timestamp,rating\nu,a,1700000000,5\nu,b,1700000300,1\nw,a,1700000100,4\nu,c,1700000300,2\n"


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop" / "events.csv"
    path.parent.mkdir()
    path.write_text(ROWS)
    (path.parent / "items.csv").write_text("item_id,title,maker\na,The A,\nb,The B,x\n")
    age(path, path.parent / "items.csv")
    return path.parent


def age(*paths):
    """Makes files look as if they had been written before the last seconds, as far as their times say."""
    for path in paths:
        os.utime(path, (time.time() - 100,) * 2)


def settled(monkeypatch):
    """As if seconds had passed since the files were changed."""
    monkeypatch.setattr("harness.files.SETTLED", -SETTLED)


def same(a: EventLog, b: EventLog) -> None:
    for name in (field.name for field in fields(EventLog)):
        one, other = getattr(a, name), getattr(b, name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, err_msg=name)
        elif isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(
                one, other, check_dtype=False, check_index_type=False, check_column_type=False
            )
        else:
            assert one == other, name
            assert type(one) is type(other), name


RATED = DataConfig(actions={"like": "rating >= 4"})


@pytest.mark.parametrize("config", [DataConfig(), RATED])
def test_a_cached_log_is_the_log_that_was_parsed(folder, shop, parses, monkeypatch, config):
    log = load(str(shop), config)
    again = load(str(shop), config)
    monkeypatch.setenv("HARNESS_CACHE", "off")
    fresh = load(str(shop), config)
    assert parses == ["shop", "shop"]
    same(log, fresh)
    same(again, fresh)


def test_arrays_are_mapped_and_writing_into_them_stays_in_the_process(folder, shop):
    log = load(str(shop), DataConfig())
    assert isinstance(log.item.base, np.memmap)
    assert type(log.item) is np.ndarray
    log.item[0] = 3
    assert load(str(shop), DataConfig()).item[0] == 1


def test_settings_that_decide_the_log_have_entries_of_their_own(folder, shop, parses):
    for config in (DataConfig(), DataConfig(min_user_events=2), DataConfig(ties="random"), RATED):
        load(str(shop), config)
    load(str(shop), DataConfig(max_length=7, split="within-user", valid_fraction=0.2))
    assert len(parses) == len(cache.entries(folder)) == 4


def test_a_changed_file_is_parsed_again_though_size_and_times_are_set_back(folder, shop, parses, monkeypatch):
    settled(monkeypatch)
    path = shop / "events.csv"
    assert load(str(shop), DataConfig()).items[3] == "c"
    before = path.stat()
    path.write_text(ROWS.replace(",c,", ",d,"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert load(str(shop), DataConfig()).items[3] == "d"
    assert len(parses) == 2


def test_a_file_of_now_is_hashed_however_often_it_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("a")
    assert signature(path) is None
    first = file_digest(path)
    path.write_text("b")
    assert file_digest(path) != first


def test_a_file_is_hashed_once_while_nobody_touches_it(folder, shop, monkeypatch):
    settled(monkeypatch)
    hashed = []
    digest = cache.file_digest
    monkeypatch.setattr(cache, "file_digest", lambda path: hashed.append(path.name) or digest(path))
    for _ in range(3):
        load(str(shop), DataConfig())
    assert sorted(hashed) == ["events.csv", "items.csv"]


def test_a_copy_elsewhere_is_the_same_log(folder, shop, parses, tmp_path):
    load(str(shop), DataConfig())
    shutil.copytree(shop, tmp_path / "copy" / "shop")
    load(str(tmp_path / "copy" / "shop"), DataConfig())
    assert len(parses) == 1


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", [*(f"{name}.npy" for name in cache.ARRAYS if name != "part"), cache.TABLE, cache.MANIFEST]
)
@pytest.mark.parametrize(
    "damage",
    [flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.write_bytes(b""), os.unlink],
    ids=["flipped", "truncated", "empty", "missing"],
)
def test_damage_is_found_and_the_entry_made_anew(folder, shop, parses, monkeypatch, caplog, damage, name):
    monkeypatch.setenv("HARNESS_CACHE", "off")
    log = load(str(shop), RATED)  # in memory: a mapped file that gets shorter ends the process
    monkeypatch.setenv("HARNESS_CACHE", str(folder.parent))
    load(str(shop), RATED)
    (entry,) = cache.entries(folder)
    damage(entry.path / name)
    same(load(str(shop), RATED), log)
    assert len(parses) == 3
    assert "damaged" in caplog.text
    same(load(str(shop), RATED), log)
    assert len(parses) == 3


def test_a_restored_cache_is_as_good(folder, shop, parses):
    log = load(str(shop), DataConfig())
    shutil.copytree(folder, folder.with_name("saved"))  # other inodes and times
    shutil.rmtree(folder)
    folder.with_name("saved").rename(folder)
    same(load(str(shop), DataConfig()), log)
    assert len(parses) == 1


def test_a_cache_that_cannot_be_written_is_said(folder, shop, caplog):
    folder.parent.mkdir()
    folder.write_text("in the way")
    assert load(str(shop), DataConfig()).n_events == 4
    assert f"not kept in the cache {folder}" in caplog.text


def test_a_small_log_and_a_cache_that_is_off_leave_no_file(folder, shop, monkeypatch):
    monkeypatch.setattr(cache, "SMALLEST", 1 << 20)
    load(str(shop), DataConfig())
    monkeypatch.setattr(cache, "SMALLEST", 0)
    monkeypatch.setenv("HARNESS_CACHE", "off")
    load(str(shop), DataConfig())
    assert not folder.exists()


def test_old_entries_and_what_killed_processes_left_are_removed(folder, shop):
    load(str(shop), DataConfig())
    load(str(shop), RATED)
    old, new = cache.entries(folder)
    os.utime(old.path / cache.MANIFEST, (time.time() - 31 * 86_400,) * 2)
    (folder / ".killed.x").mkdir()
    age(folder / ".killed.x")
    (folder / ".under-way.x").mkdir()
    os.utime(folder / ".killed.x", (0, 0))
    assert [entry.path for entry in cache.clean(folder)] == [old.path]
    assert [entry.path for entry in cache.entries(folder)] == [new.path]
    assert not (folder / ".killed.x").exists()
    assert (folder / ".under-way.x").exists()
    assert cache.clean(folder, 0) != []
    assert cache.entries(folder) == []


def test_only_readers_whose_code_is_known_are_cached(folder, monkeypatch, tmp_path):
    table = readers.EventTable(user="u", item="i", time="t")
    assert readers.identity(readers.atomic) == "harness.data.readers.atomic"
    assert readers.identity(table) != readers.identity(readers.EventTable(user="u", item="i", time="t", ticks=1000))

    def outside(files):
        return table(files)

    assert readers.identity(outside) is None
    (tmp_path / "toy.tsv").write_text("u\ti\tt\nu\ta\t1\nu\tb\t2\n")
    for read, kept in ((outside, 0), (table, 1)):
        spec = DatasetSpec("toy", "Toy", "", "", "", (Form({"events": "toy.tsv"}, read),))
        monkeypatch.setitem(datasets.known(), "toy", spec)
        assert load("toy", DataConfig(), tmp_path).n_events == 2
        assert len(cache.entries(folder)) == kept


def test_the_command_lists_and_removes(harness, refused, folder, shop):
    load(str(shop), DataConfig())
    assert json.loads(harness("data", "cache", "--json").stdout)[0]["events"] == 4
    assert "0 removed" in harness("data", "cache", "--unused", "1").stdout
    assert f"1 removed from {folder}" in harness("data", "cache", "--clear").stdout
    assert cache.entries(folder) == []
    assert "HARNESS_CACHE is off" in refused("data", "cache", env={"HARNESS_CACHE": "off"})
