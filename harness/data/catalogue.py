"""The data sets that ship by name: where they come from, which files hold them, what to expect in them.

Each is registered in the entry-point group ``harness.datasets``, as anybody else's: docs/guides/dataset.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.data import readers
from harness.files import as_file_name

__all__ = ["Counts", "DatasetSpec", "Download", "Form", "RoundedCounts"]


@dataclass(frozen=True)
class Counts:
    """How large a data set is."""

    users: int | None
    """None where nobody says it of the events alone."""
    items: int | None
    events: int | None

    def differences(self, found: Counts) -> dict[str, tuple[int, int]]:
        """Count -> (here, found) for those that differ."""
        pairs = {f.name: (getattr(self, f.name), getattr(found, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] is not None and self._differ(*pair)}

    def _differ(self, said: int, found: int) -> bool:
        return said != found


class RoundedCounts(Counts):
    """Counts that are published as 94.8K or 1.6M: with one decimal from a thousand on."""

    def _differ(self, said: int, found: int) -> bool:
        step = 100_000 if said >= 1_000_000 else 100 if said >= 1000 else 1
        return abs(found - said) > step / 2


@dataclass(frozen=True)
class Form:
    """One way in which a data set lies on disk: the names of its files by the part they play, and their reader."""

    files: dict[str, str]
    """Part -> file name, which may also lie there without its .gz. "items" and "times" may be missing."""
    read: readers.Reader
    published: Counts | None = None
    """What its publishers count in it, before anything is dropped."""


@dataclass(frozen=True)
class Download:
    """A file with a public address."""

    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    members: tuple[str, ...] = ()
    """For an archive: what is taken out of it."""

    @property
    def file(self) -> str:
        return Path(urlsplit(self.url).path).name


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
    own_folder: bool = False
    """Its files have names that other data sets use as well, so that they are looked for in its own folder alone."""

    @property
    def folder(self) -> str:
        """The name of its folder in the data root."""
        return as_file_name(self.name)


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


def _amazon_2018(name: str, short: str, published: Counts, **more: Any) -> DatasetSpec:
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


ML_100K = DatasetSpec(
    name="ml-100k",
    title="MovieLens-100K",
    url="https://grouplens.org/datasets/movielens/100k/",
    licence="research use with acknowledgement, no redistribution without permission",
    citation=MOVIELENS_CITATION,
    forms=(Form({"events": "ml-100k.inter", "items": "ml-100k.item"}, readers.atomic, Counts(943, 1682, 100_000)),),
    text_fields=("movie_title", "class", "release_year"),
    actions=RATINGS,
)

ML_1M = DatasetSpec(
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
)

AMAZON_BEAUTY = _amazon_2014(
    "beauty",
    "Beauty",
    "Beauty",
    Counts(22_363, 12_101, 198_502),
    {
        "Beauty.txt": "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "Beauty.inter.tsv": "f810e52b191350e36ce767338477385bb2cef3d4bd951f52ea2776a2be066d06",
        "Beauty.items.tsv": "4baf9494aace70465318d5bd7f4994186adb8704abbe8f9269ae63a145d9a8ae",
    },
)

AMAZON_SPORTS = _amazon_2014(
    "sports",
    "Sports_and_Outdoors",
    "Sports and Outdoors",
    Counts(35_598, 18_357, 296_337),
    {
        "Sports_and_Outdoors.txt": "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "Sports.inter.tsv": "34c89e8a4aeaa70c67c95cf2353889cbea79a77984e786648a66ad3d0b499369",
        "Sports.items.tsv": "cbd67600205809b3139d34567d6402368a72eed49018526c287bcce622c47d2d",
    },
)

AMAZON_TOYS = _amazon_2014("toys", "Toys_and_Games", "Toys and Games", Counts(19_412, 11_924, 167_597))

AMAZON_CDS = _amazon_2014("cds", "CDs_and_Vinyl", "CDs and Vinyl", Counts(75_258, 64_443, 1_097_592))

AMAZON_SCIENTIFIC = _amazon_2018(
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
)

AMAZON_INSTRUMENTS = _amazon_2018(
    "instruments",
    "Instruments",
    Counts(24_772, 9922, 206_153),
    title="Amazon 2018 Musical Instruments, the 5-core cut of LC-Rec and LETTER",
)

RETAILROCKET = DatasetSpec(
    name="retailrocket",
    title="RetailRocket: views, carts and purchases in a shop",
    url="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
    licence="CC BY-NC-SA 4.0",
    citation="Retailrocket recommender system dataset, Kaggle 2016",
    forms=(
        Form(
            {"events": "retailrocket.events.tsv"},
            readers.EventTable(user="user", item="item", time="unix_time", action="action"),
            Counts(2174, 29_905, 97_381),
        ),
        Form(
            {"events": "events.csv"},
            readers.EventTable(
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
)

KUAIRAND = DatasetSpec(
    name="kuairand",
    title="KuaiRand-27K, a 15-core cut of videos that were liked or hated",
    url="https://kuairand.com",
    licence="CC BY-SA 4.0",
    citation="Gao et al., KuaiRand: an unbiased sequential recommendation dataset, CIKM 2022",
    forms=(
        Form(
            {"events": "processed_standard_kcore_15.csv"},
            readers.EventTable(
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
    checksums={"processed_standard_kcore_15.csv": "321128c4543d3e658a1fa9788edd4049295b0d1ccf4469154326fb7769556e0a"},
    notes=("only events with a like or a hate are in it, so it is not a log of exposures",),
)
