"""Upstream's names of a cascade, in and out."""

import jax
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.methods.dvt.weight_names import exit_names, is_cascade
from tests.parity import dvt
from tests.parity.golden import group, load


@pytest.mark.parametrize("case", dvt.CASCADES)
def test_weights_with_upstream_names_come_back_bit_for_bit(case):
    golden = load(f"dvt/{case}")
    given = group(golden, "param/")
    model = dvt.model_of(golden)
    params = model.from_torch({f"module.{name}": array for name, array in given.items()})
    returned = model.to_torch(params)
    assert returned.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(returned[name], array)


def test_every_number_of_exits_has_names():
    assert exit_names(1) == ["normal_token"]
    assert exit_names(3) == ["less_less_token", "less_token", "normal_token"]
    for exits in range(1, 6):
        names = exit_names(exits)
        assert len(set(names)) == exits
        assert is_cascade({f"{name}.head.bias": 0 for name in names})


def test_a_token_module_is_no_cascade():
    names = create_model("t2t_vit_7").abstract_params()
    assert not is_cascade({f"{name}.attention1.w": 0 for name in names})


def test_weights_of_other_exits_are_refused():
    three = load("dvt/tiny_deit_3exit")
    two = dvt.model_of(load("dvt/tiny_deit_2exit"))
    with pytest.raises(ValueError, match=r"belong to none of the exits .* \(such as less_token"):
        two.from_torch(group(three, "param/"))
    lacking = group(three, "param/")
    del lacking["less_token.relation_reuse_conv.0.weight"]
    with pytest.raises(ValueError, match=r"less_token: .*missing"):
        dvt.model_of(three).from_torch(lacking)


def test_another_number_of_classes_gets_a_fresh_classifier_in_every_exit():
    golden = load("dvt/tiny_deit_2exit")
    given = group(golden, "param/")
    model = dvt.model_of(golden)
    fresh = type(model)(
        type(model.shape)(**{**vars(model.shape), "num_classes": 3}), model.settings, model.inner
    )
    params = fresh.from_torch(given)
    for name in ("exit1", "exit2"):
        assert params[name]["head"]["kernel"].shape == (48, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
