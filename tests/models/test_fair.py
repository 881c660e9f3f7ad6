from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.errors import InputError
from harness.interface import Batch, Schema, Task
from harness.models.blocks import code_heads
from harness.models.blocks.attention import SelfAttention
from harness.models.blocks.auxiliary_losses import map_noise_loss, noise_loss
from harness.models.fair import FAIR, FAIRConfig
from harness.probes.decoding import CodeDecoder, audit
from harness.settings import parse

N, LENGTH, LEVELS, SIZES = 20, 8, 3, (5, 5, 5)
SMALL = {
    "dim": 8, "heads": 2, "inner": 12,
    "embedding_dropout": 0.0, "attention_dropout": 0.0, "temperature": 0.2,
}  # fmt: skip
OFF = {"noise_weight": 0, "mi_weight": 0}
ATTENTIONS = [
    {"attention": "softmax"},
    {},
    {"matched": True, "focus_lambda": "fixed"},
    {"normalisation": "signed-l1", "focus_lambda": "two-scalars"},
    {"normalisation": "none", "focus_lambda": "fixed", "lambda_value": 0.3},
]
GRANULARITIES = ["item", "code"]


def make_schema(sizes: tuple[int, ...] = SIZES) -> Schema:
    generator = torch.Generator().manual_seed(1)
    columns = [torch.randint(0, size, (N + 1,), generator=generator) for size in sizes]
    codes = torch.stack(columns, dim=1)
    codes[0] = 0
    return Schema(n_items=N, n_users=9, max_length=LENGTH, codes=codes, code_sizes=sizes)


def make_batch(lengths: list[int], padded_to: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(0)
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


def build(schema: Schema | None = None, **options) -> FAIR:
    torch.manual_seed(0)
    model = FAIR(parse(FAIRConfig, SMALL | options, "test"), schema or make_schema())
    for parameter in model.parameters():  # larger than at the start, so that nothing is hidden by being small
        nn.init.normal_(parameter, std=0.4)
    return model


# Decoding


@pytest.mark.parametrize("sizes", [(5, 5, 5), (2, 6, 3)])
def test_free_codes_are_the_best_of_all_combinations(sizes):
    model, batch = build(make_schema(sizes)).eval(), make_batch([3, 8, 1])
    codes, scores = model.generate(batch, 12, constrained=False)
    log_probs = model.code_log_probs(batch)  # (m, B, K)
    every = torch.cartesian_prod(*(torch.arange(size) for size in sizes))  # (C, m)
    total = sum(log_probs[level][:, every[:, level]] for level in range(len(sizes))) / len(sizes)  # (B, C)
    best = total.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(scores, best.values[:, :12])
    assert torch.equal(codes, every[best.indices[:, :12]])
    assert model.generate(batch, 1000, constrained=False)[0].shape[1] == math.prod(sizes)


@pytest.mark.parametrize("sizes", [(5, 5, 5), (2, 2, 2)])  # the second makes many items share their codes
def test_constrained_codes_are_those_of_the_best_items(sizes):
    schema = make_schema(sizes)
    model, batch = build(schema).eval(), make_batch([3, 8, 1])
    codes, scores = model.generate(batch, 6)
    for row, item_scores in enumerate(model.score_items(batch)):
        listed = {}
        for item in item_scores.sort(descending=True, stable=True).indices.tolist():
            listed.setdefault(tuple(schema.codes[item + 1].tolist()), item_scores[item])
        expected = list(listed.items())[:6]
        assert [tuple(row) for row in codes[row].tolist()] == [code for code, _ in expected]
        torch.testing.assert_close(scores[row], torch.stack([score for _, score in expected]))


def test_decoding_is_audited():
    schema = make_schema((2, 3, 2))
    model, batch = build(schema), make_batch([3, 8, 1, 5])
    assert isinstance(model, CodeDecoder)
    found = audit(model, [(batch, torch.tensor([1, 2, 3, 4]))], beams=12, cutoffs=(5, 10))
    distinct = len({tuple(row) for row in schema.codes[1:].tolist()})
    assert found["free"]["invalid"] == pytest.approx(1 - distinct / 12)  # a beam over all combinations
    assert found["exact"]["same@10"] == 1
    assert found["exact"]["score_difference"] < 1e-6


# Focused attention


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("form", ["representation", "attention-kl"])
def test_with_lambda_0_the_second_pair_gets_no_gradient(form, dropout):
    options = {"focus_lambda": "fixed", "lambda_value": 0.0, "attention_dropout": dropout}
    model = build(noise_form=form, noise_weight=1.0, **options)
    sum(model.losses(make_batch([8, 5])).values()).backward()
    for layer in model.transformer.layers:
        for part in (layer.attention.qk.weight, layer.attention.qk.bias):
            q1, q2, k1, k2 = (rows.abs().max() for rows in part.grad.chunk(4))
            assert q2 == k2 == 0
            assert q1 > 0
            assert k1 > 0 or part.dim() == 1  # a bias of the keys cancels in any softmax


def parameters_of(**options) -> int:
    model = build(**OFF, **options)
    return sum(p.numel() for p in model.transformer.parameters())


def test_the_matched_control_has_the_parameters_of_the_plain_one():
    plain = parameters_of(attention="softmax")
    layers, heads, width = 2, 2, 4
    no_gain = {"norm_gain": False}
    assert parameters_of(matched=True, focus_lambda="fixed", **no_gain) == plain
    assert parameters_of(matched=True, focus_lambda="fixed") == plain + layers * width
    assert parameters_of(matched=True, **no_gain) == plain + layers * 4 * width // 2  # lambda's vectors
    assert parameters_of(matched=True, lambda_per="head", **no_gain) == plain + layers * 4 * heads * width // 2
    assert parameters_of(matched=True, focus_lambda="two-scalars", **no_gain) == plain + layers * 2
    assert parameters_of(focus_lambda="fixed", **no_gain) == plain + layers * 2 * (8 * 8 + 8)  # a second Q and K
    assert parameters_of(attention="softmax", attention_bias=False) == plain - layers * 4 * 8


def test_softmax_is_the_plain_attention_block():
    assert all(isinstance(layer.attention, SelfAttention) for layer in build(attention="softmax").transformer.layers)


# What the scores depend on


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", ATTENTIONS)
def test_no_state_depends_on_a_later_token(options, granularity):
    model = build(granularity=granularity, **options).eval()
    x = torch.randn(1, 6, 8, requires_grad=True)
    for capture in (False, True):
        states, _ = model.transformer(x, capture)
        for t in range(6):
            gradient = torch.autograd.grad(states[0, t].square().sum(), x, retain_graph=True)[0][0].abs().sum(dim=1)
            assert torch.all(gradient[: t + 1] > 0)
            assert torch.all(gradient[t + 1 :] == 0)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", ATTENTIONS)
def test_changing_later_items_changes_no_earlier_state(options, granularity):
    model = build(granularity=granularity, **options).eval()
    items = make_batch([8]).items
    changed = items.clone()
    changed[0, 5:] = changed[0, 5:] % N + 1
    before, after = (model.encode(model.tokens[rows])[0] for rows in (items, changed))
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=2).min() > 0


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", ATTENTIONS)
def test_a_user_scores_the_same_alone_in_a_batch_and_padded_more(options, granularity):
    model = build(granularity=granularity, **options).eval()
    lengths = [3, 7, 1, 5]
    batch = make_batch(lengths)
    together = model.score_items(batch)
    assert together.shape == (4, N)
    torch.testing.assert_close(model.score_items(make_batch(lengths, padded_to=LENGTH)), together, atol=1e-5, rtol=0)
    for row, length in enumerate(lengths):
        alone = Batch(batch.items[row : row + 1, :length], torch.tensor([length]), torch.tensor([row]))
        torch.testing.assert_close(model.score_items(alone)[0], together[row], atol=1e-5, rtol=0)


# Multi-token prediction and scoring


def code_log_prob(model: FAIR, state: torch.Tensor, level: int, code: int) -> float:
    """log p_level(code) of one state (d,), by hand."""
    state = state.detach()
    weight = model.heads.weight.detach().view(-1, 8, 8)[level]
    bias = model.heads.bias.detach().view(-1, 8)[level]
    inner = weight @ state + bias
    head = state + inner * torch.sigmoid(inner)
    first = sum(model.schema.code_sizes[:level])
    exponents = []
    for j in range(model.schema.code_sizes[level]):
        row = model.table.weight[first + j].detach()
        exponents.append(math.exp(head.dot(row) / head.norm() / row.norm() / model.config.temperature))
    return math.log(exponents[code] / sum(exponents))


@pytest.mark.parametrize("sizes", [SIZES, (6, 3, 4, 1)])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_scores_equal_brute_force_over_items(granularity, sizes):
    model = build(make_schema(sizes), granularity=granularity).eval()
    batch = make_batch([3, 6])
    states = model.encode(model.tokens[batch.items])[0]
    scores = model.score_items(batch)
    for row, length in enumerate([3, 6]):
        for item in range(1, N + 1):
            codes = model.schema.codes[item].tolist()
            expected = [code_log_prob(model, states[row, length - 1], k, code) for k, code in enumerate(codes)]
            assert scores[row, item - 1].item() == pytest.approx(sum(expected) / len(sizes), abs=1e-4)


def test_code_probabilities_sum_to_one_on_every_level():
    model = build(make_schema((6, 3, 4)))
    probabilities = model.code_logits(torch.randn(5, 8), model.code_table()).softmax(dim=-1)
    assert probabilities.shape == (3, 5, 6)
    for level, size in enumerate((6, 3, 4)):
        torch.testing.assert_close(probabilities[level, :, :size].sum(dim=-1), torch.ones(5))
        assert probabilities[level, :, size:].sum() == 0


@pytest.mark.parametrize("sizes", [SIZES, (6, 3, 4)])
@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_multi_token_loss_equals_a_loop(monkeypatch, rows, sizes):
    monkeypatch.setattr(code_heads, "_rows_per_piece", lambda *_: rows)
    model = build(make_schema(sizes), **OFF)
    batch = make_batch([3, 4])
    batch.valid = torch.tensor([1, 2, 4, 7])  # not all of them
    states = model.encode(model.tokens[batch.items])[0]
    terms = []
    for flat in batch.valid.tolist():
        row, t = divmod(flat, 4)
        codes = model.schema.codes[batch.targets[row, t]].tolist()
        terms += [-code_log_prob(model, states[row, t], k, code) for k, code in enumerate(codes)]
    losses = model.losses(batch)
    assert list(losses) == ["mtp"]
    assert losses["mtp"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_heads_start_as_the_identity_and_the_code_table_is_tied():
    torch.manual_seed(0)
    model = FAIR(FAIRConfig(**SMALL, head_bias_init="zero"), make_schema())
    hidden = torch.randn(4, 8)
    expected = F.normalize(hidden, dim=-1) @ F.normalize(model.table.weight[:5], dim=-1).T / 0.2
    torch.testing.assert_close(model.code_logits(hidden, model.code_table())[0], expected, atol=1e-5, rtol=1e-5)
    tables = [name for name, p in model.named_parameters() if p.shape[0] == sum(SIZES) + 1]
    assert tables == ["table.weight"]


def test_an_untied_table_alone_makes_the_logits():
    torch.manual_seed(0)
    model = FAIR(FAIRConfig(**SMALL, **OFF, tied=False), make_schema())
    batch = make_batch([3, 4])
    hidden = torch.randn(4, 8)
    expected = F.normalize(model.output_table.weight[:5], dim=-1).T / 0.2
    torch.testing.assert_close(model.code_table()[0], expected)
    sum(model.losses(batch).values()).backward()
    before = model.code_logits(hidden, model.code_table())
    assert model.table.weight.grad.abs().sum() > 0
    assert model.output_table.weight.grad.abs().sum() > 0
    with torch.no_grad():
        model.table.weight.normal_()
    torch.testing.assert_close(model.code_logits(hidden, model.code_table()), before)


def test_ranking_agrees_with_scores_and_breaks_ties_by_item():
    schema = make_schema()
    schema.codes[7] = schema.codes[3]
    model = build(schema).eval()
    batch = make_batch([3, 7])
    scores, ranking = model.score_items(batch), model.rank_items(batch, N)
    assert ranking.complete
    for row in range(2):
        order = sorted(range(N), key=lambda i: (-scores[row, i].item(), i))
        assert ranking.items[row].tolist() == [i + 1 for i in order]
        assert ranking.items[row].tolist().index(3) + 1 == ranking.items[row].tolist().index(7)


# Granularity


def test_an_item_token_is_the_mean_of_its_codes_and_a_code_token_is_its_code():
    batch = make_batch([3])
    model = build(input_scale="one")
    rows = model.tokens[batch.items]
    table, offsets = model.table.weight, [0, 5, 10]
    codes = model.schema.codes[batch.items[0]]
    for t, x in enumerate(model.embed(rows)[0]):
        mean = sum(table[offsets[k] + codes[t, k]] for k in range(LEVELS)) / LEVELS
        torch.testing.assert_close(x, mean + model.positions.weight[t])
    flat = build(granularity="code", input_scale="one")
    assert flat.embed(rows).shape == (1, 9, 8)
    for t, k in itertools.product(range(3), range(LEVELS)):
        expected = flat.table.weight[offsets[k] + codes[t, k]] + flat.positions.weight[t * LEVELS + k]
        torch.testing.assert_close(flat.embed(rows)[0, t * LEVELS + k], expected)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_input_scale_stretches_the_codes_and_not_the_positions(granularity):
    scaled, plain = (build(granularity=granularity, input_scale=scale) for scale in ("sqrt-dim", "one"))
    rows = plain.tokens[make_batch([4, 3]).items]
    positions = plain.positions.weight[: plain.embed(rows).shape[1]]
    expected = (plain.embed(rows) - positions) * math.sqrt(8) + positions
    torch.testing.assert_close(scaled.embed(rows), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_user_states_are_those_after_the_last_event(granularity):
    model = build(granularity=granularity).eval()
    lengths = [3, 7, 1]
    batch = make_batch(lengths, padded_to=LENGTH)
    states = model.encode(model.tokens[batch.items])[0]
    found = model.user_states(batch)
    assert torch.equal(found, torch.stack([states[row, length - 1] for row, length in enumerate(lengths)]))


def test_shapes_of_both_granularities():
    batch = make_batch([4, 2])
    for granularity, tokens in (("item", 4), ("code", 12)):
        model = build(granularity=granularity)
        states, maps = model.encode(model.tokens[batch.items], capture=True)
        assert states.shape == (2, 4, 8)
        assert [tuple(layer.shape) for layer in maps] == [(2, 2, tokens, tokens)] * 2


def test_code_granularity_reads_the_last_code_of_each_item():
    """The state after an event sees all codes of that event, and none of the next."""
    model = build(granularity="code").eval()
    rows = model.tokens[make_batch([4]).items]
    states = model.encode(rows)[0]
    for level in range(LEVELS):
        changed = rows.clone()
        changed[0, 2, level] = level * 5 + (rows[0, 2, level] - level * 5 + 1) % 5
        moved = (model.encode(changed)[0] - states).abs().amax(dim=2)[0] > 0
        assert moved.tolist() == [False, False, True, True]


# Noise


@pytest.mark.parametrize("unit", ["item", "code"])
def test_corruption_keeps_its_rates_units_and_levels(unit):
    schema = make_schema((6, 3, 4))
    model = build(schema, noise_unit=unit, noise_mask=0.2, noise_replace=0.3)
    torch.manual_seed(0)
    tokens = model.tokens[torch.randint(1, N + 1, (400, 50))]
    corrupted = model.corrupt(tokens)
    mask = corrupted == model.mask_token
    assert mask.float().mean().item() == pytest.approx(0.2, abs=0.01)
    first = torch.tensor([0, 6, 9])
    codes = corrupted - first
    sizes = torch.tensor([6, 3, 4])
    assert (((codes >= 0) & (codes < sizes)) | mask).all()
    if unit == "item":
        assert (mask.any(dim=2) == mask.all(dim=2)).all()
        known = {tuple(row) for row in model.tokens[1:].tolist()}
        assert {tuple(row) for row in corrupted[~mask.any(dim=2)].tolist()} <= known
    else:
        assert not (mask.any(dim=2) == mask.all(dim=2)).all()
        changed = (corrupted != tokens) & ~mask
        shares = changed.flatten(0, 1).float().mean(dim=0)  # a random code may be the old one
        torch.testing.assert_close(shares, 0.3 * (1 - 1 / sizes), atol=0.01, rtol=0)
        counts = torch.bincount(codes[..., 0][changed[..., 0]], minlength=6)
        assert counts.min() > 0


def test_corruption_can_be_all_or_nothing():
    tokens = build().tokens[make_batch([5]).items]
    assert torch.equal(build(noise_mask=0, noise_replace=0).corrupt(tokens), tokens)
    masked = build(noise_mask=1, noise_replace=0)
    assert (masked.corrupt(tokens) == masked.mask_token).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", [*ATTENTIONS, {"matched": True}, {"normalisation": "signed-l1"}])
def test_attention_noise_loss_reaches_queries_and_keys_of_both_maps(options, granularity):
    model = build(granularity=granularity, noise_form="attention-kl", noise_weight=1.0, **options)
    model.losses(make_batch([8, 8]))["noise"].backward()
    for layer in model.transformer.layers:
        if options.get("attention") == "softmax":
            parts = layer.attention.qkv.weight.grad.chunk(3)[:2]
        else:
            parts = layer.attention.qk.weight.grad.chunk(4)
        assert min(part.abs().max().item() for part in parts) > 1e-6
    assert model.table.weight.grad.abs().max() > 0
    assert model.heads.weight.grad is None


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("form", ["representation", "triplet", "attention-mse", "attention-kl"])
@pytest.mark.parametrize("options", [{}, {"attention": "softmax"}, {"normalisation": "signed-l1", "matched": True}])
def test_one_pass_over_clean_and_noisy_sequences_equals_two(options, form, granularity):
    """In value and gradient; the clean maps are fixed."""
    model = build(granularity=granularity, noise_form=form, noise_weight=0.7, mi_weight=0, **options)
    batch = make_batch([8, 5, 3])
    torch.manual_seed(5)
    together = model.losses(batch)
    torch.manual_seed(5)
    noisy_tokens = model.corrupt(model.tokens[batch.items])
    clean, clean_maps = model.encode(model.tokens[batch.items], capture=True)
    noisy, noisy_maps = model.encode(noisy_tokens, capture=True)
    hidden, moved = (states.flatten(0, 1)[batch.valid] for states in (clean, noisy))
    if form.startswith("attention"):
        step, width = model.tokens_per_event, batch.items.shape[1]
        rows, events = batch.valid // width, batch.valid % width
        pairs = [[m[rows, :, (events + 1) * step - 1] for m in maps] for maps in (clean_maps, noisy_maps)]
        noise = sum(map_noise_loss(a.detach(), b, form) for a, b in zip(*pairs, strict=True)) / 2
    else:
        noise = noise_loss(hidden, moved, form, model.config.noise_margin)
    apart = {"mtp": model.code_loss(hidden, model.codes[batch.targets.flatten()[batch.valid]]), "noise": 0.7 * noise}
    for name, term in apart.items():
        torch.testing.assert_close(together[name], term, atol=1e-5, rtol=1e-4)
        ours, theirs = (
            torch.autograd.grad(value, list(model.parameters()), retain_graph=True, materialize_grads=True)
            for value in (together[name], term)
        )
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("form", ["representation", "triplet", "attention-mse", "attention-kl"])
def test_noise_term_is_weighted_and_vanishes_without_noise(form, granularity):
    batch = make_batch([4, 2])
    options = {"noise_form": form, "granularity": granularity, "mi_weight": 0}
    quiet = build(noise_mask=0, noise_replace=0, noise_weight=3.0, **options)
    if form != "triplet":  # which has its margin besides
        assert quiet.losses(batch)["noise"].item() == pytest.approx(0, abs=1e-5)
    values = []
    for weight in (1.0, 2.5):
        model = build(noise_weight=weight, noise_mask=0.5, **options)
        torch.manual_seed(5)
        terms = model.losses(batch)
        assert set(terms) == {"mtp", "noise"}
        values.append(terms["noise"].item())
    assert values[1] == pytest.approx(2.5 * values[0], rel=1e-5)
    assert values[0] > 1e-4


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_attention_map_term_compares_the_rows_of_supervised_events(granularity):
    model = build(granularity=granularity, noise_form="attention-mse", noise_weight=1.0, mi_weight=0)
    batch = make_batch([4, 2])
    torch.manual_seed(5)
    term = model.losses(batch)["noise"].item()
    torch.manual_seed(5)
    clean, noisy = (
        model.encode(tokens, capture=True)[1]
        for tokens in (model.tokens[batch.items], model.corrupt(model.tokens[batch.items]))
    )
    step = 3 if granularity == "code" else 1
    values = []
    for layer, head, flat in itertools.product(range(2), range(2), batch.valid.tolist()):
        row, t = divmod(flat, 4)
        difference = clean[layer][row, head, (t + 1) * step - 1] - noisy[layer][row, head, (t + 1) * step - 1]
        values.append(difference.square().sum().item())
    assert term == pytest.approx(sum(values) / len(values), rel=1e-4)


# Parts, switched on and off


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", ATTENTIONS)
def test_each_part_can_be_switched_off(monkeypatch, options, granularity):
    batch = make_batch([4, 2])
    for noise, mi in itertools.product((0, 0.1), (0, 0.1)):
        model = build(granularity=granularity, noise_weight=noise, mi_weight=mi, **options)
        passes = []
        encode = model.encode
        monkeypatch.setattr(
            model, "encode", lambda x, encode=encode, passes=passes, **k: passes.append(len(x)) or encode(x, **k)
        )
        terms = model.losses(batch)
        assert set(terms) == {"mtp"} | ({"noise"} if noise else set()) | ({"mi"} if mi else set())
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        assert passes == [4 if noise else 2]  # sequences


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", ATTENTIONS)
def test_every_parameter_learns(options, granularity):
    model = build(granularity=granularity, embedding_dropout=0.1, attention_dropout=0.1, **options)
    sum(model.losses(make_batch([8, 8, 8])).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_few_steps_learn_a_cycle(granularity):
    """Each item is followed by the next one: after a short training, that one ranks first."""
    schema = make_schema((20,))
    schema.codes[1:, 0] = torch.arange(N)
    torch.manual_seed(0)
    model = FAIR(FAIRConfig(**SMALL | {"dim": 16, "granularity": granularity, "temperature": 0.1}), schema)
    starts = torch.randint(0, N, (64, 1))
    items = (starts + torch.arange(5)) % N + 1
    batch = Batch(items, torch.full((64,), 5), torch.arange(64), items % N + 1, torch.arange(320))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.losses(batch).values()).backward()
        optimizer.step()
    first = model.eval().rank_items(batch, 1).items[:, 0]
    assert (first == items[:, -1] % N + 1).float().mean() > 0.9


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    model = FAIR(FAIRConfig(dim=256, inner=512), make_schema())
    layer = model.transformer.layers[0]
    assert layer.attention.qk.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.feed_forward.down.weight.std().item() == pytest.approx(0.02 / 2, rel=0.05)
    assert model.heads.weight.abs().max() == 0
    bias = model.heads.bias  # U(-1/16, 1/16)
    assert 0.06 < bias.abs().max() <= 1 / 16
    assert bias.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.05)
    assert FAIR(FAIRConfig(**SMALL, head_bias_init="zero"), make_schema()).heads.bias.abs().max() == 0


# Attention maps


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("options", ATTENTIONS)
def test_attention_shows_the_signed_maps_and_changes_nothing(options, granularity):
    model = build(granularity=granularity, embedding_dropout=0.5, attention_dropout=0.5, **options)
    batch = make_batch([3, 5])
    shown = model.attention(batch, Task.RETRIEVAL)
    assert model.training
    step = LEVELS if granularity == "code" else 1
    assert shown.query_event.tolist() == shown.key_event.tolist()
    assert shown.query_event[0].tolist() == [e for e in (0, 1, 2, -1, -1) for _ in range(step)]
    assert shown.query_event[1].tolist() == [e for e in range(5) for _ in range(step)]
    for layer, attention in zip(shown.maps, (layer.attention for layer in model.transformer.layers), strict=True):
        assert layer.shape == (2, 2, 5 * step, 5 * step)
        assert layer.triu(1).abs().max() == 0
        sums = layer.sum(dim=-1)
        if options.get("attention") == "softmax":
            expected = torch.ones_like(sums)
        elif options.get("normalisation") == "signed-l1":
            sums, expected = layer.abs().sum(dim=-1), torch.ones_like(sums)
        else:
            ones = torch.ones(1, 2, 1)
            expected = attention.subtract(ones.unsqueeze(-1), ones.unsqueeze(-1))[..., 0].expand_as(sums).detach()
        torch.testing.assert_close(sums, expected, atol=1e-3, rtol=0)
    if options.get("focus_lambda") == "fixed" and options.get("lambda_value", 1) == 1:
        assert min(layer.min().item() for layer in shown.maps) < 0
    model.eval()
    tokens = model.tokens[batch.items]
    torch.testing.assert_close(model.encode(tokens, capture=True)[0], model.encode(tokens)[0], atol=1e-5, rtol=0)


def test_training_computes_what_evaluation_does_where_no_dropout_is_on():
    for options in ATTENTIONS:
        model = build(**options)
        tokens = model.tokens[make_batch([4, 6]).items]
        torch.testing.assert_close(model.train().encode(tokens)[0], model.eval().encode(tokens)[0], atol=1e-5, rtol=0)


# Settings


def test_every_option_of_the_fidelity_card_exists():
    assert FAIR.fidelity.status == "reconstruction"
    assert {choice.option for choice in FAIR.fidelity.choices} <= set(FAIRConfig.model_fields)


def test_losses_need_no_value_on_the_host():
    """The training step runs on tensors without values: no .item(), no branch on a value, no shape from one."""
    for options in (
        {},
        {"noise_form": "triplet", "granularity": "code"},
        {"noise_form": "attention-kl", "mi_negatives": 0},
    ):
        model = build(**options).to("meta")
        batch = make_batch([4, 2]).to("meta")
        assert all(term.shape == () for term in model.losses(batch).values())


def test_bad_settings_are_refused_in_one_line():
    for values, message in (
        ({"dim": 10, "heads": 4}, "dim \\(10\\) must be a multiple of heads \\(4\\)"),
        ({"dim": 6, "heads": 2, "matched": True}, "must be even"),
        ({"noise_mask": 0.6, "noise_replace": 0.6}, "must not exceed 1"),
        ({"noise_wieght": 0.6}, "did you mean 'noise_weight'"),
        ({"attention": "sotfmax"}, "attention"),
    ):
        with pytest.raises(InputError, match=message):
            parse(FAIRConfig, values, "study")
    with pytest.raises(InputError, match="codes"):
        FAIR(FAIRConfig(), Schema(n_items=3, n_users=1, max_length=2))
