"""Large data sets that their publishers offer: where they are, what their files hold, what to expect in them.

The formats are described on the publishers' own pages, named as ``url``, and here:

- Amazon 2023: https://amazon-reviews-2023.github.io/data_processing/5core.html; what makes the leave-last-out files:
  https://github.com/hyp1231/AmazonReviews2023/blob/main/benchmark_scripts/last_out_split.py
- Steam: https://github.com/kang205/SASRec, section Steam Dataset
- MovieLens: https://files.grouplens.org/datasets/movielens/ml-20m-README.html and ml-32m-README.html; the MD5 stands
  beside each archive
- KuaiRand: https://github.com/chongminggao/KuaiRand; the MD5: https://zenodo.org/records/10439422
- Last.fm: readme.txt of the archive. Yambda: arXiv 2505.22238
"""

from __future__ import annotations

from functools import partial

from harness.data.catalogue import (
    MOVIELENS_CITATION,
    RATINGS,
    Counts,
    DatasetSpec,
    Download,
    Form,
    RoundedCounts,
)
from harness.data.event_files import EventFiles, ItemTexts, PythonLines

NO_LICENCE = "free for research; the publishers state no licence"

# category: users, items, ratings, as the page of the 5-core files rounds them
AMAZON_2023_SIZES: dict[str, tuple[int, int, int] | None] = {
    "All_Beauty": (253, 356, 2500),
    "Arts_Crafts_and_Sewing": (197_300, 90_000, 1_800_000),
    "Automotive": (632_100, 267_300, 6_100_000),
    "Baby_Products": (150_800, 36_000, 1_200_000),
    "Beauty_and_Personal_Care": (729_600, 207_600, 6_600_000),
    "Books": (776_400, 495_100, 9_500_000),
    "CDs_and_Vinyl": (123_900, 89_400, 1_600_000),
    "Cell_Phones_and_Accessories": (381_000, 111_500, 2_800_000),
    "Clothing_Shoes_and_Jewelry": (2_500_000, 715_000, 23_100_000),
    "Electronics": (1_600_000, 368_200, 15_500_000),
    "Gift_Cards": (377, 129, 2400),
    "Grocery_and_Gourmet_Food": (404_800, 132_900, 3_900_000),
    "Health_and_Household": (796_100, 184_300, 7_200_000),
    "Home_and_Kitchen": (2_900_000, 763_600, 28_200_000),
    "Industrial_and_Scientific": (51_000, 25_800, 412_900),
    "Kindle_Store": (892_200, 466_600, 16_100_000),
    "Magazine_Subscriptions": (30, 21, 176),
    "Movies_and_TV": (657_200, 197_900, 7_400_000),
    "Musical_Instruments": (57_400, 24_600, 511_800),
    "Office_Products": (223_300, 77_600, 1_800_000),
    "Patio_Lawn_and_Garden": (416_600, 133_400, 3_400_000),
    "Pet_Supplies": (594_800, 114_600, 5_300_000),
    "Software": (146_400, 17_600, 1_300_000),
    "Sports_and_Outdoors": (409_800, 156_200, 3_500_000),
    "Tools_and_Home_Improvement": (842_000, 274_700, 7_900_000),
    "Toys_and_Games": (432_300, 162_000, 3_900_000),
    "Video_Games": (94_800, 25_600, 814_600),
    "Unknown": None,
}
AMAZON_2023_ADDRESS = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
AMAZON_2023_TEXTS = ItemTexts("parent_asin", ("title", "store", "categories", "price", "features", "description"))


def _amazon_2023(category: str, sizes: tuple[int, int, int] | None) -> DatasetSpec:
    files = {
        "events": f"{category}.train.csv.gz",
        "valid": f"{category}.valid.csv.gz",
        "test": f"{category}.test.csv.gz",
        "items": f"meta_{category}.jsonl.gz",
    }
    read = partial(
        EventFiles,
        user="user_id",
        item="parent_asin",
        time="timestamp",
        ticks=1000,
        rating="rating",
        texts=AMAZON_2023_TEXTS,
    )
    published = None if sizes is None else RoundedCounts(*sizes)
    whole = {"events": f"{category}.csv.gz", "items": files["items"]}
    events = [
        f"{AMAZON_2023_ADDRESS}/benchmark/5core/last_out/{name}" for part, name in files.items() if part != "items"
    ]
    return DatasetSpec(
        name=f"amazon-2023:{category}",
        title=f"Amazon 2023 {category.replace('_', ' ')}, 5-core, leave-last-out files",
        url="https://amazon-reviews-2023.github.io",
        licence=NO_LICENCE,
        citation="Hou et al., Bridging language and items for retrieval and recommendation, arXiv 2403.03952, 2024",
        forms=(
            Form(files, read(split=True), published),
            Form(whole, read(), published),
        ),
        text_fields=AMAZON_2023_TEXTS.fields,
        actions=RATINGS,
        downloads=(
            *map(Download, events),
            Download(f"{AMAZON_2023_ADDRESS}/raw/meta_categories/{files['items']}"),
        ),
    )


AMAZON_2023 = tuple(_amazon_2023(category, sizes) for category, sizes in AMAZON_2023_SIZES.items())


def _movielens(name: str, title: str, published: Counts, md5: str, movies: str) -> DatasetSpec:
    texts = ItemTexts("movieId", ("title", "genres"))
    return DatasetSpec(
        name=name,
        title=title,
        url=f"https://grouplens.org/datasets/movielens/{name.removeprefix('ml-')}/",
        licence="research use with acknowledgement, no redistribution without permission",
        citation=MOVIELENS_CITATION,
        forms=(
            Form(
                {"events": "ratings.csv", "items": "movies.csv"},
                EventFiles(user="userId", item="movieId", time="timestamp", rating="rating", texts=texts),
                published,
            ),
        ),
        text_fields=texts.fields,
        actions=RATINGS,
        downloads=(
            Download(
                f"https://files.grouplens.org/datasets/movielens/{name}.zip",
                md5=md5,
                members=(f"{name}/ratings.csv", f"{name}/movies.csv"),
            ),
        ),
        own_folder=True,
        notes=(f"items are the movies with a rating; the publishers describe {movies}",),
    )


# What has a rating is counted by nobody but its users, who agree: 26,744 and 84,432 movies.
ML_20M = _movielens(
    "ml-20m", "MovieLens-20M", Counts(138_493, 26_744, 20_000_263), "cd245b17a1ae2cc31bb14903e1204af3", "27,278"
)
ML_32M = _movielens(
    "ml-32m", "MovieLens-32M", Counts(200_948, 84_432, 32_000_204), "d472be332d4daa821edc399621853b57", "87,585"
)

STEAM = DatasetSpec(
    name="steam",
    title="Steam: reviews of games, 2010 to 2018",
    url="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    licence=NO_LICENCE,
    citation="Kang and McAuley, Self-attentive sequential recommendation, ICDM 2018",
    forms=(
        Form(
            {"events": "steam_reviews.json.gz", "items": "steam_games.json.gz"},
            PythonLines(
                user="username",
                item="product_id",
                date="date",
                texts=ItemTexts("id", ("app_name", "developer", "genres", "tags"), python=True),
            ),
            Counts(2_567_538, 15_474, 7_793_069),
        ),
    ),
    text_fields=("app_name", "developer", "genres", "tags"),
    duplicates="keep",
    downloads=tuple(
        Download(f"https://mcauleylab.ucsd.edu/public_datasets/data/steam/{name}")
        for name in ("steam_reviews.json.gz", "steam_games.json.gz")
    ),
    notes=("times are days: a user's reviews of one day stand in the order of the file",),
)

YELP = DatasetSpec(
    name="yelp",
    title="Yelp Open Dataset of 2022: reviews of businesses",
    url="https://business.yelp.com/data/resources/open-dataset/",
    licence="Yelp Dataset Terms of Use: academic use; to be accepted on Yelp's page",
    citation="Yelp Open Dataset, 2022",
    forms=(
        Form(
            {"events": "yelp_academic_dataset_review.json", "items": "yelp_academic_dataset_business.json"},
            EventFiles(
                user="user_id",
                item="business_id",
                time="date",
                rating="stars",
                texts=ItemTexts("business_id", ("name", "categories", "city", "state")),
            ),
            Counts(1_987_929, 150_346, 6_990_280),
        ),
    ),
    text_fields=("name", "categories", "city", "state"),
    actions=RATINGS,
    duplicates="keep",
)

MICROLENS_100K = DatasetSpec(
    name="microlens-100k",
    title="MicroLens-100K: comments on short videos",
    url="https://github.com/westlake-repl/MicroLens",
    licence="free for research; no altered copies may be offered",
    citation="Ni et al., A content-driven micro-video recommendation dataset at scale, arXiv 2309.15379, 2023",
    forms=(
        Form(
            {"events": "MicroLens-100k_pairs.csv", "items": "MicroLens-100k_title_en.csv"},
            EventFiles(user="user", item="item", time="timestamp", ticks=1000, texts=ItemTexts("item", ("title",))),
            Counts(100_000, 19_738, 719_405),
        ),
    ),
    text_fields=("title",),
    downloads=tuple(
        Download(f"https://recsys.westlake.edu.cn/MicroLens-100k-Dataset/{name}")
        for name in ("MicroLens-100k_pairs.csv", "MicroLens-100k_title_en.csv")
    ),
)

KUAIRAND_ACTIONS = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "long_view": "long_view",
    "profile_enter": "is_profile_enter",
}


def _kuairand(size: str, title: str, published: Counts, md5: str, halves: tuple[str, ...] = ("",)) -> DatasetSpec:
    short = size.lower()
    logs = [f"log_standard_{days}_{short}{half}.csv" for days in ("4_08_to_4_21", "4_22_to_5_08") for half in halves]
    return DatasetSpec(
        name=f"kuairand-{short}",
        title=f"KuaiRand-{size}: {title}",
        url="https://kuairand.com",
        licence="CC BY-SA 4.0",
        citation="Gao et al., KuaiRand: an unbiased sequential recommendation dataset, CIKM 2022",
        forms=(
            Form(
                {"events": logs[0]} | {f"events {n}": name for n, name in enumerate(logs[1:], 2)},
                EventFiles(
                    user="user_id",
                    item="video_id",
                    time="time_ms",
                    ticks=1000,
                    keep=tuple(KUAIRAND_ACTIONS.values()),
                ),
                published,
            ),
        ),
        actions=KUAIRAND_ACTIONS,
        duplicates="first",
        downloads=(
            Download(
                f"https://zenodo.org/records/10439422/files/KuaiRand-{size}.tar.gz",
                md5=md5,
                members=tuple(f"KuaiRand-{size}/data/{name}" for name in logs),
            ),
        ),
        notes=("the log of randomly exposed videos is left out",),
    )


KUAIRAND_PURE = _kuairand(
    "Pure", "events on the 7,583 candidates", Counts(27_285, 7551, 1_436_609), "0820331067a3784d9691136f772b35a7"
)
KUAIRAND_1K = _kuairand(
    "1K", "every event of 1,000 users", Counts(1000, 4_369_953, 11_713_045), "6b0b9c8222d67fcd4c676218edca3f1f"
)
KUAIRAND_27K = _kuairand(
    "27K",
    "every event of 27,285 users",
    Counts(27_285, 32_038_725, 322_278_385),
    "3e3c799a24e2d23a4d2c757fbf9adf59",
    ("_part1", "_part2"),
)

LASTFM = DatasetSpec(
    name="lastfm",
    title="Last.fm (HetRec 2011): tags that users gave to artists",
    url="https://grouplens.org/datasets/hetrec-2011/",
    licence="non-commercial use",
    citation="Cantador et al., 2nd workshop on information heterogeneity and fusion, RecSys 2011",
    forms=(
        Form(
            {"events": "user_taggedartists-timestamps.dat", "items": "artists.dat"},
            EventFiles(
                user="userID",
                item="artistID",
                time="timestamp",
                ticks=1000,
                keep=("tagID",),
                texts=ItemTexts("id", ("name",)),
                # Last.fm opened in 2002; the file dates some tags to the fifties.
                earliest=1_009_843_200,
            ),
            Counts(None, None, 186_479),
        ),
    ),
    text_fields=("name",),
    downloads=(
        Download(
            "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
            members=("user_taggedartists-timestamps.dat", "artists.dat"),
        ),
    ),
    notes=("an event is a tag: an artist with several tags of a user stands several times in the user's sequence",),
)

YAMBDA_50M = DatasetSpec(
    name="yambda-50m",
    title="Yambda-50M: what 10,000 users of Yandex Music listened to",
    url="https://huggingface.co/datasets/yandex/yambda",
    licence="Apache 2.0",
    citation="Ploshkin et al., Yambda-5B: a large-scale multi-modal dataset for ranking and retrieval, RecSys 2025",
    forms=(
        Form(
            {"events": "listens.parquet"},
            EventFiles(user="uid", item="item_id", time="timestamp", keep=("is_organic", "played_ratio_pct")),
            # 10,000 users and 934,057 tracks are published, of events of every kind.
            Counts(None, None, 46_467_212),
        ),
    ),
    actions={"listen_half": "played_ratio_pct >= 50", "organic": "is_organic"},
    duplicates="keep",
    downloads=(Download("https://huggingface.co/datasets/yandex/yambda/resolve/main/flat/50m/listens.parquet"),),
    own_folder=True,
    notes=("times are seconds since an unknown day, in steps of 5",),
)
