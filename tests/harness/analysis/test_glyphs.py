"""Texts of figures that the font can't show become texts that it can."""

from __future__ import annotations

import warnings

import pytest

from harness.analysis.glyphs import make_readable, readable
from harness.analysis.style import new_figure, png, style


@pytest.mark.parametrize("text", ["w/o λ", "שלום", "نموذج", "Ёлка", "a $x$ b", "two\nlines", "1\u202f000"])
def test_what_the_font_has_stays(text):
    assert readable(text) == text


def test_control_characters_go_and_odd_spaces_become_spaces():
    assert readable("a\tb\u2028c\x00d") == "a b cd"


def test_letters_that_no_font_has_become_code_points(monkeypatch):
    monkeypatch.setattr("harness.analysis.glyphs._families", lambda: ["DejaVu Sans"])
    assert readable("模型 A") == "[U+6A21 U+578B] A"
    assert readable("模型模型模型") == "[U+6A21 U+578B U+6A21 U+578B …]"


@pytest.mark.parametrize("label", ["模型 $x$", "推薦システム", "נמוך $", "تقليل", "🚀", "\\frac{$", "a\nb"])
def test_a_figure_with_any_label_is_drawn_without_a_missing_letter(label):
    with style():
        figure = new_figure()
        axis = figure.subplots()
        axis.plot([0, 1], label=label)
        axis.set_xticks([0, 1], [label, "b"])
        axis.set_title(label)
        axis.legend()
        make_readable(figure)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert png(figure, dpi=50)
