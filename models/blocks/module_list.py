"""``nn.ModuleList`` that knows what it holds: PyTorch's own hands out plain modules, whose attributes have no types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from torch import nn

__all__ = ["ModuleList"]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    M = TypeVar("M")

    class ModuleList(nn.ModuleList, Generic[M]):
        def __init__(self, modules: Iterable[M]) -> None: ...
        def __iter__(self) -> Iterator[M]: ...  # type: ignore[override]  # narrower is the purpose
        @overload  # type: ignore[override]  # as above
        def __getitem__(self, index: int) -> M: ...
        @overload
        def __getitem__(self, index: slice) -> ModuleList[M]: ...
        def __getitem__(self, index: Any) -> Any: ...
else:
    ModuleList = nn.ModuleList
