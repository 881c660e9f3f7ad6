"""Benchmarks and ablations of generative recommenders, from a study file to a paper's evidence."""

__version__ = "0.1.0"
