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
    line = refused("run", "--study", "item_vectors", "--preset", "smoke", "--dataset", path)
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


def rated(folder, likes) -> str:
    """A data set in which ``likes(n)`` is the value of column ``like`` of event n."""
    rows = [(f"u{u}", f"i{(3 * u + t) % 7}", 4, str(100 + t)) for u in range(6) for t in range(10)]
    lines = ["\t".join([user, item, str(likes(n)), time]) for n, (user, item, _, time) in enumerate(rows)]
    return write(folder, HEADER.replace("rating", "like") + "\n".join(lines) + "\n")


def test_labels_other_than_0_and_1(refused, tmp_path):
    path = rated(tmp_path, lambda n: n % 3)
    line = refused(
        "run", "--study", "actions", "--preset", "smoke", "--dataset", path, "--set", "data.actions={like: like}"
    )
    assert "holds 2.0, not 0 or 1" in line
    assert "like >= 2.0" in line


@pytest.mark.parametrize("constant", [0, 1])
def test_an_action_that_never_or_always_occurs(harness, refused, tmp_path, constant):
    path = rated(tmp_path, lambda n: n % 2)
    rule = "like >= 0" if constant else "like >= 9"
    settings = ("--set", f"data.actions={{fixed: '{rule}', like: like}}")
    shown = harness("data", "show", path, "--set", f"actions={{fixed: '{rule}'}}").stdout
    assert f"'fixed' {'occurs in every event' if constant else 'never occurs'}" in shown
    assert "undefined" in shown

    words = ("run", "--study", "actions", "--preset", "smoke", "--dataset", path, "--seeds", "1", *settings)
    done = harness(*words, "--workers", "2")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "actions-smoke" / "tables" / "main.md").read_text()
    assert "'fixed' occurs in every or in no test event" in table
    assert "nan" not in table.lower()
    failed = harness(*words, "--set", "primary=ne", "--name", "ne", "--set", "metrics=[ne]")
    assert failed.returncode == 1
    assert "'ne' is undefined on the validation part" in failed.stderr
    assert "choose 'bce'" in failed.stderr


def test_histories_too_short_for_the_split(harness, tmp_path):
    path = rated(tmp_path, lambda n: n % 2)
    data = tmp_path / "mine" / "mine.inter"
    data.write_text(
        "".join(line for line in data.open() if not line.endswith(tuple(f"{t}\n" for t in range(103, 110))))
    )
    words = ("run", "--study", "actions", "--preset", "smoke", "--dataset", path, "--seeds", "1", "--workers", "1")
    done = harness(*words, "--set", "data.actions={like: like}")
    assert done.returncode == 1
    assert "there are no events in it; the users' histories are too short" in done.stderr


def test_events_without_times_are_said_to_be_in_the_order_of_the_file(harness, refused, tmp_path):
    rows = [line.split("\t")[:3] for line in EVENTS.splitlines()]
    path = write(
        tmp_path, "user_id:token\titem_id:token\trating:float\n" + "\n".join("\t".join(r) for r in rows) + "\n"
    )
    assert "no times: the order of the file" in harness("data", "show", path).stdout
    assert "times" in refused("data", "show", path, "--set", "split=temporal")
