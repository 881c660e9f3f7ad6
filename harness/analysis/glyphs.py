"""Figures whose texts can be read whatever letters they hold: by a font that has them, else by their code points.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Hebrew, Arabic and many signs. Texts that it can
show are left as they are, so that a figure looks the same on every machine; for others the fonts below are looked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

__all__ = ["make_readable", "readable"]

_FIRST = "DejaVu Sans"
_OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Symbols2", "Noto Emoji", "Segoe UI Emoji", "Unifont",
)  # fmt: skip
MOST_CODES = 4
"""Letters of a text that are written as code points; the rest is left out."""


def make_readable(figure: Figure) -> None:
    """Gives each text of the figure that its font can't show whole another font, or another text."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        shown = readable(text.get_text())
        if shown != text.get_text():
            text.set_text(shown)
        if not _has(_FIRST, shown):
            text.set_fontfamily(_families())
    for axis in figure.findobj(Axis):
        assert isinstance(axis, Axis)
        formatter = axis.get_major_formatter()
        if isinstance(formatter, FixedFormatter):
            names = formatter.seq = [readable(str(name)) for name in formatter.seq]
        elif isinstance(formatter, FuncFormatter):  # what set_xticks makes of labels
            formatter.func = _readable_names(formatter.func)
            names = [formatter(x, place) for place, x in enumerate(axis.get_majorticklocs())]
        else:
            continue
        if not all(_has(_FIRST, name) for name in names):
            axis.set_tick_params(labelfontfamily=_families())


def _readable_names(name: Callable[..., str]) -> Callable[..., str]:
    return lambda *place: readable(str(name(*place)))


def readable(text: str) -> str:
    """``text`` without control characters, and with ``[U+6A21]`` for a letter that no font here has."""
    if text.isascii() and text.isprintable():
        return text
    text = "".join(c for c in re.sub(r"[^\S\n\u00a0\u202f\u2009]", " ", text) if c == "\n" or _is_shown(c))
    missing = {letter for letter in text if not any(_has(family, letter) for family in _families())}
    if not missing:
        return text
    runs = re.compile(f"[{re.escape(''.join(sorted(missing)))}]+")
    return runs.sub(lambda found: _codes(found[0]), text)


def _codes(letters: str) -> str:
    more = " …" if len(letters) > MOST_CODES else ""
    return f"[{' '.join(f'U+{ord(letter):04X}' for letter in letters[:MOST_CODES])}{more}]"


def _is_shown(letter: str) -> bool:
    return unicodedata.category(letter) not in ("Cc", "Cs", "Cn", "Co") and letter not in "\u2028\u2029"


@cache
def _families() -> list[str]:
    known = set(font_manager.get_font_names())
    return [_FIRST, *(family for family in _OTHERS if family in known)]


@cache
def _letters(family: str) -> Any:
    path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=family == _FIRST)
    return frozenset(font_manager.get_font(path).get_charmap())


def _has(family: str, text: str) -> bool:
    """Whether a font has all letters of ``text``; those that show nothing by themselves count as had."""
    letters = _letters(family)
    return all(ord(c) in letters or c == "\n" or unicodedata.category(c) == "Cf" for c in text)
