"""Modules as pure functions of plain parameters, and layers under a scan."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax.errors import UserError
from avit_jax.models import functional

DEPTH, DIM = 3, 8


class Layer(nnx.Module):
    """A linear layer and a scale of its own; `forward` is what a scan runs."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(DIM, DIM, rngs=rngs)
        self.scale = nnx.Param(jax.random.normal(rngs.params(), (DIM,)))

    def __call__(self, x):
        return jnp.tanh(self.linear(x)) * self.scale[...] + x


class Stack(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(DIM, DIM, rngs=rngs)
        self.layers = functional.stack(lambda rngs: Layer(rngs=rngs), DEPTH, rngs)


def build_layer(rngs: nnx.Rngs) -> Layer:
    return Layer(rngs=rngs)


def build(rngs: nnx.Rngs) -> Stack:
    return Stack(rngs=rngs)


@pytest.fixture(scope="module")
def params() -> functional.Params:
    return functional.create(build, jax.random.key(0))


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, DIM)), jnp.float32)


def scanned(params, x, per_layer, *, remat=False):
    def layer(block, carry, weight):
        carry = block(carry) * weight
        return carry, carry.sum(-1)

    return functional.scan_layers(
        layer, functional.bind(build, params).layers, x, per_layer, remat=remat
    )


def unrolled(params, x, per_layer):
    outputs = []
    for index, weight in enumerate(per_layer):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], params["layers"])
        x = functional.bind(build_layer, own)(x) * weight
        outputs.append(x.sum(-1))
    return x, jnp.stack(outputs)


WEIGHTS = np.array([1.0, 0.5, 2.0], np.float32)


def test_modules_get_the_random_numbers_of_nnx_whatever_they_ask_of_them():
    """Those of other packages name streams as they like."""

    class Theirs(nnx.Module):
        def __init__(self, *, rngs: nnx.Rngs):
            self.table = nnx.Param(jax.random.normal(rngs.tables(), (DIM,)))
            self.other = nnx.Param(jax.random.normal(rngs(), (DIM,)))

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return functional.stack(lambda rngs: Theirs(rngs=rngs), DEPTH, rngs)

    params = functional.create(build, jax.random.key(0))
    assert {name: leaf.shape for name, leaf in params.items()} == dict.fromkeys(
        ("table", "other"), (DEPTH, DIM)
    )
    assert len(np.unique(np.concatenate([*params.values()]))) == 2 * DEPTH * DIM
    functional.bind(build, params)


def test_parameters_are_drawn_with_the_keys_that_nnx_counts(params):
    """Weights of a seed stay what they were, and what NNX would make of it."""
    rngs = nnx.Rngs(jax.random.key(0))
    first = nnx.Linear(DIM, DIM, rngs=rngs)
    layers = [Layer(rngs=nnx.Rngs(key)) for key in jax.random.split(rngs.params(), DEPTH)]
    np.testing.assert_allclose(params["first"]["kernel"], first.kernel[...], atol=1e-6)
    for index, layer in enumerate(layers):
        expected = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
        found = jax.tree.map(lambda leaf, index=index: leaf[index], params["layers"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_parameters_are_a_plain_nested_dict_of_arrays(params):
    def plain(tree):
        return isinstance(tree, jax.Array) or (
            type(tree) is dict and all(isinstance(k, str) and plain(v) for k, v in tree.items())
        )

    assert plain(params)
    assert params["layers"]["linear"]["kernel"].shape == (DEPTH, DIM, DIM)


def test_abstract_is_what_create_makes(params):
    abstract = functional.abstract(build)
    assert jax.tree.structure(abstract) == jax.tree.structure(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, params)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(abstract))


def test_the_key_decides_the_parameters_and_every_layer_gets_its_own(params):
    first, again, other = (
        functional.create(build_layer, jax.random.key(seed)) for seed in (0, 0, 1)
    )
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(first["linear"]["kernel"], other["linear"]["kernel"])
    scales = np.asarray(params["layers"]["scale"])
    assert len({scale.tobytes() for scale in scales}) == DEPTH


def test_bind_holds_the_parameters_it_is_given_and_keeps_none(params, x):
    layer = functional.create(build_layer, jax.random.key(2))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, layer)
    first, second, again = (functional.bind(build_layer, p)(x) for p in (layer, doubled, layer))
    expected = np.tanh(x @ layer["linear"]["kernel"]) * layer["scale"] + x
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_array_equal(again, first)
    assert not np.allclose(second, first)
    chex.assert_trees_all_equal_shapes_and_dtypes(functional.abstract(build_layer), layer)


def test_bind_works_on_traced_parameters(x):
    layer = functional.create(build_layer, jax.random.key(2))
    gradient = jax.jit(jax.grad(lambda p: functional.bind(build_layer, p)(x).sum()))(layer)
    expected = np.tanh(x @ layer["linear"]["kernel"]).sum(0)
    np.testing.assert_allclose(gradient["scale"], expected, atol=1e-4)


def test_a_scan_equals_an_unrolled_loop(params, x):
    chex.assert_trees_all_close(
        scanned(params, x, WEIGHTS), unrolled(params, x, WEIGHTS), atol=1e-5
    )


def test_a_scan_needs_no_inputs_of_its_own(params, x):
    stacked = functional.bind(build, params).layers
    carry, outputs = functional.scan_layers(
        lambda block, carry, nothing: (block(carry), nothing), stacked, x
    )
    assert outputs is None
    np.testing.assert_allclose(carry, unrolled(params, x, np.ones(DEPTH))[0], atol=1e-5)


def test_rematerialisation_changes_neither_result_nor_gradient(params, x):
    def value_and_gradient(remat):
        return jax.jit(
            jax.value_and_grad(lambda p: (scanned(p, x, WEIGHTS, remat=remat)[0] ** 2).sum())
        )(params)

    kept, recomputed = value_and_gradient(False), value_and_gradient(True)
    chex.assert_trees_all_close(kept, recomputed, rtol=1e-5, atol=1e-5)
    assert np.abs(kept[1]["layers"]["linear"]["kernel"]).min() > 0


def test_rematerialisation_really_recomputes(params, x):
    def program(remat):
        loss = jax.grad(lambda p: scanned(p, x, WEIGHTS, remat=remat)[0].sum())
        return str(jax.make_jaxpr(loss)(params))

    assert program(True).count("dot_general") > program(False).count("dot_general")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Builds a layer as a model does, and counts how often."""

    name: str
    built: list = dataclasses.field(default_factory=list, compare=False)

    def build(self, rngs: nnx.Rngs) -> Layer:
        self.built.append(self.name)
        return Layer(rngs=rngs)


def test_equal_models_are_built_once_to_learn_their_shapes_and_others_anew():
    one, equal, other = Recipe("one"), Recipe("one"), Recipe("other")
    shapes = [functional.abstract(recipe.build) for recipe in (one, equal, other)]
    assert (len(one.built), len(equal.built), len(other.built)) == (1, 0, 1)
    assert shapes[0] == shapes[1] == shapes[2]


def test_parameters_of_another_model_are_refused_with_both_shapes(params):
    build, kernel = Recipe("one").build, params["layers"]["linear"]["kernel"]
    layer = jax.tree.map(lambda leaf: leaf[0], params["layers"])
    functional.bind(build, layer)
    functional.bind(build, jax.tree.map(lambda leaf: leaf.astype(jnp.float16), layer))
    wide = layer | {"linear": layer["linear"] | {"kernel": jnp.zeros((9, 9))}}
    refused = {
        rf"1 of another shape: linear\.kernel \(9, 9\) for \({kernel.shape[1]}, ": wide,
        r"missing: linear.*1 unknown: other\): pass what init": {"other": kernel},
        r"unknown: params\.linear.*: take them out of their wrapper, \['params'\]": {
            "params": layer
        },
        "a nested dict, but this is a NoneType": None,
        "is int32, not a floating-point": jax.tree.map(lambda leaf: leaf.astype(int), layer),
        "is complex64, not a": jax.tree.map(lambda leaf: leaf.astype(complex), layer),
    }
    for message, found in refused.items():
        with pytest.raises(UserError, match=message) as refusal:
            jax.eval_shape(lambda found=found: functional.bind(build, found).linear.kernel[...])
        assert len(str(refusal.value)) <= 400
