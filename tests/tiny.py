"""A study that trains in seconds."""

STUDY = """
study: tiny
title: Two losses
task: retrieval
datasets: ["synthetic-sessions:users=60,items=30"]
seeds: 2
control: ce
common: {dim: 8, layers: 1, heads: 1, inner: 8}
variants:
  ce:  {model: sasrec, label: Cross-entropy}
  bce: {model: sasrec, label: "BCE & 1 negative", set: {loss: bce}}
budget: {epochs: 4}
metrics: [ndcg@10, recall@5]
primary: ndcg@10
attention: true
presets:
  shorter: {budget: {epochs: 1}}
"""
