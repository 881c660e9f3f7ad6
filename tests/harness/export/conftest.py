"""A run with models of every kind that can be exported, and one that can't."""

from __future__ import annotations

import pytest

import harness

STUDY = """
study: given
datasets: ["synthetic-sessions:users=60,items=30"]
seeds: 2
items: {encoder: {kind: random}, quantiser: {kind: rkmeans, levels: 2, size: 4}}
variants:
  exact: {model: sasrec, label: Exact, set: {dim: 8, layers: 1, heads: 2, inner: 8}}
  search:
    model: tiger
    set:
      {dim: 8, encoder_layers: 1, decoder_layers: 1, heads: 2, head_dim: 4, feed_forward: 8, beams: 6, user_buckets: 7}
  counts: {model: popularity}
  next: {model: transitions}
budget: {epochs: 1}
metrics: [ndcg@10, recall@5, coverage@10]
primary: ndcg@10
presets:
  told:
    task: action
    seeds: 1
    data: {split: within-user}
    variants:
      exact: null
      search: null
      counts: null
      next: null
      mixed: {model: attn-mvp, set: {dim: 8, layers: 1, heads: 2, backbone: hstu}}
    metrics: [ne]
    primary: ne
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory, working_here):
    """Makes the run of a preset; not to be written to."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "given.yaml").write_text(STUDY)

    def make(preset="default"):
        with working_here():
            return harness.run(folder / "given.yaml", preset=preset, out=folder / "out", device="cpu", report=False)

    return make


@pytest.fixture(scope="session")
def run(made):
    return made()


@pytest.fixture(scope="session")
def told(made):
    return made("told")
