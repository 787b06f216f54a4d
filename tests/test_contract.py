"""What every method must keep: those of the zoo, and one that lies outside the package."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax import zoo
from avit_jax.benchmark import profiles
from avit_jax.errors import UserError
from avit_jax.execution.dense import DENSE
from avit_jax.execution.executions import EXECUTIONS
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.models import costs, skippable_parts
from avit_jax.runtime.device_mesh import make_mesh

NAMES = {zoo.named(name).name: name for name in avit_jax.list_models("*tiny_patch16_224")}
NAMES["random_drop"] = "tests.methods.random_drop:TINY"
BATCH, SIZE, CLASSES = 3, 32, 7
TOKENS = 1 + (SIZE // 8) ** 2
WRITTEN_AS_ONNX = ("avit", "dense")
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
# Blocks without decisions at the beginning, where the method has such.
SETTINGS = {"random_drop": {"whole_blocks": 1}}


class Case(NamedTuple):
    """A model that skips about half, and `model.apply`, compiled once for all tests."""

    model: Model
    params: dict
    images: np.ndarray
    apply: Callable


def tiny(method, /, **overrides):
    settings = {"method": SETTINGS.get(method, {})}
    sizes = {"image_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    return avit_jax.create_model(
        NAMES[method], num_classes=CLASSES, **{**sizes, **settings, **overrides}
    )


def start(model):
    """Parameters and images with which a method runs some of everything, and leaves some out.

    A method whose fresh weights hardly skip anything, or everything at once, says in a synthetic
    profile with which ones it does.
    """
    if "half" in model.synthetic_profiles():
        return profiles.script(model, "half", BATCH)
    images = np.random.default_rng(1).normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
    return model.init(jax.random.key(0)), images


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    model = tiny(request.param)
    apply = jax.jit(model.apply, static_argnames=("train", "execution", "features"))
    return Case(model, *start(model), apply)


@pytest.fixture(scope="module")
def images(case):
    return case.images


def test_every_method_has_a_named_model():
    named = {model.name for family in zoo.families() for model in family.members.values()}
    assert {*named, "random_drop"} == set(NAMES)
    assert len(named) == len(zoo.METHODS)


def test_output_has_the_shapes_of_the_contract(case, images):
    output = case.apply(case.params, images, features=True)
    shape = case.model.shape
    layers, tokens = shape.depth, shape.num_tokens
    chex.assert_shape(output.logits, (BATCH, CLASSES))
    chex.assert_type(output.logits, jnp.float32)
    chex.assert_shape(output.usage[0].tokens, (layers, BATCH, tokens))
    sizes = {"heads": shape.num_heads, "halves": 2}
    for name, size in sizes.items():
        if getattr(output.usage[0], name) is not None:
            chex.assert_shape(getattr(output.usage[0], name), (layers, BATCH, size))
    chex.assert_type(jax.tree.leaves(output.usage), bool)
    chex.assert_shape(output.aux["features"], (layers, BATCH, tokens, shape.embed_dim))
    for value in [*output.penalties.values(), *output.metrics.values()]:
        chex.assert_shape(value, ())
    chex.assert_tree_all_finite(output)


def test_gradients_are_finite_and_reach_every_parameter(case, images):
    @jax.jit
    @jax.grad
    def gradients(params):
        output = case.model.apply(params, images, train=True, key=jax.random.key(2))
        return output.logits.std() + sum(output.penalties.values())

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


@pytest.mark.parametrize("method", NAMES)
def test_the_same_key_gives_the_same_output(method):
    model = tiny(method, drop_path_rate=0.5, dropout_rate=0.2)
    params, images = start(model)
    apply = jax.jit(lambda key: model.apply(params, images, train=True, key=key))
    one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, again)
    assert not np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize("method", NAMES)
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


def test_dense_execution_runs_everything(case, images):
    output = case.apply(case.params, images, execution="dense")
    assert all(bool(part.all()) for part in jax.tree.leaves(output.usage))
    assert not output.penalties
    np.testing.assert_allclose(case.model.gmacs(output), case.model.dense_gmacs(), rtol=1e-6)


def test_dense_execution_is_the_plain_transformer(case, images):
    plain = tiny("dense")
    params = {name: case.params[name] for name in plain.abstract_params()}
    expected = jax.jit(plain.apply)(params, images)
    dense = case.apply(case.params, images, execution="dense")
    np.testing.assert_allclose(dense.logits, expected.logits, atol=1e-5)


def test_skipping_never_costs_more_than_dense(case, images):
    gmacs = case.model.gmacs(case.apply(case.params, images))
    assert np.all(gmacs <= case.model.dense_gmacs() * (1 + 1e-6))
    assert np.all(gmacs > 0)


def test_an_image_does_not_depend_on_the_others(case, images):
    together = case.apply(case.params, images).logits
    alone = case.apply(case.params, images[1:2]).logits
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize(
    "execution", [one.name for one in EXECUTIONS.values() if one.exact or one is DENSE]
)
def test_compiled_execution_gives_the_answers_of_apply(case, images, execution):
    model, params, _, apply = case
    if not EXECUTIONS[execution].offered(model):
        with pytest.raises(UserError, match=f'has no execution="{execution}"'):
            model.compile(params, batch_size=5, execution=execution, mesh=ONE_DEVICE)
        return
    plan = Plan(
        images=2, row_sizes=(8, 32), attention_images=2, lengths=(8, TOKENS), dense_images=2
    )
    # Three images in a program for five: groups and batch are both filled up.
    predict = model.compile(params, batch_size=5, execution=execution, plan=plan, mesh=ONE_DEVICE)
    answer = predict(np.asarray(images))
    mode = "dense" if execution == "dense" else "masked"
    expected = apply(params, images, execution=mode)
    if model.adaptive and mode == "masked":
        for part in jax.tree.leaves(expected.usage):
            assert 0.1 < part.mean() < 0.9, "hardly anything is skipped or runs: compares nothing"
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    chex.assert_trees_all_equal(answer.usage, expected.usage)
    chex.assert_shape(answer.aux["depth"], (BATCH, TOKENS))


def test_weights_travel_to_torch_names_and_back(case):
    model, params = case.model, case.params
    chex.assert_trees_all_equal(model.from_torch(model.to_torch(params)), params)


def test_bfloat16_arithmetic_keeps_float32_parameters_and_answers(case, images):
    low = type(case.model)(tiny("dense", dtype="bfloat16").shape, case.model.settings)
    apply = jax.jit(low.apply, static_argnames="execution")
    output = apply(case.params, images)
    chex.assert_type([output.logits, *output.metrics.values()], jnp.float32)
    chex.assert_type(jax.tree.leaves(low.abstract_params()), jnp.float32)
    plain = case.apply(case.params, images, execution="dense").logits
    close = apply(case.params, images, execution="dense").logits
    np.testing.assert_allclose(close, plain, atol=0.05 * np.abs(plain).max())


def test_wrong_images_and_executions_are_named(case):
    model, params = case.model, case.params
    with pytest.raises(ValueError, match="images have shape"):
        model.apply(params, jnp.zeros((1, SIZE + 8, SIZE, 3)))
    with pytest.raises(ValueError, match="masked or dense"):
        model.apply(params, jnp.zeros((1, SIZE, SIZE, 3)), execution="quick")


def test_a_dial_reaches_from_its_own_setting_to_dense_and_far_below(case, images):
    model, params = case.model, case.params
    dial = model.dial()
    if dial is None:
        pytest.skip("the method has no dial")
    apply = jax.jit(lambda settings: model.apply(params, images, settings=settings))
    least, own, most = (apply(dial.settings(position)) for position in (dial.low, 0.0, dial.high))
    chex.assert_trees_all_close(own, case.apply(params, images), atol=1e-5)
    assert all(bool(part.all()) for part in jax.tree.leaves(most.usage))
    costs = [float(model.gmacs(output).mean()) for output in (least, own, most)]
    assert costs == sorted(set(costs))


def test_an_adaptive_method_says_how_close_its_decisions_were(case, images):
    output = case.apply(case.params, images)
    if case.model.adaptive:
        chex.assert_shape(output.aux["margin"], (BATCH,))
        assert np.all(output.aux["margin"] > 0)


def test_synthetic_profiles_run_the_share_that_they_are_named_for(case):
    model = case.model
    assert set(model.synthetic_profiles()) <= {"paper", "half", "none"}
    for name, share in model.synthetic_profiles().items():
        params, images = profiles.script(model, name, 16)
        gmacs = np.asarray(model.gmacs(case.apply(params, images))).mean()
        assert gmacs == pytest.approx(share * model.dense_gmacs(), rel=0.15)


def test_usage_is_given_per_stage_and_pictures_can_read_it(case, images):
    output = case.apply(case.params, images)
    assert len(output.usage) == len(case.model.stages)
    for stage, usage in zip(case.model.stages, output.usage, strict=True):
        ran = skippable_parts.ran(usage)
        chex.assert_shape(ran["tokens"], (stage.depth, BATCH, stage.num_tokens))
        assert set(ran) <= set(skippable_parts.PARTS)


def test_candidate_plans_fit_the_model_and_the_default_is_among_them(case):
    model = case.model
    plans = model.candidate_plans(4)
    assert plans["default"] == model.default_plan(4)
    for plan in plans.values():
        plan.check(num_tokens=TOKENS, depth=model.shape.depth)


def test_executed_work_is_at_least_what_is_needed(case, images):
    model, output = case.model, case.apply(case.params, images)
    needed = sum(
        costs.inference_gmacs(stage, usage).sum()
        for stage, usage in zip(model.stages, output.usage, strict=True)
    )
    executed = model.compact_gmacs(output.usage, model.default_plan(BATCH))
    assert needed * (1 - 1e-6) <= executed <= 2 * BATCH * model.dense_gmacs()


def test_a_graph_for_onnx_is_written_or_refused_in_a_sentence(case, images):
    onnx_graph = pytest.importorskip("avit_jax.export.onnx_graph", exc_type=ImportError)
    model, params = case.model, case.params
    write = functools.partial(onnx_graph.build, model, params, description={})
    assert {output.name for output in write(dense=True).graph.output} == {
        "logits", "depth", "gmacs"
    }  # fmt: skip
    if model.name in WRITTEN_AS_ONNX:
        write(dense=False)
    else:
        with pytest.raises(UserError, match=f"method {model.name} cannot be written as ONNX"):
            write(dense=False)
