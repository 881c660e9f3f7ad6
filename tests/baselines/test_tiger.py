"""TIGER against Hugging Face's T5 with the same weights, against loops, and against its own exact scores."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from benchmarks.hugging_face import generate, inputs, labels, prefix_function, same_t5
from harness.baselines.tiger import SIZES, TIGER, TIGERConfig
from harness.errors import InputError
from harness.interface import Batch, Schema
from harness.registry import load_model
from harness.settings import parse

SMALL = {"dim": 16, "heads": 2, "head_dim": 8, "feed_forward": 32, "encoder_layers": 2, "decoder_layers": 2}
VARIANTS = {
    "plain": {},
    "user and separator": {"user_buckets": 3, "separator": True},
    "projected": {"embedding_dim": 8, "user_buckets": 5},
    "level": {"softmax": "level"},
    "causal": {"encoder": "causal", "user_buckets": 3, "separator": True},
}


def make_schema(n_items=30, sizes=(4, 5, 6), max_length=12, seed=0):
    every = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:n_items]
    codes = torch.cat([torch.zeros(1, len(sizes), dtype=torch.int64), every[order]])
    return Schema(n_items=n_items, n_users=9, max_length=max_length, codes=codes, code_sizes=sizes)


def make_model(schema=None, seed=0, **options):
    torch.manual_seed(seed)
    model = TIGER(TIGERConfig(**{**SMALL, "max_items": 6, "beams": 30, **options}), schema or make_schema())
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.RMSNorm)):
            norm.weight.uniform_(0.5, 1.5)
    return model.eval()


def make_batch(lengths, n_items=30, width=None, seed=1, supervised=True):
    """Histories of the given lengths, right-padded to ``width``, and the next item of each."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    items = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randint(1, n_items + 1, (length,), generator=generator)
    batch = Batch(items, torch.tensor(lengths), torch.arange(len(lengths)))
    if supervised:
        batch.valid = batch.last()
        batch.targets = torch.zeros_like(items)
        batch.targets.view(-1)[batch.valid] = torch.randint(1, n_items + 1, (len(lengths),), generator=generator)
    return batch


def logits(model, batch):
    """(B, m, V) of the codes of each row's target, as the loss sees them."""
    table = model.table()
    memory, mask = model.encode(batch, table)
    given = F.pad(labels(model, batch)[:, :-1], (1, 0))
    hidden = model.decoder(F.embedding(given, table), model.decoder.bias(model.levels) + model.future, memory, mask)
    return model.logits(hidden, table)


# The Transformer


@pytest.mark.parametrize("options", [VARIANTS["plain"], VARIANTS["user and separator"], VARIANTS["projected"]])
def test_the_forward_pass_equals_hugging_face(options):
    model = make_model(make_schema(n_items=100, sizes=(6, 7, 8, 3)), max_items=12, **options)
    batch = make_batch([1, 5, 12, 9], n_items=100)
    peer = same_t5(model)
    expected = peer(**inputs(model, batch), labels=labels(model, batch))
    torch.testing.assert_close(logits(model, batch), expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.losses(batch)["codes"], expected.loss, atol=1e-5, rtol=1e-5)


def test_positions_far_apart_fall_into_the_buckets_of_hugging_face():
    schema = make_schema(max_length=60)
    model = make_model(schema, max_items=60)
    batch = make_batch([60, 41])
    expected = same_t5(model)(**inputs(model, batch), labels=labels(model, batch)).logits
    torch.testing.assert_close(logits(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_gradients_equal_those_of_hugging_face():
    model = make_model(dropout=0.0, user_buckets=3).train()
    batch = make_batch([2, 6, 4])
    peer = same_t5(model)
    model.losses(batch)["codes"].backward()
    peer(**inputs(model, batch), labels=labels(model, batch)).loss.backward()
    torch.testing.assert_close(model.embedding.weight.grad, peer.shared.weight.grad, atol=1e-5, rtol=1e-4)
    bias = peer.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad
    torch.testing.assert_close(model.encoder.position.weight.grad, bias, atol=1e-5, rtol=1e-4)


def test_explicit_maps_and_the_fused_kernel_agree():
    """With dropout on a CPU training takes another path; a probability too small to drop anything shows it is equal."""
    model = make_model(dropout=1e-7)
    batch = make_batch([2, 6, 4])
    expected = model.losses(batch)["codes"]
    torch.testing.assert_close(model.train().losses(batch)["codes"], expected, atol=1e-5, rtol=1e-5)


def test_the_two_sizes_have_the_parameters_of_the_publication():
    schema = make_schema(n_items=300, sizes=(256, 256, 1), max_length=20)
    schema = dataclasses.replace(schema, codes=F.pad(schema.codes, (0, 1)), code_sizes=(256, 256, 256, 256))
    counts = {}
    for name, options in SIZES.items():
        model = TIGER(TIGERConfig(**options, user_buckets=2000), schema)
        counts[name] = sum(p.numel() for p in model.parameters()) / 1e6
    assert counts["published"] == pytest.approx(4.84, abs=0.01)
    assert counts["wide"] == pytest.approx(13.8, abs=0.05)


# Input


def test_the_input_is_the_codes_of_the_last_items():
    schema = make_schema()
    model = make_model(schema, max_items=3, separator=True, user_buckets=4)
    batch = make_batch([5, 2], supervised=False)
    tokens, mask = model.encoder_input(batch)
    for row, (length, user) in enumerate([(3, 0), (2, 1)]):
        events = batch.items[row, : batch.lengths[row]][-3:].tolist()
        expected = [1 + 4 + 5 + 6 + 1 + user]
        for item in events:
            first, second, third = schema.codes[item].tolist()
            expected += [1 + first, 5 + second, 10 + third, 16]
        assert tokens[row, : len(expected)].tolist() == expected
        assert (mask[row, 0, 0] == 0).sum() == len(expected) == 1 + 4 * length


def test_users_share_a_bucket_modulo_their_number():
    model = make_model(user_buckets=3)
    batch = make_batch([4, 4, 4])
    batch.items[:] = batch.items[0]
    batch.users = torch.tensor([1, 4, 2])
    scores = model.score_items(batch)
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2], atol=1e-3)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_row_depends_on_nothing_but_its_own_history(options):
    """Not on padding, not on the other rows, not on what stands in the padding, not on events before the window."""
    model = make_model(make_schema(max_length=12), **{**options, **({"max_items": 2} if "encoder" in options else {})})
    batch = make_batch([3, 6, 9], width=12)
    together = model.score_items(batch)
    for row, length in enumerate([3, 6, 9]):
        alone = Batch(batch.items[row : row + 1, :length], batch.lengths[row : row + 1], batch.users[row : row + 1])
        torch.testing.assert_close(model.score_items(alone)[0], together[row], atol=1e-5, rtol=1e-5)
    other = batch.items.clone()
    other[0, 3:] = 7  # what stands in the padding
    other[2, :3] = 7  # before the last six items
    torch.testing.assert_close(model.score_items(dataclasses.replace(batch, items=other)), together)
    ranked = model.rank_items(batch, 5)
    for row, length in enumerate([3, 6, 9]):
        alone = Batch(batch.items[row : row + 1, :length], batch.lengths[row : row + 1], batch.users[row : row + 1])
        assert torch.equal(model.rank_items(alone, 5).items[0], ranked.items[row])


def test_scores_depend_on_every_item_of_the_history():
    model = make_model()
    batch = make_batch([6])
    base = model.losses(batch)["codes"]
    for position in range(6):
        items = batch.items.clone()
        items[0, position] = items[0, position] % 30 + 1
        changed = model.losses(dataclasses.replace(batch, items=items))["codes"]
        assert (changed - base).abs() > 1e-6


# Loss


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_loss_is_the_mean_over_codes_and_rows(options):
    schema = make_schema()
    model = make_model(schema, **options)
    batch = make_batch([2, 6, 4])
    values = logits(model, batch)
    terms = []
    for row, item in enumerate(batch.targets.flatten()[batch.valid].tolist()):
        first = 1
        for level, size in enumerate(schema.code_sizes):
            own = first + int(schema.codes[item, level])
            choice = values[row, level] if model.config.softmax == "vocabulary" else values[row, level, first:][:size]
            terms.append(choice.logsumexp(0) - values[row, level, own])
            first += size
    torch.testing.assert_close(model.losses(batch)["codes"], torch.stack(terms).mean())


def test_the_loss_reaches_every_weight():
    model = make_model(user_buckets=9, separator=True, embedding_dim=8).train()
    model.losses(make_batch([2, 6, 4]))["codes"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_the_loss_is_the_score_of_the_target():
    """Teacher forcing all codes at once and decoding them level by level are the same model."""
    for options in VARIANTS.values():
        model = make_model(**options)
        batch = make_batch([3, 5, 1, 6])
        target = batch.targets.flatten()[batch.valid]
        own = model.score_items(batch).gather(1, target[:, None] - 1)
        torch.testing.assert_close(-own.mean() / 3, model.losses(batch)["codes"], atol=1e-5, rtol=1e-5)


# A causal encoder: all positions in one pass

CAUSAL = {
    "plain": {},
    "short reach": {"max_items": 2},
    "user and separator": {"user_buckets": 3, "separator": True},
    "level, projected": {"softmax": "level", "embedding_dim": 8},
}


def all_positions(lengths, width, first=0, seed=1):
    """Sequences with a target at every position from ``first`` on."""
    batch = make_batch(lengths, width=width, seed=seed, supervised=False)
    inside = torch.arange(width) < batch.lengths[:, None]
    batch.targets = torch.where(inside, torch.randint(1, 31, inside.shape), 0)
    batch.valid = (inside & (torch.arange(width) >= first)).flatten().nonzero().flatten()
    return batch


def single_prefix(batch, flat):
    row, position = divmod(flat, batch.items.shape[1])
    items = batch.items[row : row + 1, : position + 1]
    targets = F.pad(batch.targets.flatten()[flat].view(1, 1), (position, 0))
    return Batch(items, torch.tensor([position + 1]), batch.users[row : row + 1], targets, torch.tensor([position]))


@pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL)
@pytest.mark.parametrize("first", [0, 2])
def test_one_pass_over_all_positions_is_the_mean_over_single_prefixes(options, first):
    model = make_model(encoder="causal", dropout=0.0, **options).train()
    batch = all_positions([12, 4, 7], 12, first)
    alone = [model.losses(single_prefix(batch, flat))["codes"] for flat in batch.valid.tolist()]
    together = model.losses(batch)["codes"]
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)
    parameters = list(model.parameters())
    one, many = (torch.autograd.grad(loss, parameters) for loss in (together, torch.stack(alone).mean()))
    for own, other in zip(one, many, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL)
def test_the_loss_of_a_position_depends_on_no_later_event(options):
    """By the gradient at the encoder's input, and within reach the position does depend on the events up to it."""
    model = make_model(encoder="causal", **options)
    batch = all_positions([8], 8)
    per_event, user = model.tokens_per_event, "user_buckets" in options
    seen = []

    def record(_, args):
        seen.append(args[0].detach().requires_grad_())
        return seen[-1], *args[1:]

    model.encoder.register_forward_pre_hook(record)
    for position in range(8):
        model.losses(dataclasses.replace(batch, valid=torch.tensor([position])))["codes"].backward()
        sizes = seen[-1].grad.abs().sum(dim=2)[0, user:].view(8, per_event).sum(dim=1)  # per event
        assert (sizes[: position + 1] > 0).tolist() == [
            position - event <= (model.max_items - 1) * (1 + len(model.encoder.layers)) for event in range(position + 1)
        ]
        assert (sizes[position + 1 :] == 0).all()


def test_a_causal_model_trains_on_positions_and_a_bidirectional_one_on_prefixes():
    assert TIGER.needs_with(TIGERConfig()) == TIGER.needs
    causal = TIGER.needs_with(TIGERConfig(encoder="causal"))
    assert causal == dataclasses.replace(TIGER.needs, rows="positions")


def test_both_encoders_are_the_same_model_where_the_history_is_one_event():
    """With one event there is nothing to hide: the causal model is Hugging Face's T5 too."""
    model = make_model(encoder="causal", user_buckets=0)
    batch = make_batch([1, 1, 1])
    expected = same_t5(model)(**inputs(model, batch), labels=labels(model, batch)).loss
    torch.testing.assert_close(model.losses(batch)["codes"], expected, atol=1e-5, rtol=1e-5)


def test_training_learns_the_next_item():
    model = make_model(dropout=0.1).train()
    batch = make_batch([3, 5, 4, 6, 2, 6])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.losses(batch)["codes"].backward()
        optimizer.step()
    target = batch.targets.flatten()[batch.valid]
    assert (model.eval().rank_items(batch, 1).items[:, 0] == target).float().mean() > 0.8


# Decoding


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("beams", [30, 31, 33, 100])
def test_every_covering_beam_equals_the_scores_of_the_catalogue(options, beams):
    model = make_model(beams=beams, **options)
    batch = make_batch([3, 6, 1])
    scores, order = model.score_items(batch).sort(dim=-1, descending=True, stable=True)
    found = model.rank_items(batch, 30)
    assert found.complete
    assert torch.equal(found.items, order + 1)
    torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beams", [2, 4, 6])
def test_beams_agree_with_hugging_face_generate(beams):
    model = make_model(make_schema(n_items=120, sizes=(6, 5, 4, 3)), user_buckets=3)
    batch = make_batch([3, 6, 1, 6, 2], n_items=120)
    codes, scores = generate(same_t5(model), inputs(model, batch), 4, beams, prefix_function(model))
    found = model.generate(batch, beams)
    assert torch.equal(model.tokens[found.items], codes)
    torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=1e-5)


def test_a_beam_shows_what_it_found_and_no_more():
    model = make_model(beams=4)
    batch = make_batch([3, 6])
    short = model.rank_items(batch, 2)
    found = model.rank_items(batch, 10)
    assert not found.complete
    assert found.items.shape == found.scores.shape == (2, 10)
    assert (found.items[:, :4] > 0).all()
    assert (found.items[:, 4:] == 0).all()
    assert (found.scores[:, 4:] == -torch.inf).all()
    assert torch.equal(found.items[:, :2], short.items)
    exact = model.score_items(batch)
    torch.testing.assert_close(found.scores[:, :4], exact.gather(1, found.items[:, :4] - 1), atol=1e-5, rtol=1e-5)


def test_exact_decoding_ranks_the_whole_catalogue():
    beam, exact = make_model(beams=30), make_model(decoding="exact")
    batch = make_batch([3, 6])
    assert exact.exact
    assert not beam.exact
    assert torch.equal(exact.rank_items(batch, 7).items, beam.rank_items(batch, 7).items)


def test_an_unconstrained_beam_follows_any_codes():
    model = make_model(beams=4 * 5 * 6)
    batch = make_batch([3, 6])
    free = model.generate(batch, 4 * 5 * 6, constrained=False)
    items = model.trie.find(free.codes)
    assert sorted(items[0][items[0] > 0].tolist()) == list(range(1, 31))  # every combination was visited once
    ranked = model.rank_items(batch, 30)
    assert torch.equal(items[items > 0].view(2, 30), ranked.items)


def test_scores_do_not_depend_on_how_many_users_are_decoded_at_once(monkeypatch):
    model = make_model(user_buckets=9)
    batch = make_batch([3, 6, 1, 6, 2])
    ranked, scores = model.rank_items(batch, 30), model.score_items(batch)
    monkeypatch.setattr(TIGER, "_beams_at_once", lambda self: 65)
    again = model.rank_items(batch, 30)
    assert torch.equal(again.items, ranked.items)
    torch.testing.assert_close(again.scores, ranked.scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.score_items(batch), scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(40,), (6, 6)])
def test_items_of_few_codes(sizes):
    model = make_model(make_schema(sizes=sizes))
    batch = make_batch([3, 6])
    order = model.score_items(batch).argsort(dim=-1, descending=True, stable=True)
    assert torch.equal(model.rank_items(batch, 30).items, order + 1)


def test_a_catalogue_of_one_item():
    model = make_model(make_schema(n_items=1))
    found = model.rank_items(make_batch([3, 6], n_items=1), 10)
    assert found.items.tolist() == [[1], [1]]
    assert found.complete


# The interface


def test_tiger_is_registered_and_its_choices_are_options():
    assert load_model("tiger") is TIGER
    assert {choice.option for choice in TIGER.fidelity.choices} <= set(TIGERConfig.model_fields)


def test_weights_alone_are_saved():
    model, other = make_model(seed=1), make_model(seed=2)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    other.load_state_dict(model.state_dict())
    batch = make_batch([3, 6])
    torch.testing.assert_close(other.score_items(batch), model.score_items(batch))


def test_an_unknown_option_and_duplicate_codes_are_refused():
    with pytest.raises(InputError, match="did you mean 'dropout'"):
        parse(TIGERConfig, {"droput": 0.1}, "tiger")
    schema = make_schema()
    codes = schema.codes.clone()
    codes[5] = codes[9]
    with pytest.raises(InputError, match="items 5 and 9 have the same codes"):
        make_model(dataclasses.replace(schema, codes=codes))
