"""A tiny model, three sets of weights for it, and the config that names them."""

import jax
import numpy as np

from avit_jax import config as configs

SIZES = {"depth": 2, "embed_dim": 64, "num_heads": 2, "patch_size": 16}


def tiny(**changes):
    config = configs.debug(configs.base(model="avit_micro_patch4_32").unlock())
    config.model.update(SIZES)
    config.train.ema_decay = 0.9
    config.eval.batch_size = 256
    config.update_from_flattened_dict(changes)
    return config


def drawn(model, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), model.abstract_params()
    )


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


MODEL = configs.make_model(tiny())
THEIRS, OURS, AVERAGE = (drawn(MODEL, seed) for seed in range(3))


def policies(**changes):
    """The config and model of an AdaViT on the backbone of the runs and files here."""
    config = configs.debug(configs.base(model="adavit_deit_micro_patch4_32").unlock())
    config.model.update(SIZES)
    config.update_from_flattened_dict(changes)
    return config, configs.make_model(config)
