"""Weights and images whose tokens halt as asked, to measure speed by.

Nothing in the program is special. Channel 0 is cut off from the blocks, so that it stays what the
patch embedding made of a patch, the patch's mean brightness; images are painted so that each
patch's score reaches the threshold in the layer wanted. All other channels compute as ever.
"""

from __future__ import annotations

import math

import jax
import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.models.functional import Params
from avit_jax.types import Usage

# Share of the dense GMACs by embed_dim and depth; A-ViT's README: DeiT-T 0.8 of 1.3 G, DeiT-S 3.6
# of 4.6 G.
PAPER = {(192, 12): 0.8 / 1.254, (384, 12): 3.6 / 4.599}


def shares(model: Model) -> dict[str, float]:
    """See `base.Model.synthetic_profiles`.

    Images can be painted only where patches stay apart until the blocks, for patches that nothing
    but the sum of their scores halts, and where a channel can be cut off from the blocks: an MLP
    over tokens is the same for all channels.
    """
    shape = model.shape
    if shape.patch_embedding is None or shape.tokens_keep_slots or _other_rule(model):
        return {}
    paper = PAPER.get((model.shape.embed_dim, model.shape.depth))
    return ({} if paper is None else {"paper": paper}) | {"half": 0.5, "none": 1.0}


def script(
    model: Model, share: float, batch_size: int, *, seed: int = 0
) -> tuple[Params, np.ndarray]:
    """See `base.Model.synthetic`."""
    if rule := _other_rule(model):
        raise UserError(
            f"method.{rule} is {getattr(model.settings, rule)!r}, but synthetic images are painted "
            "for tokens that halt as published: leave it out, or write real into "
            "config.benchmark.profiles, where that is this run's own weights and images."
        )
    params = scripted_params(model, model.init(jax.random.key(seed)))
    depth = patch_depths(model, share, batch_size, seed=seed)
    return params, scripted_images(model, depth, seed=seed)


def _other_rule(model: Model) -> str | None:
    """The setting by which patches halt otherwise than published, if there is one."""
    settings = model.settings
    published = {"spread": "none", "learn_gates": False, "max_depth": None, "layer_centers": None}
    published |= {"min_depth": 1, "halt_from": 1}
    found = [name for name, value in published.items() if getattr(settings, name) != value]
    # Scores of 1/d pass a threshold in layer d only where a score is more than is spared.
    if settings.eps * model.shape.depth >= 1:
        found.append("eps")
    return next((name for name in found if name != "spread" or settings.takes_along), None)


def patch_depths(model: Model, share: float, batch_size: int, *, seed: int = 0) -> np.ndarray:
    """Layers that each patch lives, `[B, patches]` from 1 to L, at a share of the dense GMACs.

    Neighbouring patches are alike, and there are easy and hard images. The spread is that of a
    normal variable of 2.2 layers within an image and as much between images; a shift brings the
    batch to the wanted share.
    """
    shape = model.shape
    rng = np.random.default_rng(seed)
    patches = _smooth(rng.normal(size=(batch_size, shape.grid, shape.grid)))
    ease = rng.normal(size=(batch_size, 1))
    spread = 2.2 * (ease + patches.reshape(batch_size, -1) / max(patches.std(), 1e-9))
    if share >= 1.0:
        return np.full(spread.shape, shape.depth)
    low, high = -40.0, 40.0
    for _ in range(40):
        middle = (low + high) / 2
        depth = np.clip(np.round(middle + spread), 1, shape.depth).astype(int)
        used = np.mean(np.asarray(costs.gmacs(shape, Usage(tokens=tokens_of(model, depth)))))
        low, high = (low, middle) if used > share * model.dense_gmacs() else (middle, high)
    return depth


def tokens_of(model: Model, depth: np.ndarray) -> np.ndarray:
    """`[L, B, N]` bool of patch depths, as in `Usage`; prefix tokens run to the image's end."""
    shape = model.shape
    ends = depth.max(1, keepdims=True) if shape.averages else np.full((len(depth), 1), shape.depth)
    prefix = np.repeat(ends, shape.num_prefix_tokens, axis=1)
    layers = np.arange(model.shape.depth)[:, None, None]
    return np.concatenate([prefix, depth], axis=1)[None] > layers


def scripted_params(model: Model, params: Params) -> Params:
    """The parameters with channel 0 holding nothing but a patch's mean brightness."""
    params = jax.tree.map(np.array, params)
    for module, name in (("attention", "proj"), ("mlp", "fc2")):
        params["blocks"][module][name]["kernel"][:, :, 0] = 0
        params["blocks"][module][name]["bias"][:, 0] = 0
    embedding = params[model.shape.patch_embedding]
    embedding["kernel"][:, 0] = _pixel_weight(model)
    embedding["bias"][0] = 0
    if "pos_embed" in params:
        params["pos_embed"][:, :, 0] = 0
    for name in ("cls_token", "dist_token", "reg_token"):
        if name in params:
            params[name][:, :, 0] = _brightness(model, 1e-9)
    return params


def scripted_images(model: Model, depth: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Images `[B, H, W, 3]` whose patches halt after `depth` `[B, patches]` layers."""
    shape = model.shape
    side, patch = shape.image_size, shape.patch_size
    rng = np.random.default_rng(seed)
    size = (len(depth), shape.grid, shape.grid, patch * patch * 3)
    texture = rng.normal(size=size)
    texture -= texture.mean(-1, keepdims=True)
    sums = np.vectorize(lambda layers: _brightness(model, 1.0 / layers))(depth)
    wanted = sums / (_pixel_weight(model) * size[-1])
    pixels = texture + wanted.reshape(*size[:3], 1)
    pixels = pixels.reshape(-1, shape.grid, shape.grid, patch, patch, 3)
    pixels = pixels.transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(-1, side, side, 3).astype(np.float32)


def _pixel_weight(model: Model) -> float:
    """About one over the numbers of a patch, but a power of 2, which is exact in every dtype."""
    return 2.0 ** -round(math.log2(3 * model.shape.patch_size**2))


def _brightness(model: Model, score: float) -> float:
    """What channel 0 must hold for a halting score; a score of 1/d halts in layer d."""
    score = min(score, 1.0 - 1e-6)
    logit = math.log(score / (1.0 - score))
    return (logit + model.settings.gate_center) / model.settings.gate_scale


def _smooth(maps: np.ndarray, width: int = 5) -> np.ndarray:
    kernel = np.ones(min(width, maps.shape[-1])) / width
    for axis in (1, 2):
        maps = np.apply_along_axis(np.convolve, axis, maps, kernel, "same")
    return maps
