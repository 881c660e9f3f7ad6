"""A setting in the wrong place of a study: the message leads to the right one, and what it says works."""

from __future__ import annotations

import pytest

from harness.data.config import DataConfig
from harness.errors import InputError
from harness.items.config import ItemsConfig
from harness.study.cells import make_arm
from harness.study.loading import load_study
from harness.study.places import in_file, in_variant
from harness.training_config import Budget, TrainingConfig

STUDY = """
study: small
datasets: [ml-100k]
seeds: 2
variants: {sasrec: {model: sasrec%s}}
metrics: [ndcg@10]
primary: ndcg@10
%s
"""


def refusal(tmp_path, top="", in_set="", beside="", settings=()) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY % (f", set: {{{in_set}}}{beside}" if in_set else beside, top), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        make_arm(load_study(str(path), settings=settings), "ml-100k", "sasrec")
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("learning_rate: 0.01", "'training.learning_rate', under 'common' or a variant's 'set'"),
        ("learning_rte: 0.01", "'training.learning_rate', under 'common' or a variant's 'set'"),
        ("lr: 0.01", "'training.learning_rate', under 'common' or a variant's 'set'"),
        ("training: {learning_rate: 0.01}", "'training.KEY', under 'common' or a variant's 'set'"),
        ("epochs: 3", "'budget.epochs'"),
        ("max_length: 20", "'data.max_length'"),
        ("levels: 4", "'items.quantiser.levels'"),
        ("data: {batch_size: 3}", "'training.batch_size', under 'common' or a variant's 'set'"),
        ("metric: [ndcg@10]", "'metrics'"),
        ("budgets: {epochs: 3}", "'budget'"),
    ],
)
def test_at_the_top(tmp_path, key, place):
    assert f"did you mean {place}?" in refusal(tmp_path, top=key)


IN_SETTINGS = [
    ("learning_rate: 0.01", "'training.learning_rate'"),
    ("learning_rates: 0.01", "'training.learning_rate'"),
    ("lr: 0.01", "'training.learning_rate'"),
    ("wd: 0.01", "'training.weight_decay'"),
    ("batch_size: 3", "'training.batch_size'"),
    ("training: {batch_size: 3}", "'training.KEY'"),
    ("epochs: 3", "'budget.epochs', a key of the study file"),
    ("max_length: 20", "'data.max_length'"),
    ("levels: 4", "'items.quantiser.levels'"),
    ("primary: ndcg@10", "'primary', a key of the study file"),
    ("training.learning_rte: 0.1", "'learning_rate'"),
    ("dims: 3", "'dim'"),
    ("head: 3", "'heads'"),
]


@pytest.mark.parametrize(("key", "place"), IN_SETTINGS)
def test_in_common(tmp_path, key, place):
    assert f"did you mean {place}?" in refusal(tmp_path, top=f"common: {{{key}}}")


@pytest.mark.parametrize(("key", "place"), IN_SETTINGS)
def test_in_a_variants_set(tmp_path, key, place):
    assert f"did you mean {place}?" in refusal(tmp_path, in_set=key)


def test_beside_a_variants_set(tmp_path):
    said = refusal(tmp_path, beside=", learning_rate: 0.01")
    assert "did you mean 'training.learning_rate', under 'common' or a variant's 'set'?" in said


@pytest.mark.parametrize(
    ("setting", "place"),
    [("learning_rate=0.01", "'training.learning_rate'"), ("epochs=3", "'budget.epochs', a key of the study file")],
)
def test_on_the_command_line(tmp_path, setting, place):
    assert f"did you mean {place}?" in refusal(tmp_path, settings=(setting,))


def test_every_setting_outside_a_model_has_a_place():
    for kind in (TrainingConfig, DataConfig, ItemsConfig, Budget):
        assert set(kind.model_fields) <= set(in_file())
        assert set(kind.model_fields) <= set(in_variant())
