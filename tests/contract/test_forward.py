"""What the pure function of every method keeps, of the zoo and of one outside the package."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import zoo
from avit_jax.models import skippable_parts
from tests.contract.tiny_models import BATCH, CLASSES, NAMES, PARAMS, SIZE, start, tiny


def test_every_method_has_a_named_model():
    named = {model.name for family in zoo.families() for model in family.members.values()}
    assert {*named, "random_drop"} == {name.partition(" of ")[0] for name in NAMES}
    assert len(named) == len(zoo.METHODS) + len(zoo.CASCADES)


def test_output_has_the_shapes_of_the_contract(case, images):
    output = case.apply(case.params, images, features=True)
    shape = case.model.stages[0]
    layers, tokens = shape.depth, shape.num_tokens
    chex.assert_shape(output.logits, (BATCH, CLASSES))
    chex.assert_type(output.logits, jnp.float32)
    chex.assert_shape(output.usage[0].tokens, (layers, BATCH, tokens))
    sizes = {"heads": shape.num_heads, "halves": 2}
    for name, size in sizes.items():
        if getattr(output.usage[0], name) is not None:
            chex.assert_shape(getattr(output.usage[0], name), (layers, BATCH, size))
    chex.assert_type(jax.tree.leaves(output.usage), bool)
    last = case.model.stages[-1]
    features = (last.depth, BATCH, last.num_tokens, last.embed_dim)
    chex.assert_shape(output.aux["features"], features)
    if len(case.model.stages) > 1:
        chex.assert_shape(output.exits, (len(case.model.stages), BATCH, CLASSES))
    for value in [*output.penalties.values(), *output.metrics.values()]:
        chex.assert_shape(value, ())
    chex.assert_tree_all_finite(output)


def test_gradients_are_finite_and_reach_every_parameter(case, images):
    @jax.jit
    @jax.grad
    def gradients(params):
        output = case.model.apply(params, images, train=True, key=jax.random.key(2))
        answers = output.logits if output.exits is None else output.exits
        return answers.std() + sum(output.penalties.values())

    grads = gradients(case.params)
    chex.assert_tree_all_finite(grads)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(leaf)
    ]
    assert not still


def test_jit_equals_eager(case, images):
    eager = case.model.apply(case.params, images)
    chex.assert_trees_all_close(eager, case.apply(case.params, images), atol=1e-5, rtol=1e-5)


def test_new_data_and_new_progress_do_not_retrace(case, images):
    traces = []

    @jax.jit
    def apply(params, images, progress):
        traces.append(1)
        return case.model.apply(params, images, progress=progress).logits

    apply(case.params, images, 0.5)
    apply(case.params, -images, 1.0)
    assert len(traces) == 1


@pytest.mark.parametrize("method", PARAMS)
def test_the_same_key_gives_the_same_output(method):
    model = tiny(method, drop_path_rate=0.5, dropout_rate=0.2)
    params, images = start(model)
    apply = jax.jit(lambda key: model.apply(params, images, train=True, key=key))
    one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, again)
    assert not np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize("method", PARAMS)
def test_randomness_without_a_key_is_refused(method):
    model = tiny(method, drop_path_rate=0.5)
    with pytest.raises(ValueError, match="pass key="):
        model.apply(model.abstract_params(), jnp.zeros((1, SIZE, SIZE, 3)), train=True)


def test_drawing_says_whether_training_needs_a_key(case, images):
    if case.model.draws:
        with pytest.raises(ValueError, match="pass key="):
            case.model.apply(case.params, images, train=True)
    else:
        plain = case.apply(case.params, images, train=True).logits
        drawn = case.apply(case.params, images, train=True, key=jax.random.key(7)).logits
        np.testing.assert_array_equal(plain, drawn)


def test_an_image_does_not_depend_on_the_others(case, images):
    together = case.apply(case.params, images).logits
    alone = case.apply(case.params, images[1:2]).logits
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


def test_weights_travel_to_torch_names_and_back(case):
    model, params = case.model, case.params
    chex.assert_trees_all_equal(model.from_torch(model.to_torch(params)), params)


def test_bfloat16_arithmetic_keeps_float32_parameters_and_answers(case, images):
    low = dataclasses.replace(case.model, shape=tiny("dense", dtype="bfloat16").shape)
    apply = jax.jit(low.apply, static_argnames="execution")
    output = apply(case.params, images)
    chex.assert_type([output.logits, *output.metrics.values()], jnp.float32)
    chex.assert_type(jax.tree.leaves(low.abstract_params()), jnp.float32)
    plain = case.apply(case.params, images, execution="dense").logits
    close = apply(case.params, images, execution="dense").logits
    np.testing.assert_allclose(close, plain, atol=0.05 * np.abs(plain).max())


def test_an_adaptive_method_says_how_close_its_decisions_were(case, images):
    output = case.apply(case.params, images)
    if case.model.adaptive:
        chex.assert_shape(output.aux["margin"], (BATCH,))
        assert np.all(output.aux["margin"] > 0)


def test_usage_is_given_per_stage_and_pictures_can_read_it(case, images):
    output = case.apply(case.params, images)
    assert len(output.usage) == len(case.model.stages)
    for stage, usage in zip(case.model.stages, output.usage, strict=True):
        ran = skippable_parts.ran(usage)
        chex.assert_shape(ran["tokens"], (stage.depth, BATCH, stage.num_tokens))
        assert set(ran) <= set(skippable_parts.PARTS)
