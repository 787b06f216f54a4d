"""A trained run, or what looks like one: a tiny model on the digits that halts some tokens."""

import jax
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax.checkpoint import Checkpoints
from avit_jax.inference.plan import Plan

PLAN = Plan(images=2, row_sizes=(34,), attention_images=2, lengths=(17,), dense_images=2)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Config, workdir, model and weights."""
    method = {"gate_scale": 3.0, "gate_center": 0.5}
    config = configs.debug(configs.base(model="avit_micro_patch4_32", method=method).unlock())
    config.model.update(depth=3, embed_dim=24, num_heads=2, patch_size=8)
    config.data.dir = "/somewhere/secret"
    config.inference.batch_size = 4
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "config.json").write_text(configs.to_json(config))
    model, generator = configs.make_model(config), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32),
        model.abstract_params(),
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(17, {"params": jax.device_put(params)})
    checkpoints.close()
    return config, workdir, model, params
