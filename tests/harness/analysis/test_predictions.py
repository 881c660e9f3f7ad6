"""Against a brute force that sorts each user's list, and against the rows of the harness's own evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.analysis.predictions import Truth, rank_predictions
from harness.errors import InputError
from harness.metrics.ranking import tie_places

USERS, ITEMS = 12, 9


def make_truth(seed: int = 0) -> Truth:
    """12 users with 2 to 6 events over 9 items, repeats among them; the last user has no target."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 7, size=USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    who = np.arange(USERS - 1)
    return Truth(
        name="toy",
        phase="test",
        users=np.array([f"u{i:02d}" for i in rng.permutation(USERS)]),
        items=np.array(["", *(f"00{i}" for i in rng.permutation(ITEMS))]),
        offsets=offsets,
        item=rng.integers(1, ITEMS + 1, size=offsets[-1]),
        who=who,
        target=offsets[who + 1] - 1,
    )


def some_scores(truth: Truth, seed: int, share: float = 0.6, levels: int = 4) -> pd.DataFrame:
    """Scores with ties for a random share of all pairs, at least one a user, in random order."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        [(u, i, rng.integers(levels) / 4) for u in truth.users for i in truth.items[1:]],
        columns=["user", "item", "score"],
    )
    kept = (rng.random(len(frame)) < share) | ~frame["user"].duplicated()
    return frame[kept].sample(frac=1, random_state=seed).reset_index(drop=True)


def brute_force(truth: Truth, frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for u, event in zip(truth.who, truth.target, strict=True):
        seen = set(truth.item[truth.offsets[u] : event])
        target = truth.item[event]
        entries = frame[frame["user"] == truth.users[u]]
        number = {raw: i for i, raw in enumerate(truth.items)}
        place = tie_places(len(truth.items) - 1)
        found = sorted(
            (-s, place[number[i] - 1] if i in number else -1, i)
            for i, s in zip(entries["item"], entries["score"], strict=True)
        )
        listed = [(s, number.get(i, i)) for s, _, i in found]
        everything = [i for _, i in listed]
        unseen = [i for i in everything if i not in seen]
        scores = {i: -s for s, i in listed}
        rows.append(
            {
                "phase": truth.phase,
                "user": truth.users[u],
                "target": truth.items[target],
                "rank_all": everything.index(target) + 1 if target in everything else None,
                "rank_unseen": unseen.index(target) + 1 if target in unseen else None,
                "length_all": len(everything),
                "length_unseen": len(unseen),
                "history": event - truth.offsets[u],
                "score": scores.get(target),
            }
        )
    return pd.DataFrame(rows)


def assert_rows(rows: pa.Table, expected: pd.DataFrame) -> None:
    assert rows.column_names == list(expected.columns)
    for column in expected.columns:
        ours = rows[column].to_pylist()
        theirs = [None if pd.isna(v) else v for v in expected[column]]
        assert ours == (pytest.approx(theirs) if column == "score" else theirs), column


def write_scores(path, frame: pd.DataFrame) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".trec", ".run"):
        frame.assign(q0="Q0", rank=7, tag="them")[["user", "q0", "item", "rank", "score", "tag"]].to_csv(
            path, sep=" ", header=False, index=False
        )
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".trec", ".run"])
def test_scores_in_every_format(tmp_path, suffix):
    truth = make_truth()
    frame = some_scores(truth, 1)
    write_scores(tmp_path / f"them{suffix}", frame)
    outside = rank_predictions(tmp_path / f"them{suffix}", truth)
    assert_rows(outside.rows, brute_force(truth, frame))
    types = {"rank_all": "int32", "length_unseen": "int32", "history": "int32", "score": "float", "user": "string"}
    assert {name: str(outside.rows.schema.field(name).type) for name in types} == types


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_unknown_items_keep_their_places_as_misses(tmp_path, seed, levels):
    truth = make_truth(seed)
    frame = some_scores(truth, seed, levels=levels)
    strange = frame["item"].isin(np.random.default_rng(seed).permutation(truth.items[1:])[:3])
    more = frame[strange].assign(item=frame["item"] + "-gone").sample(frac=0.7, random_state=seed)
    both = pd.concat([frame, more]).sample(frac=1, random_state=seed)
    write_scores(tmp_path / "them.csv", both)
    outside = rank_predictions(tmp_path / "them.csv", truth, "misses")
    assert_rows(outside.rows, brute_force(truth, both))
    asked = more["user"].isin(truth.users[truth.who])
    assert outside.notes[0].startswith(f"{asked.sum()} predictions of {more['item'].nunique()} item")
    with pytest.raises(InputError, match=r"'00\d-gone' is not an item of 'toy'; .*--unknown-items misses"):
        rank_predictions(tmp_path / "them.csv", truth)


def test_without_unknown_items_the_option_changes_nothing(tmp_path):
    truth = make_truth()
    write_scores(tmp_path / "them.csv", some_scores(truth, 1))
    refusing, counting = (rank_predictions(tmp_path / "them.csv", truth, option) for option in ("refuse", "misses"))
    assert refusing.rows.equals(counting.rows)
    assert refusing.notes == counting.notes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.sampled_from([1, 2, 1000]))
def test_ranks_equal_brute_force(tmp_path, seed, share, levels):
    truth = make_truth(seed)
    frame = some_scores(truth, seed, share, levels)
    frame.to_parquet(tmp_path / "them.parquet")
    assert_rows(rank_predictions(tmp_path / "them.parquet", truth).rows, brute_force(truth, frame))


@pytest.mark.parametrize("form", ["long.csv", "long.parquet", "wide.csv", "wide.parquet"])
def test_ranked_lists(tmp_path, form):
    truth = make_truth(3)
    frame = some_scores(truth, 3, levels=1000).sort_values("score", ascending=False, kind="stable")
    frame = frame.drop_duplicates(["user", "score"])
    expected = brute_force(truth, frame).assign(score=None)
    path = tmp_path / form
    if form.startswith("long"):
        table = frame.assign(rank=frame.groupby("user").cumcount() + 1)[["user", "item", "rank"]]
    else:
        table = frame.groupby("user")["item"].agg(list if path.suffix == ".parquet" else " ".join)
        table = table.reset_index().rename(columns={"item": "items"})
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    assert_rows(rank_predictions(path, truth).rows, expected)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_empty_list_is_a_prediction_without_a_hit(tmp_path, suffix):
    truth = make_truth()
    lists = pd.DataFrame({"user": truth.users, "items": [list(truth.items[1:])] * (USERS - 2) + [[]] * 2})
    path = tmp_path / f"them{suffix}"
    if suffix == ".csv":
        lists.assign(items=lists["items"].map(" ".join)).to_csv(path, index=False)
    else:
        lists.to_parquet(path)
    rows = rank_predictions(path, truth).rows.to_pylist()
    assert (rows[-1]["rank_all"], rows[-1]["length_all"]) == (None, 0)  # user 10 of 12; the last has no target
    assert rows[0]["length_all"] == ITEMS


def test_integer_ids_in_parquet_are_ids(tmp_path):
    truth = Truth(
        name="toy",
        phase="valid",
        users=np.array(["10", "20"]),
        items=np.array(["", "5", "6"]),
        offsets=np.array([0, 2, 4]),
        item=np.array([1, 2, 2, 2]),
        who=np.array([0, 1]),
        target=np.array([1, 3]),
    )
    pd.DataFrame({"user": [10, 10, 20], "item": [5, 6, 6], "score": [1, 0, 0]}).to_parquet(tmp_path / "a.parquet")
    rows = rank_predictions(tmp_path / "a.parquet", truth).rows.to_pylist()
    assert [(r["rank_all"], r["rank_unseen"]) for r in rows] == [(2, 1), (1, None)]  # a repeat is not unseen
    assert {r["phase"] for r in rows} == {"valid"}


def test_rows_equal_those_of_the_harness_own_evaluation(tmp_path):
    """The scores of a model, written to a file and read as an outsider's."""
    torch = pytest.importorskip("torch")
    from harness.data.config import DataConfig
    from harness.data.datasets import load
    from harness.data.splits import make_split
    from harness.tasks.retrieval import Retrieval

    log = load("synthetic-sessions", DataConfig(), tmp_path)
    split = make_split(log, DataConfig())
    scores = np.random.default_rng(0).integers(0, 50, size=(log.n_users, log.n_items)) / 8  # with ties

    class Fixed(torch.nn.Module):
        exact = True

        def score_items(self, batch):
            return torch.from_numpy(scores)[batch.users]

    who, target = split.targets("test")
    truth = Truth(log.name, "test", log.users, log.items, log.offsets, log.item, who, target)
    user, item = np.indices(scores.shape)
    pd.DataFrame(
        {"user": log.users[user.ravel()], "item": log.items[1 + item.ravel()], "score": scores.ravel()}
    ).to_parquet(tmp_path / "them.parquet")
    ours = Retrieval(log, split, max_length=5, metrics=["ndcg@10"]).evaluate(Fixed(), "test")
    known = ["target_events", "target_follows"]  # of the training part, which an outsider's file says nothing of
    assert rank_predictions(tmp_path / "them.parquet", truth).rows.equals(ours.drop_columns(known))


def test_notes_say_what_flatters(tmp_path):
    truth = make_truth()
    frame = some_scores(truth, 0, share=1.0)
    frame.to_parquet(tmp_path / "whole.parquet")
    assert rank_predictions(tmp_path / "whole.parquet", truth).notes == (
        "1 users of the file have no test target and were left out",
    )
    number = {raw: i for i, raw in enumerate(truth.items)}
    index = {raw: u for u, raw in enumerate(truth.users)}
    seen = [
        number[i] in truth.item[truth.offsets[index[u]] : truth.offsets[index[u] + 1] - 1]
        for u, i in zip(frame["user"], frame["item"], strict=True)
    ]
    frame[~np.array(seen)].to_parquet(tmp_path / "unseen.parquet")
    assert any("flatter" in note for note in rank_predictions(tmp_path / "unseen.parquet", truth).notes)
    frame.groupby("user").head(2).to_parquet(tmp_path / "short.parquet")
    assert any("lists end early" in note for note in rank_predictions(tmp_path / "short.parquet", truth).notes)


def drop(frame, user):
    return frame[frame["user"] != user]


def extra(frame, **cells):
    return pd.concat([frame, pd.DataFrame([{**frame.iloc[0].to_dict(), **cells}])], ignore_index=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: extra(f, user="nobody"), r"line \d+: 'nobody' is not a user of 'toy'"),
        (lambda f: extra(f, item="nothing"), r"line \d+: 'nothing' is not an item of 'toy'"),
        (extra, r"line \d+: item '\d+' stands twice for user 'u\d+'"),
        (lambda f: f.assign(score=f["score"].mask(f.index == 4)), "line 6: the score is missing, NaN or infinite"),
        (lambda f: f.assign(score=f["score"].mask(f.index == 4, np.inf)), "line 6: the score is missing"),
        (lambda f: f.assign(score="high"), "can't be read as csv"),
        (lambda f: drop(f, make_truth().users[2]), "1 of 11 users with a test target have no prediction"),
        (lambda f: f.rename(columns={"score": "scores"}), "no column 'score' or 'rank'; did you mean 'scores'"),
        (lambda f: f.rename(columns={"user": "user_id"}), "no column 'user'; did you mean 'user_id'"),
        (lambda f: f.rename(columns={"item": "product"}), "no column 'item'"),
        (lambda f: f.head(0), "holds no prediction"),
        (lambda f: f[["user", "item"]].assign(rank=2), r"ranks must be 1 to \d, each once"),
        (lambda f: f[["user", "item"]].assign(rank=0.5), "rank 0.5 of user"),
        (lambda f: f[["user", "item"]].assign(rank=10**6), "rank 1e"),
        (lambda f: pd.DataFrame({"user": ["u01", "u01"], "items": ["001", "002"]}), "line 3: a second list"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, spoil, message):
    truth = make_truth()
    path = tmp_path / "them.csv"
    spoil(some_scores(truth, 1)).to_csv(path, index=False)
    with pytest.raises(InputError, match=message) as error:
        rank_predictions(path, truth)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("them.csv", b"", "can't be read as csv"),
        ("them.parquet", b"PAR1 and no more", "them.parquet is damaged"),
        ("them.trec", b"", "holds no prediction"),
        ("them.trec", b"u01 Q0 001 1 0.5\n", "no prediction"),  # five fields are read: the tag is nobody's business
        ("them.trec", b"u01 Q0 001 1\n", "line 1: the score is missing"),
        ("them.trec", b"u01 Q0 001 1 nan x\n", "the score is missing, NaN"),
        ("them.trec", b"u01 Q0 001 1 high x\n", "can't be read as trec"),
        ("them.trec", b"u01 Q0 001 1 0.5 my tag\n", "can't be read as trec"),
        ("them.json", b"{}", "unknown kind of file"),
        ("them.csv", b'user,item,score\n"u01,001,1\n', "can't be read|no prediction"),
    ],
)
def test_broken_files_are_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    truth = make_truth()
    with pytest.raises(InputError, match=message) as error:
        rank_predictions(tmp_path / name, truth)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    for suffix in (".csv", ".parquet", ".trec"):
        with pytest.raises(InputError, match="does not exist"):
            rank_predictions(tmp_path / f"none{suffix}", make_truth())


def test_truncated_parquet(tmp_path):
    path = tmp_path / "them.parquet"
    pq.write_table(pa.table({"user": ["u01"], "item": ["001"], "score": [1.0]}), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"them.parquet is damaged"):
        rank_predictions(path, make_truth())


def test_one_list_per_user_does_not_answer_for_several_targets(tmp_path):
    truth = make_truth()
    several = dataclasses.replace(truth, who=np.repeat(truth.who, 2), target=np.repeat(truth.target, 2))
    some_scores(truth, 0).to_csv(tmp_path / "them.csv", index=False)
    with pytest.raises(InputError, match=r"one list per user; set data\.targets to first or last"):
        rank_predictions(tmp_path / "them.csv", several)
