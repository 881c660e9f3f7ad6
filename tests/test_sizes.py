"""Files and functions stay of a size that is read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILE, FUNCTION = 400, 60
"""Lines at most."""
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["harness", "models", "baselines"])
def test_no_file_and_no_function_is_longer(package):
    long = []
    for path in sorted((ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > FILE:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > FUNCTION:
                long.append(f"{path.relative_to(ROOT)}: {node.name}, {lines} lines")
    assert not long
