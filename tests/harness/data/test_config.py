from __future__ import annotations

import subprocess
import sys

import pytest

from harness.data.config import DataConfig
from harness.errors import InputError
from harness.settings import parse


def test_fractions_must_leave_something_to_train_on():
    with pytest.raises(InputError, match="nothing to train on"):
        parse(DataConfig, {"valid_fraction": 0.5, "test_fraction": 0.5}, "data")


def test_an_unknown_key_names_its_neighbour():
    with pytest.raises(InputError, match="did you mean 'short_users'"):
        parse(DataConfig, {"short_user": "drop"}, "data")


def test_settings_survive_json():
    config = DataConfig(split="temporal", actions={"like": "rating >= 4"}, min_user_events=3)
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


def test_the_data_room_needs_no_torch():
    modules = "harness.data.prepare, harness.data.splits, harness.data.summary"  # they import all others
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
