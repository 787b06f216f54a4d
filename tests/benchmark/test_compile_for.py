"""Settings of models on the command line of `benchmarks/compile_for.py`."""

import pytest

import avit_jax
from avit_jax.errors import UserError
from tests.benchmark import scripts

compile_for = scripts.load("compile_for")


def test_settings_of_shape_and_method_make_a_model():
    settings = compile_for.settings_of(
        ["pos_embed=rope_2d", "layer_scale=1e-4", "method.spread=circle", "method.min_depth=2"]
    )
    model = avit_jax.create_model("avit_micro_patch4_32", **settings)
    assert model.shape.pos_embed == "rope_2d"
    assert model.shape.layer_scale == 1e-4
    assert (model.settings.spread, model.settings.min_depth) == ("circle", 2)


def test_a_setting_without_a_value_is_told():
    with pytest.raises(UserError, match="write NAME=VALUE"):
        compile_for.settings_of(["pos_embed"])
