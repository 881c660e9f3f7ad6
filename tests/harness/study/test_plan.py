from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy.stats import chi2
from statsmodels.stats.power import TTestPower

from benchmarks.synthetic_run import VARIANTS, write_run
from harness.analysis.power import achieved_power
from harness.analysis.rows import load_run
from harness.errors import InputError
from harness.study.loading import load_study
from harness.study.plan import make_plan


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    """A folder of results with one earlier run of the ablations."""
    results = tmp_path_factory.mktemp("results")
    references = {name: {"model": name} for name in ("popularity", "transitions")}
    variants = VARIANTS | {"zero-lambda": {"model": "fair"}} | references
    write_run(
        results / "ablations", variants=variants, users=200, seeds=5, attention=False, references=list(references)
    )
    return results


def test_nothing_is_known_without_earlier_runs(tmp_path):
    plan = make_plan(load_study("ablations"), tmp_path, "ablations")
    assert [(arm.cells, arm.finished, arm.seconds, arm.memory_bytes) for arm in plan.arms] == [(5, 0, None, None)] * 7
    assert [c.detectable for c in plan.comparisons] == [None] * 4
    assert (plan.left, plan.seconds_left) == (35, None)


def test_time_and_memory_are_those_of_the_same_model_on_the_same_data(pilot):
    plan = make_plan(load_study("ablations", settings=("budget.epochs=10",)), pilot, "ablations")
    for arm, model, cells in ((plan.arms[0], "fair", 25), (plan.arms[-2], "popularity", 5)):
        cards = [p.parent for p in pilot.glob("*/cells/*/cell.json") if json.loads(p.read_text())["model"] == model]
        costs = [json.loads((cell / "cost.json").read_text()) for cell in cards]
        assert len(costs) == cells
        seconds = [sum(c[f"{part}_seconds"] for part in ("data", "train", "evaluation")) / c["epochs"] for c in costs]
        assert arm.seconds == pytest.approx(10 * np.mean(seconds))
        assert arm.memory_bytes == max(cost["peak_memory_bytes"] for cost in costs)
        assert "other settings" in arm.basis
    assert plan.seconds_left == pytest.approx(25 * plan.arms[0].seconds + 5 * sum(a.seconds for a in plan.arms[-2:]))
    elsewhere = make_plan(load_study("ablations", datasets=("amazon-beauty",)), pilot, "ablations")
    assert elsewhere.arms[0].seconds is None


def test_cells_with_the_same_settings_count_as_they_are(finished_run, study_file):
    study = load_study(str(study_file), seeds="5")
    plan = make_plan(study, finished_run.parent, "tiny")
    run = load_run(finished_run)
    for arm in plan.arms:
        costs = [run.cost(cell) for cell in run.ids(arm.dataset, arm.variant)]
        whole = [sum(c[f"{part}_seconds"] for part in ("data", "train", "evaluation")) for c in costs]
        assert (arm.cells, arm.finished) == (5, 2)
        assert arm.seconds == pytest.approx(np.mean(whole))
        assert arm.basis == "2 cells with these settings"
    assert make_plan(study, finished_run.parent, "another").left == 10


def test_the_detectable_difference_comes_from_the_pilots_rows(pilot):
    study = load_study("ablations", seeds="8")
    plan = make_plan(study, pilot, "ablations", difference=0.01)
    run = load_run(pilot / "ablations")
    for c in plan.comparisons:
        ours, theirs = (run.by_seed(c.dataset, v, "ndcg@10") for v in (c.variant, "fair"))
        deviation = np.std([ours[s] - theirs[s] for s in ours], ddof=1)
        assert (c.pilot, c.pilot_seeds) == ("ablations", 5)
        assert c.deviation == pytest.approx(deviation)
        upper, lower = (deviation * np.sqrt(4 / chi2.ppf(q, 4)) for q in (0.2, 0.8))
        assert c.deviation_upper == pytest.approx(upper)
        planned = {"alpha": 0.05 / 4, "power": 0.8}
        assert c.detectable == pytest.approx(upper * TTestPower().solve_power(nobs=8, **planned), rel=1e-3)
        seeds = TTestPower().solve_power(effect_size=0.01 / upper, **planned)
        assert c.seeds_needed == int(np.ceil(seeds))
        assert c.power[0] == pytest.approx(TTestPower().power(0.01 / upper, nobs=8, alpha=0.05 / 4), rel=1e-3)
        assert c.power == pytest.approx([achieved_power(0.01, sd, 8, comparisons=4) for sd in (upper, lower)])
    declared = make_plan(load_study("ablations", seeds="8"), pilot, "ablations")
    for c in declared.comparisons:  # the study's margin is the difference that matters
        assert c.difference == pytest.approx(0.05 * c.base)


def test_the_plan_is_for_the_looks_that_the_study_declares(pilot):
    once, thrice = (make_plan(load_study("ablations", settings=(f"looks={n}",)), pilot, "ablations") for n in (1, 3))
    for one, three in zip(once.comparisons, thrice.comparisons, strict=True):
        assert three.detectable > one.detectable
        assert three.power[1] < one.power[1]
    (pilot / "ablations" / "looks.json").write_text("[3, 5]")
    assert make_plan(load_study("ablations"), pilot, "ablations").looks == (3, 5)
    (pilot / "ablations" / "looks.json").unlink()


def test_smoke_runs_and_damaged_ones_are_no_pilots(pilot, tmp_path):
    shutil.copytree(pilot / "ablations", tmp_path / "ablations-smoke")
    shutil.copytree(pilot / "ablations", tmp_path / "broken")
    for path in (tmp_path / "broken").glob("cells/*/c*.json"):
        path.write_text("{")
    plan = make_plan(load_study("ablations"), tmp_path, "ablations")
    assert [c.detectable for c in plan.comparisons] == [None] * 4
    assert plan.arms[0].seconds is not None


def test_the_study_is_checked_without_its_data(tmp_path):
    study = load_study("ablations", settings=("layerz=3",), datasets=("amazon-beauty",))
    with pytest.raises(InputError, match="unknown key 'layerz'"):
        make_plan(study, tmp_path, "ablations")


class TestCommand:
    def test_five_seeds_with_an_exact_test_are_refused_but_for_the_option(self, call, refuses):
        design = ("plan", "--study", "ablations", "--set", "test=exact")
        line = refuses(*design)
        assert "5 seeds with the exact sign-flip test under Holm's correction for 4 comparisons never reach" in line
        assert "use at least 8 seeds" in line
        assert "--allow-underpowered" in line
        allowed = call(*design, "--allow-underpowered")
        assert allowed.code == 0
        assert "can't succeed" in allowed.err
        assert call(*design, "--seeds", "8").code == 0
        assert call("plan", "--study", "ablations").code == 0

    def test_one_seed_is_refused(self, refuses):
        assert "one seed gives no test" in refuses("plan", "--study", "ablations", "--seeds", "1")

    def test_a_study_without_control_tests_nothing(self, call):
        ended = call("plan", "--study", "ablations", "--set", "control=null", "--seeds", "1")
        assert ended.code == 0
        assert "comparisons: none" in ended.out

    def test_what_is_printed(self, call, pilot):
        ended = call("plan", "--study", "ablations", "--out", pilot, "--difference", "0.01", "--workers", "4")
        assert "1 data set x 7 variants x 5 seeds = 35 cells" in ended.out
        assert "4 comparisons with 'fair' on ndcg@10, paired t-test over 5 seeds" in ended.out
        assert "ablations, 5 seeds" in ended.out
        assert "no floor" in ended.out
        assert "power for 0.01" in ended.out
        margin = call("plan", "--study", "ablations", "--out", pilot)
        assert "seeds for the margin" in margin.out
        assert "time left: about" in ended.out
        empty = call("plan", "--study", "ablations")
        assert "time left: unknown" in empty.out

    def test_as_json(self, call, pilot):
        plan = json.loads(call("plan", "--study", "ablations", "--out", pilot, "--json").out)
        assert (plan["left"], plan["smallest_p"], plan["refusal"]) == (35, 0.0, None)
        without = {"no-focused-attention", "zero-lambda", "no-noise-loss", "no-mi-loss"}
        assert {c["variant"] for c in plan["comparisons"]} == without

    def test_bad_input(self, refuses):
        assert "did you mean 'ablations'" in refuses("plan", "--study", "ablation")
        assert "'test'" in refuses("plan", "--study", "ablations", "--set", "test=wilcoxson")
        assert "--difference 0" in refuses("plan", "--study", "ablations", "--difference", "0")
        assert "--difference" in refuses("plan", "--study", "ablations", "--difference", "small")
