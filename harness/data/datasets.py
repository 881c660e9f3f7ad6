"""The data sets that are known by name: where they come from, which files hold them, what to expect in them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from harness.data import readers
from harness.data.config import DataConfig
from harness.data.log import EventLog, RawLog, build_log
from harness.data.own import find_own, read_own
from harness.data.synthetic import ACTIONS, SYNTHETIC, synthetic_log
from harness.errors import InputError, nearest

__all__ = [
    "DATASETS",
    "Counts",
    "DatasetSpec",
    "Download",
    "Form",
    "data_root",
    "dataset_names",
    "find_files",
    "load",
    "overview",
    "own_names",
    "read_files",
]


@dataclass(frozen=True)
class Counts:
    """How large a data set is."""

    users: int
    items: int
    events: int

    def differences(self, found: Counts) -> dict[str, tuple[int, int]]:
        """Count -> (here, found) for those that differ."""
        pairs = {f.name: (getattr(self, f.name), getattr(found, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Form:
    """One way in which a data set lies on disk: the names of its files by the part they play, and their reader."""

    files: dict[str, str]
    """Part -> file name. "events" must be there, the others may be missing."""
    read: readers.Reader
    published: Counts | None = None
    """What its publishers count in it, before anything is dropped."""


@dataclass(frozen=True)
class Download:
    """A file with a public address."""

    url: str
    size: int | None = None
    sha256: str | None = None
    members: tuple[str, ...] = ()
    """For an archive: what is taken out of it."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set that is known by name: its source, the forms in which it lies on disk, and how it is read."""

    name: str
    title: str
    url: str
    """Where people read about it and find the original."""
    licence: str
    citation: str
    forms: tuple[Form, ...]
    text_fields: tuple[str, ...] = ()
    """What describes an item, most telling first; those that a form does not have are passed over."""
    actions: dict[str, str] = field(default_factory=dict)
    """Action -> rule, see :mod:`harness.data.actions`."""
    duplicates: str = "error"
    downloads: tuple[Download, ...] = ()
    prepare_atomic: bool = False
    """Preparing rewrites it as atomic files, because its own format is slow to read."""
    checksums: dict[str, str] = field(default_factory=dict)
    """File name -> SHA-256 of the copy that the reference results stand on."""
    notes: tuple[str, ...] = ()


RATINGS = {"like": "rating >= 4", "love": "rating == 5", "dislike": "rating <= 2"}
AMAZON_2014 = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
AMAZON_2014_CITATION = "McAuley et al., Image-based recommendations on styles and substitutes, SIGIR 2015"
AMAZON_2014_TEXTS = ("title", "title_keywords", "price", "brand", "categories")
AMAZON_2018_CITATION = (
    "Ni et al., Justifying recommendations using distantly-labeled reviews and fine-grained aspects, EMNLP 2019"
)
AMAZON_2018_TEXTS = ("title", "brand", "categories", "description")
SCIENTIFIC = "https://raw.githubusercontent.com/Nishikata97/CollisionGenRec/505d5be3166f7c38ae67957daf8a3b7ec7092577/data/Scientific"
MOVIELENS_CITATION = "Harper and Konstan, The MovieLens datasets: history and context, TiiS 2015"


def _amazon_2014(
    name: str, category: str, title: str, published: Counts, checksums: dict[str, str] | None = None
) -> DatasetSpec:
    short = category.split("_", maxsplit=1)[0]
    return DatasetSpec(
        name=f"amazon-{name}",
        title=f"Amazon 2014 {title}, 5-core",
        url="https://jmcauley.ucsd.edu/data/amazon/index_2014.html",
        licence="free for research; the publishers state no licence",
        citation=AMAZON_2014_CITATION,
        forms=(
            Form(
                {"events": f"reviews_{category}_5.json.gz", "items": f"meta_{category}.json.gz"},
                readers.amazon_reviews,
                published,
            ),
            Form(
                {"events": f"{category}.txt", "times": f"{short}.inter.tsv", "items": f"{short}.items.tsv"},
                readers.text_sequences,
                published,
            ),
        ),
        text_fields=AMAZON_2014_TEXTS,
        downloads=(
            Download(f"{AMAZON_2014}/reviews_{category}_5.json.gz"),
            Download(f"{AMAZON_2014}/meta_{category}.json.gz"),
        ),
        prepare_atomic=True,
        checksums=checksums or {},
    )


def _amazon_2018(name: str, short: str, published: Counts, **more) -> DatasetSpec:
    return DatasetSpec(
        name=f"amazon-{name}",
        url="https://nijianmo.github.io/amazon/",
        licence="free for research; the publishers state no licence",
        citation=AMAZON_2018_CITATION,
        forms=(
            Form({"events": f"{short}.inter.json", "items": f"{short}.item.json"}, readers.json_sequences, published),
        ),
        text_fields=AMAZON_2018_TEXTS,
        **more,
    )


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="ml-100k",
            title="MovieLens-100K",
            url="https://grouplens.org/datasets/movielens/100k/",
            licence="research use with acknowledgement, no redistribution without permission",
            citation=MOVIELENS_CITATION,
            forms=(
                Form({"events": "ml-100k.inter", "items": "ml-100k.item"}, readers.atomic, Counts(943, 1682, 100_000)),
            ),
            text_fields=("movie_title", "class", "release_year"),
            actions=RATINGS,
        ),
        DatasetSpec(
            name="ml-1m",
            title="MovieLens-1M",
            url="https://grouplens.org/datasets/movielens/1m/",
            licence="research use with acknowledgement, no redistribution without permission",
            citation=MOVIELENS_CITATION,
            forms=(
                Form(
                    {"events": "ratings.dat", "items": "movies.dat"},
                    readers.movielens_dat,
                    Counts(6040, 3706, 1_000_209),
                ),
            ),
            text_fields=("movie_title", "class", "genre", "release_year"),
            actions=RATINGS,
            downloads=(
                Download(
                    "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                    members=("ml-1m/ratings.dat", "ml-1m/movies.dat"),
                ),
            ),
        ),
        _amazon_2014(
            "beauty",
            "Beauty",
            "Beauty",
            Counts(22_363, 12_101, 198_502),
            {
                "Beauty.txt": "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
                "Beauty.inter.tsv": "f810e52b191350e36ce767338477385bb2cef3d4bd951f52ea2776a2be066d06",
                "Beauty.items.tsv": "4baf9494aace70465318d5bd7f4994186adb8704abbe8f9269ae63a145d9a8ae",
            },
        ),
        _amazon_2014(
            "sports",
            "Sports_and_Outdoors",
            "Sports and Outdoors",
            Counts(35_598, 18_357, 296_337),
            {
                "Sports_and_Outdoors.txt": "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
                "Sports.inter.tsv": "34c89e8a4aeaa70c67c95cf2353889cbea79a77984e786648a66ad3d0b499369",
                "Sports.items.tsv": "cbd67600205809b3139d34567d6402368a72eed49018526c287bcce622c47d2d",
            },
        ),
        _amazon_2014("toys", "Toys_and_Games", "Toys and Games", Counts(19_412, 11_924, 167_597)),
        _amazon_2014("cds", "CDs_and_Vinyl", "CDs and Vinyl", Counts(75_258, 64_443, 1_097_592)),
        _amazon_2018(
            "scientific",
            "Scientific",
            Counts(8317, 4344, 58_492),
            title="Amazon 2018 Industrial and Scientific, a 5-core cut in sequences",
            downloads=(
                Download(
                    f"{SCIENTIFIC}/Scientific.inter.json",
                    408_626,
                    "32c6c01876ebecebdfabd2dbd358594be36655e9e7b168772a7a3aa3624ee1b4",
                ),
                Download(
                    f"{SCIENTIFIC}/Scientific.item.json",
                    3_709_486,
                    "ad24200106868dac2b544d812305d61a11bf07fed78b2f7cdca41d66f3418e71",
                ),
            ),
            checksums={
                "Scientific.inter.json": "32c6c01876ebecebdfabd2dbd358594be36655e9e7b168772a7a3aa3624ee1b4",
                "Scientific.item.json": "ad24200106868dac2b544d812305d61a11bf07fed78b2f7cdca41d66f3418e71",
            },
            notes=("this 5-core cut is not the one of UniSRec, so published numbers on that one do not apply",),
        ),
        _amazon_2018(
            "instruments",
            "Instruments",
            Counts(24_772, 9922, 206_153),
            title="Amazon 2018 Musical Instruments, the 5-core cut of LC-Rec and LETTER",
        ),
        DatasetSpec(
            name="retailrocket",
            title="RetailRocket: views, carts and purchases in a shop",
            url="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
            licence="CC BY-NC-SA 4.0",
            citation="Retailrocket recommender system dataset, Kaggle 2016",
            forms=(
                Form(
                    {"events": "retailrocket.events.tsv"},
                    readers.event_table(user="user", item="item", time="unix_time", action="action"),
                    Counts(2174, 29_905, 97_381),
                ),
                Form(
                    {"events": "events.csv"},
                    readers.event_table(
                        user="visitorid",
                        item="itemid",
                        time="timestamp",
                        ticks=1000,
                        separator=",",
                        action="event",
                        words={"addtocart": "cart", "transaction": "buy"},
                    ),
                    Counts(1_407_580, 235_061, 2_756_101),
                ),
            ),
            actions={"view": "action == view", "cart": "action == cart", "buy": "action == buy"},
            checksums={"retailrocket.events.tsv": "2fef98ea7dbf17fdc0ccadb856b2312c3d03ad442d7633cf0ca7a42c5b2993bf"},
            notes=(
                "an event is a view, a cart or a purchase, so exactly one of the three actions holds",
                "held-out purchases without times (retailrocket.test_buy.tsv of the 2,174-user cut) can't be put in "
                "order with the events and are not used: splits are made of the timed events",
            ),
        ),
        DatasetSpec(
            name="kuairand",
            title="KuaiRand-27K, a 15-core cut of videos that were liked or hated",
            url="https://kuairand.com",
            licence="CC BY-SA 4.0",
            citation="Gao et al., KuaiRand: an unbiased sequential recommendation dataset, CIKM 2022",
            forms=(
                Form(
                    {"events": "processed_standard_kcore_15.csv"},
                    readers.event_table(
                        user="user_id",
                        item="video_id",
                        time="time_ms",
                        ticks=1000,
                        numbers=("label", "is_follow", "is_comment", "is_forward", "long_view"),
                    ),
                    Counts(664, 9359, 41_828),
                ),
            ),
            actions={
                "like": "label == 1",
                "follow": "is_follow",
                "comment": "is_comment",
                "forward": "is_forward",
                "long_view": "long_view",
            },
            # Its cut holds 116 rows twice, to the millisecond: the copy would give its twin's action away.
            duplicates="first",
            checksums={
                "processed_standard_kcore_15.csv": "321128c4543d3e658a1fa9788edd4049295b0d1ccf4469154326fb7769556e0a"
            },
            notes=("only events with a like or a hate are in it, so it is no log of exposures",),
        ),
    )
}


def dataset_names() -> dict[str, str]:
    """Name -> title of every data set that has a name."""
    named = {name: spec.title for name, spec in DATASETS.items()}
    return named | {name: title for name, (title, _, _) in SYNTHETIC.items()}


def overview(root: Path | None = None) -> list[dict[str, object]]:
    """One entry for each data set that has a name: its title, published counts, action types, and whether it is
    "ready" (on disk, or made when it is used), can be fetched with "prepare", or is to be got "by hand"."""
    entries = []
    for name, spec in DATASETS.items():
        try:
            form, _ = find_files(spec, data_root(root))
            state = "ready"
        except InputError:
            form, state = spec.forms[0], "prepare" if spec.downloads else "by hand"
        counts = {} if form.published is None else vars(form.published)
        entries.append({"dataset": name, "title": spec.title, **counts, "actions": list(spec.actions), "state": state})
    for name, (title, _, _) in SYNTHETIC.items():
        blank = dict.fromkeys(f.name for f in fields(Counts))
        entries.append({"dataset": name, "title": title, **blank, "actions": list(ACTIONS[name]), "state": "ready"})
    return entries


def load(name_or_path: str, config: DataConfig, root: Path | None = None) -> EventLog:
    """The log of a named data set, of a synthetic one (``synthetic-clusters:users=200``), or one of your own: a path
    of a file or a folder, or the name of a folder in the data root (see :mod:`harness.data.own`).

    ``root``: where data sets lie; default: $HARNESS_DATA, else ``./data``.

    Raises:
        InputError: an unknown name, files that are missing or not as they should be.
    """
    name = str(name_or_path)
    kind = name.partition(":")[0]
    if kind in SYNTHETIC:
        text_fields = ("title",)
        return build_log(name, synthetic_log(name), config, rules=ACTIONS[kind], text_fields=text_fields)
    if name in DATASETS:
        spec = DATASETS[name]
        if config.columns is not None:
            raise InputError(f"data.columns: the columns of data set '{name}' are known; leave the setting out")
        form, files = find_files(spec, data_root(root))
        raw = read_files(spec, form, files)
        return build_log(
            name, raw, config, rules=spec.actions, duplicates=spec.duplicates, text_fields=spec.text_fields
        )
    files = find_own(name, data_root(root))
    if files is None:
        raise InputError(f"unknown data set '{name}'; {nearest(name, [*dataset_names(), *own_names(data_root(root))])}")
    raw = read_own(files, config.columns)
    text_fields = () if raw.item_table is None else tuple(raw.item_table.columns)
    return build_log(files.name, raw, config, rules={}, text_fields=text_fields)


def own_names(root: Path) -> list[str]:
    """The folders of the data root that are not those of a data set known by name."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in DATASETS)


def data_root(root: Path | None = None) -> Path:
    """Where data sets lie: ``root``, else $HARNESS_DATA, else ``./data``."""
    return Path(root or os.environ.get("HARNESS_DATA") or "data").expanduser()


def find_files(spec: DatasetSpec, root: Path) -> tuple[Form, dict[str, Path]]:
    """The form of a data set that lies under ``root``, and its files by part.

    Looks into ``root/NAME``, ``root`` and its subfolders, in that order, and takes the first folder that holds
    the events in any form; the other files are taken from the same folder only.

    Raises:
        InputError: nowhere; says how to get it.
    """
    for folder in _folders(spec, root):
        for form in _forms(spec):
            files = {part: folder / name for part, name in form.files.items() if (folder / name).is_file()}
            if "events" in files:
                return form, files
    wanted = " or ".join(form.files["events"] for form in spec.forms)
    fetch = f"run 'harness data prepare {spec.name}', or " if spec.downloads else ""
    if spec.name == "ml-100k":
        fetch = "install recbole, which holds it, or "
    raise InputError(
        f"data set '{spec.name}' is not under {root}: {fetch}put {wanted} there (see {spec.url}), or name another "
        "folder with --data-root or HARNESS_DATA"
    )


def read_files(spec: DatasetSpec, form: Form, files: dict[str, Path]) -> RawLog:
    """Reads a data set as it lies on disk and adds what is to be known about it."""
    raw = form.read(files)
    foreign = [name for name, digest in raw.files.items() if spec.checksums.get(name, digest) != digest]
    if foreign:
        raw.notes += (f"{', '.join(foreign)}: not the bytes that the reference results stand on",)
    raw.notes += spec.notes
    return raw


def _forms(spec: DatasetSpec) -> tuple[Form, ...]:
    """The forms of a data set, atomic files of its name first: preparing writes them where others are slow."""
    atomic = {"events": f"{spec.name}.inter", "items": f"{spec.name}.item"}
    return (Form(atomic, readers.atomic, spec.forms[0].published), *spec.forms)


def _folders(spec: DatasetSpec, root: Path) -> Iterator[Path]:
    yield root / spec.name
    yield root
    if root.is_dir():
        yield from sorted(folder for folder in root.iterdir() if folder.is_dir())
    if spec.name == "ml-100k" and (recbole := importlib.util.find_spec("recbole")) and recbole.origin:
        yield Path(recbole.origin).parent / "dataset_example" / spec.name
