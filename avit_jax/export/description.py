"""What goes beside an exported program: all that its user has to know about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.data.augment import Augment
from avit_jax.data.mix import MEAN, STD
from avit_jax.methods.base import Model
from avit_jax.version import __version__

FORMAT = 1
OUTPUTS = {
    "logits": "[B, C] float32, in the order of labels",
    "depth": "[B, N] float32, layers that each token was computed in; prefix tokens first, then "
    "the patches row by row",
    "gmacs": "[B] float32, multiply-adds of each image in units of 1e9",
    "dropped": "[B] int32, only for execution capped: tokens that found no place",
}


def describe(
    config: ConfigDict, model: Model, labels: Sequence[str], *, execution: str
) -> dict[str, Any]:
    """The content of `export.json`, as far as the config and the model determine it.

    Names of places on this machine are left out of the config, for they concern nobody else.
    """
    size = model.shape.image_size
    augment = Augment.from_config(config.data.augment)
    experiment = json.loads(configs.to_json(config))
    experiment["data"]["dir"] = None
    experiment["init"] = dict.fromkeys(experiment["init"])
    experiment["dense_twin"] = None
    return {
        "format": FORMAT,
        "model": config.model.name,
        "execution": execution,
        "batch_size": config.inference.batch_size,
        "dtype": model.shape.dtype,
        "labels": list(labels),
        "preprocessing": {
            "outside": {
                "decode": "RGB, turned upright as EXIF says",
                "resize": {
                    "shorter_side": round(size / augment.crop_ratio),
                    "interpolation": "bicubic, antialiased (Pillow)",
                    "longer_side": "rounded down",
                },
                "central_crop": size,
            },
            "input": {
                "name": "images",
                "shape": ["batch", size, size, 3],
                "dtype": "uint8",
                "range": [0, 255],
            },
            "inside": {"divide_by": 255, "mean": MEAN, "std": STD},
        },
        "outputs": OUTPUTS,
        "versions": {"avit_jax": __version__, "jax": jax.__version__},
        "config": experiment,
    }
