from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from harness.baselines.recbole import import_recbole
from harness.baselines.sasrec import SASRec, SASRecConfig, gbce, gbce_beta
from harness.errors import InputError
from harness.interface import Batch, Schema, Task
from harness.settings import parse

N, LENGTH = 30, 9
SCHEMA = Schema(n_items=N, n_users=10, max_length=LENGTH, item_counts=torch.tensor([0, *range(N)]))
SMALL = {"dim": 8, "heads": 2, "inner": 16}


def make_batch(lengths: list[int], padded_to: int = 0, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    width = max(padded_to, *lengths)
    items, targets = torch.zeros(2, len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        drawn = torch.randint(1, N + 1, (length + 1,), generator=generator)
        items[row, :length], targets[row, :length] = drawn[:-1], drawn[1:]
    return Batch(
        items=items,
        lengths=torch.tensor(lengths),
        users=torch.arange(len(lengths)),
        targets=targets,
        valid=targets.flatten().nonzero().squeeze(1),
    )


def build(seed: int = 0, **options) -> SASRec:
    torch.manual_seed(seed)
    model = SASRec(parse(SASRecConfig, SMALL | options, "test"), SCHEMA)
    for parameter in model.parameters():  # larger than at the start, so that nothing is hidden by being small
        torch.nn.init.normal_(parameter, std=0.4)
    return model


VARIANTS = [
    {},
    {"norm": "pre", "norm_eps": 1e-8, "activation": "relu", "scale_embedding": True, "tied": False},
]


def recbole_sasrec(model: SASRec):
    """RecBole's SASRec with the weights of ``model``."""
    c = model.config
    config = {
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
        "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": LENGTH, "device": torch.device("cpu"),
        "n_layers": c.layers, "n_heads": c.heads, "hidden_size": c.dim, "inner_size": c.inner,
        "hidden_dropout_prob": c.dropout, "attn_dropout_prob": c.attention_dropout, "hidden_act": c.activation,
        "layer_norm_eps": c.norm_eps, "initializer_range": c.init_std, "loss_type": "CE",
    }  # fmt: skip
    kind = import_recbole("recbole.model.sequential_recommender.sasrec").SASRec
    peer = kind(config, SimpleNamespace(num=lambda field: N + 1))
    peer.item_embedding.load_state_dict(model.items.state_dict())
    peer.position_embedding.load_state_dict(model.positions.state_dict())
    peer.LayerNorm.load_state_dict(model.input_norm.state_dict())
    for theirs, ours in zip(peer.trm_encoder.layer, model.transformer.layers, strict=True):
        attention = theirs.multi_head_attention
        parts = zip(ours.attention.qkv.weight.chunk(3), ours.attention.qkv.bias.chunk(3), strict=True)
        for linear, (weight, bias) in zip((attention.query, attention.key, attention.value), parts, strict=True):
            linear.weight.data, linear.bias.data = weight.data, bias.data
        attention.dense.load_state_dict(ours.attention.out.state_dict())
        attention.LayerNorm.load_state_dict(ours.attention_norm.state_dict())
        theirs.feed_forward.dense_1.load_state_dict(ours.feed_forward.up.state_dict())
        theirs.feed_forward.dense_2.load_state_dict(ours.feed_forward.down.state_dict())
        theirs.feed_forward.LayerNorm.load_state_dict(ours.feed_forward_norm.state_dict())
    return peer.eval()


def test_outputs_and_gradients_equal_recboles():
    model = build().eval()
    peer = recbole_sasrec(model)
    batch = make_batch([1, 9, 4, 7, 2])
    states = peer(batch.items, batch.lengths)
    ours = model.encode(batch.items)[0].flatten(0, 1)[batch.last()]
    torch.testing.assert_close(ours, states, atol=1e-5, rtol=0)
    fields = {"item_id_list": batch.items, "item_length": batch.lengths}
    torch.testing.assert_close(model.score_items(batch), peer.full_sort_predict(fields)[:, 1:], atol=1e-5, rtol=1e-5)
    ours.square().sum().backward()
    states.square().sum().backward()
    # row 0 is padding: RecBole's mask of -10000 hides it, ours never sees it
    torch.testing.assert_close(model.items.weight.grad[1:], peer.item_embedding.weight.grad[1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.transformer.layers[0].attention.qkv.weight.grad[:8],
        peer.trm_encoder.layer[0].multi_head_attention.query.weight.grad,
        atol=1e-4,
        rtol=1e-4,
    )


def test_initial_weights_are_recboles():
    torch.manual_seed(0)
    ours = SASRec(SASRecConfig(), Schema(n_items=3000, n_users=1, max_length=50))
    torch.testing.assert_close(ours.items.weight.std().item(), 0.02, atol=1e-4, rtol=0)
    for layer in ours.transformer.layers:
        torch.testing.assert_close(layer.feed_forward.up.weight.std().item(), 0.02, atol=1e-3, rtol=0)
        assert layer.attention.qkv.bias.abs().max() == 0


@pytest.mark.parametrize("options", VARIANTS)
def test_no_state_depends_on_a_later_event(options):
    model = build(**options).eval()
    x = torch.randn(1, 6, 8, requires_grad=True)
    states, _ = model.transformer(x)
    for t in range(6):
        gradient = torch.autograd.grad(states[0, t].square().sum(), x, retain_graph=True)[0][0].abs().sum(dim=1)
        assert torch.all(gradient[: t + 1] > 0)
        assert torch.all(gradient[t + 1 :] == 0)


@pytest.mark.parametrize("options", VARIANTS)
def test_changing_later_items_changes_no_earlier_state(options):
    model = build(**options).eval()
    items = make_batch([9]).items
    changed = items.clone()
    changed[0, 5:] = changed[0, 5:] % N + 1
    before, after = model.encode(items)[0], model.encode(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=2).min() > 0


@pytest.mark.parametrize("options", VARIANTS)
def test_a_user_scores_the_same_alone_in_a_batch_and_padded_more(options):
    model = build(**options).eval()
    together = model.score_items(make_batch([3, 7, 1, 5]))
    padded = model.score_items(make_batch([3, 7, 1, 5], padded_to=LENGTH))
    torch.testing.assert_close(padded, together, atol=1e-5, rtol=0)
    batch = make_batch([3, 7, 1, 5])
    for row, length in enumerate([3, 7, 1, 5]):
        alone = Batch(batch.items[row : row + 1, :length], torch.tensor([length]), torch.tensor([row]))
        torch.testing.assert_close(model.score_items(alone)[0], together[row], atol=1e-5, rtol=0)


def test_cross_entropy_equals_a_loop_over_supervised_positions():
    model = build(dropout=0, attention_dropout=0)
    batch = make_batch([3, 5])
    batch.valid = torch.tensor([1, 2, 5, 8])  # not all of them
    states = model.encode(batch.items)[0]
    terms = []
    for flat in batch.valid.tolist():
        row, t = divmod(flat, 5)
        scores = [states[row, t].dot(model.items.weight[item]).item() for item in range(1, N + 1)]
        log_sum = math.log(sum(math.exp(score) for score in scores))
        terms.append(log_sum - scores[batch.targets[row, t].item() - 1])
    losses = model.losses(batch)
    assert list(losses) == ["ce"]
    assert losses["ce"].item() == pytest.approx(sum(terms) / 4, rel=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_gbce_equals_the_papers_formula(t):
    torch.manual_seed(0)
    positive, negative, n_items = torch.randn(6), torch.randn(6, 4), 50
    alpha = 4 / 49
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = 0.0
    for i in range(6):
        term = math.log(sigmoid(positive[i].item()) ** beta)
        term += sum(math.log(1 - sigmoid(negative[i, j].item())) for j in range(4))
        expected -= term / 5 / 6
    assert gbce_beta(4, n_items, t) == pytest.approx(beta)
    assert gbce(positive, negative, gbce_beta(4, n_items, t)).item() == pytest.approx(expected, rel=1e-5)


def test_gbce_without_calibration_is_bce_and_with_full_calibration_weighs_the_positive_by_the_sampling_rate():
    assert gbce_beta(3, 40, 0.0) == pytest.approx(1.0)
    assert gbce_beta(3, 40, 1.0) == pytest.approx(3 / 39)
    scores = torch.randn(5, 4)
    labels = torch.tensor([1.0, 0, 0, 0]).expand(5, 4)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)
    torch.testing.assert_close(gbce(scores[:, 0], scores[:, 1:], 1.0), plain)


@pytest.mark.parametrize("loss", ["bce", "gbce"])
def test_sampled_losses_take_their_scores_from_the_table(loss, monkeypatch):
    model = build(loss=loss, negatives=3, calibration=0.6, dropout=0, attention_dropout=0)
    batch = make_batch([4, 2])
    negatives = torch.randint(1, N + 1, (6, 3))
    monkeypatch.setattr(model, "sample_negatives", lambda targets: negatives)
    hidden = model.encode(batch.items)[0].flatten(0, 1)[batch.valid]
    targets = batch.targets.flatten()[batch.valid]
    positive = (hidden * model.items(targets)).sum(1)
    negative = (hidden.unsqueeze(1) * model.items(negatives)).sum(2)
    expected = gbce(positive, negative, gbce_beta(3, N, 0.6) if loss == "gbce" else 1.0)
    losses = model.losses(batch)
    assert list(losses) == [loss]
    torch.testing.assert_close(losses[loss], expected)


def weights_of(sampling: str) -> torch.Tensor:
    """(N,): of items 1..N, of which the last is the most frequent."""
    if sampling == "log-uniform":
        return torch.tensor([math.log(1 + 1 / rank) for rank in range(N, 0, -1)], dtype=torch.float64)
    return torch.ones(N).double() if sampling == "uniform" else SCHEMA.item_counts[1:].double()


def test_the_sampled_softmax_of_every_item_is_the_full_one(monkeypatch):
    batch = make_batch([4, 2])
    off = {"dropout": 0, "attention_dropout": 0}
    model = build(loss="sampled-softmax", **off)
    monkeypatch.setattr(model, "draw_shared", lambda targets: torch.arange(1, N + 1))
    torch.testing.assert_close(model.losses(batch)["sampled_softmax"], build(**off).losses(batch)["ce"])


def test_the_sampled_softmax_in_the_batch_equals_a_loop_over_its_targets():
    batch = make_batch([9, 5, 7])
    batch.targets = torch.where(batch.targets == 1, 2, batch.targets)  # item 1 has no event in the training part
    off = {"dropout": 0, "attention_dropout": 0}
    model = build(loss="sampled-softmax", negatives=100, sampling="in-batch", **off)
    hidden = model.encode(batch.items)[0].flatten(0, 1)[batch.valid]
    targets, q = batch.next_items(), SCHEMA.item_counts / SCHEMA.item_counts.sum()
    losses = []
    for state, target in zip(hidden, targets, strict=True):
        scores = (model.items.weight @ state).exp()
        others = sum(scores[other] / q[other] for other in targets if other != target) / len(targets)
        losses.append(-(scores[target] / (scores[target] + others)).log())
    torch.testing.assert_close(model.losses(batch)["sampled_softmax"], torch.stack(losses).mean())
    assert model.in_batch == ("sampled_softmax",)


@pytest.mark.parametrize("sampling", ["uniform", "popularity", "log-uniform"])
def test_the_sampled_softmax_corrects_what_it_draws_and_gives_the_gradient_of_the_full_one_in_the_end(sampling):
    batch = make_batch([9] * 60)
    off = {"dropout": 0, "attention_dropout": 0}
    model, full = build(loss="sampled-softmax", negatives=50_000, sampling=sampling, **off), build(**off)
    drawn = model.draw_shared(batch.next_items())
    p = weights_of(sampling) / weights_of(sampling).sum()
    counted = torch.bincount(drawn - 1, minlength=N)
    assert ((counted - 50_000 * p).abs() <= 5 * (50_000 * p * (1 - p)).sqrt()).all()
    if sampling == "popularity":  # the item without an event is never drawn
        return
    found = torch.autograd.grad(model.losses(batch)["sampled_softmax"], model.items.weight)[0]
    expected = torch.autograd.grad(full.losses(batch)["ce"], full.items.weight)[0]
    assert (found - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("sampling", ["uniform", "popularity", "log-uniform"])
def test_negatives_follow_their_distribution_and_never_hit_the_target(sampling):
    model = build(loss="bce", negatives=4000, sampling=sampling)
    targets = torch.tensor([1, 2, 17, N])
    drawn = model.sample_negatives(targets)
    weights = weights_of(sampling)
    for target, row in zip(targets.tolist(), drawn, strict=True):
        expected = weights.clone()
        expected[target - 1] = 0
        expected = expected / expected.sum()
        counted = torch.bincount(row - 1, minlength=N)
        assert counted[expected == 0].sum() == 0
        spread = (expected * (1 - expected) * 4000).sqrt()
        assert ((counted - expected * 4000).abs() <= 5 * spread + 1e-9).all()


def test_a_training_step_lowers_every_loss():
    batch = make_batch([9, 5, 7, 3])
    shared = {"loss": "sampled-softmax", "negatives": 40}
    for options in ({}, shared, {"loss": "bce"}, {"loss": "gbce", "negatives": 5, "sampling": "popularity"}):
        model = build(**options, dropout=0.1, attention_dropout=0.1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        values = []
        for _ in range(40):
            loss = sum(model.losses(batch).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_ranking_agrees_with_scores():
    model = build().eval()
    batch = make_batch([3, 7])
    scores, ranking = model.score_items(batch), model.rank_items(batch, 5)
    assert ranking.complete
    for row in range(2):
        order = sorted(range(N), key=lambda i: (-scores[row, i].item(), i))[:5]
        assert ranking.items[row].tolist() == [i + 1 for i in order]


@pytest.mark.parametrize("options", VARIANTS)
def test_attention_is_causal_sums_to_one_and_changes_nothing(options):
    model = build(**options)
    batch = make_batch([3, 7])
    shown = model.attention(batch, Task.RETRIEVAL)
    assert model.training
    assert [tuple(layer.shape) for layer in shown.maps] == [(2, 2, 7, 7)] * 2
    for layer in shown.maps:
        torch.testing.assert_close(layer.sum(dim=-1), torch.ones(2, 2, 7))
        assert layer.triu(1).abs().max() == 0
        assert not layer.requires_grad
    assert shown.query_event.tolist() == shown.key_event.tolist() == [[0, 1, 2, -1, -1, -1, -1], [*range(7)]]
    model.eval()
    plain, captured = model.encode(batch.items)[0], model.encode(batch.items, capture=True)[0]
    torch.testing.assert_close(captured, plain, atol=1e-5, rtol=0)


def test_every_option_of_the_fidelity_card_exists():
    assert {choice.option for choice in SASRec.fidelity.choices} <= set(SASRecConfig.model_fields)


def test_bad_settings_are_refused_in_one_line():
    with pytest.raises(InputError, match="dim \\(10\\) must be a multiple of heads \\(4\\)"):
        parse(SASRecConfig, {"dim": 10, "heads": 4}, "study")
    with pytest.raises(InputError, match="did you mean 'negatives'"):
        parse(SASRecConfig, {"negative": 4}, "study")
    config = SASRecConfig(loss="bce", sampling="popularity")
    with pytest.raises(InputError, match="in-batch is an option of loss: sampled-softmax"):
        parse(SASRecConfig, {"sampling": "in-batch"}, "study")
    with pytest.raises(InputError, match="uniform"):
        SASRec(config, Schema(n_items=5, n_users=1, max_length=3))
    with pytest.raises(InputError, match="two items"):
        SASRec(SASRecConfig(loss="bce"), Schema(n_items=1, n_users=1, max_length=3))
