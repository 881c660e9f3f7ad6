"""Tables, figures and claims of the noise experiment and the decoding audit, on run folders with written numbers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.synthetic_run import write_run
from harness.analysis.claims import Claim, claims_for
from harness.analysis.decoding_tables import decoding_table
from harness.analysis.figures.attention import Relevance
from harness.analysis.figures.examples import Examples
from harness.analysis.figures.noise import PROPORTIONAL, NoiseAccuracy, NoiseAttention
from harness.analysis.noise import noise_comparisons, noise_quantities, noise_shares, noise_tables, noise_values
from harness.analysis.render import render
from harness.analysis.report import write_report
from harness.analysis.rows import load_run
from harness.analysis.verify import EVIDENCE, verify
from harness.errors import InputError

SHARES = (0.0, 0.1, 0.3)
HEADS = [(layer, head) for layer in range(2) for head in range(2)]


def noise_frame(random, mass, loss):
    """Statistics of one cell: ``mass`` is the weight on noise per injected share, ``loss`` of the metric."""
    lines = []
    for share in SHARES:
        jitter = 1 + 0.02 * random.normal()
        whole = 0.1 + 0.01 * random.normal() if share == 0 else whole  # noqa: F821
        lines += [(share, "injected", "tokens", -1, -1, share), (share, "injected", "events", -1, -1, share)]
        lines += [(share, "injected", "dropped", -1, -1, share / 2)]
        for protocol in ("all", "unseen"):
            calm = whole * (1 - share / 4)
            lines += [(share, "real", f"{protocol}/ndcg@10", -1, -1, calm)]
            lines += [(share, "injected", f"{protocol}/ndcg@10", -1, -1, calm * (1 - loss * share * jitter))]
            lines += [(share, "injected", f"{protocol}/overlap@10", -1, -1, 1 - share * jitter)]
        for layer, head in HEADS:
            there = share * mass * jitter * (1 + 0.1 * (layer - 0.5) + 0.1 * (head - 0.5))
            for name, value in (("injected_abs", there), ("injected", there / 2), ("similarity", 1 - there / 3)):
                lines.append((share, "injected", name, layer, head, value))
    frame = pd.DataFrame(lines, columns=["share", "history", "statistic", "layer", "head", "value"])
    return frame.assign(users=60)


def example(user, signed):
    events = [{"item": f"i{n}", "title": f"Item {n} & co. ($5)" if n else ""} for n in range(15)]
    weights = [np.linspace(-0.2 if signed else 0.0, 0.4, 15).tolist()] * 2
    return {
        "user": user, "target": {"item": "i9", "title": "Next"}, "events": events, "earlier": 3,
        "layers": [weights, weights], "rest": [[0.1, 0.1]] * 2,
    }  # fmt: skip


AUDIT = {
    "users": 60,
    "beams": 20,
    "catalogue": {"items": 200, "levels": 4, "different_codes": 190, "colliding_items": 20, "largest_collision": 3},
    "free": {"invalid@5": 0.25, "invalid@10": 0.5, "short@10": 1.0, "recall@10": 0.1},
    "constrained": {"recall@5": 0.1, "recall@10": 0.2, "code_recall@10": 0.3, "prefix_recall@10/3": 0.4},
    "exact": {"users": 32, "overlap@10": 0.9, "same@10": 0.8},
}


def decorate(folder):
    """Gives the cells of a run noise, examples, relevance and (FAIR's and one other's) an audit."""
    for line in load_run(folder).cells.itertuples():
        random = np.random.default_rng(line.seed)
        cell = folder / "cells" / line.id
        signed = line.variant == "fair"
        if line.variant != "no-mi-loss":
            noise_frame(random, 0.6 if signed else 0.9, 0.5).to_parquet(cell / "noise.parquet", index=False)
        (cell / "examples.json").write_text(json.dumps([example(user, signed) for user in "abc"]))
        attention = pd.read_parquet(cell / "attention.parquet")
        deciles = attention[(attention["statistic"].isin(["recency", "recency_abs"])) & (attention["bin"] < 10)]
        named = deciles.assign(statistic=deciles["statistic"].str.replace("recency", "relevance"))
        pd.concat([attention, named]).to_parquet(cell / "attention.parquet", index=False)
        if line.variant in ("fair", "no-noise-loss"):
            audit = json.loads(json.dumps(AUDIT))
            audit["free"]["invalid@10"] += 0.1 * line.seed
            (cell / "decoding.json").write_text(json.dumps(audit))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return decorate(write_run(tmp_path_factory.mktemp("runs") / "noise", users=60, seeds=4, study="noise"))


@pytest.fixture
def run(folder):
    return load_run(folder)


def raw(run, variant, seed, share, statistic, history="injected"):
    frame = pd.read_parquet(run.file(run.ids("ml-100k", variant)[seed], "noise.parquet"))
    where = (frame["share"] == share) & (frame["statistic"] == statistic) & (frame["history"] == history)
    return frame["value"][where].mean()


def test_quantities_are_read_off_the_cells(run):
    quantities = noise_quantities(run)
    assert noise_shares(run) == list(SHARES)
    for key, statistic in (("injected_abs", "injected_abs"), ("overlap", "unseen/overlap@10")):
        found = noise_values(run, "ml-100k", "fair", quantities[key], 0.3)
        assert found == {(seed, 0): pytest.approx(raw(run, "fair", seed, 0.3, statistic)) for seed in range(4)}
    effect = noise_values(run, "ml-100k", "fair", quantities["effect"], 0.3)
    noisy, calm = (raw(run, "fair", 2, 0.3, "unseen/ndcg@10", history) for history in ("injected", "real"))
    assert effect[2, 0] == pytest.approx(100 * (noisy - calm) / raw(run, "fair", 2, 0.0, "unseen/ndcg@10"))
    assert noise_values(run, "ml-100k", "no-mi-loss", quantities["effect"], 0.3) == {}


def test_comparisons_are_paired_tests_in_one_family(run):
    quantity = noise_quantities(run)["injected_abs"]
    found = noise_comparisons(run, quantity)
    assert set(found) == {
        ("ml-100k", v, "fair", s) for v in ("no-focused-attention", "no-noise-loss") for s in (0.1, 0.3)
    }
    ours, control = (
        [raw(run, v, seed, 0.3, "injected_abs") for seed in range(4)] for v in ("no-focused-attention", "fair")
    )
    c = found["ml-100k", "no-focused-attention", "fair", 0.3]
    assert c.p == pytest.approx(stats.ttest_rel(ours, control).pvalue)
    assert c.family_size == 4
    assert c.difference > 0  # more weight on noise
    assert c.verdict == "on these users only"  # attention is kept as a mean over users


def test_tables_hold_levels_and_differences(run):
    levels, differences, ranking = noise_tables(run)
    assert {line.group for line in levels.lines} == {"0 % injected", "10 % injected", "30 % injected"}
    line = next(x for x in levels.lines if x.key == "fair" and x.group.startswith("30"))
    values = [raw(run, "fair", seed, 0.3, "injected_abs") for seed in range(4)]
    assert line.entries[0].value == pytest.approx(np.mean(values))
    assert line.entries[0].spread_value == pytest.approx(np.std(values, ddof=1))
    missing = next(x for x in levels.lines if x.key == "no-mi-loss")
    assert all(entry.value is None for entry in missing.entries)
    assert len(differences.lines) == len(ranking.lines) == 6
    line = next(x for x in differences.lines if x.key == "no-focused-attention" and x.group.startswith("30"))
    assert line.entries[0].mark == "*"
    assert line.entries[0].text.startswith("+")
    assert "15.0 % of the real events at 30 %" in levels.notes[0]
    for table in (levels, differences, ranking):
        assert all(render(table, form) for form in ("tex", "md", "csv", "html"))


def test_a_run_without_the_experiment_has_none_of_it(own_run, draw):
    run = load_run(own_run)
    assert noise_tables(run) == []
    assert decoding_table(run) is None
    for kind in (NoiseAttention, NoiseAccuracy, Relevance, Examples):
        assert draw(kind, run, "ml-100k") is None


def test_curves_have_the_intervals_that_they_claim(run, draw):
    figure = draw(NoiseAttention, run, "ml-100k")
    above, below = figure.axes[0], figure.axes[3]
    values = np.array([raw(run, "fair", seed, 0.3, "injected_abs") for seed in range(4)])
    curve = next(line for line in above.lines if line.get_label() == "FAIR")
    assert curve.get_xydata()[-1] == pytest.approx((0.3, values.mean()))
    proportional = next(line for line in above.lines if line.get_label() == PROPORTIONAL)
    assert proportional.get_xydata()[:, 1] == pytest.approx(SHARES)  # in proportion to the tokens
    band = above.collections[0].get_paths()[0].vertices[:, 1]
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (band.min(), band.max()) == pytest.approx((0, high), abs=1e-9)
    assert any(value == pytest.approx(low) for value in band)
    compared = noise_comparisons(run, noise_quantities(run)["injected_abs"])["ml-100k", "no-noise-loss", "fair", 0.3]
    segments = [s for bars in below.collections for s in bars.get_segments()]
    assert any(segment[:, 1] == pytest.approx(compared.interval) for segment in segments)


def test_examples_show_the_control_beside_another_on_one_scale(run, draw):
    figure = draw(Examples, run, "ml-100k")
    panels = figure.axes[:6]  # three users, two variants
    assert [axis.get_title(loc="left") for axis in panels[:2]] == ["FAIR", "w/o focused attention"]
    titles = [label.get_text() for label in panels[0].get_yticklabels()]
    assert titles[:3] == ["(3 earlier ones, summed)", "i0", "Item 1 & co. ($5)"]  # the first has no title
    meshes = [mesh for axis in panels for mesh in axis.collections]
    assert {mesh.get_clim() for mesh in meshes} == {(-0.4, 0.4)}
    assert np.asarray(meshes[0].get_array()).reshape(16, 2)[:, 0] == pytest.approx([0.1, *np.linspace(-0.2, 0.4, 15)])


def test_the_audit_is_a_table(run):
    table = decoding_table(run)
    assert [line.key for line in table.lines] == ["fair", "no-noise-loss"]
    entries = dict(zip((column.key for column in table.columns), table.lines[0].entries, strict=True))
    assert entries["free/invalid@10"].value == pytest.approx(65)
    assert entries["free/invalid@10"].spread_value == pytest.approx(100 * np.std([0.5, 0.6, 0.7, 0.8], ddof=1))
    assert entries["constrained/prefix_recall@10"].value == 40
    assert entries["catalogue/colliding"].value == 10
    assert entries["exact/overlap@10"].spread == ""  # the same in every seed


@pytest.mark.parametrize(("statistic", "sign"), [("injected_abs", 1), ("similarity", -1)])
def test_claims_read_the_noise_experiment(run, statistic, sign):
    claim = Claim(
        id="c", paper="p", claim="x", study="noise", quantity=f"noise/{statistic}@0.3", arm="fair",
        than="no-focused-attention", expect="lower",
    )  # fmt: skip
    (finding,) = claims_for(run, [claim])
    assert finding.verdict == "on these users only"  # found over seeds; the users' own values were not kept
    assert np.sign(finding.estimate) == sign
    assert finding.compared.endswith(f"− {run.label('fair')}")
    (finding,) = claims_for(run, [claim.model_copy(update={"quantity": f"noise/{statistic}@0.2"})])
    assert finding.verdict == "not tested"


def test_a_noise_claim_names_its_share():
    with pytest.raises(ValueError, match=r"as in 'noise/injected_abs@0.3'"):
        Claim(id="c", paper="p", claim="x", study="s", quantity="noise/injected_abs", sweep=True)


@pytest.mark.slow
def test_the_report_shows_and_verify_watches_all_of_it(folder, tmp_path):
    copy = tmp_path / "noise"
    shutil.copytree(folder, copy)
    paths = {path.name for path in write_report(copy).paths}
    assert {"noise.tex", "noise-ranking.csv", "decoding.md", "noise-attention.pdf", "noise-accuracy.png"} <= paths
    assert {"attention-relevance.pdf", "attention-examples.png"} <= paths
    text = (copy / "report.html").read_text()
    for section in ("noise", "decoding"):
        assert f'<section id="{section}">' in text
        assert f'href="#{section}"' in text
    cell = load_run(copy).ids("ml-100k", "fair")[0]
    path = copy / "cells" / cell / "decoding.json"
    path.write_bytes(path.read_bytes() + b" ")
    (problem,) = {check.problem for check in verify(copy) if cell in check.name and not check.ok}
    assert "decoding.json is not the file" in problem
    assert {"noise.parquet", "examples.json"} <= set(json.loads((copy / EVIDENCE).read_text())[cell])


def test_damaged_statistics_are_told(folder, tmp_path):
    copy = tmp_path / "noise"
    shutil.copytree(folder, copy)
    run = load_run(copy)
    path = run.file(run.ids("ml-100k", "fair")[1], "noise.parquet")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"noise.parquet is damaged"):
        noise_tables(run)
