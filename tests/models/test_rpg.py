from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from harness.errors import InputError
from harness.interface import Batch, Schema
from harness.models.fair import FAIR
from harness.models.rpg import RPG, RPGConfig
from harness.settings import parse

N, LENGTH, LEVELS, SIZE = 20, 8, 3, 5
SMALL = {"dim": 8, "heads": 2, "inner": 12, "temperature": 0.2}


class Reference(nn.Module):
    """RPG from its equations: GPT-2 over mean code embeddings, a residual block per digit, cosine logits.

    Vocabulary as the authors': 0 is padding, digit k has the tokens 1 + k * SIZE ..., the last one ends a sequence.
    """

    def __init__(self, codes: Tensor, config: RPGConfig) -> None:
        super().__init__()
        self.tokens = codes + 1 + torch.arange(LEVELS) * SIZE  # (N + 1, m)
        self.tokens[0] = 0
        self.temperature = config.temperature
        self.gpt2 = transformers.GPT2Model(
            transformers.GPT2Config(
                vocab_size=LEVELS * SIZE + 2, n_positions=LENGTH, n_embd=config.dim, n_layer=config.layers,
                n_head=config.heads, n_inner=config.inner, activation_function="gelu_new", layer_norm_epsilon=1e-12,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            )
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(LEVELS))

    def states(self, batch: Batch) -> Tensor:
        embedded = self.gpt2.wte(self.tokens[batch.items]).mean(dim=2)
        return self.gpt2(inputs_embeds=embedded, attention_mask=(batch.items > 0).long()).last_hidden_state

    def digit_log_probs(self, state: Tensor) -> list[Tensor]:
        """One state (d,) -> per digit (SIZE,)."""
        found = []
        for k, head in enumerate(self.heads):
            rows = self.gpt2.wte.weight[1 + k * SIZE : 1 + (k + 1) * SIZE]
            cosines = F.cosine_similarity(state + F.silu(head(state)), rows, dim=-1)
            found.append((cosines / self.temperature).log_softmax(dim=0))
        return found

    def item_log_prob(self, state: Tensor, item: int) -> Tensor:
        digits = self.digit_log_probs(state)
        return sum(digits[k][self.tokens[item, k] - 1 - k * SIZE] for k in range(LEVELS)) / LEVELS


def pairs(model: RPG, reference: Reference) -> list[tuple[Tensor, Tensor]]:
    """(ours, the reference's) of all parameters but the padding, mask and end-of-sequence rows."""
    found = [
        (model.table.weight[:-1], reference.gpt2.wte.weight[1:-1]),
        (model.positions.weight, reference.gpt2.wpe.weight),
        (model.transformer.final_norm.weight, reference.gpt2.ln_f.weight),
        (model.transformer.final_norm.bias, reference.gpt2.ln_f.bias),
    ]
    for ours, theirs in zip(model.transformer.layers, reference.gpt2.h, strict=True):
        for one, other in (
            (ours.attention.qkv, theirs.attn.c_attn),
            (ours.attention.out, theirs.attn.c_proj),
            (ours.feed_forward.up, theirs.mlp.c_fc),
            (ours.feed_forward.down, theirs.mlp.c_proj),
        ):
            found += [(one.weight.T, other.weight), (one.bias, other.bias)]
        for one, other in ((ours.attention_norm, theirs.ln_1), (ours.feed_forward_norm, theirs.ln_2)):
            found += [(one.weight, other.weight), (one.bias, other.bias)]
    weights, biases = model.heads.weight.chunk(LEVELS), model.heads.bias.chunk(LEVELS)
    for k, head in enumerate(reference.heads):
        found += [(weights[k], head.weight), (biases[k], head.bias)]
    return found


def make_pair(**options) -> tuple[RPG, Reference]:
    """Both with the same weights, larger than at the start."""
    torch.manual_seed(0)
    codes = torch.randint(SIZE, (N + 1, LEVELS))
    codes[0] = 0
    schema = Schema(n_items=N, n_users=9, max_length=LENGTH, codes=codes, code_sizes=(SIZE,) * LEVELS)
    config = parse(RPGConfig, SMALL | options, "test")
    model, reference = RPG(config, schema), Reference(codes, config)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
        for ours, theirs in pairs(model, reference):
            theirs.copy_(ours)
    return model.eval(), reference.eval()


def make_batch() -> Batch:
    lengths = [3, 8, 1]
    drawn = torch.randint(1, N + 1, (3, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    inside = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    items, targets = drawn[:, :-1] * inside, drawn[:, 1:] * inside
    return Batch(items, torch.tensor(lengths), torch.arange(3), targets, targets.flatten().nonzero().squeeze(1))


def test_states_loss_and_scores_equal_gpt2_with_the_same_weights():
    model, reference = make_pair()
    batch = make_batch()
    expected = reference.states(batch)
    inside = batch.items > 0
    torch.testing.assert_close(model.encode(model.tokens[batch.items])[0][inside], expected[inside], atol=1e-5, rtol=0)

    last = expected[torch.arange(3), batch.lengths - 1]
    torch.testing.assert_close(model.user_states(batch), last, atol=1e-5, rtol=0)
    scores = torch.stack([torch.stack([reference.item_log_prob(s, i) for i in range(1, N + 1)]) for s in last])
    torch.testing.assert_close(model.score_items(batch), scores, atol=1e-5, rtol=1e-5)

    terms = [reference.item_log_prob(expected[b, t], batch.targets[b, t]) for b, t in inside.nonzero().tolist()]
    losses = model.losses(batch)
    assert list(losses) == ["mtp"]
    torch.testing.assert_close(losses["mtp"], -torch.stack(terms).mean(), atol=1e-5, rtol=1e-5)


def test_gradients_equal_gpt2s():
    model, reference = make_pair()
    batch = make_batch()
    model.losses(batch)["mtp"].backward()
    states = reference.states(batch)
    inside = (batch.items > 0).nonzero().tolist()
    (-sum(reference.item_log_prob(states[b, t], batch.targets[b, t]) for b, t in inside) / len(inside)).backward()
    with torch.no_grad():  # each parameter's gradient in its own place
        for tower in (model, reference):
            for parameter in tower.parameters():
                parameter.copy_(parameter.grad)
        for ours, theirs in pairs(model, reference):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_initial_weights_have_the_distributions_of_rpgs():
    torch.manual_seed(0)
    codes = torch.randint(SIZE, (N + 1, LEVELS))
    schema = Schema(n_items=N, n_users=9, max_length=LENGTH, codes=codes, code_sizes=(SIZE,) * LEVELS)
    config = RPGConfig(dim=256, inner=512)
    model, reference = RPG(config, schema), Reference(codes, config)
    for head in reference.heads:
        nn.init.zeros_(head.weight)
    for ours, theirs in pairs(model, reference):
        assert ours.shape == theirs.shape
        assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.01)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15)
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.5)


def test_none_of_fairs_options_is_rpgs():
    for option in ("attention", "noise_weight", "mi_weight", "input_scale", "focus_lambda"):
        with pytest.raises(InputError, match=option):
            parse(RPGConfig, {option: 1}, "study")
    assert set(RPGConfig.model_fields) < set(FAIR.Config.model_fields)


def test_bad_settings_are_refused_in_one_line():
    with pytest.raises(InputError, match="dim \\(10\\) must be a multiple of heads \\(4\\)"):
        parse(RPGConfig, {"dim": 10, "heads": 4}, "study")
    with pytest.raises(InputError, match="RPG needs the items' codes"):
        RPG(RPGConfig(), Schema(n_items=3, n_users=1, max_length=2))
