"""Readers of the formats in which the benchmark data sets are published. Each returns a :class:`RawLog`."""

from __future__ import annotations

import ast
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import json as arrow_json

from harness.data.atomic import read_atomic_log
from harness.data.log import RawLog, encode
from harness.data.tables import Column, Kind, decode_line, read_header, read_table
from harness.errors import InputError
from harness.files import file_digest, read_json

__all__ = [
    "EventTable",
    "Reader",
    "amazon_reviews",
    "atomic",
    "identity",
    "json_sequences",
    "movielens_dat",
    "python_literal",
    "text_of",
    "text_sequences",
]

Reader = Callable[[Mapping[str, Path]], RawLog]
"""Takes the files that were found, by the part they play ("events", "items", ...)."""


def atomic(files: Mapping[str, Path]) -> RawLog:
    """RecBole atomic files."""
    return read_atomic_log(files["events"], files.get("items"))


@dataclass(frozen=True)
class EventTable:
    """A reader of one table with a header line that names these columns, whatever else it holds.

    ``action``: a column of words, which becomes ``action``, each word replaced as ``words`` says.
    ``numbers``: further columns that must hold numbers. All columns are kept for action rules.
    """

    user: str
    item: str
    time: str
    ticks: int = 1
    separator: str = "\t"
    action: str | None = None
    numbers: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, files: Mapping[str, Path]) -> RawLog:
        path = files["events"]
        kinds: dict[str, Kind] = {self.user: "id", self.item: "id", self.time: "time"}
        kinds |= dict.fromkeys(self.numbers, "number")
        if self.action:
            kinds[self.action] = "id"
        names = read_header(path, self.separator)
        for name in kinds:
            if name not in names:
                raise InputError(f"{path} has no column '{name}' in its first line; restore it from its source")
        columns = [Column(name, kinds.get(name, "text")) for name in names]
        table = read_table(path, columns, separator=self.separator)
        # Every column takes part in the search for repeated rows.
        rest = [name for name in names if name not in (self.user, self.item, self.time)]
        raw = _raw(path, table, self.user, self.item, self.time, self.ticks, rest)
        if self.action:
            found, which = np.unique(raw.columns.pop(self.action), return_inverse=True)
            raw.columns["action"] = np.array([self.words.get(word, word) for word in found.tolist()])[which]
        return raw


def identity(read: Reader) -> str | None:
    """What tells one of the harness' own readers, with its options, from every other; None for any other reader, whose
    code and options are not known here."""
    if not (read.__module__ or "").startswith("harness.data."):
        return None
    if is_dataclass(read):
        return repr(read)
    name = getattr(read, "__qualname__", "<locals>")
    return None if "<locals>" in name else f"{read.__module__}.{name}"


def text_sequences(files: Mapping[str, Path]) -> RawLog:
    """S3-Rec's files: a line holds a user and its items, oldest first; optionally a table of the same events with
    times ("times": user, item, unix_time) and one of item texts ("items": item, then columns of text)."""
    path = files["events"]
    users, items, lengths = [], [], []
    seen: dict[str, int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            fields = decode_line(line, path, number).split()
            if not fields:
                continue
            if len(fields) == 1:
                raise InputError(f"{path}: line {number} has a user without items; drop it or restore the file")
            if fields[0] in seen:
                raise InputError(
                    f"{path}: line {number} lists user '{fields[0]}' a second time after line {seen[fields[0]]}; join "
                    "the two sequences, or restore the file (a table of events has as many fields in each line)"
                )
            seen[fields[0]] = number
            users.append(fields[0])
            items += fields[1:]
            lengths.append(len(fields) - 1)
    raw = _sequences(path, users, items, lengths)
    if "times" in files:
        raw.time = _times_of(raw, files["times"])
        raw.files[files["times"].name] = file_digest(files["times"])
    if "items" in files:
        names = read_header(files["items"])
        table = read_table(files["items"], [Column(names[0], "id"), *map(Column, names[1:])]).to_pandas()
        raw.item_table = table.astype(object).set_index(names[0])
        raw.files[files["items"].name] = file_digest(files["items"])
    return raw


def json_sequences(files: Mapping[str, Path]) -> RawLog:
    """``.inter.json`` (user -> items, oldest first) and ``.item.json`` (item -> field -> text)."""
    path = files["events"]
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(items, list) and items for items in found.values()):
        raise InputError(f"{path} does not hold a list of items for every user; restore it from its source")
    items = [str(item) for sequence in found.values() for item in sequence]
    raw = _sequences(path, list(found), items, [len(sequence) for sequence in found.values()])
    if "items" in files:
        texts = read_json(files["items"])
        if not isinstance(texts, dict) or not all(isinstance(fields, dict) for fields in texts.values()):
            raise InputError(f"{files['items']} does not hold fields for every item; restore it from its source")
        raw.item_table = _text_table(texts)
        raw.files[files["items"].name] = file_digest(files["items"])
    return raw


def movielens_dat(files: Mapping[str, Path]) -> RawLog:
    """MovieLens-1M's ``ratings.dat`` and ``movies.dat``: fields stand apart by '::', titles are Latin-1."""
    path = files["events"]
    rows = [line.split("::") for line in path.read_text(encoding="latin-1").splitlines() if line]
    try:
        users_of, items_of, ratings, times = zip(*rows, strict=True)
        rating, time = np.array(ratings, dtype=np.float64), np.array(times, dtype=np.int64)
    except ValueError:
        fault = next((n for n, row in enumerate(rows, 1) if len(row) != 4), "unknown")
        raise InputError(f"{path}: line {fault} is not user::item::rating::time; restore the file") from None
    user, users = encode(pa.array(users_of))
    item, items = encode(pa.array(items_of))
    raw = RawLog(
        path,
        user,
        users,
        item,
        items,
        time,
        columns={"rating": rating},
        header=False,
        files={path.name: file_digest(path)},
    )
    if "items" in files:
        movies = files["items"]
        raw.item_table = _text_table(dict(map(_movie, movies.read_text(encoding="latin-1").splitlines())))
        raw.files[movies.name] = file_digest(movies)
    return raw


def amazon_reviews(files: Mapping[str, Path]) -> RawLog:
    """The 2014 release: ``reviews_X_5.json.gz`` (JSON lines) and ``meta_X.json.gz`` (lines of Python literals)."""
    path = files["events"]
    fields = [
        ("reviewerID", pa.string()),
        ("asin", pa.string()),
        ("overall", pa.float64()),
        ("unixReviewTime", pa.int64()),
    ]
    parse = arrow_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
    try:
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
            table = arrow_json.read_json(stream, arrow_json.ReadOptions(block_size=1 << 26), parse)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is truncated or no file of reviews ({_first_line(error)}); fetch it again") from None
    if any(table[name].null_count for name, _ in fields):
        raise InputError(f"{path} has reviews without {', '.join(name for name, _ in fields)}; fetch it again")
    raw = _raw(path, table, "reviewerID", "asin", "unixReviewTime", 1, ["overall"])
    raw.columns = {"rating": raw.columns["overall"]}
    raw.header = False
    if "items" in files:
        raw.item_table = _text_table(_amazon_meta(files["items"], set(raw.items.tolist())))
        raw.files[files["items"].name] = file_digest(files["items"])
    return raw


def _raw(
    path: Path, table: pa.Table, user_column: str, item_column: str, time: str, ticks: int, rest: Iterable[str]
) -> RawLog:
    user, users = encode(table[user_column])
    item, items = encode(table[item_column])
    columns = {}
    for name in rest:
        if pa.types.is_string(table[name].type) or pa.types.is_dictionary(table[name].type):
            codes, words = encode(table[name])
            columns[name] = words[codes]
        else:
            columns[name] = table[name].to_numpy()
    return RawLog(
        path, user, users, item, items, table[time].to_numpy(), ticks, columns, files={path.name: file_digest(path)}
    )


def _sequences(path: Path, users: list[str], items: list[str], lengths: list[int]) -> RawLog:
    if len(set(users)) < len(users):
        twice = pd.Index(users)[pd.Index(users).duplicated()][0]
        raise InputError(f"{path} lists user '{twice}' twice; join the two sequences or restore the file")
    if not users:
        raise InputError(f"{path} holds no events; restore it from its source")
    item, ids = encode(pa.array(items))
    user = np.repeat(np.arange(len(users)), lengths)
    return RawLog(path, user, np.array(users), item, ids, rows=False, files={path.name: file_digest(path)})


def _times_of(raw: RawLog, path: Path) -> np.ndarray:
    """The times of the table at ``path``, which must hold the events of ``raw`` in the same order."""
    columns = [Column("user", "id"), Column("item", "id"), Column("unix_time", "time")]
    if read_header(path) != [column.name for column in columns]:
        raise InputError(f"{path}: line 1 must name the columns user, item, unix_time")
    table = read_table(path, columns)
    (user, users), (item, items) = encode(table["user"]), encode(table["item"])
    same = [
        np.array_equal(a, b) for a, b in ((user, raw.user), (users, raw.users), (item, raw.item), (items, raw.items))
    ]
    if not all(same):
        raise InputError(f"{path} does not hold the events of {raw.path} in the same order; use files of one source")
    return table["unix_time"].to_numpy()


def _text_table(texts: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    columns = list(dict.fromkeys(name for fields in texts.values() for name in fields))
    rows = {name: [text_of(fields.get(name)) for fields in texts.values()] for name in columns}
    return pd.DataFrame(rows, index=pd.Index(list(texts), dtype=object), columns=columns)


def text_of(value: object) -> str:
    """Lists (of lists) of categories are joined by commas, each once."""
    return ", ".join(dict.fromkeys(text for text in _leaves(value) if text))


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    elif value is not None:
        yield str(value).strip()


def _movie(line: str) -> tuple[str, dict[str, str]]:
    item, title, genres = line.split("::")
    named = re.fullmatch(r"(.*?)(?: \((\d{4})\))?", title.strip())
    name, year = named.groups() if named else (title, None)
    return item, {"movie_title": name, "release_year": year or "", "class": genres.replace("|", " ")}


def _amazon_meta(path: Path, wanted: set[str]) -> dict[str, dict[str, object]]:
    """The texts of the ``wanted`` items. The file describes many more, and parsing a literal is slow."""
    key = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]+)['"]""")
    kept = ("title", "price", "brand", "categories", "description")
    found: dict[str, dict[str, object]] = {}
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                match = key.search(line)
                if match and match[1].decode() in wanted:
                    fields = python_literal(line, path, number)
                    found[match[1].decode()] = {name: fields.get(name) for name in kept}
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} is truncated or no gzip file ({_first_line(error)}); fetch it again") from None
    return found


def python_literal(line: bytes, path: Path, number: int) -> dict[str, object]:
    try:
        fields = ast.literal_eval(line.decode("utf-8").strip())
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"{path}: line {number} is not a Python literal ({_first_line(error)}); fetch it again"
        ) from None
    if not isinstance(fields, dict):
        raise InputError(f"{path}: line {number} does not describe an item; fetch the file again")
    return fields


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
