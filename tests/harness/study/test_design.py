"""Study files: presets, changes on the command line, and what is refused."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
import yaml

from harness.analysis.claims import load_claims
from harness.errors import InputError
from harness.study.cells import make_arm
from harness.study.design import Study
from harness.study.loading import load_efficiency, load_study, measures_efficiency, merged, study_files


def test_every_study_that_ships_loads_under_every_preset():
    for name, path in study_files().items():
        load = load_efficiency if measures_efficiency(name) else load_study
        for preset in ["default", *yaml.safe_load(path.read_text()).get("presets", {})]:
            assert load(name, preset=preset).study == name


def test_seeds_are_a_number_or_a_list(study_file):
    assert load_study(str(study_file)).seeds == (0, 1)
    assert load_study(str(study_file), seeds="4").seeds == (0, 1, 2, 3)
    assert load_study(str(study_file), seeds="7,2").seeds == (7, 2)


def test_set_reaches_the_study_and_the_models(study_file):
    study = load_study(
        str(study_file),
        settings=("budget.epochs=9", "dim=16", "training.learning_rate=0.1", "variants.bce.set.items.seed=3"),
    )
    assert study.budget.epochs == 9
    assert study.common["dim"] == 16
    assert study.common["training.learning_rate"] == 0.1
    assert study.variants["bce"].set == {"loss": "bce", "items.seed": 3}


def test_a_mapping_of_another_kind_replaces_the_old_one():
    base = {"quantiser": {"kind": "opq", "levels": 8}, "datasets": {"a": {}}}
    assert merged(base, {"quantiser": {"levels": 4}})["quantiser"] == {"kind": "opq", "levels": 4}
    assert merged(base, {"quantiser": {"kind": "pq"}})["quantiser"] == {"kind": "pq"}
    assert merged(base, {"datasets": {"b": {}}})["datasets"] == {"b": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": ("budget.epoch=9",)}, "unknown key 'budget.epoch'; did you mean 'epochs'"),
        ({"settings": ("budget.epochs=many",)}, "'budget.epochs'"),
        ({"settings": ("budget.epochs",)}, "key=value"),
        ({"settings": ("seeds.first=1",)}, "'seeds' holds no keys"),
        ({"settings": ("primary=ndgc@10",)}, "unknown metric 'ndgc@10'; did you mean 'ndcg'"),
        ({"settings": ("primary=ndcg",)}, "needs a cutoff"),
        ({"settings": ("primary=mrr",)}, "not among the metrics"),
        ({"settings": ("test=wilcoxson",)}, "'test'"),
        ({"settings": ("tables.main.rows=[cee]",)}, "table 'main': unknown variant 'cee'; did you mean 'ce'"),
        ({"settings": ("tables.main.columns=[ndgc@10]",)}, "table 'main': unknown metric 'ndgc@10'; did you mean"),
        ({"settings": ("tables.main.datasets=[ml-100k]",)}, "table 'main': unknown data set 'ml-100k'"),
        ({"settings": ("tables.main.row=[ce]",)}, "table 'main': unknown key 'row'; did you mean 'rows'"),
        ({"settings": ("tables.cost={}",)}, "table 'cost': choose another name"),
        ({"settings": ("tables=[main]",)}, "'tables'"),
        ({"settings": ("search.cee.dim.choices=[1]",)}, "search: unknown variant 'cee'; did you mean 'ce'"),
        ({"settings": ("search.ce.dim={choice: [1]}",)}, "unknown key 'search.ce.dim.choice'"),
        ({"settings": ("search.ce.dim.choice=[1]",)}, "'search.ce.dim.choice'"),
        ({"settings": ("search.ce.dim={low: 0, high: 1, log: true}",)}, "above 0 where log is true"),
        ({"settings": ("search.ce.dim={low: 1, high: 2, choices: [1]}",)}, "either {low, high} or {choices}"),
        ({"settings": ("search.ce.dim.choices=[1, 1]",)}, "different values"),
        ({"settings": ("tuned.ml-100k.ce.dim=3",)}, "tuned: unknown data set 'ml-100k'"),
        ({"settings": ("control=full",)}, "control 'full' is not a variant"),
        ({"settings": ("data.split=leave-two-out",)}, "data.split"),
        ({"preset": "pape"}, "no preset 'pape'"),
        ({"settings": ("codes=0",)}, "'codes'"),
        ({"settings": ("codes=[0, 1]",)}, "'codes'"),
        ({"settings": ("codes=3", "test=exact")}, "codes: 3 needs test: t"),
        ({"settings": ("confirm.top=0",)}, "'confirm.top'"),
        ({"settings": ("confirm.tops=2",)}, "confirm.tops"),
        ({"seeds": "three"}, "--seeds three"),
        ({"seeds": "0"}, "at least one seed"),
        ({"seeds": "1,1"}, "different whole numbers"),
        *(
            ({"settings": (f"seeds={seeds}",)}, "'seeds'")
            for seeds in ("1.5", "true", "[[1], [2]]", "{a: 1}", "[true]")
        ),
        *(({"settings": (f"datasets={names}",)}, "'datasets'") for names in ("5", "[[1]]", "[{a: 1}]", "true")),
        ({"settings": ("budget={epochs: 1, epochs: 2}",)}, "'epochs': the key stands here a second time"),
        ({"settings": ("common=5", "dim=3")}, "'common' holds no keys"),
        ({"settings": ("variants.nope=null",)}, "no variant 'nope' to leave out; known: bce, ce"),
        ({"settings": ("variants.bc=null",)}, "no variant 'bc' to leave out; did you mean 'bce'?"),
        ({"settings": ("variants.ce=null",)}, "control 'ce' is not a variant"),
    ],
)
def test_what_can_not_be_used_is_refused_in_one_line(study_file, changes, message):
    with pytest.raises(InputError) as error:
        load_study(str(study_file), **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no study"),
        ("study: [", "line 2, 'study': is not valid YAML"),
        ("study: x\nvariant: {}", "unknown key 'variant'; did you mean 'variants'"),
        ("- a\n- b", "holds no study"),
        ("study: x\npresets: [smoke]", "'presets' maps names to changes of the file, as in {smoke: {seeds: 2}}"),
        ("study: x\npresets: 5", "'presets' maps names"),
        ("study: x\npresets: {smoke: 5}", "'presets' maps names"),
        ("study: x\npresets: {1: {variants: {nope: null}}}", "no variant 'nope' to leave out"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        load_study(str(path), preset="1" if "{1:" in text else "default")


def test_tables_and_searches_are_read_as_they_are_written(study_file):
    settings = (
        "tables={main: null, mrr: {rows: [bce, ce], columns: [MRR, recall@1]}}",
        "search.ce={dim: {low: 8, high: 64, log: true}, dropout: {low: 0, high: 0.5}, heads: {choices: [1, 2]}}",
    )
    study = load_study(str(study_file), settings=settings)
    assert study.tables == {"main": {}, "mrr": {"rows": ("bce", "ce"), "columns": ("mrr", "recall@1")}}
    assert {key: space.described() for key, space in study.search["ce"].items()} == {
        "dim": {"low": 8, "high": 64, "log": True},
        "dropout": {"low": 0, "high": 0.5, "log": False},
        "heads": {"choices": [1, 2]},
    }
    assert Study.model_validate(study.model_dump(mode="json")) == study


def test_data_sets_of_the_command_line_replace_those_of_tables_and_tuning(study_file):
    raw = yaml.safe_load(study_file.read_text())
    (own,) = raw["datasets"]
    raw |= {"tables": {"main": {"datasets": [own], "rows": ["ce"]}}, "tuned": {own: {"ce": {"dim": 16}}}}
    study_file.write_text(yaml.safe_dump(raw))
    assert load_study(str(study_file)).tuned == {own: {"ce": {"dim": 16}}}
    study = load_study(str(study_file), datasets=("ml-100k",))
    assert (study.tables, study.tuned) == ({"main": {"rows": ("ce",)}}, {})


def test_tuned_settings_come_after_all_others(study_file):
    settings = ("variants.bce.set.dim=4", "tuned={'synthetic-sessions:users=60,items=30': {bce: {dim: 16}}}")
    study = load_study(str(study_file), settings=settings)
    (dataset,) = study.datasets
    assert make_arm(study, dataset, "bce").config.dim == 16
    assert make_arm(study, dataset, "ce").config.dim == 8


def test_references_take_no_settings_that_are_for_all_and_are_no_comparison(study_file):
    study = load_study(str(study_file), settings=("references=[pop]", "variants.pop.model=popularity"))
    assert study.pairs == [("bce", "ce")]
    arm = make_arm(study, next(iter(study.datasets)), "pop")  # a popularity ranking has no width
    assert not arm.config.model_fields_set


def test_contrasts_stand_beside_the_control_or_instead_of_it(study_file):
    three = ("variants.gbce={model: sasrec}", "variants.pop={model: popularity}", "references=[pop]")
    beside = load_study(str(study_file), settings=(*three, "contrasts=[[gbce, bce], [pop, ce], [ce, bce]]"))
    assert beside.pairs == [("bce", "ce"), ("gbce", "ce"), ("gbce", "bce"), ("pop", "ce")]
    instead = load_study(str(study_file), settings=(*three, "contrasts=[[gbce, bce]]", "control=null"))
    assert instead.pairs == [("gbce", "bce")]
    every = load_study(str(study_file), settings=(*three, "contrasts=all-pairs"))
    assert every.pairs == [("bce", "ce"), ("gbce", "ce"), ("gbce", "bce")]
    assert Study.model_validate(every.model_dump(mode="json")) == every
    assert Study.model_validate(beside.model_dump(mode="json")) == beside
    without = load_study(str(study_file), settings=("contrasts=[[bce, ce]]", "variants.bce=null"))
    assert (without.contrasts, without.pairs) == ((), [])


def test_every_study_that_ships_states_a_margin_and_its_reason():
    for name, path in study_files().items():
        if not measures_efficiency(name):
            assert load_study(name).equivalence_margin is not None, name
            (line,) = [line for line in path.read_text().splitlines() if line.startswith("equivalence_margin: ")]
            assert len(line.partition("#")[2].split()) > 5, name


@pytest.mark.parametrize("margin", ["0", "-1", "5", "true", "five %", "-5 %", "[1]", "0 %"])
def test_margins(study_file, margin):
    settings = (f"equivalence_margin={margin}",)
    if margin == "5":
        assert load_study(str(study_file), settings=settings).equivalence_margin == 5
        return
    with pytest.raises(InputError, match="equivalence margin is a number above 0, or a percentage as in '5 %'"):
        load_study(str(study_file), settings=settings)


def test_every_claim_has_a_declared_comparison():
    for claim in load_claims()[1]:
        if claim.study != "efficiency":
            study = load_study(claim.study)
            declared = {frozenset(pair) for pair in study.pairs}
            levels = [variant for variant in study.variants if variant not in study.references]
            needed = combinations(levels, 2) if claim.sweep else [(claim.arm, claim.than)]
            assert {frozenset(pair) for pair in needed} <= declared, claim.id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("contrasts=[[bce, cee]]",), "contrasts: unknown variant 'cee'"),
        (("contrasts=[[bce, bce]]",), "compared with itself"),
        (("contrasts=[[bce, ce], [ce, bce]]",), "stands there twice"),
        (("contrasts=all",), "contrasts are pairs"),
        (("contrasts=[bce, ce]",), "contrasts are pairs"),
        (("references=[pop]",), "references"),
        (("references=[ce]",), "control 'ce' is among 'references'"),
    ],
)
def test_references_that_are_off(study_file, changes, message):
    with pytest.raises(InputError, match=message):
        load_study(str(study_file), settings=changes)


def test_what_is_no_reference_takes_the_settings_that_are_for_all(study_file):
    study = load_study(str(study_file), settings=("variants.pop.model=popularity",))
    with pytest.raises(InputError, match="'dim'"):
        make_arm(study, next(iter(study.datasets)), "pop")


def test_a_preset_leaves_a_variant_out(study_file):
    study_file.write_text(study_file.read_text().replace("{epochs: 1}}", "{epochs: 1}, variants: {bce: null}}"))
    assert list(load_study(str(study_file)).variants) == ["ce", "bce"]
    assert list(load_study(str(study_file), preset="shorter").variants) == ["ce"]
    assert list(load_study(str(study_file), settings=("variants.bce=null",)).variants) == ["ce"]


def test_a_variant_that_is_left_out_is_left_out_everywhere(study_file):
    raw = yaml.safe_load(study_file.read_text())
    (dataset,) = raw["datasets"]
    raw["variants"]["pop"] = {"model": "popularity"}
    raw |= {
        "references": ["pop"],
        "search": {"bce": {"dim": {"choices": [8, 16]}}, "ce": {"dim": {"choices": [8, 16]}}},
        "tuned": {dataset: {"bce": {"dim": 16}, "ce": {"dim": 8}}},
        "tables": {"main": {"rows": ["ce", "bce", "pop"]}, "losses": {"rows": ["bce"]}, "all": None},
        "presets": {"lean": {"variants": {"pop": None, "bce": None}}},
    }
    study_file.write_text(yaml.safe_dump(raw))
    lean = load_study(str(study_file), preset="lean")
    assert list(lean.variants) == list(lean.search) == list(lean.tuned[dataset]) == ["ce"]
    assert lean.references == ()
    assert lean.tables == {"main": {"rows": ("ce",)}, "all": {}}  # a table of no row would show all
    assert load_study(str(study_file), settings=("variants.pop=null", "variants.bce=null")) == lean


def test_set_takes_a_dotted_setting_behind_names_as_one(study_file):
    raw = yaml.safe_load(study_file.read_text()) | {"datasets": {"ml-100k": {}}}
    study_file.write_text(yaml.safe_dump(raw))
    settings = (
        "search.ce.training.learning_rate={low: 0.001, high: 0.1, log: true}",
        "search.bce.training.learning_rate.low=0.01",
        "search.bce.training.learning_rate.high=0.1",
        "tuned.ml-100k.ce.training.learning_rate=0.05",
        "datasets.ml-100k.training.batch_size=16",
    )
    study = load_study(str(study_file), settings=settings)
    assert {variant: list(spaces) for variant, spaces in study.search.items()} == {
        "ce": ["training.learning_rate"],
        "bce": ["training.learning_rate"],
    }
    assert study.search["bce"]["training.learning_rate"].described() == {"low": 0.01, "high": 0.1, "log": False}
    arm = make_arm(study, "ml-100k", "ce")
    assert (arm.training.learning_rate, arm.training.batch_size) == (0.05, 16)


@pytest.mark.parametrize(
    ("common", "key"),
    [
        ({"dim": 3, "dim.x": 1}, "dim.x"),
        ({"training.learning_rate": 0.1, "training.learning_rate.x": 1}, "training.learning_rate.x"),
    ],
)
def test_a_setting_that_holds_no_keys_is_given_none(study_file, common, key):
    study = load_study(str(study_file), settings=(f"common={json.dumps(common)}",))
    with pytest.raises(InputError, match=re.escape(f"study 'tiny', variant 'ce': '{key}' can't be set where")) as error:
        make_arm(study, next(iter(study.datasets)), "ce")
    assert "\n" not in str(error.value)
