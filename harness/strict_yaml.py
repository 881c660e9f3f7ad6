"""YAML in which no key may stand twice in one mapping: what a study says once must not be taken back in silence."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["load_yaml"]

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = None if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if key is None or not isinstance(key, Hashable):  # the latter is refused below
                continue
            line = key_node.start_mark.line + 1
            if key in first:
                problem = (
                    f"the key '{key}' stands there twice, first in line {first[key]}; rename or delete one of the two"
                )
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            first[key] = line
        return super().construct_mapping(node, deep=deep)


def load_yaml(text: str) -> Any:
    """What ``yaml.safe_load`` answers. Raises ``yaml.YAMLError``, also for a key that stands twice in a mapping."""
    return yaml.load(text, Loader=_Loader)
