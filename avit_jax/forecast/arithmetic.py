"""Multiply-adds of a traced function: its contractions, loops of known length counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

# Products of queries and keys and of weights and values; the way back forms the scores anew and has
# four products more.
_FUSED_ATTENTION = {"fwd": 4.0, "bwd": 10.0}


def contraction_flops(jaxpr: core.Jaxpr, devices: int = 1) -> float:
    """FLOPs of all matrix products and convolutions, two for each multiply-add.

    Of both branches of a condition the dearer one counts, and loops that depend on data once;
    elementwise work and kernels of our own (Pallas) do not count.

    Args:
        jaxpr: of a function over the arrays of all devices.
        devices: that run each call of `shard_map` in it.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = list(_jaxprs(equation.params))
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            contractions = math.prod(shape[axis] for axis in contracted)
            total += 2.0 * contractions * math.prod(equation.outvars[0].aval.shape)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            spec = equation.params["dimension_numbers"].rhs_spec
            per_output = math.prod(kernel) / kernel[spec[0]]
            total += 2.0 * per_output * math.prod(equation.outvars[0].aval.shape)
        elif name.startswith("dot_product_attention"):
            total += _attention_flops(equation, name)
        elif name == "cond":
            total += max(contraction_flops(branch, devices) for branch in inner)
        elif name == "pallas_call":
            continue
        else:
            times = {"scan": equation.params.get("length", 1), "shard_map": devices}.get(name, 1)
            # A rule of differentiation that is still there is not run beside the function itself.
            if name.startswith("custom_"):
                inner = inner[:1]
            total += times * sum(contraction_flops(body, devices) for body in inner)
    return total


def _attention_flops(equation: Any, name: str) -> float:
    query, key = (variable.aval.shape for variable in equation.invars[:2])  # [B, N, H, D]
    way = "bwd" if "bwd" in name else "fwd"
    batch, tokens, heads, channels = query
    return _FUSED_ATTENTION[way] * batch * heads * tokens * key[1] * channels


def _jaxprs(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """Those among the parameters of an equation, in their order."""
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def flops_of(function: Any, *arguments: Any, devices: int = 1) -> float:
    """`contraction_flops` of a function of such arguments."""
    return contraction_flops(jax.make_jaxpr(function)(*arguments).jaxpr, devices)
