"""Metrics as objects: what each needs, its value, and its values per user where it is a mean over users.

Imports no torch. Metrics are registered in the entry-point group ``harness.metrics``; docs/guides/metric.md shows how
to add one.
"""

from harness.metrics.base import Evidence, Labels, Metric, check_metric, find, label, lower_is_better

__all__ = ["Evidence", "Labels", "Metric", "check_metric", "find", "label", "lower_is_better"]
