"""Small AdaViT models that keep about as much of everything as a test asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

import avit_jax
from avit_jax.methods.adavit import Model

DEPTH, HEADS = 3, 3
SPREAD = 3.0  # of the logits between images and tokens
ONE = "one"  # the first head or half and no other
NAMES = {"vit": "adavit_deit_tiny_patch16_224", "t2t": "adavit_t2t_vit_7"}
SIZES = {
    "vit": {"image_size": 24, "patch_size": 8},
    "t2t": {"image_size": 48, "token_dim": 8, "mlp_ratio": 4.0},
}
EVEN = {kind: [0.5] * DEPTH for kind in ("heads", "layers", "tokens")}


def make(*, backbone: str = "vit", method: Mapping | None = None, **sizes) -> Model:
    """Nine patches, three blocks of three heads."""
    fixed = {"embed_dim": 12, "depth": DEPTH, "num_heads": HEADS, "num_classes": 5}
    return avit_jax.create_model(
        NAMES[backbone], method=method, **{**SIZES[backbone], **fixed, **sizes}
    )


def params_of(model: Model, keep: Mapping[str, Sequence[float | str]], seed: int = 0) -> dict:
    """Weights whose policies keep about a share of each kind in each block: 0 and 1 are exact."""
    generator, policies = np.random.default_rng(seed), {}
    params = jax.tree.map(
        lambda leaf: generator.normal(0.0, 0.3, leaf.shape).astype(np.float32),
        model.abstract_params(),
    )
    for kind, policy in params.get("policies", {}).items():
        blocks, width, outputs = policy["kernel"].shape
        bias = np.stack([_bias(share, outputs) for share in keep[kind][-blocks:]])
        threshold = model.settings.threshold(kind)
        bias = bias + math.log(threshold / (1 - threshold))
        kernel = generator.normal(0.0, SPREAD * width**-0.5, policy["kernel"].shape)
        policies[kind] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return params | ({"policies": policies} if policies else {})


def images_of(model: Model, batch: int, seed: int = 0) -> np.ndarray:
    """Images `[B, H, W, 3]` of noise."""
    size = model.shape.image_size
    generator = np.random.default_rng(seed)
    return generator.normal(size=(batch, size, size, 3)).astype(np.float32)


def _bias(share: float | str, outputs: int) -> np.ndarray:
    if share == ONE:
        return np.where(np.arange(outputs) == 0, 1e4, -1e4)
    if share in (0.0, 1.0):
        return np.full(outputs, 1e4 * (2 * share - 1))
    return np.full(outputs, SPREAD * math.log(share / (1 - share)))
