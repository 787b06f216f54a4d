"""What looks like a trained run: a tiny model with random weights on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.methods.base import Model

HALTING = {"gate_scale": 3.0, "gate_center": 0.5}  # tokens of one image halt at various depths


class Run(NamedTuple):
    """A workdir, and what is stored there."""

    config: ConfigDict
    workdir: Path
    model: Model
    params: dict


def config_of(
    name: str = "avit_micro_patch4_32", *, depth: int = 3, method: dict | None = None
) -> ConfigDict:
    """The debug variant of a small model, which nobody has saved yet."""
    if method is None and name.startswith("avit"):
        method = HALTING
    config = configs.debug(configs.base(model=name, method=method).unlock())
    config.model.update(depth=depth, embed_dim=24, num_heads=2, patch_size=8)
    return config


def trained(workdir: Path, config: ConfigDict, *, step: int = 17, seed: int = 0) -> Run:
    """The run of a config that has come to `step`: config.json, and a checkpoint."""
    (workdir / "config.json").write_text(configs.to_json(config))
    model, generator = configs.make_model(config), np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32),
        model.abstract_params(),
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(step, {"params": jax.device_put(params)})
    checkpoints.close()
    return Run(config, workdir, model, params)
