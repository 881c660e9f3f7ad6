"""The noise experiment against loops over users, on a model whose scores and attention are written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import InputError
from harness.interface import Task
from harness.metrics.ranking import per_user, tie_places
from harness.models.fair import FAIR, FAIRConfig
from harness.probes import noise
from harness.probes.noise import Noise, noise_statistics
from harness.tasks import retrieval

SHARES = (0.0, 0.1, 0.3, 0.5)


def numbers(table, history="injected", **where):
    """Statistic -> share -> value, a mean over layers and heads unless ``where`` names one."""
    frame = table.to_pandas()
    frame = frame[frame["history"] == history]
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame.groupby(["statistic", "share"])["value"].mean().unstack("share")


def each(data, share, seed=3, size=11):
    """User row, noisy history and calm history as lists, one user at a time."""
    histories = Noise.draw(data, seed).histories(data, share)
    for noisy, alone, rows in histories.batches(size):
        for place, row in enumerate(rows):
            n, m = int(noisy.lengths[place]), int(alone.lengths[place])
            assert not noisy.items[place, n:].any()
            items, replaced = noisy.items[place, :n].tolist(), noisy.replaced[place, :n].tolist()
            yield int(row), items, replaced, alone.items[place, :m].tolist()


@pytest.mark.parametrize("share", SHARES)
def test_what_is_injected_where(data, share):
    windows = data.histories("test")
    added = []
    for row, items, replaced, alone in each(data, share):
        user, start, end = windows.user[row], windows.start[row], windows.end[row]
        k = int(np.floor((end - start) * share / (1 - share) + 0.5))
        if end - start + k > data.max_length:
            k = int(np.floor(share * data.max_length + 0.5))
        kept = min(end - start, data.max_length - k)
        assert sum(replaced) == k
        assert not replaced[-1]
        assert [i for i, out in zip(items, replaced, strict=True) if not out] == alone
        assert alone == data.log.item[end - kept : end].tolist()
        own = set(data.log.item[data.log.offsets[user] : data.log.offsets[user + 1]])
        assert own.isdisjoint(i for i, out in zip(items, replaced, strict=True) if out)
        added.append(k)
    assert len(added) == len(windows)
    assert (max(added) > 0) == (share > 0)


def test_items_and_places_are_spread_evenly(make_data):
    wide = make_data("synthetic-sessions:users=400,items=30,length=20", max_length=16)
    found = list(each(wide, 0.5))
    drawn = [i for _, items, replaced, _ in found for i, out in zip(items, replaced, strict=True) if out]
    counts = np.bincount(drawn, minlength=31)[1:]
    assert counts.min() > 0.5 * counts.mean()
    long = np.array([replaced for _, _, replaced, _ in found if len(replaced) == 16])
    assert len(long) > 100
    assert long[:, :-1].mean(0) == pytest.approx(8 / 15, abs=0.15)


def test_an_injected_event_has_time_and_actions_of_the_real_event_before(data):
    histories = Noise.draw(data, 0).histories(data, 0.4)
    assert data.sequences.actions is not None
    for noisy, alone, _ in histories.batches(8):
        for row, length in enumerate(noisy.lengths.tolist()):
            real = -1
            for t in range(length):
                real += not noisy.replaced[row, t]
                assert noisy.times[row, t] == alone.times[row, max(real, 0)]
                assert torch.equal(noisy.actions[row, t], alone.actions[row, max(real, 0)])
            assert not noisy.times[row, length:].any()
            assert not noisy.actions[row, length:].any()


def test_the_injections_hang_on_the_seed_alone(data):
    def drawn(seed, size):
        return {row: items for row, items, _, _ in each(data, 0.3, seed, size)}

    assert drawn(1, 4) == drawn(1, 100)
    assert drawn(1, 4) != drawn(2, 4)


def test_share_zero_is_the_undisturbed_history_exactly(data):
    torch.manual_seed(0)
    codes = np.random.default_rng(0).integers(0, 5, (31, 3))
    config = FAIRConfig(dim=8, heads=2, inner=8)
    model = FAIR(config, data.schema(codes, (5, 5, 5)))
    summary = data.summarise(data.evaluate(model, "test"))
    model.train()
    table = noise_statistics(model, data, [0.0], seed=0)
    assert model.training
    for history in ("injected", "real"):
        found = numbers(table, history)[0.0]
        for protocol, values in summary.items():
            for metric, value in values.items():
                assert found[f"{protocol}/{metric}"] == value
    found = numbers(table)[0.0]
    assert (found[["injected", "injected_abs", "tokens", "events", "dropped"]] == 0).all()
    assert (found[[f"{p}/{s}@10" for p in ("all", "unseen") for s in ("overlap", "jaccard")]] == 1).all()
    assert found[["cosine", "similarity"]].to_numpy() == pytest.approx(1)


def test_attention_against_loops(data, waves):
    table = noise_statistics(waves, data, SHARES, seed=3)
    for share in SHARES:
        expected = {}
        for _, items, replaced, alone in each(data, share):
            tokens = np.repeat(replaced, 2)
            for layer in range(waves.layers):
                for head in range(waves.heads):

                    def row(history, layer=layer, head=head):
                        item = torch.tensor(history).double()
                        return np.stack([waves.weight(layer, head, item, t).numpy() for t in (0, 1)], 1)  # (L, 2)

                    full, calm = row(items), row(alone)
                    weight = full.ravel()
                    rest = full[~np.array(replaced)]
                    one, other = rest.sum(1), calm.sum(1)
                    p, q = (np.abs(x).sum(1) / np.abs(x).sum() for x in (rest, calm))
                    values = {
                        "injected": weight[tokens].sum(),
                        "injected_abs": np.abs(weight[tokens]).sum() / np.abs(weight).sum(),
                        "sum": weight.sum(),
                        "cosine": one @ other / np.linalg.norm(one) / np.linalg.norm(other),
                        "similarity": 1 - np.abs(p - q).sum() / 2,
                    }
                    for name, value in values.items():
                        expected.setdefault((layer, head, name), []).append(value)
            expected.setdefault((-1, -1, "tokens"), []).append(np.mean(replaced))
        for (layer, head, name), values in expected.items():
            found = numbers(table, layer=layer, head=head).loc[name, share]
            assert found == pytest.approx(np.mean(values), abs=1e-9), (share, layer, head, name)


@pytest.mark.parametrize("kind", ["waves", "searching"])
def test_lists_and_metrics_against_loops(data, kind, request):
    model = request.getfixturevalue(kind)
    table = noise_statistics(model, data, [0.3], seed=3)
    windows = data.histories("test")
    ranks = {(h, p): [] for h in ("injected", "real") for p in ("all", "unseen")}
    overlap, jaccard = ({p: [] for p in ("all", "unseen")} for _ in range(2))
    for row, items, _, alone in each(data, 0.3):
        user, end = windows.user[row], windows.end[row]
        seen = set(data.log.item[data.log.offsets[user] : end].tolist())
        lists = {}
        for history, events in (("injected", items), ("real", alone)):
            batch = data.sequences.batch(windows.take(np.array([row])), Task.RETRIEVAL, supervise=False)
            batch.items, batch.lengths = torch.tensor([events]), torch.tensor([len(events)])
            if model.exact:
                ranked = (np.lexsort((tie_places(30), -model.score_items(batch)[0].numpy())) + 1).tolist()
            else:
                ranked = [i for i in model.rank_items(batch, 100).items[0].tolist() if i]
            kept = {"all": ranked, "unseen": [i for i in ranked if i not in seen]}
            target = int(data.log.item[end])
            for protocol, listed in kept.items():
                ranks[history, protocol].append(listed.index(target) + 1 if target in listed else np.nan)
                lists[history, protocol] = set(listed[:10])
        for protocol in ("all", "unseen"):
            one, other = lists["injected", protocol], lists["real", protocol]
            longer = max(len(one), len(other))
            overlap[protocol].append(len(one & other) / longer if longer else 1)
            jaccard[protocol].append(len(one & other) / len(one | other) if longer else 1)
    for (history, protocol), placed in ranks.items():
        found = numbers(table, history)[0.3]
        assert found[f"{protocol}/ndcg@10"] == pytest.approx(per_user("ndcg@10", np.array(placed)).mean())
        assert found[f"{protocol}/mrr"] == pytest.approx(per_user("mrr", np.array(placed)).mean())
    found = numbers(table)[0.3]
    for protocol in ("all", "unseen"):
        assert found[f"{protocol}/overlap@10"] == pytest.approx(np.mean(overlap[protocol]))
        assert found[f"{protocol}/jaccard@10"] == pytest.approx(np.mean(jaccard[protocol]))


def test_a_user_alone_gives_the_numbers_of_a_batch(data, waves, monkeypatch):
    together = noise_statistics(waves, data, [0.3], seed=1).to_pandas()
    monkeypatch.setattr(retrieval, "SCORE_BYTES", 1)
    monkeypatch.setattr(noise, "users_at_once", lambda *_: 1)
    alone = noise_statistics(waves, data, [0.3], seed=1).to_pandas()
    assert together["statistic"].tolist() == alone["statistic"].tolist()
    assert together["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), abs=1e-9)


def test_a_model_without_attention_has_metrics_and_lists(data, waves, monkeypatch):
    monkeypatch.delattr(type(waves), "attention")
    table = noise_statistics(waves, data, [0.0, 0.3], seed=0).to_pandas()
    assert set(table["layer"]) == {-1}
    assert {"all/ndcg@10", "unseen/overlap@10", "events", "dropped"} <= set(table["statistic"])
    assert not {"injected", "tokens", "cosine"} & set(table["statistic"])


def test_dropped_events_are_counted(data, waves):
    found = numbers(noise_statistics(waves, data, [0.5], seed=0))[0.5]
    lengths = data.histories("test").length
    expected = np.where(2 * lengths > 7, 1 - np.minimum(lengths, 3) / lengths, 0)
    assert found["dropped"] == pytest.approx(expected.mean())
    assert found["events"] == pytest.approx(np.where(2 * lengths > 7, 4 / 7, 0.5).mean())


def test_a_user_with_the_whole_catalogue_is_refused(make_data):
    tiny = make_data("synthetic-sessions:users=5,items=3,length=40,order=0")
    with pytest.raises(InputError, match="has every item of the catalogue"):
        Noise.draw(tiny, 0)
