"""Broken data through the command line: one clear line that says what, where and how to mend it, exit code 2."""

from __future__ import annotations

import pytest

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
EVENTS = "".join(f"u{u}\ti{(u + t) % 5}\t4\t{100 + t}\n" for u in range(6) for t in range(5))


def write(folder, inter: str | bytes, item: str | None = None) -> str:
    data = folder / "mine"
    data.mkdir()
    (data / "mine.inter").write_bytes(inter if isinstance(inter, bytes) else inter.encode())
    if item is not None:
        (data / "mine.item").write_text(item)
    return str(data)


def test_the_sound_file_is_read(harness, tmp_path):
    done = harness("data", "show", write(tmp_path, HEADER + EVENTS))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        ("", "empty"),
        (HEADER, "no events|empty|no rows"),
        (EVENTS, "header"),
        (HEADER.replace("rating:float", "rating:flaot") + EVENTS, "flaot"),
        (HEADER.replace("item_id:token", "thing:token") + EVENTS, "item_id"),
        (HEADER + EVENTS.replace("\t102\n", "\tsoon\n", 1), "line 4.*soon|soon.*line 4"),
        (HEADER + EVENTS.replace("\t102\n", "\tnan\n", 1), "line 4"),
        (HEADER + EVENTS.replace("\t102\n", "\t-5\n", 1), "line 4"),
        (HEADER + EVENTS + "u0\ti1", "line 32"),
        (HEADER + EVENTS + "u0\ti0\t4\t100\n", "repeat|twice|duplicate"),
        (HEADER + EVENTS + "lonely\ti1\t3\t7\nlonely\ti2\t3\t8\n", "lonely"),
        ((HEADER + EVENTS).encode() + b"\xff\xfe\t1\t1\t1\n", "UTF-8"),
    ],
    ids=[
        "empty file",
        "header alone",
        "no header",
        "unknown type",
        "missing column",
        "bad value",
        "NaN time",
        "negative time",
        "truncated",
        "duplicate row",
        "short user",
        "not UTF-8",
    ],
)
def test_a_broken_log_is_told(refused, tmp_path, inter, message):
    import re

    line = refused("data", "show", write(tmp_path, inter))
    assert re.search(message, line), line
    assert "mine" in line


@pytest.mark.parametrize("choice", ["drop", "train"])
def test_short_users_may_be_let_through(harness, tmp_path, choice):
    path = write(tmp_path, HEADER + EVENTS + "lonely\ti1\t3\t7\nlonely\ti2\t3\t8\n")
    done = harness("data", "show", path, "--set", f"short_users={choice}")
    assert done.returncode == 0, done.stderr


def test_an_item_without_text_is_told(refused, tmp_path):
    titles = "".join(f"i{i}\t{title}\n" for i, title in enumerate(["red cup", "red hat", "", "blue hat", "blue cup"]))
    path = write(tmp_path, HEADER + EVENTS, "item_id:token\ttitle:token_seq\n" + titles)
    line = refused("run", "--study", "ablations", "--preset", "smoke", "--dataset", path)
    assert "'i2'" in line
    assert "missing_text" in line


def test_unknown_data_settings_are_told(refused, tmp_path):
    path = write(tmp_path, HEADER + EVENTS)
    assert "did you mean 'max_length'" in refused("data", "show", path, "--set", "max_lenght=3")


def test_actions_that_the_log_can_not_give(refused, tmp_path):
    path = write(tmp_path, HEADER + EVENTS)
    words = ("run", "--study", "actions", "--preset", "smoke", "--dataset", path)
    assert "actions" in refused(*words)
    line = refused(*words, "--set", "data.actions={like: 'stars >= 4'}")
    assert "stars" in line
