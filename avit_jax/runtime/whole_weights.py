"""Weights that are split over 'fsdp', gathered where they are used, and their gradients scattered.

Left to itself the compiler may move tokens instead of weights: it splits heads and channels over
the devices that hold the pieces, and images change places twice in every layer. Told that a layer
multiplies by whole weights, it gathers those of one layer at a time and, on the way back, adds up
each device's gradients where that device's piece of the weights is (fully sharded data parallel,
ZeRO stage 3: Rajbhandari et al. 2020, arXiv 1910.02054).
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, get_abstract_mesh, use_abstract_mesh
from jax.sharding import PartitionSpec as P

from avit_jax.runtime.device_mesh import spec_of


def splitting(mesh: Mesh) -> AbstractContextManager:
    """While a step is traced in it, `whole` knows how the weights are split."""
    return use_abstract_mesh(mesh.abstract_mesh)


def whole(weights: Any, *, layers: int | None = None) -> Any:
    """The weights themselves, of which every device has the whole from here on.

    Outside of `splitting`, or where nothing is split, nothing happens.

    Args:
        weights: a tree of arrays.
        layers: whose one layer they are, where they are stored stacked.
    """
    parts = get_abstract_mesh().shape.get("fsdp", 1)
    if parts == 1:
        return weights
    lead = () if layers is None else (layers,)

    def gather(leaf: Array) -> Array:
        spec = spec_of((*lead, *leaf.shape), parts)[len(lead) :]
        return _gathered(leaf, P(*spec)) if any(spec) else leaf

    return jax.tree.map(gather, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(weights: Array, spec: P) -> Array:
    return jax.lax.with_sharding_constraint(weights, P())


def _forward(weights: Array, spec: P) -> tuple[Array, None]:
    return _gathered(weights, spec), None


def _backward(spec: P, _: None, gradient: Array) -> tuple[Array]:
    return (jax.lax.with_sharding_constraint(gradient, spec),)


_gathered.defvjp(_forward, _backward)
