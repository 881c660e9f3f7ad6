"""The command line's own business: what it imports, prints and refuses. Studies are run in tests/harness/study."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from harness import __version__
from harness.api import load_run
from harness.cli import app, guarded
from harness.errors import InputError


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_OUT", "out")

    def run(*words):
        capsys.readouterr()
        code = guarded(lambda: app([str(word) for word in words], standalone_mode=False))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def run(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "out" / "tiny")
    return tmp_path / "out" / "tiny"


def test_help_imports_no_library_of_weight():
    heavy = "{'torch', 'numpy', 'pandas', 'optuna', 'matplotlib', 'scipy', 'pydantic', 'yaml'}"
    code = f"import sys, harness.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


@pytest.mark.parametrize("what", ["models", "datasets", "studies", "metrics"])
def test_lists_are_whole_in_a_pipe(call, what, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    code, out, _ = call("list", what)
    assert code == 0
    entries = json.loads(call("list", what, "--json")[1])
    lines = out.splitlines()[1:]
    assert len(lines) == len(entries)
    for line, entry in zip(lines, entries, strict=True):
        assert next(iter(entry.values())) in line


def test_a_model_that_lacks_its_library_is_listed_as_such(call, monkeypatch):
    import harness.registry

    load = harness.registry.load_model

    def broken(name):
        if name == "sasrec":
            raise InputError("model 'sasrec' can't be loaded from harness.baselines.sasrec:SASRec: No module named 'x'")
        return load(name)

    monkeypatch.setattr(harness.registry, "load_model", broken)
    code, out, _ = call("list", "models")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("sasrec")]
    assert "unavailable" in line
    assert "No module named 'x'" in line
    assert "fair" in out
    listed = {entry["name"]: entry for entry in json.loads(call("list", "models", "--json")[1])}
    assert listed["sasrec"]["fidelity"] is None


def test_summary_says_how_the_run_was_started(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["command"] == "harness run --study tiny.yaml --workers 1"
    assert summary["preset"] == "default"
    assert summary["command"] in (finished_run / "report.html").read_text()


class TestVerify:
    def test_an_untouched_run(self, call, run):
        code, out, _ = call("verify", "--study", run / "study.yaml")
        assert code == 0
        assert "cells and tables are what the rows say" in out

    def test_one_changed_byte_names_the_cell(self, call, run):
        path = sorted(run.glob("cells/*/rows.parquet"))[1]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        code, out, _ = call("verify", "--study", run / "study.yaml")
        assert code == 1
        assert f"cell {path.parent.name}: " in out
        checks = json.loads(call("verify", "--study", run / "study.yaml", "--json")[1])
        assert [check["name"] for check in checks if not check["ok"]] == [f"cell {path.parent.name}"]

    def test_nothing_to_verify(self, call, run):
        (run / "evidence.json").unlink()
        code, _, err = call("verify", "--study", run / "study.yaml")
        assert (code, "write its report first" in err) == (2, True)
        assert call("verify", "--study", "ablations")[0] == 2

    def test_by_the_name_of_its_folder(self, call, run):
        run.rename(run.parent / "two losses +1")
        assert call("verify", "--study", "two losses +1")[0] == 0
        assert call("trace", "--study", "two losses +1", "main", "ce", "ndcg@10")[0] == 0

    def test_neither_a_study_nor_a_run(self, call, run):
        code, _, err = call("verify", "--study", "tinny")
        assert code == 2
        assert err == "error: unknown study 'tinny', and no run of that name in out; did you mean 'tiny'?\n"
        assert "unknown study '..', and no run" in call("report", "--study", "..")[2]
        (run.parent / "tiny.yaml").mkdir()
        shutil.copy(run / "study.yaml", run.parent / "tiny.yaml")  # a name in .yaml is a file, here or nowhere
        assert "there is no study file tiny.yaml" in call("verify", "--study", "tiny.yaml")[2]


class TestTrace:
    def test_a_number_leads_to_its_cells(self, call, run):
        code, out, _ = call("trace", "--study", run / "study.yaml", "main", "ce", "ndcg@10")
        assert code == 0
        assert out.count(str(run / "cells")) == 2
        traced = json.loads(call("trace", "--study", run / "study.yaml", "main", "ce", "ndcg@10", "--json")[1])
        values = [source["value"] for source in traced["sources"]]
        assert sum(values) / 2 == pytest.approx(traced["value"])

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            (("mian", "ce", "ndcg@10"), "did you mean 'main'"),
            (("main", "cee", "ndcg@10"), "no row 'cee'; known: ce, bce"),
            (("main", "ce", "ndcg@7"), "no column 'ndcg@7'"),
            (("main", "ce"), "'column'"),
        ],
    )
    def test_what_is_not_there(self, call, run, where, message):
        code, _, err = call("trace", "--study", run / "study.yaml", *where)
        assert code == 2
        assert message in err


class TestClaims:
    def test_the_ledger_that_ships(self, call):
        code, out, _ = call("claims")
        assert code == 0
        assert "Focused attention improves accuracy." in out
        findings = json.loads(call("claims", "--json")[1])
        assert {finding["verdict"] for finding in findings} == {"not tested"}
        assert all(finding["claim"]["claim"] in out for finding in findings)

    def test_of_another_file_and_its_run(self, call, run, tmp_path):
        (tmp_path / "mine.yaml").write_text(
            "papers: {p: {title: A paper}}\n"
            "claims: [{id: c, paper: p, claim: CE helps., study: tiny, quantity: ndcg@10, arm: ce, than: bce, "
            "expect: higher}]\n"
        )
        code, out, _ = call("claims", "--claims", "mine.yaml")
        assert code == 0
        assert "A paper" in out
        (finding,) = json.loads(call("claims", "--claims", "mine.yaml", "--json")[1])
        assert finding["seeds"] == 2
        assert finding["verdict"] in {"supported", "undecided", "contradicted"}

    def test_no_such_file(self, call):
        code, _, err = call("claims", "--claims", "none.yaml")
        assert (code, "does not exist" in err) == (2, True)
        code, _, err = call("claims", "--claims", ".")
        assert (code, err.count("\n"), "give the path of a claims file" in err) == (2, 1, True)

    @pytest.mark.parametrize("damaged", ["study.yaml", "rows.parquet"])
    def test_a_damaged_run_is_left_out_and_said(self, call, run, tmp_path, damaged):
        shutil.copytree(run, run.parent / "whole")
        for path in [run / damaged, *run.glob(f"cells/*/{damaged}")]:
            path.write_text("{")
        claim = "id: c, paper: p, claim: CE helps., study: tiny, arm: ce, than: bce, expect: higher"
        (tmp_path / "mine.yaml").write_text(f"papers: {{p: {{}}}}\nclaims: [{{{claim}, quantity: ndcg@10}}]\n")
        code, out, err = call("claims", "--claims", "mine.yaml", "--json")
        assert code == 1
        assert [finding["run"] for finding in json.loads(out)] == ["tiny"]
        assert (err.count("\n"), err.startswith("left out: "), "out/tiny/" in err) == (1, True, True)

    def test_a_claim_that_is_off_damages_no_run(self, call, run, tmp_path):
        claim = "id: c, paper: p, claim: CE helps., study: tiny, arm: ce, than: bce, expect: higher"
        (tmp_path / "mine.yaml").write_text(f"papers: {{p: {{}}}}\nclaims: [{{{claim}, quantity: ndgc@10}}]\n")
        code, _, err = call("claims", "--claims", "mine.yaml")
        assert (code, "unknown metric 'ndgc@10'" in err, "left out" in err) == (2, True, False)


class TestItemsReport:
    def test_of_a_data_set(self, call, tmp_path):
        values = ("items.quantiser.levels=2", "items.quantiser.size=8", "items.encoder.dim=8")
        settings = [word for value in values for word in ("--set", value)]
        code, out, err = call("items", "report", "--dataset", "ml-100k", *settings, "--examples", "2")
        assert code == 0, err
        paths = [tmp_path / line for line in out.split()]
        assert [path.suffix for path in paths] == [".md", ".pdf", ".png"]
        assert all(path.parent == tmp_path / "out" / "items" / "ml-100k" for path in paths)
        assert paths[0].read_text().count("## Nearest by code to item") == 2

    @pytest.mark.parametrize("kind", ["cooccurrence", "fused"])
    def test_without_texts(self, call, tmp_path, kind):
        values = (f"items.encoder.kind={kind}", "items.quantiser={kind: rkmeans, levels: 2, size: 4}")
        settings = [word for value in values for word in ("--set", value)]
        if kind == "fused":
            settings += ["--set", "items.encoder.parts=[{kind: cooccurrence, dim: 8}, {kind: random, dim: 8}]"]
        else:
            settings += ["--set", "items.encoder.dim=8"]
        data = "synthetic-sessions:users=60,items=30"
        code, out, err = call("items", "report", "--dataset", data, *settings)
        assert code == 0, err
        warning = "items have codes of their own"
        assert (warning in err, warning in (tmp_path / out.split()[0]).read_text()) == (True, True)
        code, _, err = call("items", "export", data, "codes.index.json", *settings)
        assert code == 0, err
        assert len(json.loads((tmp_path / "codes.index.json").read_text())) == 30

    def test_bad_input(self, call, study_file):
        for words, message in (
            ((), "name a study with --study or a data set"),
            (("--dataset", "ml-100"), "did you mean 'ml-100k'"),
            (("--dataset", "ml-100k", "--set", "items.quantizer.levels=2"), "did you mean 'quantiser'"),
            (("--study", study_file), "no model of study 'tiny' reads item codes"),
        ):
            code, _, err = call("items", "report", *words)
            assert code == 2, err
            assert message in err


class TestCompare:
    def test_as_a_table_and_as_json(self, call, run):
        code, out, err = call("compare", "tiny", run, "--pair", "ce/bce", "--metric", "ndcg@10")
        assert code == 0, err
        (line,) = json.loads(call("compare", "tiny", run, "--pair", "ce/bce", "--metric", "ndcg@10", "--json")[1])
        assert f"{line['difference']:+.4f}" in out
        assert f"{line['low']:+.4f} to {line['high']:+.4f}" in out
        assert "ce / bce" in out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("tiny", "tinny"), "no run in tinny, and none of that name in out; did you mean 'tiny'?"),
            (("tiny", "tiny", "--pair", "ce"), "--pair ce: write it as ONE/OTHER"),
            (("tiny", "tiny", "--metric", "ngdc@10"), "unknown metric 'ngdc@10'"),
            (("tiny", "tiny", "--candidates", "seen"), "unknown candidates 'seen'"),
        ],
    )
    def test_bad_input(self, call, run, words, message):
        code, _, err = call("compare", *words)
        assert (code, err.count("\n"), message in err) == (2, 1, True), err


class TestRecommend:
    def test_a_history_or_a_user(self, call, run):
        model = load_run(run).model("ce", 1)
        history = model.events_of(model.log.users[0])["item"].tolist()
        expected = model.recommend(history, 3).to_dict("records")
        asked = ("recommend", "tiny", "--variant", "ce", "--seed", "1", "-k", "3", "--json")
        for given in (("--history", ",".join(history)), ("--user", model.log.users[0])):
            code, out, err = call(*asked, *given)
            assert code == 0, err
            for line, row in zip(json.loads(out), expected, strict=True):
                assert (line["item"], line["title"]) == (row["item"], row["title"])
                assert line["score"] == pytest.approx(row["score"])
        assert expected[0]["title"] in call(*asked[:-1], "--history", ",".join(history))[1]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "give the item ids of a --history, or a --user"),
            (("--history", "no such thing at all"), "has no item 'no such thing at all'"),
            (("--history", " , "), "the history is empty"),
            (("--user", "nobody at all"), "has no user 'nobody at all'"),
            (("--user", "nobody", "--seed", "4"), "no seed '4'; known: 0, 1"),
        ],
    )
    def test_bad_input(self, call, run, words, message):
        code, _, err = call("recommend", run, "--variant", "ce", *words)
        assert (code, err.count("\n"), message in err) == (2, 1, True), err


def test_version(call):
    assert call("--version")[:2] == (0, f"harness {__version__}\n")


def test_help_names_the_ways_to_install_completion(call):
    assert "--install-completion" in call("--help")[1]
