"""Configs by their names, for Python users as for the command line."""

import pytest

from avit_jax import config as configs
from avit_jax.config import by_name
from avit_jax.errors import UserError


def test_a_name_and_the_path_of_its_file_are_one_config_with_variants():
    named = by_name.load("avit_digits:ci")
    assert named.train.epochs < by_name.load("avit_digits").train.epochs
    file = by_name.folder() / "avit_digits.py"
    assert configs.to_json(by_name.load(f"{file}:ci")) == configs.to_json(named)
    assert configs.to_json(by_name.load(file)) != configs.to_json(named)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("avit_digit", "there is no config file 'avit_digit'"),
        ("avit_digits:cj", "the config has no variant 'cj'"),
    ],
)
def test_a_name_that_is_none_is_refused(name, sentence):
    with pytest.raises(UserError, match=sentence):
        by_name.load(name)


def test_settings_that_follow_from_others_follow_those_that_were_changed(tmp_path):
    for name in ("cat", "dog", "emu"):
        (tmp_path / "train" / name).mkdir(parents=True)
    config = by_name.load("finetune")
    assert config.model.num_classes == 1000
    configs.change(config, {"data.dir": tmp_path})
    assert config.model.num_classes == 3
    assert config.copy_and_resolve_references().model.num_classes == 3
