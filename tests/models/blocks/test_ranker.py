"""What every action model must keep, under every option: no leak, no padding, no candidate changes a prediction."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F

from harness.baselines.action_controls import ItemActionSum, ItemOnly, LaggedAction
from harness.baselines.interleaved import Interleaved
from harness.errors import InputError
from harness.interface import Batch, Schema, Task
from harness.models.attn_lfa import AttnLFA
from harness.models.attn_mvp import AttnMVP
from harness.models.blocks.ranker import Ranker
from harness.settings import parse

ITEMS, LENGTH, MAX_LENGTH = 20, 6, 9
ACTIONS = ("like", "love", "dislike")
VISIBLE = {"backbone": "hstu", "attention_scale": "visible"}
ARMS: dict[str, type[Ranker]] = {
    "item-only": ItemOnly,
    "lagged-action": LaggedAction,
    "item-action-sum": ItemActionSum,
    "interleaved": Interleaved,
    "attn-lfa": AttnLFA,
    "attn-mvp": AttnMVP,
}


def choices(**options: tuple) -> list[dict]:
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def cases() -> list:
    """Every arm with every combination of its own options, on both backbones."""
    fusions, switch = ("concat", "sum", "gate", "action-only"), (True, False)
    own = {
        "item-only": [{}],
        "lagged-action": [{}],
        "item-action-sum": [{}],
        "interleaved": choices(positions=("token", "event"), last_layer=("read", "all")),
        "attn-lfa": choices(similarity=("hidden", "embedding"), kernel=("softmax", "silu"), fusion=fusions)
        + choices(pooling=("reuse-last-weights",), fusion=fusions)
        + [{"action_scale": False}],
        "attn-mvp": choices(
            mixing=("sum", "concat", "gate"), diagonal=("inclusive", "strict"), action_softmax=("shared", "separate")
        )
        + choices(value_projection=("shared",), action_scale=switch),
    }
    made = []
    for arm, variants in own.items():
        for variant, backbone in itertools.product(variants, ({}, {"backbone": "hstu", "time_bias": True}, VISIBLE)):
            if backbone and variant.get("action_softmax") == "separate":
                continue
            options = {**variant, **backbone}
            made.append(pytest.param(arm, options, id="-".join([arm, *map(str, options.values())])))
        if arm in ("interleaved", "attn-lfa", "attn-mvp"):
            made.append(
                pytest.param(arm, {"layers": 1, "head": "linear", "action_encoder": "mlp"}, id=f"{arm}-1-linear")
            )
    return made


every_case = pytest.mark.parametrize(("arm", "options"), cases())
every_arm = pytest.mark.parametrize("arm", ARMS)


def made(arm: str, options: dict | None = None, seed: int = 0) -> Ranker:
    torch.manual_seed(seed)
    settings = parse(ARMS[arm].Config, {"dim": 8, "layers": 2, "heads": 2, **(options or {})}, arm)
    model = ARMS[arm](settings, Schema(n_items=ITEMS, n_users=4, max_length=MAX_LENGTH, actions=ACTIONS)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.double()


def drawn(seed: int = 0) -> Batch:
    """Four sequences of 6, 1, 4 and 3 events."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([LENGTH, 1, 4, 3])
    inside = torch.arange(LENGTH) < lengths[:, None]
    return Batch(
        items=torch.randint(1, ITEMS + 1, (4, LENGTH), generator=generator) * inside,
        lengths=lengths,
        users=torch.arange(4),
        valid=inside.flatten().nonzero()[:, 0],
        times=torch.randint(0, 5000, (4, LENGTH), generator=generator).cumsum(1) * inside,
        actions=torch.randint(0, 2, (4, LENGTH, 3), generator=generator).double() * inside[..., None],
    )


def appended(batch: Batch, items: torch.Tensor, seed: int) -> Batch:
    """One more event behind each sequence, at the time of its last, with whatever actions."""
    row = torch.arange(len(batch.items))
    wider = {name: F.pad(getattr(batch, name), (0, 1)) for name in ("items", "times")}
    actions = F.pad(batch.actions, (0, 0, 0, 1))
    wider["items"][row, batch.lengths] = items
    wider["times"][row, batch.lengths] = batch.times[row, batch.lengths - 1]
    actions[row, batch.lengths] = (
        torch.rand(len(row), 3, generator=torch.Generator().manual_seed(seed)).double().round()
    )
    return Batch(lengths=batch.lengths + 1, users=batch.users, actions=actions, **wider)


@every_case
def test_own_and_later_actions_are_invisible_and_earlier_ones_are_seen(arm, options):
    model, batch = made(arm, options), drawn()
    batch.actions.requires_grad_()
    logits = model.predict_actions(batch)
    assert logits.shape == (4, LENGTH, 3)
    assert logits.isfinite().all()
    for n in range(LENGTH):
        (grad,) = torch.autograd.grad(
            logits[:, n].sum(), batch.actions, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert grad[:, n:].abs().max() == 0
        if n and arm != "item-only":
            assert grad[0, :n].abs().max() > 0
        if arm == "item-only":
            assert grad.abs().max() == 0


@every_case
def test_an_item_changes_its_own_prediction_and_no_earlier_one(arm, options):
    model, batch = made(arm, options), drawn()
    before = model.predict_actions(batch)
    for n in (2, 5):
        items = batch.items.clone()
        items[0, n] = items[0, n] % ITEMS + 1
        after = model.predict_actions(dataclasses.replace(batch, items=items))
        assert (after[0, n] - before[0, n]).abs().max() > 1e-9
        torch.testing.assert_close(after[0, :n], before[0, :n], atol=1e-12, rtol=0)
        torch.testing.assert_close(after[1:], before[1:], atol=1e-12, rtol=0)


@every_case
def test_padding_changes_nothing(arm, options):
    model, batch = made(arm, options), drawn()
    wider = dataclasses.replace(
        batch,
        items=F.pad(batch.items, (0, 3)),
        times=F.pad(batch.times, (0, 3)),
        actions=F.pad(batch.actions, (0, 0, 0, 3)),
        valid=F.pad(batch.items, (0, 3)).flatten().nonzero()[:, 0],
    )
    expected = model.predict_actions(batch)
    found = model.predict_actions(wider)[:, :LENGTH]
    torch.testing.assert_close(found[batch.items > 0], expected[batch.items > 0], atol=1e-10, rtol=0)
    torch.testing.assert_close(model.losses(wider)["bce"], model.losses(batch)["bce"])
    if Task.RETRIEVAL in model.tasks:
        torch.testing.assert_close(model.score_items(wider), model.score_items(batch))
    alone = Batch(batch.items[1:2, :1], batch.lengths[1:2], batch.users[1:2], times=batch.times[1:2, :1])
    alone.actions = batch.actions[1:2, :1]
    torch.testing.assert_close(model.predict_actions(alone)[0, 0], expected[1, 0], atol=1e-10, rtol=0)


@every_case
def test_candidates_are_scored_as_if_each_were_appended_alone(arm, options):
    model, batch = made(arm, options), drawn()
    candidates = torch.randint(1, ITEMS + 1, (4, 5))
    together = model.score_candidates(batch, candidates)
    assert together.shape == (4, 5, 3)
    for k in range(5):
        longer = appended(batch, candidates[:, k], seed=k)
        alone = model.predict_actions(longer)[torch.arange(4), batch.lengths]
        torch.testing.assert_close(together[:, k], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.score_candidates(batch, candidates[:, 2:3]), together[:, 2:3])


@every_case
def test_maps_are_causal_and_leave_the_model_as_it_was(arm, options):
    model, batch = made(arm, options), drawn()
    expected = model.predict_actions(batch)
    model.train()
    for task in model.tasks:
        maps = model.attention(batch, task)
        for weights in maps.maps:
            assert weights.shape == (4, 2, maps.query_event.shape[1], maps.key_event.shape[1])
            later = (maps.key_event[:, None] > maps.query_event[:, :, None]) & (maps.query_event >= 0)[:, :, None]
            assert weights.masked_select(later[:, None]).abs().max() == 0
            if "backbone" not in options and options.get("kernel") != "silu" and "pooling" not in options:
                sums = weights.sum(-1)
                separate_sum = arm == "attn-mvp" and options.get("mixing") == "concat"
                assert (sums < 1 + 1e-9).all() if separate_sum else torch.allclose(sums, torch.ones_like(sums))
    assert model.training
    torch.testing.assert_close(model.eval().predict_actions(batch), expected, atol=0, rtol=0)


@every_arm
def test_action_loss_is_the_mean_over_supervised_events_and_actions(arm):
    model, batch = made(arm), drawn()
    batch.valid = batch.valid[::2]
    probability = model.predict_actions(batch).sigmoid().flatten(0, 1)[batch.valid]
    labels = batch.actions.flatten(0, 1)[batch.valid]
    expected = -(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
    torch.testing.assert_close(model.losses(batch)["bce"], expected)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if Task.RETRIEVAL in ARMS[arm].tasks])
def test_next_item_loss_is_the_cross_entropy_of_its_scores(arm):
    model, batch = made(arm), drawn()
    batch.targets = torch.zeros_like(batch.items)
    batch.targets.view(-1)[batch.last()] = torch.tensor([5, 7, 1, ITEMS])
    batch.valid = batch.last()
    scores = model.score_items(batch)
    assert scores.shape == (4, ITEMS)
    expected = F.cross_entropy(scores, torch.tensor([4, 6, 0, ITEMS - 1]))
    torch.testing.assert_close(model.losses(batch)["cross_entropy"], expected)


@pytest.mark.parametrize("backbone", ["transformer", "hstu"])
@pytest.mark.parametrize("arm", ["item-action-sum", "interleaved", "attn-lfa", "attn-mvp"])
def test_the_next_item_sees_the_last_events_own_action_and_no_padding(arm, backbone):
    model, batch = made(arm, {"backbone": backbone}), drawn()
    batch.actions.requires_grad_()
    (grad,) = torch.autograd.grad(model.score_items(batch).square().sum(), batch.actions)
    for b, length in enumerate(batch.lengths.tolist()):
        assert grad[b, length - 1].abs().max() > 0
        assert grad[b, length:].abs().sum() == 0


@pytest.mark.parametrize("backbone", ["transformer", "hstu"])
@pytest.mark.parametrize(("given", "rate"), [({}, 0.3), ({"action_dropout": 0.6}, 0.6), ({"action_dropout": 0.0}, 0.0)])
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "item-only"])
def test_actions_are_dropped_with_one_rate_in_every_arm(arm, given, rate, backbone):
    """A dropped number of an embedded action moves no state; one dropped twice would be lost too often."""
    model, batch = made(arm, {"dropout": 0.3, "dim": 32, "backbone": backbone, **given}).train(), drawn()
    embedded = []
    model.action_encoder.encode.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    lost = []
    for seed in range(20):
        torch.manual_seed(seed)
        states = model.states(batch, own_action=False)
        (grad,) = torch.autograd.grad((states * torch.randn_like(states))[0, -1].sum(), embedded.pop())
        lost.append(grad[0, : LENGTH - 1] == 0)  # (L - 1, d): the actions that the last event's state may see
    lost = torch.stack(lost)
    found, count = lost.double().mean().item(), lost.numel()
    assert found == pytest.approx(rate, abs=4 * (rate * (1 - rate) / count) ** 0.5)


@every_arm
@pytest.mark.parametrize("backbone", ["transformer", "hstu"])
def test_bfloat16_autocast_trains(arm, backbone):
    model, batch = made(arm, {"backbone": backbone}).float().train(), drawn()
    batch.actions = batch.actions.float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.losses(batch)["bce"]
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_missing_actions_are_a_clear_error():
    schema = Schema(n_items=ITEMS, n_users=4, max_length=MAX_LENGTH)
    with pytest.raises(InputError, match=r"declare them under data\.actions"):
        AttnMVP(AttnMVP.Config(), schema)
    batch = dataclasses.replace(drawn(), actions=None)
    with pytest.raises(InputError, match=r"declare them under data\.actions"):
        made("attn-lfa").predict_actions(batch)


def test_missing_times_are_a_clear_error():
    batch = dataclasses.replace(drawn(), times=None)
    with pytest.raises(InputError, match="set time_bias: false"):
        made("interleaved", {"backbone": "hstu", "time_bias": True}).predict_actions(batch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 10, "heads": 4}, "even multiple of heads"),
        ({"time_bias": True}, "time_bias is an option .* set backbone: hstu"),
        ({"attention_scale": "none"}, "attention_scale is an option .* set backbone: hstu"),
        ({"bakbone": "hstu"}, "did you mean 'backbone'"),
    ],
)
def test_wrong_options_are_a_clear_error(values, message):
    with pytest.raises(InputError, match=message):
        parse(ItemOnly.Config, values, "variant 'x'")


@every_arm
def test_fidelity_names_options_that_exist(arm):
    for choice in ARMS[arm].fidelity.choices:
        assert choice.option in ARMS[arm].Config.model_fields


# -- the thesis: actions pooled by the similarity of items -----------------------------------------------------------

CATALOGUE, CLUSTERS, EVENTS = 24, 4, 16


def clusters(users: int, seed: int) -> tuple[Batch, torch.Tensor]:
    """Actions that are the user's sign for the item's latent cluster, and which events have a past one of theirs."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(0, CATALOGUE, (users, EVENTS), generator=generator)
    cluster = items % CLUSTERS
    sign = torch.randint(0, 2, (users, CLUSTERS), generator=generator)
    known = (cluster[:, :, None] == cluster[:, None]).tril(-1).any(-1)
    actions = sign.gather(1, cluster)[..., None].float()
    lengths, everywhere = torch.full((users,), EVENTS), torch.arange(items.numel())
    return Batch(items + 1, lengths, torch.arange(users), valid=everywhere, actions=actions), known


def learned(arm: str, steps: int, layers: int) -> float:
    """Share of right signs, over events whose cluster has been seen, of unseen users."""
    torch.manual_seed(0)
    config = ARMS[arm].Config(dim=32, layers=layers, heads=2, dropout=0.0)
    model = ARMS[arm](config, Schema(CATALOGUE, n_users=1, max_length=EVENTS, actions=("positive",)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(steps):
        optimizer.zero_grad()
        model.losses(clusters(64, seed=step)[0])["bce"].backward()
        optimizer.step()
    batch, known = clusters(256, seed=10**6)
    with torch.inference_mode():
        right = (model.eval().predict_actions(batch) > 0) == (batch.actions > 0)
    return right[..., 0][known].double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "layers", "steps"),
    [("attn-lfa", 1, 150), ("attn-mvp", 1, 150), ("attn-lfa", 2, 400), ("interleaved", 2, 450)],
)
def test_similarity_weighted_action_pooling_solves_the_clusters(arm, layers, steps):
    assert learned(arm, steps, layers) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "floor", "ceiling"), [("item-only", 0.45, 0.55), ("interleaved", 0.55, 0.8)])
def test_one_layer_that_cannot_bind_an_action_to_its_item_does_not(arm, floor, ceiling):
    assert floor < learned(arm, 450, layers=1) < ceiling
