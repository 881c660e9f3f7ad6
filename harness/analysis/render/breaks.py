"""Where a text breaks into lines: everything that some reader of a table takes for the end of its row."""

from __future__ import annotations

import re

__all__ = ["BREAKS"]

BREAKS = re.compile("[\\r\\n\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029]+")
