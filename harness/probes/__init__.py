"""What else is measured on a trained model: a file per probe, registered in the entry-point group ``harness.probes``.

docs/guides/probe.md shows how to add one.
"""

from harness.probes.base import Findings, Probe, find_probe

__all__ = ["Findings", "Probe", "find_probe"]
