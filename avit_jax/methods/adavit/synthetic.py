"""Policies and images that drop patches, heads and halves as asked, to measure speed by.

The policies' weights are random. Their biases are set block by block, so that on a sample of the
images each decision is yes for the same share of all kinds, which makes the wanted GMACs.
"""

from __future__ import annotations

import math

import jax
import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.adavit import decisions
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.models.functional import Params
from avit_jax.types import SATURATED, Usage

# Share of the dense GMACs by embed_dim and depth; Meng et al.: Ada-DeiT-S 2.3 of 4.6 G,
# Ada-T2T-ViT-19 3.9 of 8.5 G.
PAPER = {(384, 12): 2.3 / 4.6, (448, 19): 3.9 / 8.5}
SAMPLE = 16  # images that biases are set by


def shares(model: Model) -> dict[str, float]:
    """See `base.Model.synthetic_profiles`; nothing to choose from where nothing is decided."""
    if not model.settings.chosen:
        return {}
    paper = PAPER.get((model.shape.embed_dim, model.shape.depth))
    return ({} if paper is None else {"paper": paper}) | {"half": 0.5, "none": 1.0}


def script(
    model: Model, share: float, batch_size: int, *, seed: int = 0
) -> tuple[Params, np.ndarray]:
    """See `base.Model.synthetic`."""
    images = _images(model, max(batch_size, SAMPLE), seed)
    sample = images[:SAMPLE]
    params = scripted_params(model, share, sample, seed=seed)
    if batch_size < SAMPLE:  # few images: those that cost what is wanted
        usage = jax.jit(model.apply)(params, sample).usage[0]
        cost = np.asarray(costs.gmacs(model.shape, usage))
        images = sample[np.argsort(np.abs(cost - share * model.dense_gmacs()))[:batch_size]]
    return params, images


def scripted_params(model: Model, share: float, images: np.ndarray, *, seed: int = 0) -> Params:
    """Parameters with policies that keep a share of the dense GMACs on these images."""
    params = jax.tree.map(np.array, model.init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    for policy in params["policies"].values():
        policy["kernel"][...] = rng.normal(size=policy["kernel"].shape)
    kept = kept_share(model, share)
    look = jax.jit(lambda params, images: model.apply(params, images).aux)
    for layer in range(model.shape.depth):
        logits = look(params, images)
        for kind in model.settings.chosen:
            row = layer - model.settings.first_layer(kind)
            if row >= 0:
                own = np.asarray(logits[decisions.logits_name(kind)][layer])
                bias = params["policies"][kind]["bias"][row]
                bias += _shift(own.reshape(-1, len(bias)), kept, model.settings.threshold(kind))
    return params


def kept_share(model: Model, share: float) -> float:
    """Which share of all decisions has to be yes for a share of the dense GMACs.

    Raises:
        UserError: the decisions that this model has cannot save so much.
    """
    shape, settings = model.shape, model.settings
    if share >= 1.0:
        return 1.0
    size = (shape.depth, 64)
    rng = np.random.default_rng(0)
    drawn = {kind: rng.uniform(size=(*size, n)) for kind, n in decisions.outputs(shape).items()}

    def cost(kept: float) -> float:
        record = {}
        for kind in settings.chosen:
            yes = drawn[kind] < kept
            yes[: settings.first_layer(kind)] = True
            prefix = shape.num_prefix_tokens if kind == "tokens" else 0
            record[kind] = np.pad(yes, ((0, 0), (0, 0), (prefix, 0)), constant_values=True)
        usage: Usage = decisions.usage(settings, record, (*size, shape.num_tokens))
        return float(np.mean(np.asarray(costs.gmacs(shape, usage))))

    dense = model.dense_gmacs()
    wanted = share * dense
    if cost(0.0) > wanted:
        raise UserError(
            f"policies over {', '.join(settings.chosen)} alone cannot bring {dense:.2f} GMACs down "
            f"to {wanted:.2f}: write none or real into config.benchmark.profiles."
        )
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) > wanted else (middle, high)
    return high


def _shift(logits: np.ndarray, kept: float, threshold: float) -> np.ndarray | float:
    """What to add to logits `[n, outputs]` so that a share of each passes the threshold."""
    if kept >= 1.0:
        return SATURATED
    return math.log(threshold / (1.0 - threshold)) - np.quantile(logits, 1.0 - kept, axis=0)


def _images(model: Model, number: int, seed: int) -> np.ndarray:
    """Brighter and darker ones, of more and less contrast: policies are to tell images apart."""
    rng, side = np.random.default_rng(seed), model.shape.image_size
    images = rng.normal(size=(number, side, side, 3)) * rng.uniform(0.5, 2, (number, 1, 1, 1))
    return (images + rng.normal(size=(number, 1, 1, 3))).astype(np.float32)
