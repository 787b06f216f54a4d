"""What treats parameters by where they are finds them in every network of a cascade."""

import jax
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.pretrained.fit import refuse_other_classes
from avit_jax.pretrained.pixels import for_our_pixels
from avit_jax.training.parameter_groups import rate_factors


@pytest.fixture(scope="module")
def model():
    return create_model(
        "dvt_deit_micro", patch_size=8, embed_dim=24, depth=2, num_heads=2, method={"grids": (2, 4)}
    )


def test_layers_of_every_network_learn_at_their_own_rate(model):
    factors = rate_factors(model, 0.5)
    for name in ("exit1", "exit2"):
        np.testing.assert_allclose(factors[name]["blocks"]["norm1"]["scale"].ravel(), [0.25, 0.5])
        assert factors[name]["patch_embed"]["kernel"] == 0.125
        assert factors[name]["head"]["kernel"] == 1
    assert factors["exit2"]["feature_reuse"]["fc1"]["kernel"] == 1


def test_every_network_takes_over_other_pixels(model):
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), model.abstract_params())
    moved = for_our_pixels(params, "symmetric", model.shape)
    for name in ("exit1", "exit2"):
        alone = for_our_pixels(params[name], "symmetric", model.shape)
        assert np.any(alone["patch_embed"]["kernel"] != 1)
        jax.tree.map(np.testing.assert_array_equal, moved[name], alone)


def test_weights_of_a_cascade_for_other_classes_are_no_teacher(model):
    bias = {"less_less_token.head.bias": np.zeros(3), "normal_token.head.bias": np.zeros(3)}
    with pytest.raises(UserError, match="tell 3 classes apart and not 1000"):
        refuse_other_classes(bias, model.shape)


def test_tables_that_are_fixed_are_trained_in_no_network():
    model = create_model("dvt_t2t_vit_12_7_14", depth=1)
    trained = model.trainable(model.abstract_params())
    for name in ("exit1", "exit2"):
        assert not trained[name]["pos_embed"]
        assert trained[name]["cls_token"]
