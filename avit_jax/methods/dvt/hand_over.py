"""What one exit hands over to the next, made ready for its blocks, and the call that brings it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax import Array

from avit_jax.methods.forward import Call, Reused
from avit_jax.models import reuse
from avit_jax.models.shape import Shape


def reused(network: nnx.Module, shape: Shape, shown: Mapping[str, Array]) -> Reused | None:
    """What the blocks of an exit get of the exit before; `None` where nothing is reused.

    Args:
        network: of the exit.
        shape: of it.
        shown: by the exit before, as `Call.shown` names it: `states` `[B, n, D]` and `relations`
            `[L, B, H, n, n]`, those of them that are reused.
    """
    if shape.reuse is None:
        return None
    extra = bias = None
    if shape.reuse.context_dim:
        extra = reuse.contexts(network, shape, shown["states"])
    if shape.reuse.relations:
        bias = reuse.biases(network, shape, shown["relations"])
    return Reused(extra=extra, bias=bias)


def call_of(model: Any, index: int, call: Call, given: Reused | None) -> Call:
    """The call of one exit.

    Args:
        model: the cascade.
        index: of the exit, from 0.
        call: of the whole cascade.
        given: what its blocks get of the exit before.
    """
    last = index == len(model.exits) - 1
    return call.replace(
        key=None if call.key is None else jax.random.fold_in(call.key, index),
        features=call.features and last,
        shown=() if last else model.shown,
        reused=given,
    )
