from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from typing import get_args

import numpy as np
import pytest

from benchmarks.synthetic_run import write_run
from harness.analysis.artefacts import tables_of
from harness.analysis.figures.learning import LearningCurves
from harness.analysis.picture import hover_points, svg_uri
from harness.analysis.report import write_report
from harness.analysis.rows import load_run
from harness.analysis.statistics import Verdict
from harness.analysis.two_levels import two_level_interval
from harness.analysis.verdicts import MANY, WORDS, headline, verdicts
from harness.analysis.verify import verify


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "ablations"
    shutil.copytree(run_dir, folder)
    return folder, write_report(folder).paths


def test_every_file_that_is_named_exists(report):
    folder, paths = report
    names = {path.relative_to(folder).as_posix() for path in paths}
    assert {"tables/main.tex", "tables/differences.md", "tables/cost.csv", "report.html"} <= names
    assert {"figures/differences.pdf", "figures/learning-curves.png", "figures/attention-recency.pdf"} <= names
    assert all(path.stat().st_size > 0 for path in paths)
    assert not list(folder.rglob(".*"))  # no half-written file is left


def test_same_run_same_bytes_in_another_process_without_torch(report, run_dir, tmp_path):
    folder, paths = report
    copy = tmp_path / "again"
    shutil.copytree(run_dir, copy)
    code = (
        "import sys; from harness.analysis import style; style._RC['pdf.fonttype'] = 3;"  # as in this process
        "from harness.analysis.report import write_report; write_report(sys.argv[1]);"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'models', 'baselines', 'optuna')];"
        "print(bad); sys.exit(bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code, copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in paths:
        assert (copy / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_the_page_stands_alone(report):
    class Checker(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.references, self.ids, self.scripts = [], [], [], 0

        def handle_starttag(self, tag, attrs):
            attrs = dict(attrs)
            assert tag not in ("iframe", "object", "embed", "form")
            assert not [key for key in attrs if key.startswith("on")]
            self.scripts += tag == "script"
            self.ids += [attrs["id"]] if "id" in attrs else []
            self.references += [attrs[key] for key in ("src", "href") if key in attrs]
            if tag == "img":
                assert attrs["alt"]
            if tag not in ("meta", "link", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    text = (report[0] / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert len(set(checker.ids)) == len(checker.ids)
    for reference in checker.references:
        if reference.startswith("#"):
            assert reference[1:] in checker.ids
        elif not reference.startswith("data:"):
            assert (report[0] / reference).exists(), reference
    assert checker.scripts == 1
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    assert script == (resources.files("harness.analysis") / "templates" / "report.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert not re.search(r"url\(|@import", text)


def test_the_page_opens_with_question_and_verdicts(report):
    text = (report[0] / "report.html").read_text(encoding="utf-8")
    question, first = text.index("Which of FAIR"), text.index("w/o focused attention is worse than FAIR: NDCG@10")
    assert question < first < text.index('id="results"')
    assert "harness run --study ablations" in text
    assert "the paper&#39;s form is not known" in text
    assert load_run(report[0]).cells["split"].iloc[0] in text


def test_verdict_sentences_hold_the_numbers_of_the_table(run):
    sentences = verdicts(run)
    assert len(sentences) == 3
    means = run.metric_table("ndcg@10")["ndcg@10"].groupby(level="variant").mean()
    assert f"NDCG@10 {means['no-focused-attention']:.4f} against {means['fair']:.4f}" in sentences[0]
    assert "5 paired seeds" in sentences[0]


def test_many_comparisons_are_summed_up(tmp_path):
    names = [f"d{i}" for i in range(3)]
    run = load_run(write_run(tmp_path / "many", datasets=names, seeds=5, users=300, attention=False))
    sentences = verdicts(run)
    assert len(sentences) == 3
    assert re.match(r"w/o focused attention is worse than FAIR on \d", sentences[0])
    assert "of 3 data sets: NDCG@10 −" in sentences[0]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize(("folder", "options", "width"), [(".", "", 455), ("two-column", "twocolumn", 506)])
def test_all_tables_compile_together_and_fit_the_page(report, tmp_path, folder, options, width):
    paths = sorted((report[0] / "tables" / folder).glob("*.tex"))
    inputs = "".join(f"\\input{{{path}}}\\clearpage\n" for path in paths)
    text = (
        f"\\documentclass[{options}]{{article}}\\usepackage[T1]{{fontenc}}\\usepackage{{booktabs}}\n"
        f"\\setlength{{\\textwidth}}{{{width}pt}}\\setlength{{\\columnsep}}{{24pt}}\\begin{{document}}\n"
    )
    (tmp_path / "doc.tex").write_text(text + inputs + "\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "multiply-defined" not in done.stdout
    assert "Overfull" not in done.stdout
    assert len(paths) >= 5


def test_a_study_half_done_and_without_control_still_reports(own_run):
    run = load_run(own_run)
    for cell in run.cells["id"].iloc[1:]:
        shutil.rmtree(own_run / "cells" / cell)
    write_report(own_run)
    text = (own_run / "report.html").read_text(encoding="utf-8")
    assert "1 of 12 cells finished, 11 not run" in text.replace("\n", "")
    study = (own_run / "study.yaml").read_text()
    (own_run / "study.yaml").write_text(study.replace("control: fair\n", ""))
    assert "names no control" in verdicts(load_run(own_run))[0]


def test_action_study(action_dir, tmp_path):
    folder = tmp_path / "actions"
    shutil.copytree(action_dir, folder)
    names = {path.name for path in write_report(folder).paths}
    assert {"main.tex", "differences.tex", "cost.tex"} <= names
    assert "candidates.tex" not in names


REFERENCES = ["popularity", "transitions"]


@pytest.mark.parametrize("task", ["retrieval", "action"])
def test_every_reference_says_what_passes_it_for_new_users(tmp_path, task):
    strength = {"fair": 0.9, "no-mi-loss": 0.3, "near": 0.6, "popularity": 0.6, "transitions": 1.4}
    variants = {v: {"model": "fair", "label": v.upper()} for v in strength}
    options = {"variants": variants, "strength": strength, "attention": False, "references": REFERENCES, "users": 300}
    run = load_run(write_run(tmp_path / "r", **options, task=task, **({"primary": "bce"} if task == "action" else {})))
    table = {t.name: t for t in tables_of(run)}["references"]
    said = [sentence for sentence in verdicts(run) if "over users and seeds, " in sentence and "is, by" in sentence]
    assert len(table.lines) == 3 * 2
    words = {"yes": "passed by", "no": "not passed by", "undecided": "undecided for"}
    for metric in ("ndcg@10",) if task == "retrieval" else ("bce", "ne"):
        for reference in REFERENCES:
            (sentence,) = [s for s in said if reference.upper() in s and metric.upper() in s]
            for variant in ("fair", "no-mi-loss", "near"):
                line = next(line for line in table.lines if line.key == f"{variant}/{reference}")
                shown = dict(zip((c.key for c in table.columns), line.entries, strict=True))
                wide = two_level_interval(run.differences("ml-100k", variant, reference, metric).T)
                low, high = sorted(wide.interval) if task == "retrieval" else sorted(-end for end in wide.interval)
                expected = "yes" if low > 0 else "no" if high < 0 else "undecided"
                assert shown[f"{metric}/passes"].text == expected
                clause = next(c for c in sentence.rstrip(".").split(" is, by ")[1].split("; ") if words[expected] in c)
                assert variant.upper() in clause
    if task == "retrieval":
        assert said[0].split("users and seeds, ")[1] == "passed by FAIR; not passed by NO-MI-LOSS; undecided for NEAR."


def test_one_seed_passes_nothing(tmp_path):
    variants = {v: {"model": "fair", "label": v.upper()} for v in ("fair", "popularity")}
    folder = write_run(tmp_path / "r", variants=variants, attention=False, references=["popularity"], seeds=1)
    said = verdicts(load_run(folder))[-1]
    assert "no variant was tested against POPULARITY (" in said
    assert said.endswith("): with a single seed there is no interval.")


def test_many_comparisons_on_one_data_set_are_grouped_by_verdict(tmp_path):
    variants = {v: {"model": "fair", "label": v.upper()} for v in "abcde"}
    strength = dict(zip("abcde", (1.0, 1.0, 0.6, 0.6, 1.0), strict=True))
    folder = write_run(
        tmp_path / "r", variants=variants, strength=strength, attention=False, users=200, contrasts="all-pairs"
    )
    run = load_run(folder)
    said = verdicts(run)
    assert len(said) < len(run.pairs) == 10
    assert any(re.match(r"On ml-100k, worse than A, by the difference in NDCG@10: C \(−0\.\d+\), D", s) for s in said)


def test_a_sentence_has_one_unit(run):
    for sentence in verdicts(run):
        assert sentence.count("%") == 1, sentence  # that of the interval's confidence
        assert "95 % interval" in sentence
        assert "over users and seeds" in sentence


def test_every_verdict_has_words():
    assert set(WORDS) == set(MANY) == set(get_args(Verdict))
    assert list(WORDS) == list(MANY)


def broken(*_):
    """What an extension may do wrong, in the place of one that ships."""
    raise ZeroDivisionError("<script>alert(1)</script> in\nthe middle")


def test_one_failing_table_and_figure_are_two_lines_of_the_report(own_run, monkeypatch):
    monkeypatch.setattr("harness.analysis.tables.breakdowns.Candidates.make", broken)
    monkeypatch.setattr("harness.analysis.figures.learning.LearningCurves.make", broken)
    monkeypatch.setattr("harness.analysis.page.warnings_of", broken)
    report = write_report(own_run)
    assert [failure.what for failure in report.failures] == ["table candidates", "figure learning-curves", "warnings"]
    text = (own_run / "report.html").read_text(encoding="utf-8")
    told = "table candidates: ZeroDivisionError: &lt;script&gt;alert(1)&lt;/script&gt; in the middle"
    assert told in text
    assert '<a href="failures/table-candidates.txt">' in text
    assert "ZeroDivisionError" in (own_run / "failures" / "table-candidates.txt").read_text()
    assert {"main.tex", "cost.tex"} <= {path.name for path in report.paths}
    assert not (own_run / "tables" / "candidates.tex").exists()
    problems = [check for check in verify(own_run) if not check.ok]
    assert [(check.name, "can't be derived" in check.problem) for check in problems] == [("table candidates", True)]


def test_a_report_without_failures_leaves_no_trace_of_earlier_ones(own_run):
    (own_run / "failures").mkdir()
    (own_run / "failures" / "table-old.txt").write_text("old")
    assert not write_report(own_run).failures
    assert not (own_run / "failures").exists()


def test_a_part_that_fails_is_said_by_the_command_line(harness, own_run):
    path = own_run / "study.yaml"
    path.write_text(path.read_text() + "tables: {small: {rows: [fare]}}\n")
    done = harness("report", "--study", path)
    assert done.returncode == 1
    assert "not in the report: table results: InputError: study 'ablations', table 'small': unknown row" in done.stderr
    assert "Traceback" not in done.stderr
    assert (own_run / "report.html").exists()


def test_the_headline_is_one_sentence_with_every_verdict(run, tmp_path):
    said = headline(run)
    assert said.count(".") == said.count("0.") + 1  # and those of numbers
    for variant in run.variants:
        assert run.label(variant) in said
    best = run.metric_table("ndcg@10")["ndcg@10"].groupby(level="variant").mean()
    assert said.endswith(f"{run.label(best.idxmax())} has the highest, {best.max():.4f}.")
    one = load_run(write_run(tmp_path / "one", seeds=1, users=40, attention=False))
    assert "nothing was tested, which takes two seeds" in headline(one)


def test_what_a_pointer_finds_are_the_points_of_the_figure(run, draw):
    figure = draw(LearningCurves, run)
    svg_uri(figure)
    found = hover_points(figure)
    curve = next(line for line in figure.axes[0].lines if line.get_label() == "FAIR")
    shown = [point for point in found["points"] if found["labels"][point[3]] == "FAIR" and point[2] == 0]
    assert [float(point[4]) for point in shown] == list(curve.get_xdata())
    assert [float(point[5]) for point in shown] == pytest.approx(list(curve.get_ydata()), rel=1e-3)
    left, top = np.array(figure.axes[0].transData.transform(curve.get_xydata()[0])) / figure.bbox.size
    assert shown[0][:2] == pytest.approx([left, 1 - top], abs=1e-3)


def test_labels_reach_the_page_as_text_alone(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>\"' --> $x"
    variants = {v: {"model": "fair", "label": f"{evil} {v}"} for v in "ab"}
    folder = write_run(tmp_path / "evil", variants=variants, users=40, seeds=2, title=evil, question=evil)
    assert not write_report(folder).failures
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert text.count("<script") == 1
    for uri in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text):
        assert b"<img" not in base64.b64decode(uri)
    points = [json.loads(html.unescape(found)) for found in re.findall(r'data-points="([^"]*)"', text)]
    assert any(f"{evil} a" in picture["labels"] for picture in points)


def test_the_index_lists_every_run_even_a_damaged_one(tmp_path, harness):
    out = tmp_path / "out"
    write_report(write_run(out / "good", users=40, seeds=2, attention=False))
    write_run(out / "new <b>", users=40, seeds=2, attention=False)
    broken = write_run(out / "broken", users=40, seeds=2, attention=False)
    (broken / "study.yaml").write_text("a: [")
    done = harness("report", "--index")
    assert done.returncode == 0, done.stderr
    text = (out / "index.html").read_text(encoding="utf-8")
    assert 'href="good/report.html"' in text
    assert headline(load_run(out / "good")) in html.unescape(text)
    assert "No report yet" in text
    assert "This run can&#39;t be read" in text
    assert "<b>" not in text


def test_the_widths_of_latex_are_an_option_that_verify_knows(harness, own_run):
    before = (own_run / "study.yaml").read_text()
    assert harness("report", "--study", own_run / "study.yaml", "--text-width", "250").returncode == 0
    text = (own_run / "tables" / "main.tex").read_text()
    assert text.startswith("% text 250 pt, column 241 pt\n")
    assert text.count("begin{tabular}") > 1
    assert harness("verify", "--study", own_run / "study.yaml").returncode == 0
    assert (own_run / "study.yaml").read_text() == before
