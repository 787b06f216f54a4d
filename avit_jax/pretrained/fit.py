"""Weights of one model made to fit another: names, number of patches, number of classes.

These three differences are wanted whenever weights are fine-tuned on other images. Everything else
that differs stays as it is, for `names.from_torch` to list.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.errors import UserError
from avit_jax.models import functional
from avit_jax.models.backbone import Shape
from avit_jax.models.layers import linear
from avit_jax.pretrained import npz
from avit_jax.pretrained.resize import resize_positions

_logger = logging.getLogger(__name__)
_HEADS = ("head", "head_dist")


def fit(state_dict: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Arrays under timm's names, with positions and classifiers for a model of `shape`.

    A classifier of another number of classes is replaced by a fresh one, always the same, and a
    warning says so; a table of positions for another grid is interpolated.

    Raises:
        UserError: `.npz` weights of another number of attention heads.
    """
    if npz.is_google_research(state_dict):
        state_dict = npz.to_timm(state_dict, num_heads=shape.num_heads)
    return _classifiers(_positions(dict(state_dict), shape), shape)


def refuse_other_classes(state_dict: Mapping[str, Any], shape: Shape) -> None:
    """Raises UserError for weights of whose classifier `fit` would make a fresh one."""
    for bias in (state_dict[name] for name in ("head.bias", "head/bias") if name in state_dict):
        if len(bias) != shape.num_classes:
            raise UserError(
                f"these weights tell {len(bias)} classes apart and not {shape.num_classes}: set "
                f"model.num_classes to {len(bias)}, or fine-tune them on this data first, and name "
                "that run."
            )


def _positions(state_dict: dict[str, Any], shape: Shape) -> dict[str, Any]:
    table, prefix = state_dict.get("pos_embed"), shape.num_prefix_tokens
    if np.ndim(table) != 3 or np.shape(table)[::2] != (1, shape.embed_dim):
        return state_dict
    # A table with another number of prefix tokens is no square without ours, so it is left alone.
    tokens = np.shape(table)[1]
    side = math.isqrt(max(0, tokens - prefix))
    if tokens == shape.num_tokens or side**2 != tokens - prefix or not side:
        return state_dict
    _logger.info(
        "positions of %d x %d patches are interpolated to %d x %d.",
        side,
        side,
        shape.grid,
        shape.grid,
    )
    resized = resize_positions(np.asarray(table), grid=shape.grid, num_prefix_tokens=prefix)
    return state_dict | {"pos_embed": resized}


def _classifiers(state_dict: dict[str, Any], shape: Shape) -> dict[str, Any]:
    for index, head in enumerate(_HEADS):
        weight, bias = state_dict.get(f"{head}.weight"), state_dict.get(f"{head}.bias")
        classes = np.shape(weight)[:1]
        if (
            np.shape(weight) != (*classes, shape.embed_dim)
            or np.shape(bias) != classes
            or classes == (shape.num_classes,)
        ):
            continue
        _logger.warning(
            "the classifier %s of %d classes is replaced by a fresh one of %d classes: train it.",
            head,
            *classes,
            shape.num_classes,
        )
        state_dict = state_dict | _fresh(head, shape, jax.random.key(index))
        if head == "head":
            state_dict = _without_pre_logits(state_dict)
    return state_dict


def _fresh(head: str, shape: Shape, key: jax.Array) -> dict[str, np.ndarray]:
    """The classifier that `Model.init` would begin with."""

    def build(rngs: Any) -> Any:
        return linear(shape.embed_dim, shape.num_classes, dtype=jnp.float32, rngs=rngs)

    params = functional.create(build, key)
    return {
        f"{head}.weight": np.asarray(params["kernel"]).T,
        f"{head}.bias": np.asarray(params["bias"]),
    }


def _without_pre_logits(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Drops the layer between norm and classifier that some pretraining has (arXiv 2010.11929)."""
    kept = {name: array for name, array in state_dict.items() if not name.startswith("pre_logits.")}
    if len(kept) < len(state_dict):
        _logger.warning("the layer pre_logits is dropped with the classifier that it fed.")
    return kept
