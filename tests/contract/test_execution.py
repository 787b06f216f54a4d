"""What every method keeps however it is executed, what it costs then, and who can tell."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.benchmark import profiles
from avit_jax.errors import UserError
from avit_jax.execution.dense import DENSE
from avit_jax.execution.executions import EXECUTIONS
from avit_jax.execution.plan import Plan
from avit_jax.methods.per_image import per_image
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from tests.contract.tiny_models import BATCH, SIZE, TOKENS, tiny

WRITTEN_AS_ONNX = ("avit", "dense")
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])


def test_dense_execution_runs_everything(case, images):
    output = case.apply(case.params, images, execution="dense")
    assert all(bool(part.all()) for part in jax.tree.leaves(output.usage))
    assert not output.penalties
    np.testing.assert_allclose(case.model.gmacs(output), case.model.dense_gmacs(), rtol=1e-6)


def test_dense_execution_is_the_plain_transformer(case, images):
    if len(case.model.stages) > 1 or case.model.name == "dvt":
        pytest.skip("a cascade is several transformers")
    plain = tiny("dense")
    params = {name: case.params[name] for name in plain.abstract_params()}
    expected = jax.jit(plain.apply)(params, images)
    dense = case.apply(case.params, images, execution="dense")
    np.testing.assert_allclose(dense.logits, expected.logits, atol=1e-5)


def test_skipping_never_costs_more_than_dense(case, images):
    gmacs = case.model.gmacs(case.apply(case.params, images))
    assert np.all(gmacs <= case.model.dense_gmacs() * (1 + 1e-6))
    assert np.all(gmacs > 0)


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
        stages = expected.usage[1:] or expected.usage  # all images go through the first
        for part in jax.tree.leaves(stages):
            assert 0.1 < part.mean() < 0.9, "hardly anything is skipped or runs: compares nothing"
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    chex.assert_trees_all_equal(answer.usage, expected.usage)
    chex.assert_shape(per_image(model, answer).token_depth, (BATCH, TOKENS))
    # Whatever is not finite is so in the same images and no others, whose answers stay the same.
    for value in (np.nan, np.inf, -np.inf):
        broken = np.array(images)
        broken[1, 9, 9, 0] = value
        answer = np.isfinite(predict(broken).logits).all(-1)
        np.testing.assert_array_equal(answer, [True, False, True])
        expected = np.isfinite(apply(params, broken, execution=mode).logits).all(-1)
        np.testing.assert_array_equal(answer, expected)


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


def test_synthetic_profiles_run_the_share_that_they_are_named_for(case):
    model = case.model
    assert set(model.synthetic_profiles()) <= {"paper", "half", "none"}
    for name, share in model.synthetic_profiles().items():
        params, images = profiles.script(model, name, 16)
        gmacs = np.asarray(model.gmacs(case.apply(params, images))).mean()
        assert gmacs == pytest.approx(share * model.dense_gmacs(), rel=0.15)


def test_candidate_plans_fit_the_model_and_the_default_is_among_them(case):
    model = case.model
    plans = model.candidate_plans(4)
    assert plans["default"] == model.default_plan(4)
    for plan in plans.values():
        plan.check(num_tokens=TOKENS, depth=model.shape.depth)


def test_executed_work_is_at_least_what_is_needed(case, images):
    model, output = case.model, case.apply(case.params, images)
    needed = costs.stages_gmacs(model.stages, output.usage, costs.inference_gmacs).sum()
    assert model.inference_gmacs(output.usage).sum() == pytest.approx(needed)
    executed = model.compact_gmacs(output.usage, model.default_plan(BATCH))
    assert needed * (1 - 1e-6) <= executed <= 2 * BATCH * model.dense_gmacs()


def test_a_graph_for_onnx_is_written_or_refused_in_a_sentence(case, images):
    onnx_graph = pytest.importorskip("avit_jax.export.onnx_graph", exc_type=ImportError)
    model, params = case.model, case.params
    write = functools.partial(onnx_graph.build, model, params, description={})
    if model.name == "dvt":
        with pytest.raises(UserError, match="method dvt cannot be written as ONNX"):
            write(dense=True)
        return
    assert {output.name for output in write(dense=True).graph.output} == {
        "logits", "depth", "gmacs"
    }  # fmt: skip
    if model.name in WRITTEN_AS_ONNX:
        write(dense=False)
    else:
        with pytest.raises(UserError, match=f"method {model.name} cannot be written as ONNX"):
            write(dense=False)
