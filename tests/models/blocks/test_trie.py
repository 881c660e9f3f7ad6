"""The trie against sets and dictionaries, the searches against loops over prefixes and over all combinations."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.models.blocks.trie import Trie, beam_search, score_catalogue


@st.composite
def catalogues(draw, most=40):
    """Distinct codes of some items, in any order, and the size of each level."""
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    codes = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return draw(st.lists(codes, min_size=1, max_size=most, unique=True)), sizes


def schema_codes(items):
    return torch.tensor([(0,) * len(items[0]), *items])


def hashed_step(sizes, grain=None):
    """A decoder whose log-probabilities depend on the sequence and on its whole prefix.

    Its state is the prefixes, so it goes wrong unless the search keeps them. ``grain`` rounds the
    log-probabilities to multiples of 1/grain, which makes ties.
    """

    def step(state, level, parents, codes):
        user, prefix = state  # (B,), (B, W, level)
        if level:
            prefix = prefix.gather(1, parents.unsqueeze(-1).expand(-1, -1, level - 1))
            prefix = torch.cat([prefix, codes.unsqueeze(-1)], dim=-1)
        weights = torch.arange(1, prefix.shape[-1] + 1).double()
        context = (prefix * weights**2 * 1.7).sum(-1) + user.double().unsqueeze(1)  # (B, W)
        values = torch.sin(context.unsqueeze(-1) * 3.1 + torch.arange(sizes[level]) * 2.3)
        logits = 2 * values if grain is None else (values * grain).round() / grain
        scores = logits.log_softmax(-1).float() if grain is None else logits.float()
        return scores, (user, prefix)

    return step, lambda users: (torch.arange(users), torch.zeros(users, 1, 0, dtype=torch.int64))


def brute_force(step, state, sequences):
    """(B, len(sequences)) sums of log-probabilities, one sequence and one code at a time."""
    columns = []
    for sequence in sequences:
        current, total = state, 0.0
        for level in range(len(sequence)):
            parents = None if level == 0 else torch.zeros(len(state[0]), 1, dtype=torch.int64)
            given_code = None if level == 0 else torch.full((len(state[0]), 1), sequence[level - 1])
            log_probs, current = step(current, level, parents, given_code)
            total = total + log_probs[:, 0, sequence[level]]
        columns.append(total)
    return torch.stack(columns, dim=1)


def loop_beam_search(scores, items, width):
    """Textbook beam search over prefixes in a dictionary; ``scores(prefix)`` is its sum of log-probabilities.

    Equal scores go to the prefix with the lowest item below it.
    """
    beam = [()]
    for level in range(len(items[0])):
        grown = {item[: level + 1] for item in items if item[:level] in beam}
        first = {prefix: min(i for i, item in enumerate(items) if item[: level + 1] == prefix) for prefix in grown}
        beam = sorted(grown, key=lambda prefix: (-scores(prefix), first[prefix]))[:width]
    return [(items.index(sequence) + 1, scores(sequence)) for sequence in beam]


@settings(deadline=None, max_examples=60)
@given(catalogues())
def test_the_trie_finds_its_items_and_nothing_else(catalogue):
    items, sizes = catalogue
    trie = Trie(schema_codes(items), sizes)
    every = list(itertools.product(*(range(size) for size in sizes)))
    number = {codes: i for i, codes in enumerate(items, 1)}
    assert trie.find(torch.tensor(every)).tolist() == [number.get(codes, 0) for codes in every]


@settings(deadline=None, max_examples=60)
@given(catalogues())
def test_the_nodes_are_the_prefixes(catalogue):
    items, sizes = catalogue
    trie = Trie(schema_codes(items), sizes)
    prefixes = [()]
    for depth in range(len(sizes)):
        assert trie.nodes(depth) == len(prefixes)
        children, exists = trie.below(depth, torch.arange(trie.nodes(depth)))
        following = sorted({item[: depth + 1] for item in items})
        for node, prefix in enumerate(prefixes):
            found = [following[child] for child in children[node][exists[node]].tolist()]
            assert found == [child for child in following if child[:depth] == prefix]
            assert trie.code(depth + 1)[children[node][exists[node]]].tolist() == [child[-1] for child in found]
        lowest = [1 + min(i for i, item in enumerate(items) if item[: depth + 1] == p) for p in following]
        assert trie.lowest(depth + 1).tolist() == lowest
        prefixes = following
    assert trie.nodes(len(sizes)) == len(items)


@settings(deadline=None, max_examples=30)
@given(catalogues(most=16), st.sampled_from([None, 1]))
def test_every_covering_beam_equals_a_brute_force(catalogue, grain):
    items, sizes = catalogue
    trie = Trie(schema_codes(items), sizes)
    step, start = hashed_step(sizes, grain)
    expected = brute_force(step, start(3), items)
    scores, order = expected.sort(dim=-1, descending=True, stable=True)  # equal scores: lowest item first
    for width in (len(items), len(items) + 1, len(items) + 7):
        found = beam_search(step, start(3), sizes, width, trie)
        torch.testing.assert_close(found.scores, scores)
        assert found.items.tolist() == (order + 1).tolist()
        assert torch.equal(found.codes, schema_codes(items)[found.items])


@settings(deadline=None, max_examples=30)
@given(catalogues(), st.integers(1, 12), st.sampled_from([None, 1]))
def test_a_narrow_beam_equals_a_loop_over_prefixes(catalogue, width, grain):
    items, sizes = catalogue
    step, start = hashed_step(sizes, grain)
    found = beam_search(step, start(2), sizes, width, Trie(schema_codes(items), sizes))
    for user in range(2):
        state = (torch.tensor([user]), torch.zeros(1, 1, 0, dtype=torch.int64))
        known: dict[tuple[int, ...], float] = {}

        def scores(prefix, state=state, known=known):
            if prefix not in known:
                known[prefix] = float(brute_force(step, state, [prefix])[0, 0])
            return known[prefix]

        expected = loop_beam_search(scores, items, width)
        kept = found.items[user] > 0
        assert kept.sum() == len(expected)
        assert found.items[user, : len(expected)].tolist() == [item for item, _ in expected]
        torch.testing.assert_close(found.scores[user, : len(expected)], torch.tensor([score for _, score in expected]))
        assert (found.scores[user, len(expected) :] == -torch.inf).all()


@settings(deadline=None, max_examples=40)
@given(catalogues(), st.integers(1, 9))
def test_scores_of_the_catalogue_equal_a_brute_force_in_chunks_of_any_size(catalogue, beams):
    items, sizes = catalogue
    step, start = hashed_step(sizes)
    found = score_catalogue(step, start(2), Trie(schema_codes(items), sizes), beams=beams)
    torch.testing.assert_close(found, brute_force(step, start(2), items))


def test_an_unconstrained_search_ranks_every_combination():
    sizes = (3, 2, 4)
    step, start = hashed_step(sizes)
    every = list(itertools.product(*(range(size) for size in sizes)))
    scores, order = brute_force(step, start(4), every).sort(dim=-1, descending=True, stable=True)
    found = beam_search(step, start(4), sizes, width=100)
    torch.testing.assert_close(found.scores, scores)
    assert torch.equal(found.codes, torch.tensor(every)[order])
    assert found.items is None


def test_independent_levels_need_no_wide_beam():
    """Parallel decoding: with independent levels the first W combinations are those of a beam of width W."""
    log_probs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)

    def step(state, level, parents, codes):
        width = 1 if parents is None else parents.shape[1]
        return log_probs[:, level, None].expand(-1, width, -1), state

    every = torch.tensor(list(itertools.product(range(3), repeat=5)))
    scores = log_probs[:, torch.arange(5), every].sum(-1)  # (2, 243)
    found = beam_search(step, None, (3,) * 5, width=6)
    torch.testing.assert_close(found.scores, scores.topk(6).values)


def test_a_catalogue_of_one_item():
    trie = Trie(torch.tensor([[0, 0], [1, 2]]), (3, 4))
    step, start = hashed_step((3, 4))
    found = beam_search(step, start(2), (3, 4), 10, trie)
    assert found.items.tolist() == [[1], [1]]
    assert score_catalogue(step, start(2), trie).shape == (2, 1)


@settings(deadline=None, max_examples=40)
@given(catalogues(), st.integers(1, 50))
def test_a_list_is_as_long_as_the_beam_or_the_catalogue(catalogue, width):
    """Every prefix that is kept has an item below it, so a trie never lets a beam run dry."""
    items, sizes = catalogue
    step, start = hashed_step(sizes)
    found = beam_search(step, start(1), sizes, width, Trie(schema_codes(items), sizes)).items[0].tolist()
    assert len(found) == len(set(found)) == min(width, len(items))
    assert min(found) > 0


def test_all_equal_scores_rank_by_item_id():
    generator = torch.Generator().manual_seed(1)
    items = list(itertools.product(range(4), repeat=3))
    items = [items[i] for i in torch.randperm(64, generator=generator)]

    def step(state, level, parents, codes):
        return torch.zeros(2, 1 if parents is None else parents.shape[1], 4), state

    found = beam_search(step, None, (4, 4, 4), 64, Trie(schema_codes(items), (4, 4, 4)))
    assert found.items.tolist() == [list(range(1, 65))] * 2


def test_the_trie_moves_with_its_model_and_is_not_saved():
    trie = Trie(torch.tensor([[0, 0], [1, 2]]), (3, 4))
    assert trie.state_dict() == {}
    assert all(table.device.type == "meta" for table in trie.to("meta").buffers())


@pytest.mark.parametrize(
    ("codes", "sizes", "part"),
    [
        ([[0, 0], [1, 2], [0, 1], [1, 2]], (2, 3), "items 1 and 3 have the same codes (1, 2)"),
        ([[0, 0], [1, 3]], (2, 3), "item 1 has code 3 at level 1"),
        ([[0, 0], [1, -1]], (2, 3), "item 1 has code -1 at level 1"),
        ([[0, 0]], (2, 3), "codes of 0 items"),
        ([[0, 0], [1, 2]], (2, 3, 4), "2 levels, with 3 code sizes"),
    ],
)
def test_codes_that_name_no_item_each_are_refused_in_one_line(codes, sizes, part):
    with pytest.raises(InputError) as error:
        Trie(torch.tensor(codes), sizes)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_published_codes_of_a_real_catalogue(real):
    published = json.loads(real("semantic_ids", "Beauty", "rkmeans_native.index.json").read_text())
    rows = [[int(token.strip("<>").split("_")[1]) for token in published[str(i)]] for i in range(len(published))]
    sizes = tuple(1 + max(column) for column in zip(*rows, strict=True))
    with pytest.raises(InputError, match="have the same codes"):
        Trie(torch.tensor([[0] * len(sizes), *rows]), sizes)
    seen: Counter[tuple[int, ...]] = Counter()
    for row in rows:  # a collision level
        seen[tuple(row)] += 1
        row.append(seen[tuple(row)] - 1)
    sizes = (*sizes, max(seen.values()))
    codes = torch.tensor([[0] * len(sizes), *rows])
    trie = Trie(codes, sizes)
    assert torch.equal(trie.find(codes[1:]), torch.arange(1, len(codes)))
    elsewhere = torch.stack([torch.randint(size, (2000,)) for size in sizes], dim=1)
    known = {tuple(row): item for item, row in enumerate(rows, 1)}
    assert trie.find(elsewhere).tolist() == [known.get(tuple(row), 0) for row in elsewhere.tolist()]
    step, start = hashed_step(sizes)
    found = beam_search(step, start(2), sizes, len(rows), trie)
    order = score_catalogue(step, start(2), trie).argsort(dim=1, descending=True, stable=True) + 1
    assert torch.equal(found.items, order)
