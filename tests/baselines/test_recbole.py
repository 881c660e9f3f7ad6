from __future__ import annotations

import importlib
import random
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("recbole", reason="RecBole is not installed")

from harness.baselines.recbole import RecBoleFamily, import_recbole
from harness.errors import InputError
from harness.interface import Batch, Schema, Task
from harness.registry import load_model
from harness.settings import parse

MEMBERS = RecBoleFamily.members()
N_ITEMS, N_USERS, LENGTH = 120, 6, 10
SMALL = {"hidden_size": 16, "embedding_size": 16, "inner_size": 32, "prototype_size": 8}


def build(name: str, seed: int = 0, *, n_items: int = N_ITEMS, length: int = LENGTH, **settings):
    kind = load_model(f"recbole:{name}")
    small = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
    torch.manual_seed(seed)
    schema = Schema(n_items=n_items, n_users=N_USERS, max_length=length)
    return kind(parse(kind.Config, small | settings, name), schema)


def prefixes(width: int = LENGTH, seed: int = 1) -> Batch:
    """Rows of length 1 to 6, the last event of each supervised."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(1, N_USERS + 1)
    items = torch.randint(1, N_ITEMS + 1, (N_USERS, width), generator=generator)
    items = items * (torch.arange(width) < lengths[:, None])
    batch = Batch(items=items, lengths=lengths, users=torch.arange(N_USERS))
    batch.valid = batch.last()
    batch.targets = torch.zeros_like(items)
    batch.targets.view(-1)[batch.valid] = torch.randint(1, N_ITEMS + 1, (N_USERS,), generator=generator)
    return batch


def recboles_own(name: str, model):
    """RecBole's class built by hand from a literal configuration, with the weights of ``model``."""
    kind = getattr(importlib.import_module("recbole.model.sequential_recommender"), name)

    class Data:
        user_num, item_num = N_USERS + 1, N_ITEMS + 1

        def num(self, field):
            return {"user_id": self.user_num, "item_id": self.item_num}[field]

    config = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "NEG_PREFIX": "neg_",
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "device": "cpu",
        **model.config.model_dump(),
    }
    own = kind(config, Data())
    own.load_state_dict(model.model.state_dict())
    return own


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "STAMP"])
def test_scores_and_loss_are_recboles_own(name):
    model, batch = build(name).eval(), prefixes()
    own = recboles_own(name, model).eval()
    interaction = {
        "user_id": batch.users + 1,
        "item_id_list": batch.items,
        "item_length": batch.lengths,
        "item_id": batch.targets.flatten()[batch.valid],
    }
    torch.testing.assert_close(model.score_items(batch), own.full_sort_predict(interaction)[:, 1:])
    torch.testing.assert_close(model.losses(batch)["loss"], own.calculate_loss(interaction))


@pytest.mark.parametrize("name", MEMBERS)
def test_scores_do_not_depend_on_batch_or_padding(name):
    model, batch = build(name).eval(), prefixes()
    together = model.score_items(batch)
    assert together.shape == (N_USERS, N_ITEMS)
    assert torch.isfinite(together).all()
    for row in range(N_USERS):
        length = batch.lengths[row : row + 1]
        alone = Batch(items=batch.items[row : row + 1, : int(length)], lengths=length, users=batch.users[row : row + 1])
        torch.testing.assert_close(model.score_items(alone), together[row : row + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_few_steps_reduce_the_loss(name):
    model, batch = build(name), prefixes()
    # Once without dropout and with the same draws of masks and negatives: what is left to change is the weights.
    before, after = [], []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for record, steps in ((before, 10), (after, 0)):
        model.eval()
        for seed in range(3):
            torch.manual_seed(seed)
            record.append(model.losses(batch)["loss"].item())
        model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            model.losses(batch)["loss"].backward()
            optimizer.step()
    assert np.mean(after) < np.mean(before)


LOSSES = [
    (name, kind)
    for name in MEMBERS
    for key, field in RecBoleFamily.member(name).Config.model_fields.items()
    if key == "loss_type"
    for kind in get_args(field.annotation)
]


@pytest.mark.parametrize(("name", "kind"), LOSSES)
def test_every_kind_of_loss_trains(name, kind):
    model = build(name, loss_type=kind)
    model.losses(prefixes())["loss"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(g.abs().sum() > 0 for g in gradients)
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", MEMBERS)
def test_same_seed_same_model_and_state_round_trips(name, tmp_path):
    model, again, other = build(name, seed=3), build(name, seed=3), build(name, seed=4)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    batch = prefixes()
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}  # one of them has two names
    save_file(tensors, tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(other.eval().score_items(batch), model.eval().score_items(batch))


def test_supervised_positions_become_prefixes():
    """A row with two supervised positions is the two prefixes that end there."""
    model = build("SASRec").eval()
    items = torch.tensor([[5, 9, 7, 3]])
    both = Batch(items=items, lengths=torch.tensor([4]), users=torch.tensor([2]))
    both.valid, both.targets = torch.tensor([1, 3]), torch.tensor([[0, 7, 0, 8]])
    single = []
    for length, target in ((2, 7), (4, 8)):
        one = Batch(items=items[:, :length], lengths=torch.tensor([length]), users=torch.tensor([2]))
        one.valid, one.targets = one.last(), torch.zeros(1, length, dtype=torch.int64)
        one.targets[0, -1] = target
        single.append(model.losses(one)["loss"])
    torch.testing.assert_close(model.losses(both)["loss"], torch.stack(single).mean())


def test_lengths_of_the_batch_are_left_alone():
    batch = prefixes()
    model = build("HRM", pooling_type_layer_1="average")
    model.score_items(batch)
    model.losses(batch)
    assert batch.lengths.tolist() == list(range(1, N_USERS + 1))


def masked_fields(**settings):
    model, batch = build("BERT4Rec", **settings), prefixes()
    seen = {}
    model._run = lambda method, fields: seen.update(fields) or torch.tensor(0.0)
    model.losses(batch)
    return model, batch, seen


def recboles_masks(model, batch, **settings):
    transform = importlib.import_module("recbole.data.transform")
    interaction = importlib.import_module("recbole.data.interaction").Interaction

    class Config(dict):
        def __getattr__(self, key):  # RecBole asks with hasattr
            if key in self:
                return self[key]
            raise AttributeError(key)

    class Data:
        def num(self, field):
            return N_ITEMS + 1

    config = Config(
        ITEM_ID_FIELD="item_id",
        LIST_SUFFIX="_list",
        ITEM_LIST_LENGTH_FIELD="item_length",
        MAX_ITEM_LIST_LENGTH=LENGTH,
        **settings,
    )
    random.seed(0)
    fields = {"item_id_list": batch.items, "item_length": batch.lengths}
    return transform.MaskItemSequence(config)(Data(), interaction(fields))


@pytest.mark.parametrize(
    "settings",
    [{"mask_ratio": 1.0, "ft_ratio": 0.0}, {"mask_ratio": 0.2, "ft_ratio": 1.0}],
    ids=["all-masked", "last-masked"],
)
def test_bert4rec_masks_as_recbole_does(settings):
    """At the two ends of its settings the rule leaves nothing to chance but the distractors."""
    model, batch, ours = masked_fields(**settings)
    theirs = recboles_masks(model, batch, **settings)
    assert torch.equal(ours["Mask_item_id_list"], theirs["Mask_item_id_list"])
    assert torch.equal(ours["MASK_INDEX"], theirs["MASK_INDEX"])
    counted = ours["MASK_INDEX"] > 0  # RecBole's loss leaves the first position out
    assert torch.equal(ours["Pos_item_id"][counted], theirs["Pos_item_id"][counted])
    assert (ours["Neg_item_id"] != ours["Pos_item_id"]).all()


def test_bert4rec_masks_at_its_ratio():
    model = build("BERT4Rec", length=50, ft_ratio=0.0)
    items = torch.randint(1, N_ITEMS + 1, (2000, 50))
    fields = {model.sequence_field: items, model.length_field: torch.full((2000,), 50), model.item_field: items[:, 0]}
    masked = model.training_fields(fields)["Mask_item_id_list"]
    hidden = masked == N_ITEMS + 1
    assert hidden.float().mean().item() == pytest.approx(0.2, abs=0.005)
    assert torch.equal(masked[~hidden], items[~hidden])


def test_bert4rec_has_a_finite_loss_where_nothing_would_count():
    """Prefixes of one item: RecBole divides by zero."""
    model = build("BERT4Rec")
    batch = Batch(items=torch.tensor([[4], [5]]), lengths=torch.tensor([1, 1]), users=torch.tensor([0, 1]))
    batch.valid, batch.targets = batch.last(), torch.tensor([[6], [7]])
    loss = model.losses(batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_shan_ranks_from_the_sequence_it_is_trained_on():
    """RecBole's ``predict`` scores single items from the left-padded sequence; the ranking agrees with it."""
    model, batch = build("SHAN").eval(), prefixes()
    scores = model.score_items(batch)
    left = torch.zeros_like(batch.items)
    for row, length in enumerate(batch.lengths.tolist()):
        left[row, LENGTH - length :] = batch.items[row, :length]
    item = torch.tensor([3, 7, 11, 19, 40, 77])
    single = model.model.predict({"Inverse_item_id_list": left, "item_id": item, "user_id": batch.users + 1})
    torch.testing.assert_close(scores.gather(1, item[:, None] - 1)[:, 0], single)


def test_negatives_are_uniform_over_all_items_but_the_target():
    model = build("FPMC", n_items=5)
    drawn = model.any_but(torch.full((50_000,), 3))
    share = torch.bincount(drawn, minlength=6)[1:] / 50_000
    assert share.tolist() == pytest.approx([0.25, 0.25, 0, 0.25, 0.25], abs=0.01)


def test_defaults_are_those_of_recboles_file():
    config = load_model("recbole:SASRec").Config()
    assert (config.n_layers, config.n_heads, config.hidden_size, config.inner_size) == (2, 2, 64, 256)
    assert (config.hidden_dropout_prob, config.layer_norm_eps, config.loss_type) == (0.5, 1e-12, "CE")
    assert load_model("recbole:NextItNet").Config().dilations == [1, 4]
    assert isinstance(load_model("recbole:SASRecCPR").Config().hidden_dropout_prob, float)


def test_every_setting_is_read(monkeypatch):
    """A key that RecBole's model would not look at is not a setting."""
    recbole = importlib.import_module("harness.baselines.recbole")
    read = set()

    class Recording(recbole._Values):
        def __getitem__(self, key):
            read.add(key)
            return super().__getitem__(key)

    monkeypatch.setattr(recbole, "_Values", Recording)
    for name in MEMBERS:
        read.clear()
        build(name)
        assert set(load_model(f"recbole:{name}").Config.model_fields) - read <= {"ft_ratio"}, name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sasrec", r"has no sequential model 'sasrec'; did you mean 'SASRec'\?"),
        ("GRU4Rek", r"did you mean 'GRU4Rec'\?"),
        ("LightGCN", "has no sequential model 'LightGCN'"),
        ("S3Rec", "pretraining"),
        ("FDSA", "features of the items"),
        ("DIN", "one labelled candidate"),
        ("GRU4RecKG", "knowledge graph"),
        ("FEARec", "whole training set"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        load_model(f"recbole:{name}")


def test_every_sequential_model_of_recbole_is_either_run_or_refused():
    recbole = importlib.import_module("harness.baselines.recbole")
    assert set(recbole._REFUSED) < set(recbole._models())
    assert len(MEMBERS) == 22


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("SASRec", {"hiden_size": 8}, "did you mean 'hidden_size'"),
        ("SASRec", {"loss_type": "BCE"}, "loss_type"),
        ("FPMC", {"loss_type": "CE"}, "loss_type"),
        ("SASRec", {"n_heads": 3}, "can't be built"),
        ("SASRec", {"hidden_act": "golu"}, "can't be built"),
        ("BERT4Rec", {"mask_ratio": 0.05}, "less than one"),
        ("SASRecCPR", {"reranker_CAN_NUM": "500"}, "lower it"),
    ],
)
def test_bad_settings_are_one_clear_line(name, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name, **settings)
    assert "\n" not in str(caught.value)


def test_what_a_member_says_of_itself():
    kind = load_model("recbole:GRU4Rec")
    assert kind.tasks == {Task.RETRIEVAL}
    assert kind.needs.rows == "prefixes"
    assert kind.exact
    assert kind.fidelity.status == "original"
    assert "Yong Kiam Tan" in kind.fidelity.paper
    assert kind is load_model("recbole:GRU4Rec")
    assert kind is not load_model("recbole:NARM")


def test_importing_leaves_no_trace():
    """A fresh interpreter: no Ray, no RecBole trainer or configuration, no patched NumPy, no empty module left."""
    code = """
import sys, numpy
names = set(dir(numpy))
from harness.baselines.recbole import RecBoleFamily, import_recbole
from harness.interface import Schema
kind = RecBoleFamily.member("SASRec")
kind(kind.Config(), Schema(n_items=9, n_users=3, max_length=4))
assert not {"bool", "float", "float_", "int", "object", "str"} & (set(dir(numpy)) - names)
loaded = {name.split(".")[0] for name in sys.modules}
assert "ray" not in loaded
assert not {"recbole.quick_start", "recbole.config", "recbole.trainer", "recbole.data.dataset"} & set(sys.modules)
assert not [name for name, module in sys.modules.items() if type(module).__name__ == "_Empty"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_a_member_leaves_anomaly_detection_as_it_was():
    module = "recbole.model.sequential_recommender.sine"
    sys.modules.pop(module, None)  # as on a first import, which switches it on
    import_recbole(module)
    assert not torch.is_anomaly_enabled()
