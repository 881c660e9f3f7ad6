from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from benchmarks.synthetic_run import write_run
from harness.analysis.report import verdicts, write_report
from harness.analysis.rows import load_run
from harness.analysis.study_tables import study_tables


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "ablations"
    shutil.copytree(run_dir, folder)
    return folder, write_report(folder)


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
        "import sys; from harness.analysis.report import write_report; write_report(sys.argv[1]);"
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
            self.open, self.references, self.ids = [], [], []

        def handle_starttag(self, tag, attrs):
            attrs = dict(attrs)
            assert tag not in ("script", "iframe", "object")
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
        assert reference.startswith(("data:", "#")), reference
        if reference.startswith("#"):
            assert reference[1:] in checker.ids
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
def test_all_tables_compile_together(report, tmp_path):
    inputs = "".join(f"\\input{{{path}}}\n" for path in sorted((report[0] / "tables").glob("*.tex")))
    text = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "doc.tex").write_text(text + inputs + "\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "multiply-defined" not in done.stdout


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
    names = {path.name for path in write_report(folder)}
    assert {"main.tex", "differences.tex", "cost.tex"} <= names
    assert "candidates.tex" not in names


def test_what_a_reference_beats_is_said(tmp_path):
    strength = {"fair": 1.0, "no-focused-attention": 0.7, "no-mi-loss": 0.9}
    variants = {v: {"model": "fair", "label": v.upper()} for v in strength}
    folder = write_run(tmp_path / "r", variants=variants, strength=strength, attention=False, references=["no-mi-loss"])
    run = load_run(folder)
    said = verdicts(run)
    value = np.mean(list(run.by_seed("ml-100k", "no-mi-loss", "ndcg@10").values()))
    assert said[-1].startswith(f"On ml-100k, no better than NO-MI-LOSS (NDCG@10 {value:.4f}, ")
    assert said[-1].endswith("untested): NO-FOCUSED-ATTENTION.")
    assert len(said) == 2  # one comparison, none with the reference
    tables = {table.name: table for table in study_tables(run)}
    assert [line.key for line in tables["differences"].lines] == ["no-focused-attention"]
    assert "no-mi-loss" in [line.key for line in tables["main"].lines]
    assert "Holm's correction for 1 comparison). For orientation, not tested: NO-MI-LOSS." in tables["main"].caption


def test_what_a_base_rate_beats_is_said_by_loss_and_by_normalized_entropy(tmp_path):
    """One sentence where both metrics name the same variants, else one each."""
    variants = {
        v: {"model": "interleaved", "label": v.upper()} for v in ("interleaved", "attn-lfa", "item-only", "base")
    }
    strength = {"interleaved": 1.0, "attn-lfa": -0.5, "item-only": 0.7, "base": 0.3}
    folder = write_run(
        tmp_path / "a", users=100, seeds=2, task="action", datasets=("d1", "d2"), variants=variants, strength=strength,
        attention=False, references=["base"], primary="bce",
    )  # fmt: skip
    run = load_run(folder)

    def mean(dataset: str, variant: str, metric: str) -> float:
        return float(np.mean(list(run.by_seed(dataset, variant, metric).values())))

    expected = []
    for dataset in ("d1", "d2"):
        for metric in ("bce", "ne"):
            assert (
                mean(dataset, "item-only", metric) < mean(dataset, "base", metric) < mean(dataset, "attn-lfa", metric)
            )
        bars = f"BCE {mean(dataset, 'base', 'bce'):.4f}, NE {mean(dataset, 'base', 'ne'):.4f}"
        expected.append(f"On {dataset}, no better than BASE ({bars}, mean over seeds, untested): ATTN-LFA.")
    assert [sentence for sentence in verdicts(run) if "no better than" in sentence] == expected

    key = ("metric", run.ids("d1", "item-only")[0], "ne", "test", "unseen")
    run._cache[key] += 1  # by NE alone it falls behind
    said = [sentence for sentence in verdicts(run) if sentence.startswith("On d1, no better")]
    assert said[0].endswith("untested): ATTN-LFA.")
    assert "(BCE" in said[0]
    assert said[1].endswith("untested): ATTN-LFA, ITEM-ONLY.")
    assert "(NE" in said[1]
