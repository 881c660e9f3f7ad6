from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from harness.analysis.render import render
from harness.analysis.render.comma import comma_separated
from harness.analysis.render.latex import escape_latex, latex
from harness.analysis.render.markdown import markdown
from harness.analysis.table import Column, Entry, Line, Table, between, fixed, probability


@pytest.fixture
def table():
    awkward = r"a_b & 50 % #1 ~ {x} \y ^z $ <w> | * “q” λ ± −"
    return Table(
        name="main",
        caption=awkward,
        corner="Variant",
        columns=(Column("d/x", "X_1", "data_set"), Column("d/y", "Y%", "data_set"), Column("v", "Verdict", align="l")),
        lines=(
            Line(
                "a",
                awkward,
                (Entry("0.10", 0.1, "0.01", 0.01, "*", "best"), Entry("1", 1.0), Entry("worse", "worse")),
                "g_1",
            ),
            Line(
                "b", "B", (Entry("0.05", 0.05, "0.02", 0.02, "", "second"), Entry(), Entry("better", "better")), "g_1"
            ),
            Line("c", "C", (Entry(), Entry("2", 2.0), Entry("–", None)), "g_2"),
        ),
        notes=("First & last.", "Second_note"),
    )


def test_numbers_are_printed_the_same_everywhere():
    assert fixed(0.12345, 3) == "0.123"
    assert fixed(-0.5, 1, sign=True) == "−0.5"
    assert fixed(-0.00001, 3, sign=True) == "0.000"
    assert fixed(None, 2) == fixed(float("nan"), 2) == "–"
    assert (probability(0.0004), probability(0.05), probability(None)) == ("<0.001", "0.050", "–")
    assert between((-0.1, 0.25), 2) == "[−0.10, +0.25]"


def test_csv_keeps_full_precision(table):
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert list(rows[0]) == ["dataset", "key", "label", "d/x", "d/x sd", "d/x mark", "d/y", "v"]
    assert [row["d/x"] for row in rows] == ["0.1", "0.05", ""]
    assert rows[0]["d/x mark"] == "*"
    assert rows[0]["label"] == table.lines[0].label
    assert rows[1]["v"] == "better"


def test_markdown_has_the_same_number_of_cells_in_every_line(table):
    lines = [line for line in render(table, "md").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "**0.10** ± 0.01\\*" in lines[2]
    assert "<ins>0.05</ins>" in lines[3]


def test_html_is_well_formed_and_escaped(table):
    class Checker(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.rows, self.text = [], [], ""

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)
            if tag == "tr":
                self.rows.append(0)
            if tag in ("td", "th"):
                self.rows[-1] += int(dict(attrs).get("colspan", 1))

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.text += data

    checker = Checker()
    checker.feed(render(table, "html"))
    assert not checker.open
    assert set(checker.rows) == {4}
    assert table.caption in checker.text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_awkward_names(table, tmp_path):
    document = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}\n"
        + render(table, "tex")
        + "\\end{document}\n"
    )
    (tmp_path / "doc.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_latex_escapes_and_marks(table):
    text = render(table, "tex")
    assert r"\textbf{0.10} & {\scriptsize $\pm$ 0.01}$^{*}$" in text
    assert r"\underline{0.05}" in text
    assert r"\label{tab:main}" in text
    assert escape_latex("100 % of a_b") == r"100 \% of a\_b"


def test_an_error_over_users_stands_in_brackets_behind_the_deviation():
    entry = Entry("0.10", 0.1, "0.01", 0.0123, "*", error="0.02", error_value=0.0234)
    bare = Entry("0.20", 0.2, error="0.03", error_value=0.0345)  # deterministic: no deviation
    lines = (Line("a", "A", (entry,)), Line("b", "B", (bare,)))
    table = Table("main", "c", "Variant", (Column("x", "X"),), lines)
    assert r"0.10 & {\scriptsize $\pm$ 0.01 (0.02)}$^{*}$" in render(table, "tex")
    assert r"0.20 & {\scriptsize (0.03)}" in render(table, "tex")
    assert r"| 0.10 ± 0.01 (0.02)\* |" in render(table, "md")
    assert "± 0.01 (0.02)</span><sup>*</sup>" in render(table, "html")
    first, second, third = render(table, "csv").splitlines()
    assert first == "key,label,x,x sd,x se,x mark"
    assert (second, third) == ("a,A,0.1,0.0123,0.0234,*", "b,B,0.2,,0.0345,")


@pytest.mark.parametrize(
    "label", ["two\nlines", "carriage\r\nreturn", "a\u2028b", "x\x0bb", "p|q", "[a](javascript:b)"]
)
def test_no_label_breaks_a_row(label):
    table = Table("t", label, "Model", (Column("x", label),), (Line("k", label, (Entry("1", 1.0),)),), (label,))
    shown = markdown(table)
    rows = [line for line in re.split("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", shown) if line.startswith("|")]
    assert len(rows) == 3
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "](" not in shown
    assert not set("\r\v\u2028") & set(latex(table))
    assert list(csv.reader(io.StringIO(comma_separated(table), newline="")))[1][1] == label


def test_latex_says_what_letters_beyond_latin_need():
    made = latex(Table("t", "模型", "Model", (Column("x", "X"),), (Line("k", "a\u202eb", (Entry("1", 1.0),)),)))
    assert made.startswith("% This table has letters beyond Latin: compile it with LuaLaTeX or XeLaTeX")
    assert "ab &" in made
    assert not latex(Table("t", "é–λ ≈", "M", (Column("x", "X"),), (Line("k", "a", (Entry("1", 1.0),)),))).startswith(
        "%"
    )
