"""Flax NNX modules as pure functions of their parameters.

Everywhere else in the package parameters are a plain nested dict of arrays, which dispatches fast
and gives checkpoints readable paths. Only here are they taken out of modules and put back: a module
is built around them for the time of one call, so no module holds state that changes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.errors import UserError
from avit_jax.models.misfits import differ, misfit
from avit_jax.runtime.whole_weights import whole

Params = dict[str, Any]
Build = Callable[[nnx.Rngs], nnx.Module]
Carry = TypeVar("Carry")


def create(build: Build, key: Array) -> Params:
    """Initialise a module: the result is the plain nested dict of its arrays."""

    @jax.jit
    def initialise(key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key)), nnx.Param))

    return initialise(key)


def abstract(build: Build) -> Params:
    """Shapes and dtypes of `create(build, key)`, without computing anything."""
    return jax.tree.map(_shape, nnx.to_pure_dict(_skeleton(build)[1]))


def bind(build: Build, params: Params) -> Any:
    """A module as `build` makes it, with `params` as its parameters.

    Raises:
        UserError: they are those of another model, or no floating-point numbers.
    """
    graph, skeleton = _skeleton(build)
    _refuse_others(params, abstract(build))
    state = jax.tree.map(lambda leaf: leaf, skeleton)  # a copy: the cached skeleton stays as it is
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def stack(build_layer: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> Any:
    """`depth` alike layers as one module whose parameters have a leading layer axis."""
    graphs = []  # of layers that are alike, so one

    def one(key: Array) -> nnx.State:
        graph, params = nnx.split(build_layer(nnx.Rngs(key)), nnx.Param)
        graphs.append(graph)
        return params

    stacked = jax.vmap(one)(jax.random.split(rngs.params(), depth))
    return nnx.merge(graphs[-1], stacked)


def scan_layers(
    layer: Callable[[Any, Carry, Any], tuple[Carry, Any]],
    stacked: Any,
    carry: Carry,
    per_layer: Any = None,
    *,
    remat: bool = False,
    unrolled: bool = False,
) -> tuple[Carry, Any]:
    """Run `layer(block, carry, inputs) -> (carry, outputs)` through stacked layers with `lax.scan`.

    One compiled body for all layers compiles quickly and, on a CPU, trains more steadily. On a GPU
    a loop would write everything that the backward pass needs once more.

    Args:
        layer: one layer as a function of its module.
        stacked: a module from `stack`.
        carry: what passes from layer to layer.
        per_layer: pytree with leading axis L, whatever differs between the layers.
        remat: recompute each layer in the backward pass instead of keeping its activations.
        unrolled: write all layers one after the other into the program.

    Returns:
        The last carry, and the outputs stacked on a leading layer axis.
    """
    graph, params = nnx.split(stacked)
    depth = len(jax.tree.leaves(params)[0])

    def body(carry: Carry, inputs: tuple[Any, Any]) -> tuple[Carry, Any]:
        return layer(nnx.merge(graph, whole(inputs[0], layers=depth)), carry, inputs[1])

    if remat or not unrolled:
        # Saved by default: outputs of linear layers. Norms, attention and activations are
        # recomputed, which costs a loop no time and takes a third of the memory. A loop needs no
        # barrier against CSE.
        policy = None if remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        body = jax.checkpoint(body, policy=policy, prevent_cse=unrolled)
    if not unrolled:
        return jax.lax.scan(body, carry, (params, per_layer))

    def apart(carry: Carry, inputs: tuple[Any, Any]) -> tuple[Carry, Any]:
        # Or each layer's kernels would compute again what led to it, and compile without end.
        return body(jax.lax.optimization_barrier(carry), inputs)

    return jax.lax.scan(apart, carry, (params, per_layer), unroll=True)


def map_paths(function: Callable[[str, Any], Any], params: Params) -> Any:
    """`function(path, leaf)` of every parameter, with paths such as "blocks.mlp.fc1.kernel"."""

    def call(path: tuple, leaf: Any) -> Any:
        return function(".".join(str(entry.key) for entry in path), leaf)

    return jax.tree_util.tree_map_with_path(call, params)


def first_layers(stacked: Any, count: int) -> Any:
    """A module from `stack` with its first `count` layers alone."""
    graph, params = nnx.split(stacked)
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf[:count], params))


def layer_at(stacked: Any, index: int | Array) -> Any:
    """One layer of a module from `stack`; `index` may be traced."""
    graph, params = nnx.split(stacked)

    def pick(leaf: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)

    return nnx.merge(graph, jax.tree.map(pick, params))


def _split_abstract(build: Build) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)


def _skeleton(build: Build) -> tuple[nnx.GraphDef, nnx.State]:
    # Methods are equal only for the very same object, but equal models have equal skeletons.
    if inspect.ismethod(build):
        return _skeleton_of_equals(build.__func__, build.__self__)
    return _skeleton_of_equals(build)


@functools.lru_cache(maxsize=256)
def _skeleton_of_equals(build: Callable, *owner: Any) -> tuple[nnx.GraphDef, nnx.State]:
    return _split_abstract(functools.partial(build, *owner))


def _refuse_others(params: Any, expected: Params) -> None:
    """Raises UserError for parameters of another model; shapes are all that a trace has of them."""
    remedy = "pass what init() or from_torch() of this very model returns"
    if not isinstance(params, Mapping):
        raise UserError(
            f"parameters are a nested dict, but this is a {type(params).__name__}: {remedy}."
        )
    named, wanted = _named(params), {n: leaf.shape for n, leaf in _named(expected).items()}
    found = {name: tuple(jnp.shape(leaf)) for name, leaf in named.items()}
    if differ(found, wanted):
        if set(params) == {"params"}:
            remedy = "take them out of their wrapper, ['params']"
        raise misfit("these parameters do", found, wanted, remedy)
    for name, leaf in named.items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise UserError(
                f"parameter {name} is {jnp.result_type(leaf)}, not a floating-point number: "
                f"{remedy}."
            )


def _named(params: Mapping[str, Any]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(getattr(key, "key", key)) for key in path): leaf for path, leaf in leaves}


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
