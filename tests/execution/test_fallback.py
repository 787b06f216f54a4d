"""An execution of one's own, with a number of places that may not be enough, and its fallback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.execution.execution import Execution, executed_gmacs
from avit_jax.execution.masked import MASKED
from avit_jax.runtime.device_mesh import make_mesh

PLACES = 30  # token-layers of an image


def program(model, plan):
    """Masked arithmetic that is right only for images whose work fits."""
    masked = MASKED.program(model, plan)

    def run(params, images, exists):
        output = masked(params, images, exists)
        fits = output.usage[0].tokens.sum((0, 2)) <= PLACES
        return output.replace(fits=fits, logits=jnp.where(fits[:, None], output.logits, jnp.nan))

    return run


FIXED = Execution(
    name="fixed",
    program=program,
    executed_gmacs=MASKED.executed_gmacs,
    exact=True,
    fixed_batch=False,
    fallback=MASKED,
)


@pytest.fixture(scope="module")
def case():
    sizes = {"image_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
    model = avit_jax.create_model(
        "avit_micro_patch4_32", method={"gate_scale": 4.0, "gate_center": 0.0}, **sizes
    )
    params = model.init(jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(64, 32, 32, 3)).astype(np.float32)
    expected = jax.jit(model.apply)(params, images)
    work = np.asarray(expected.usage[0].tokens).sum((0, 2))
    assert (work > PLACES).any() and (work <= PLACES).sum() >= 2
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=2, execution=FIXED, mesh=mesh)
    return predict, images, np.asarray(expected.logits), work


def test_a_batch_that_fits_is_answered_by_the_program_itself(case):
    predict, images, expected, work = case
    few, before = np.flatnonzero(work <= PLACES)[:2], predict.overflows
    np.testing.assert_allclose(predict(images[few]).logits, expected[few], atol=1e-5)
    assert predict.overflows == before


def test_a_batch_that_does_not_fit_is_answered_by_the_fallback(case):
    predict, images, expected, work = case
    both = [np.flatnonzero(work <= PLACES)[0], np.flatnonzero(work > PLACES)[0]]
    before = predict.overflows
    np.testing.assert_allclose(predict(images[both]).logits, expected[both], atol=1e-5)
    assert predict.overflows == before + 1


def test_images_that_only_fill_up_never_count_as_left_out(case):
    predict, images, expected, work = case
    one, before = np.flatnonzero(work <= PLACES)[:1], predict.overflows
    np.testing.assert_allclose(predict(images[one]).logits, expected[one], atol=1e-5)
    assert predict.overflows == before


def test_costs_of_an_execution_are_asked_of_it(case):
    predict, images, *_ = case
    sizes = {"image_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
    model = avit_jax.create_model("avit_micro_patch4_32", **sizes)
    usage = predict(images[:2]).usage
    total = executed_gmacs(FIXED, model, usage, predict.plan, devices=2)
    assert total == pytest.approx(2 * model.dense_gmacs())


def test_batches_that_often_do_not_fit_are_warned_of_once(case, caplog):
    predict, images, _, work = case
    hard = images[np.flatnonzero(work > PLACES)[:2]]
    easy = images[np.flatnonzero(work <= PLACES)[:2]]
    with caplog.at_level("WARNING", logger="avit_jax"):
        for _ in range(200):  # a few that do not fit are no news
            predict(easy)
        rare = len(caplog.messages)
        for _ in range(60):
            predict(hard)
    assert rare == 0
    (message,) = caplog.messages
    assert "did not fit into fixed execution" in message
    assert "write --config.inference.execution masked" in message
