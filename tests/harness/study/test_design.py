"""Study files: presets, changes on the command line, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from harness.errors import InputError
from harness.study.design import load_study, merged, study_files


def test_every_study_that_ships_loads_under_every_preset():
    for name, path in study_files().items():
        for preset in ["default", *yaml.safe_load(path.read_text()).get("presets", {})]:
            assert load_study(name, preset=preset).study == name


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
        ({"settings": ("control=full",)}, "control 'full' is no variant"),
        ({"settings": ("data.split=leave-two-out",)}, "data.split"),
        ({"preset": "pape"}, "no preset 'pape'"),
        ({"seeds": "three"}, "--seeds three"),
        ({"seeds": "0"}, "at least one seed"),
        ({"seeds": "1,1"}, "different whole numbers"),
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
        ("study: [", "no valid YAML in line"),
        ("study: x\nvariant: {}", "unknown key 'variant'; did you mean 'variants'"),
        ("- a\n- b", "holds no study"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        load_study(str(path))
