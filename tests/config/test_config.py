"""Configs as values: their variants, differences, JSON, and settings that are no plain numbers."""

from pathlib import Path

import pytest

from avit_jax import config as configs
from avit_jax import zoo
from avit_jax.errors import UserError
from tests.config.changed import changed


def test_parse_arg_switches_on_what_is_named():
    assert configs.parse_arg(None, ci=False).to_dict() == {"debug": False, "ci": False}
    assert configs.parse_arg("", ci=False).to_dict() == {"debug": False, "ci": False}
    assert configs.parse_arg("ci,debug", ci=False).to_dict() == {"debug": True, "ci": True}


def test_parse_arg_names_the_valid_variants():
    with pytest.raises(UserError, match="no variant 'fast': write one of ci, debug behind"):
        configs.parse_arg("debug,fast", ci=False)


def test_differences_show_both_values():
    saved = configs.to_json(changed())
    config = changed(train__batch_size=8, data__dir="elsewhere")
    assert list(configs.differences(config, saved).values()) == [
        "data.dir: None -> 'elsewhere'",
        "train.batch_size: 1024 -> 8",
    ]


def test_differences_show_keys_that_only_one_of_the_two_has():
    dense = configs.to_json(configs.base(model="deit_micro_patch4_32"))
    adaptive = configs.base(model="avit_micro_patch4_32")
    assert configs.differences(adaptive, dense)["method.eps"] == "method.eps: 'absent' -> 0.01"
    dense_again = configs.base(model="deit_micro_patch4_32")
    changed = configs.differences(dense_again, configs.to_json(adaptive))
    assert changed["method.eps"] == "method.eps: 0.01 -> 'absent'"


MIXTURES = [
    [
        {"name": "gaussian", "target_depth": 2.0, "scale": 1.0, "weight": 0.7},
        {"name": "laplace", "target_depth": 5.0, "scale": 1.0, "weight": 0.3},
    ],
    [{"name": "gaussian", "weight": 1.0}, {"name": "uniform", "weight": 2.0}],
    [{"name": "uniform"}],
]


@pytest.mark.parametrize("prior", MIXTURES)
def test_a_mixture_prior_goes_through_config_and_json_to_the_model(prior):
    config = configs.base(model="avit_micro_patch4_32", method={"prior": prior})
    restored = configs.from_json(configs.to_json(config))
    expected = zoo.create_model("avit_micro_patch4_32", method={"prior": prior})
    assigned = configs.base(model="avit_micro_patch4_32")
    before = configs.to_json(assigned)
    assigned.method.prior = prior
    assert len(configs.differences(assigned, before)) == 1
    assert configs.differences(assigned, configs.to_json(config)) == {}
    assert configs.make_model(assigned) == expected
    assert configs.make_model(config) == expected
    assert configs.make_model(restored) == expected
    assert expected.settings.depth_prior(6).shape == (6,)


def test_a_mixture_may_be_pairs_and_anything_else_is_refused():
    config = configs.base(model="avit_micro_patch4_32")
    config.method.prior = ((("name", "gaussian"), ("weight", 1.0)), {"name": "uniform"})
    text = configs.to_json(config)
    assert configs.differences(configs.from_json(text), text) == {}
    assert configs.make_model(configs.from_json(text)) == configs.make_model(config)
    for wrong in (5, ["gaussian"], [("gaussian", 3.0)], [3], []):
        config.method.prior = wrong
        with pytest.raises(UserError, match=r"prior is |component of the prior is "):
            configs.make_model(config)


@pytest.mark.parametrize(
    ("model", "section", "key", "value"),
    [
        ("avit_micro_patch4_32", "method", "prior_compat", "nvlabs"),
        ("t2t_vit_14", "model", "attention_scale", 0.05),
    ],
)
def test_what_is_unset_takes_values_of_its_type_only(model, section, key, value):
    config = configs.base(model=model)
    assert config[section][key] is None
    config[section][key] = value
    assert configs.to_json(config) != configs.to_json(configs.base(model=model))
    with pytest.raises(TypeError):
        config[section][key] = [1]


@pytest.mark.parametrize("model", ["avit_base_patch16_224", "t2t_vit_14_resnext", "avit_t2t_vit_7"])
def test_debug_cuts_the_width_and_keeps_the_heads(model):
    config = configs.debug(configs.base(model=model))
    shape = configs.make_model(config).shape
    full = zoo.create_model(model).shape
    assert shape.embed_dim <= 192
    assert shape.embed_dim // shape.num_heads == full.embed_dim // full.num_heads


@pytest.mark.parametrize("text", ["", '{"a', "[]", "{}", "\xff"])
def test_a_damaged_config_of_a_run_is_named(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config.json is damaged .*: put a sound copy"):
        configs.read(tmp_path / "config.json")


def test_a_path_is_a_value_of_a_setting_that_holds_one():
    config = configs.changed(configs.base(model="avit_micro_patch4_32"), {"data.dir": Path("x")})
    assert config.data.dir == "x"
