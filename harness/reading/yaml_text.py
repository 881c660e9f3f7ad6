"""YAML from outside: plain values, each key once, bounded in size and depth; what is off is named by line and key.

The values are built from the parser's events, so that a document is refused where it goes over a bound, before it is
held in memory. Dates are texts here: no setting is a date, and a label may look like one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from harness.errors import InputError, shortened
from harness.reading.bounds import DEPTH, LARGEST, YAML_BYTES, YAML_NODES, first_odd, read_bytes

__all__ = ["read_yaml", "yaml_value"]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_TEXTS = (f"{_CORE}str", f"{_CORE}timestamp", f"{_CORE}value", "!")
_MERGE = "<<"


def read_yaml(path: str | Path, remedy: str = "", nodes: int = YAML_NODES) -> Any:
    """The value of the one document in the file ``path``; None where it is empty.

    ``remedy``: how to go on from a damaged file, for the end of the message; ``nodes``: how many keys and values it may
    have.

    Raises:
        InputError: no such file, no UTF-8, no valid YAML, a key twice, a value that can't be, or a document over the
            bounds of :mod:`harness.reading.bounds`.
    """
    path = Path(path)
    try:
        text = read_bytes(path, YAML_BYTES, remedy).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}){f'; {remedy}' if remedy else ''}"
        ) from None
    return _Document(text, str(path), remedy, nodes, lines=True).value()


def yaml_value(text: str, where: str) -> Any:
    """The value that ``text`` of a command line is, as in ``[1, 2]``. Raises as :func:`read_yaml` does."""
    return _Document(text, where, "", YAML_NODES, lines=False).value()


class _Document:
    """One document on its way from events to values."""

    def __init__(self, text: str, where: str, remedy: str, most: int, lines: bool) -> None:
        self.text, self.where, self.remedy, self.most, self.lines = text, where, remedy, most, lines
        self.path: list[str] = []
        self.nodes = 0
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.loader = yaml.SafeLoader("")  # resolves what a scalar without a tag is
        self.line = 0

    def value(self) -> Any:
        if odd := first_odd(self.text):
            self.line = self.text.count("\n", 0, odd.start())
            raise self.fault(f"holds the character U+{ord(odd[0]):04X}, which no text may; take it out")
        try:
            events = self.events()
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    break
            else:
                return None
            found = self.node(next(events), events, 0)
            next(events)  # the document's end
            if isinstance(next(events), yaml.DocumentStartEvent):
                raise self.fault("begins a second document; keep one")
            return found
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            self.line = mark.line if mark else self.line
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
            raise self.fault(f"is not valid YAML: {shortened(str(problem))}") from None

    def events(self) -> Iterator[Any]:
        for event in yaml.parse(self.text, Loader=_LOADER):
            if event.start_mark is not None:
                self.line = event.start_mark.line
            yield event

    def fault(self, problem: str) -> InputError:
        place = f", line {self.line + 1}" if self.lines else ""
        key = f", '{shortened('.'.join(self.path), 80)}'" if self.path else ""
        return InputError(f"{self.where}{place}{key}: {problem}{f'; {self.remedy}' if self.remedy else ''}")

    def count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > self.most:
            raise self.fault(
                f"more than {self.most:,} keys and values, those repeated by aliases included; leave some out"
            )

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.fault(f"the alias '*{shortened(str(event.anchor), 40)}' names no anchor before it")
            value, nodes = self.anchors[event.anchor]
            self.count(nodes)
            return copy.deepcopy(value)
        if depth > DEPTH:
            raise self.fault(f"more than {DEPTH} lists and mappings inside each other; flatten it")
        before = self.nodes
        self.count(1)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
        else:
            kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
            if event.tag not in (None, "!", f"{_CORE}{kind}"):
                raise self.fault(
                    f"the tag {shortened(event.tag.replace(_CORE, '!!'), 60)} is not known here; leave it out"
                )
            value = self.sequence(events, depth) if kind == "seq" else self.mapping(events, depth)
        if event.anchor:
            self.anchors[event.anchor] = value, self.nodes - before
        return value

    def sequence(self, events: Iterator[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            self.path.append(str(len(found)))
            found.append(self.node(event, events, depth + 1))
            self.path.pop()
        return found

    def mapping(self, events: Iterator[Any], depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        seen: set[Any] = set()
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            merges = isinstance(event, yaml.ScalarEvent) and event.value == _MERGE and event.implicit[0]
            key = _MERGE if merges else self.node(event, events, depth + 1)
            if isinstance(key, (list, dict)):
                raise self.fault("a key is a list or a mapping; write a text")
            self.path.append(str(key))
            if (type(key) is bool, key) in seen:
                raise self.fault("the key stands here a second time; keep one of the two")
            seen.add((type(key) is bool, key))
            value = self.node(next(events), events, depth + 1)
            if merges:
                merged = self.merge(value)
            else:
                found[key] = value
            self.path.pop()
        return {**merged, **found} if merged else found

    def merge(self, value: Any) -> dict[Any, Any]:
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise self.fault("'<<' takes a mapping, or a list of them")
        return {key: part[key] for part in reversed(parts) for key in part}

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        text = event.value
        if odd := first_odd(text):
            raise self.fault(f"holds the character U+{ord(odd[0]):04X}, which no text may; take it out")
        tag = event.tag if event.tag not in (None, "!") else self.loader.resolve(yaml.ScalarNode, text, event.implicit)
        if tag in _TEXTS:
            return text
        kind = tag.removeprefix(_CORE)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return yaml.SafeLoader.bool_values[text.lower()]
            if kind in ("int", "float"):
                return self.number(text, kind)
        except (ValueError, KeyError, IndexError, OverflowError):
            raise self.fault(f"'{shortened(text, 40)}' can't be read as {tag.replace(_CORE, '!!')}") from None
        if text == _MERGE:
            return text
        raise self.fault(f"the tag {shortened(tag.replace(_CORE, '!!'), 60)} is not known here; leave it out")

    def number(self, text: str, kind: str) -> int | float:
        if len(text) > 400:
            raise self.fault(f"a number of {len(text):,} characters; write a shorter one")
        node = yaml.ScalarNode(f"{_CORE}{kind}", text)
        if kind == "int":
            whole = self.loader.construct_yaml_int(node)
            if abs(whole) > LARGEST:
                raise self.fault(f"{shortened(text, 40)} is beyond 64 bits; write a smaller number")
            return whole
        number = self.loader.construct_yaml_float(node)
        if not math.isfinite(number):
            raise self.fault(f"{shortened(text, 40)} is not a finite number")
        return number
