"""Weights of one model made to fit another: names, number of patches, number of classes.

These three differences are wanted whenever weights are fine-tuned on other images. Everything else
that differs stays as it is, for `names.from_torch` to list.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.errors import UserError
from avit_jax.models import functional
from avit_jax.models.layers import linear
from avit_jax.models.shape import Shape
from avit_jax.pretrained.resize import positions_for
from avit_jax.pretrained.wrappers import warn_left_out

_logger = logging.getLogger(__name__)
_HEADS = ("head", "head_dist")
# Of masked autoencoders and of self-distillation, beside the transformer that both train.
_PRETRAINING = ("decoder_", "mask_token", "head.", "head_dist.")


def fit(state_dict: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Arrays under timm's names, with positions, last norm and classifiers for a model of `shape`.

    A classifier that is missing or for another number of classes is replaced by a fresh one, always
    the same, and a warning says so; a table of positions for another grid is interpolated, or
    computed where it is a fixed one, and one that has a place for the class token, or none, is made
    one without, or with it.
    """
    state_dict = _last_norm(_positions(dict(state_dict), shape), shape)
    if _is_headless(state_dict):
        return _with_classifiers(state_dict, shape)
    return _classifiers(state_dict, shape)


def _is_headless(state_dict: Mapping[str, Any]) -> bool:
    """Whether weights are those of a transformer without a classifier, as pretraining leaves it."""
    heads = [f"{head}.{leaf}" for head in _HEADS for leaf in ("weight", "bias")]
    transformer = any(name.startswith("blocks.") for name in state_dict)
    return transformer and not any(head in state_dict for head in heads)


def _with_classifiers(state_dict: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """With fresh classifiers, and without what only pretraining had in their place."""
    own = [name for name in state_dict if name.startswith(_PRETRAINING)]
    warn_left_out("needed by pretraining alone", own)
    state_dict = {name: array for name, array in state_dict.items() if name not in set(own)}
    for index, head in enumerate(_HEADS[: 1 + shape.distilled]):
        _logger.warning(
            "these weights have no classifier %s: a fresh one of %d classes is added, train it.",
            head,
            shape.num_classes,
        )
        state_dict |= _fresh(head, shape, jax.random.key(index))
    return _without_pre_logits(state_dict)


def number_of_classes(state_dict: Mapping[str, Any]) -> int | None:
    """How many classes weights tell apart; `None` without a classifier.

    Args:
        state_dict: with timm's names, as `Model.timm_named` gives them.
    """
    bias = state_dict.get("head.bias")
    return len(bias) if np.ndim(bias) == 1 else None


def refuse_other_classes(state_dict: Mapping[str, Any], shape: Shape) -> None:
    """Raises UserError for weights (timm's names) that `fit` would give a fresh classifier."""
    biases = (array for name, array in state_dict.items() if f".{name}".endswith(".head.bias"))
    bias = next(biases, None)  # all exits of a cascade tell the same classes apart
    if bias is None and _is_headless(state_dict):
        raise UserError(
            "these weights have no classifier: fine-tune them on this data first, and name that "
            "run."
        )
    if np.ndim(bias) == 1 and len(bias) != shape.num_classes:
        raise UserError(
            f"these weights tell {len(bias)} classes apart and not {shape.num_classes}: set "
            f"model.num_classes to {len(bias)}, or fine-tune them on this data first, and name "
            "that run."
        )


def _last_norm(state_dict: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """The norm of a model that averages its patches, from that of one that reads a token."""
    if not shape.averages or any(name.startswith("fc_norm.") for name in state_dict):
        return state_dict
    return {re.sub(r"^norm\.", "fc_norm.", name): array for name, array in state_dict.items()}


def _positions(state_dict: dict[str, Any], shape: Shape) -> dict[str, Any]:
    table, wanted = state_dict.get("pos_embed"), shape.num_prefix_places
    if np.ndim(table) != 3 or np.shape(table)[::2] != (1, shape.embed_dim):
        return state_dict
    tokens = np.shape(table)[1]
    places = _places(tokens, shape)
    # A table with another number of prefix tokens is no square without ours, so it is left alone.
    if tokens == shape.num_positions or places is None:
        return state_dict
    own, table = np.split(positions_for(np.asarray(table), shape, places), [places], axis=1)
    if wanted > places:
        own = np.zeros((1, wanted, shape.embed_dim), table.dtype)
    elif wanted < places:
        state_dict, own = _added_to_tokens(state_dict, own), own[:, :wanted]
    return state_dict | {"pos_embed": np.concatenate([own, table], axis=1)}


def _places(tokens: int, shape: Shape) -> int | None:
    """Places in front of the patches' in a table of so many: of class and distillation tokens.

    Or 0, as in DeiT III, or `None` where what is left is no square grid in either case.
    """
    for places in (shape.num_answer_tokens, 0):
        side = math.isqrt(max(0, tokens - places))
        if side and side**2 == tokens - places and tokens > 1:
            return places
    return None


def _added_to_tokens(state_dict: dict[str, Any], places: np.ndarray) -> dict[str, Any]:
    """Class and distillation tokens with their positions `[1, n, D]`, as timm keeps DINOv2's."""
    for name in ("cls_token", "dist_token"):
        if places.shape[1] and np.ndim(state_dict.get(name)) == 3:
            own, places = np.split(places, [np.shape(state_dict[name])[1]], axis=1)
            state_dict = state_dict | {name: np.asarray(state_dict[name]) + own}
    return state_dict


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
