"""What a fuzzer does to files, and what every command owes to whoever gives it one.

``HARNESS_FUZZ=N`` tries N inputs of each kind, drawn anew each time; without it a few are tried, the same ones always.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from harness.cli import call

MANY = int(os.environ.get("HARNESS_FUZZ", "0"))
SECONDS = 120
"""A command that takes longer hangs; it is far more than any takes, on a busy machine too."""
MOST_LETTERS = 500


def fuzz(few: int, share: float = 1.0) -> Callable[[Any], Any]:
    """Settings of a property: ``few`` examples, or a share of those that the environment asks for."""
    return settings(
        max_examples=max(1, round(MANY * share)) if MANY else few,
        derandomize=not MANY,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )


def refuses_or_works(*words: str | Path) -> tuple[int, str]:
    """Runs a command in this process and checks how it ends; returns its exit code and what it said of errors.

    It ends with 0, or with 1 or 2 and one line that can be read; it raises nothing and prints neither a traceback nor,
    as a result, NaN.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limit(" ".join(map(str, words))):
        code = call([str(word) for word in words])
    said, printed = err.getvalue(), out.getvalue()
    assert code in (0, 1, 2), f"exit code {code}: {said}"
    for text in (said, printed):
        assert "Traceback" not in text, text
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert not any(line.startswith("error: unexpected") for line in errors), _with_traceback(said)
    assert len(errors) == (code == 2) or code == 1, said
    assert all(len(line) <= MOST_LETTERS for line in said.splitlines()), said
    if code == 0:
        assert not re.search(r"\bnan\b", printed, re.IGNORECASE), printed
    return code, said


@contextlib.contextmanager
def _limit(what: str) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _with_traceback(said: str) -> str:
    path = re.search(r"\S*harness-error-\S+\.txt", said)
    return Path(path[0]).read_text(encoding="utf-8") if path else said


NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**20, -(10**20), 1e308, 0.5, "", " ", "x", "1", "-1", "1e5", "nan",
    "inf", "~", "2024-02-30", "$x$", "a\nb", "a\r\nb", "\u2028", "模型", "שלום", "\u202eabc", "😀", "../../x", "/", ".",
    "a/b", "<script>alert(1)</script>", "{{ x }}", "%s", "\\", "x" * 5000, [], {}, [[]], [None], {"": None},
    {"kind": "x"}, [1, 2, 3], ["a", "a"], {"a": {"b": {"c": [1]}}}, [[["deep"]]], "ml-100k", "fair", "ndcg@10",
    "ndcg@0", "recall@x", "ce",
]  # fmt: skip

PIECES = [
    "\x00", "\x1b", "\ufeff", "\u2028", "\t", "\n", "\r", "  ", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!int x",
    "!!python/object:os.system ", "<<: ", "'", '"', "#", "|", ">", "%", "@", "`", "?", ",", "..", "---\n", "...\n",
    "\\ud800", '"\\ud800"', "0x", "1e999", ".nan", "1" * 5000, "[" * 3000, "{a: " * 200, "é", "模", "\\", "NaN",
    "Infinity", "-", "+", "12:30:45", "2024-13-45", "null", "~", "true", "PAR1", "::", ";", "\x85", "\x07",
]  # fmt: skip


@st.composite
def bytes_like(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with some of its bytes cut, doubled, or with pieces that parsers take for something put in."""
    found = original
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(found))))
        length = draw(st.sampled_from([0, 1, 2, 8, 40, len(found)]))
        kind = draw(st.sampled_from(["cut", "double", "piece", "noise", "end"]))
        if kind == "cut":
            found = found[:at] + found[at + length :]
        elif kind == "double":
            found = found[: at + length] + found[at : at + length] + found[at + length :]
        elif kind == "piece":
            piece = draw(st.sampled_from(PIECES)).encode("utf-8", "surrogatepass")
            found = found[:at] + piece + found[at + draw(st.sampled_from([0, 1, len(piece)])) :]
        elif kind == "noise":
            found = found[:at] + draw(st.binary(min_size=1, max_size=20)) + found[at:]
        else:
            found = found[:at]
    return found


@st.composite
def values_like(draw: st.DrawFn, original: Any) -> Any:
    """A value of JSON or YAML with something in it replaced, left out, or put under a key too many."""
    found = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 2))):
        holder, place = None, None
        here = found
        while isinstance(here, (dict, list)) and here and draw(st.integers(0, 4)):
            places = list(here) if isinstance(here, dict) else list(range(len(here)))
            holder, place = here, draw(st.sampled_from(places))
            here = here[place]
        new = draw(st.sampled_from(NASTY))
        if holder is None:
            return new
        kind = draw(st.sampled_from(["replace", "replace", "drop", "add", "double"]))
        if kind == "drop":
            del holder[place]
        elif kind == "replace":
            holder[place] = new
        elif isinstance(holder, dict):
            holder[str(new)[:300] if kind == "add" else f"{place}x"] = here
        else:
            holder.append(new if kind == "add" else here)
    return found


@st.composite
def tables_like(draw: st.DrawFn, original: pa.Table) -> pa.Table:
    """A table with a column left out, of another type, with gaps or other values, or with other rows."""
    kind = draw(st.sampled_from(["drop", "empty", "type", "gap", "values", "double", "rows", "none"]))
    place = draw(st.integers(0, original.num_columns - 1))
    name, rows = original.column_names[place], original.num_rows
    whole = {
        "drop": lambda: original.drop_columns([name]),
        "empty": lambda: original.slice(0, 0),
        "double": lambda: original.append_column(name, original[name]),
        "rows": lambda: original.slice(draw(st.integers(0, rows)), draw(st.integers(0, rows))),
        "none": lambda: pa.table({}),
    }
    if kind in whole:
        return whole[kind]()
    if kind == "gap":
        values = original[name].to_pylist()
        values[draw(st.integers(0, rows - 1))] = None
        return original.set_column(place, name, pa.array(values, original[name].type))
    other = draw(
        st.sampled_from(
            [
                pa.array([float("nan")] * rows),
                pa.array([float("inf")] * rows),
                pa.array([-1] * rows),
                pa.array([0] * rows),
                pa.array([2**62] * rows),
                pa.array([""] * rows),
                pa.array(["x" * 300] * rows),
                pa.array([[1, 2]] * rows),
                pa.array([[]] * rows, pa.list_(pa.int32())),
                pa.array([{"a": 1}] * rows),
                pa.array([True] * rows),
                pa.array([b"\xff"] * rows),
                pa.nulls(rows),
            ]
        )
    )
    return original.set_column(place, name, other)


def damage(data: st.DataObject, path: Path) -> str:
    """Replaces a file by something like it; returns how, for a reader of what failed."""
    original = path.read_bytes()
    if data.draw(st.integers(0, 19)) == 0:
        path.write_bytes(data.draw(st.sampled_from([b"", b"\x00" * 50, b"PAR1", b"\xff\xfe", b"null", b"[]", b"{}"])))
        return "replaced whole"
    if path.suffix == ".parquet" and data.draw(st.integers(0, 3)):
        pq.write_table(data.draw(tables_like(pq.read_table(path))), path)
        return "another table"
    if path.suffix in (".json", ".yaml") and data.draw(st.integers(0, 3)):
        made = data.draw(values_like(yaml.safe_load(original) if path.suffix == ".yaml" else json.loads(original)))
        text = json.dumps(made) if path.suffix == ".json" else yaml.safe_dump(made, allow_unicode=True, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return "other values"
    path.write_bytes(data.draw(bytes_like(original)))
    return "other bytes"
