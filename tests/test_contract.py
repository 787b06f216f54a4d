"""What every method must keep, found by itself in `avit_jax/methods`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax import methods, zoo
from avit_jax.inference.plan import Plan
from avit_jax.sharding import make_mesh

NAMES = {zoo.entry(name).method: name for name in avit_jax.list_models("*tiny_patch16_224")}
BATCH, SIZE, CLASSES = 3, 32, 7
TOKENS = 1 + (SIZE // 8) ** 2
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])


def tiny(method, **overrides):
    """A small model of a method in the middle of its range: some tokens skip, some do not."""
    settings = {"method": {"gate_scale": 4.0, "gate_center": 0.0}} if method == "avit" else {}
    sizes = {"image_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    return avit_jax.create_model(
        NAMES[method], num_classes=CLASSES, **{**sizes, **settings, **overrides}
    )


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))


@pytest.fixture(scope="module", params=methods.available())
def case(request):
    model = tiny(request.param)
    return model, model.init(jax.random.key(0))


def test_every_method_has_a_named_model():
    assert set(NAMES) == set(methods.available())


def test_output_has_the_shapes_of_the_contract(case, images):
    model, params = case
    output = model.apply(params, images, features=True)
    layers, tokens = model.shape.depth, model.shape.num_tokens
    chex.assert_shape(output.logits, (BATCH, CLASSES))
    chex.assert_type(output.logits, jnp.float32)
    chex.assert_shape(output.usage.tokens, (layers, BATCH, tokens))
    assert output.usage.tokens.dtype == bool
    chex.assert_shape(output.aux["features"], (layers, BATCH, tokens, model.shape.embed_dim))
    for value in [*output.penalties.values(), *output.metrics.values()]:
        chex.assert_shape(value, ())
    chex.assert_tree_all_finite(output)


def test_gradients_are_finite_and_reach_every_parameter(case, images):
    model, params = case

    def loss(params):
        output = model.apply(params, images, train=True, key=jax.random.key(2))
        return output.logits.std() + sum(output.penalties.values())

    grads = jax.grad(loss)(params)
    chex.assert_tree_all_finite(grads)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(leaf)
    ]
    assert not still


def test_jit_equals_eager(case, images):
    model, params = case
    eager = model.apply(params, images)
    jitted = jax.jit(model.apply)(params, images)
    chex.assert_trees_all_close(eager, jitted, atol=1e-5, rtol=1e-5)


def test_new_data_and_new_progress_do_not_retrace(case, images):
    model, params = case

    traces = []

    @jax.jit
    def apply(params, images, progress):
        traces.append(1)
        return model.apply(params, images, progress=progress).logits

    apply(params, images, 0.5)
    apply(params, -images, 1.0)
    assert len(traces) == 1


def test_the_same_key_gives_the_same_output(images):
    for method in methods.available():
        model = tiny(method, drop_path_rate=0.5, dropout_rate=0.2)
        params = model.init(jax.random.key(0))
        apply = jax.jit(lambda key, m=model, p=params: m.apply(p, images, train=True, key=key))
        one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
        chex.assert_trees_all_equal(one, again)
        assert not np.array_equal(one.logits, other.logits)


def test_randomness_without_a_key_is_refused(images):
    for method in methods.available():
        model = tiny(method, drop_path_rate=0.5)
        with pytest.raises(ValueError, match="pass key="):
            model.apply(model.init(jax.random.key(0)), images, train=True)


def test_dense_execution_runs_everything(case, images):
    model, params = case
    output = model.apply(params, images, execution="dense")
    assert bool(output.usage.tokens.all())
    assert not output.penalties
    np.testing.assert_allclose(model.gmacs(output), model.dense_gmacs(), rtol=1e-6)


def test_dense_execution_is_the_plain_transformer(case, images):
    model, params = case
    if set(params) != set(tiny("dense").abstract_params()):
        pytest.skip("the method has parameters of its own")
    plain = tiny("dense").apply(params, images)
    dense = model.apply(params, images, execution="dense")
    np.testing.assert_allclose(dense.logits, plain.logits, atol=1e-5)


def test_skipping_never_costs_more_than_dense(case, images):
    model, params = case
    gmacs = model.gmacs(model.apply(params, images))
    assert np.all(gmacs <= model.dense_gmacs() * (1 + 1e-6))
    assert np.all(gmacs > 0)


def test_an_image_does_not_depend_on_the_others(case, images):
    model, params = case
    together = model.apply(params, images).logits
    alone = model.apply(params, images[1:2]).logits
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("execution", ["compact", "dense", "masked"])
def test_compiled_execution_gives_the_answers_of_apply(case, images, execution):
    model, params = case
    plan = Plan(
        images=2, row_sizes=(8, 32), attention_images=2, lengths=(8, TOKENS), dense_images=2
    )
    # Three images in a program for five: groups and batch are both filled up.
    predict = model.compile(params, batch_size=5, execution=execution, plan=plan, mesh=ONE_DEVICE)
    answer = predict(np.asarray(images))
    mode = "dense" if execution == "dense" else "masked"
    expected = model.apply(params, images, execution=mode)
    if model.adaptive and mode == "masked":
        assert not expected.usage.tokens.all(), "nothing is skipped, so nothing is compared"
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    chex.assert_trees_all_equal(answer.usage, expected.usage)
    chex.assert_shape(answer.aux["depth"], (BATCH, TOKENS))


def test_weights_travel_to_torch_names_and_back(case):
    model, params = case
    chex.assert_trees_all_equal(model.from_torch(model.to_torch(params)), params)


def test_bfloat16_arithmetic_keeps_float32_parameters_and_answers(case, images):
    model, params = case
    low = type(model)(tiny("dense", dtype="bfloat16").shape, model.settings)
    output = low.apply(params, images)
    chex.assert_type([output.logits, *output.metrics.values()], jnp.float32)
    chex.assert_type(jax.tree.leaves(low.abstract_params()), jnp.float32)
    plain = model.apply(params, images, execution="dense").logits
    close = low.apply(params, images, execution="dense").logits
    np.testing.assert_allclose(close, plain, atol=0.05 * np.abs(plain).max())


def test_wrong_images_and_executions_are_named(case):
    model, params = case
    with pytest.raises(ValueError, match="images have shape"):
        model.apply(params, jnp.zeros((1, SIZE + 8, SIZE, 3)))
    with pytest.raises(ValueError, match="masked or dense"):
        model.apply(params, jnp.zeros((1, SIZE, SIZE, 3)), execution="quick")


def test_a_dial_reaches_from_its_own_setting_to_dense_and_far_below(case, images):
    model, params = case
    dial = model.dial()
    if dial is None:
        pytest.skip("the method has no dial")
    apply = jax.jit(lambda settings: model.apply(params, images, settings=settings))
    least, own, most = (apply(dial.settings(position)) for position in (dial.low, 0.0, dial.high))
    chex.assert_trees_all_close(own, jax.jit(model.apply)(params, images), atol=1e-6)
    assert bool(most.usage.tokens.all())
    costs = [float(model.gmacs(output).mean()) for output in (least, own, most)]
    assert costs == sorted(set(costs))
