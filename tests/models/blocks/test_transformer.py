from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from harness.models.blocks.attention import SelfAttention
from harness.models.blocks.transformer import ACTIVATIONS, Transformer, init_weights


def build(norm: str, activation: str = "gelu", eps: float = 1e-5) -> Transformer:
    torch.manual_seed(0)
    stack = Transformer(
        lambda _: SelfAttention(8, 2, 0.3), 2, 8, 20, activation=activation, dropout=0.3, norm=norm, norm_eps=eps
    )
    for parameter in stack.parameters():
        nn.init.normal_(parameter, std=0.3)
    return stack.eval()


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_equals_torchs_encoder(norm, activation):
    ours = build(norm, activation)
    layer = nn.TransformerEncoderLayer(8, 2, 20, activation=activation, batch_first=True, norm_first=norm == "pre")
    peer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.out": "self_attn.out_proj",
        "feed_forward.up": "linear1",
        "feed_forward.down": "linear2",
        "attention_norm": "norm1",
        "feed_forward_norm": "norm2",
    }
    state = {}
    for name, value in ours.layers.state_dict().items():
        index, rest = name.split(".", 1)
        known = next(key for key in names if rest.startswith(key))
        state[f"{index}.{names[known]}{rest.removeprefix(known)}"] = value
    peer.layers.load_state_dict(state)
    x = torch.randn(3, 6, 8)
    expected = peer(x, mask=nn.Transformer.generate_square_subsequent_mask(6), is_causal=True)
    out, maps = ours(x)
    torch.testing.assert_close(out, ours.final_norm(expected), atol=1e-5, rtol=1e-5)
    assert maps == []


def test_equals_gpt2():
    """Pre-norm with gelu-tanh is GPT-2, which RPG builds on."""
    ours = build("pre", "gelu-tanh")
    config = transformers.GPT2Config(vocab_size=2, n_positions=6, n_embd=8, n_layer=2, n_head=2, n_inner=20)
    peer = transformers.GPT2Model(config).eval()
    for layer, theirs in zip(ours.layers, peer.h, strict=True):
        linears = {
            theirs.attn.c_attn: layer.attention.qkv,
            theirs.attn.c_proj: layer.attention.out,
            theirs.mlp.c_fc: layer.feed_forward.up,
            theirs.mlp.c_proj: layer.feed_forward.down,
        }
        for target, source in linears.items():
            target.weight.data, target.bias.data = source.weight.data.T, source.bias.data
        theirs.ln_1.load_state_dict(layer.attention_norm.state_dict())
        theirs.ln_2.load_state_dict(layer.feed_forward_norm.state_dict())
    peer.ln_f.load_state_dict(ours.final_norm.state_dict())
    peer.wpe.weight.data.zero_()
    x = torch.randn(3, 6, 8)
    torch.testing.assert_close(ours(x)[0], peer(inputs_embeds=x).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_capture_changes_nothing_and_leaves_nothing_behind(norm):
    stack = build(norm)
    x = torch.randn(3, 6, 8)
    before = dict(stack.state_dict())
    attributes = [sorted(vars(part)) for part in stack.modules()]
    out, maps = stack(x, capture=True)
    torch.testing.assert_close(out, stack(x)[0], atol=1e-5, rtol=0)
    assert [tuple(layer.shape) for layer in maps] == [(3, 2, 6, 6)] * 2
    assert [sorted(vars(part)) for part in stack.modules()] == attributes
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())


def test_activations_match_their_names():
    x = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(ACTIVATIONS["gelu"](x), x * 0.5 * (1 + torch.erf(x / 2**0.5)), atol=1e-6, rtol=1e-5)
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
    torch.testing.assert_close(ACTIVATIONS["gelu-tanh"](x), 0.5 * x * (1 + torch.tanh(inner)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ACTIVATIONS["silu"](x), x * torch.sigmoid(x))
    torch.testing.assert_close(ACTIVATIONS["relu"](x), x.clamp_min(0))


def test_initial_weights():
    layers = nn.Sequential(nn.Embedding(300, 40), nn.Linear(40, 300), nn.LayerNorm(300))
    init_weights(layers, 0.05)
    for part in layers[:2]:
        assert part.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert layers[1].bias.abs().max() == 0
    assert layers[2].weight.min() == layers[2].weight.max() == 1
