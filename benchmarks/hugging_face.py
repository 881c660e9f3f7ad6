"""TIGER in Hugging Face's T5, with the same weights and inputs, to compare results and speed with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from harness.baselines.tiger import START, TIGER
from harness.interface import Batch, Schema
from harness.models.blocks.t5 import BUCKETS, MAX_DISTANCE, Attention, Stack

__all__ = ["generate", "inputs", "invented", "labels", "prefix_function", "same_t5"]


def invented(n_items: int, rows: int, length: int) -> tuple[Schema, Batch]:
    """A catalogue with three random codes and a collision digit, and histories as a length bucket holds them.

    The histories have up to three events less than ``length``, drawn at random, and a random next item.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(256, (n_items, 3), generator=generator)
    _, group, sizes = torch.unique(drawn, dim=0, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    digit = torch.empty_like(group)
    digit[order] = torch.arange(n_items) - (sizes.cumsum(0) - sizes)[group[order]]
    codes = torch.cat([torch.zeros(1, 4, dtype=torch.int64), torch.cat([drawn, digit.unsqueeze(1)], dim=1)])
    schema = Schema(n_items, rows, max_length=20, codes=codes, code_sizes=(256, 256, 256, int(digit.max()) + 1))
    lengths = torch.randint(max(1, length - 3), length + 1, (rows,), generator=generator)
    items = torch.randint(1, n_items + 1, (rows, length), generator=generator)
    items[torch.arange(length) >= lengths.unsqueeze(1)] = 0
    batch = Batch(items, lengths, torch.arange(rows), targets=torch.zeros_like(items))
    batch.valid = batch.last()
    batch.targets.view(-1)[batch.valid] = torch.randint(1, n_items + 1, (rows,), generator=generator)
    return schema, batch


def same_t5(model: TIGER) -> T5ForConditionalGeneration:
    """A Hugging Face T5 with the weights, the device and the mode of ``model``."""
    c = model.config
    peer = T5ForConditionalGeneration(
        T5Config(
            vocab_size=model.embedding.num_embeddings,
            d_model=c.dim,
            d_kv=c.head_dim,
            d_ff=c.feed_forward,
            num_layers=c.encoder_layers,
            num_decoder_layers=c.decoder_layers,
            num_heads=c.heads,
            relative_attention_num_buckets=BUCKETS,
            relative_attention_max_distance=MAX_DISTANCE,
            dropout_rate=c.dropout,
            feed_forward_proj="relu",
            pad_token_id=START,
            decoder_start_token_id=START,
            eos_token_id=None,
        )
    )
    weights = {"shared.weight": model.table().detach()}
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        weights |= {f"{side}.{name}": value.detach() for name, value in _stack(stack)}
    missing, unexpected = peer.load_state_dict({k: v.clone() for k, v in weights.items()}, strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if unexpected or set(missing) - tied:
        raise RuntimeError(f"weights do not match: missing {missing}, unexpected {unexpected}")
    peer.tie_weights()
    return peer.to(model.embedding.weight.device).train(model.training is True)


def _stack(stack: Stack) -> Iterator[tuple[str, Tensor]]:
    yield "final_layer_norm.weight", stack.norm.weight
    yield "block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack.position.weight
    for depth, layer in enumerate(stack.layers):
        attentions = [("SelfAttention", layer.attention, layer.attention_norm)]
        if layer.cross is not None:
            attentions.append(("EncDecAttention", layer.cross, layer.cross_norm))
        for place, (name, attention, norm) in enumerate(attentions):
            yield f"block.{depth}.layer.{place}.layer_norm.weight", norm.weight
            for short, weight in _attention(attention):
                yield f"block.{depth}.layer.{place}.{name}.{short}.weight", weight
        last = f"block.{depth}.layer.{len(attentions)}"
        yield f"{last}.layer_norm.weight", layer.feed_forward_norm.weight
        yield f"{last}.DenseReluDense.wi.weight", layer.feed_forward.inner.weight
        yield f"{last}.DenseReluDense.wo.weight", layer.feed_forward.out.weight


def _attention(attention: Attention) -> Iterator[tuple[str, Tensor]]:
    keys, values = attention.key_value.weight.chunk(2)
    yield from (("q", attention.query.weight), ("k", keys), ("v", values), ("o", attention.out.weight))


def inputs(model: TIGER, batch: Batch) -> dict[str, Tensor]:
    """The encoder's input as Hugging Face names it."""
    tokens, mask = model.encoder_input(batch)
    return {"input_ids": tokens, "attention_mask": (mask[:, 0, 0] == 0).long()}


def labels(model: TIGER, batch: Batch) -> Tensor:
    """(B, m) tokens of the next item."""
    return model.tokens[batch.targets.flatten()[batch.valid]]


def prefix_function(model: TIGER) -> Callable[[int, Tensor], list[int]]:
    """The tokens that may follow what was generated, for ``prefix_allowed_tokens_fn``."""
    allowed: dict[tuple[int, ...], set[int]] = {}
    for item in model.tokens[1:].tolist():
        for level, token in enumerate(item):
            allowed.setdefault(tuple(item[:level]), set()).add(token)
    lists = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}
    # A beam without a score (fewer prefixes than beams) may stand on tokens of no item; it stays without one.
    return lambda row, generated: lists.get(tuple(generated[1:].tolist()), [START])


@torch.no_grad()
def generate(
    peer: T5ForConditionalGeneration, given: dict[str, Tensor], levels: int, beams: int, allowed: Callable
) -> tuple[Tensor, Tensor]:
    """Tokens (B, W, m) and log-probabilities (B, W) of Hugging Face's own constrained beam search."""
    found = peer.generate(
        **given,
        generation_config=GenerationConfig(
            max_new_tokens=levels,
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=0.0,
            pad_token_id=START,
            decoder_start_token_id=START,
            return_dict_in_generate=True,
            output_scores=True,
        ),
        prefix_allowed_tokens_fn=allowed,
    )
    rows = len(given["input_ids"])
    return found.sequences[:, 1:].view(rows, beams, -1), found.sequences_scores.view(rows, beams)
