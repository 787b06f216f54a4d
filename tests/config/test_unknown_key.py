"""The key that somebody has probably meant."""

import pytest

from avit_jax.config.unknown_key import known_keys, nearest_key


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("optim.lerning_rate", "optim.learning_rate"),
        ("learning_rate", "optim.learning_rate"),
        ("batch_size", "eval.batch_size"),
        ("training.batch_size", "train.batch_size"),
        ("model.num_class", "model.num_classes"),
        ("train.target_depth", "method.target_depth"),
        ("augment.crop_ratio", "data.augment.crop_ratio"),
        ("qqqq.zzzz", None),
    ],
)
def test_a_mistaken_key_is_near_the_one_that_was_meant(written, meant):
    assert nearest_key(written) == meant


def test_keys_of_all_methods_and_backbones_are_known():
    keys = known_keys()
    assert {"seed", "method.gate_scale", "method.logit_shift", "model.embed_dim"} <= set(keys)
