"""A small student, a teacher of its own sizes, and a training of a few steps with both."""

import jax
import numpy as np

from avit_jax import config as configs
from avit_jax import create_model

SIZES = {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 10}
PARTS = {"attention", "hidden", "logits"}


def tiny(model="adavit_deit_micro_patch4_32", **changes):
    """A short training on the digits; everything random is on."""
    config = configs.debug(configs.base(model=model).unlock())
    chosen = {f"model.{name}": value for name, value in SIZES.items()} | {
        "model.drop_path_rate": 0.1,
        "data.mix.mixup": 0.8,
        "train.ema_decay": 0.9,
        "train.steps": 5,
        "eval.batch_size": 512,
        "checkpoint.every": 0.025,  # epochs: 2 steps
        "checkpoint.keep": 10,
        "log.every": 1,
        "log.tensorboard": False,
    }
    config.update_from_flattened_dict(chosen | changes)
    return config


def drawn(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), model.abstract_params()
    )


MODEL = create_model("deit_micro_patch4_32", **SIZES)
THEIRS = drawn(MODEL)


def rows(size=8):
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (size, 32, 32, 3)).astype(np.float32),
        "label": rng.integers(0, 10, size, dtype=np.int32),
        "substituted": np.zeros(size, bool),
    }
