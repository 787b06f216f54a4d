"""Images that are sure leave: what answers for them and what runs, masked and compact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.losses import classification
from avit_jax.methods.dvt import early_exit, exit_sizes
from avit_jax.methods.per_image import per_image
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training.loss import loss_function

BATCH, SIZE = 7, 32
TEMPERATURES = (3.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def case():
    """A cascade of three exits whose thresholds let some images leave at each."""
    model = create_model(
        "dvt_deit_micro", patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=5,
        method={"grids": (2, 3, 4), "exit_weights": (0.5, 1.0, 2.0)},
    )  # fmt: skip
    params = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))
    exits = np.asarray(jax.jit(model.apply)(params, images).exits)
    pairs = zip(exits, TEMPERATURES, strict=True)
    sure = np.stack([early_exit.confidence(*pair) for pair in pairs])
    first = np.sort(sure[0])[-2:].mean()
    second = np.median(sure[1][sure[0] < first])
    settings = dataclasses.replace(
        model.settings,
        thresholds=(float(first), float(np.nextafter(second, 1))),
        temperatures=TEMPERATURES[:-1],
    )
    model = dataclasses.replace(model, settings=settings)
    return model, params, np.asarray(images), exits, sure, jax.jit(model.apply)(params, images)


def test_the_first_exit_that_is_sure_answers(case):
    model, _, _, exits, sure, output = case
    by_hand = [
        next((e for e in (0, 1) if sure[e, image] >= model.settings.thresholds[e]), 2)
        for image in range(BATCH)
    ]
    assert set(by_hand) == {0, 1, 2}
    seen = per_image(model, output)
    np.testing.assert_array_equal(seen.exit, by_hand)
    np.testing.assert_allclose(output.logits, exits[by_hand, np.arange(BATCH)], atol=1e-5)
    np.testing.assert_array_equal(output.exits[-1], output.logits)
    for stage, usage in enumerate(output.usage):
        ran = np.asarray(usage.tokens).any((0, 2))
        np.testing.assert_array_equal(ran, np.asarray(by_hand) >= stage)
    spent = np.cumsum([costs.dense_gmacs(shape) for shape in model.stages])
    np.testing.assert_allclose(seen.gmacs, spent[by_hand], rtol=1e-5)


def test_compact_execution_gathers_the_images_that_go_on(case):
    model, params, images, *_, output = case
    plan = dataclasses.replace(model.default_plan(BATCH), images=4, row_sizes=(17, 34))
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=BATCH, execution="compact", plan=plan, mesh=mesh)
    found = predict(images)
    np.testing.assert_allclose(found.logits, output.logits, atol=1e-5)
    np.testing.assert_allclose(found.exits, output.exits, atol=1e-5)
    for ours, theirs in zip(found.usage, output.usage, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    executed = model.compact_gmacs(output.usage, plan)
    needed = costs.stages_gmacs(model.stages, output.usage, costs.inference_gmacs).sum()
    assert needed <= executed * (1 + 1e-6) < BATCH * model.dense_gmacs()


def test_nobody_leaves_in_training_and_losses_are_weighted(case):
    model, params, images, exits, *_ = case
    targets = classification.soft_targets(jnp.arange(BATCH) % 5, 5)
    loss, (logged, _) = loss_function(model)(params, images, targets, jax.random.key(0), 1.0)
    losses = [classification.cross_entropy(logits, targets).mean() for logits in exits]
    np.testing.assert_allclose(loss, np.dot([0.5, 1.0, 2.0], losses), rtol=1e-5)
    np.testing.assert_allclose(logged["gmacs"], model.dense_gmacs(), rtol=1e-5)


def test_sizes_of_compact_execution_divide_a_batch_as_evenly_as_can_be():
    model = create_model("dvt_deit_tiny")
    plan = model.default_plan(32)
    for index, shape in enumerate(model.stages):
        sizes = exit_sizes.image_sizes(model, index, plan, 32)
        assert list(sizes) == sorted(set(sizes))
        assert -(-32 // sizes[-1]) * sizes[-1] - 32 < sizes[-1]
        assert sizes[-1] * shape.num_tokens <= plan.row_sizes[-1]


def test_relations_are_formed_only_where_they_are_reused():
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    images = jnp.zeros((1, SIZE, SIZE, 3))

    def made(**settings):
        model = create_model("dvt_deit_micro", method={"grids": (2, 4), **settings}, **sizes)
        program = jax.make_jaxpr(model.apply)(model.abstract_params(), images)
        return str(program), model

    stacked = "f32[2,1,2,5,5]"  # of all blocks, behind 2 x 2 patches and the class token
    with_relations, model = made()
    assert stacked in with_relations
    # Those of the last exit are only what is added.
    assert model.shown == ("states", "relations")
    without, model = made(relation_reuse=False)
    assert stacked not in without and model.shown == ("states",)
    assert "relation_reuse" not in model.abstract_params()["exit2"]
    _, model = made(feature_reuse=False, relation_reuse=False)
    assert model.shown == () and model.stages[1].reuse is None


def test_a_temperature_of_0_is_refused(case):
    with pytest.raises(ValueError, match="numbers above 0"):
        dataclasses.replace(case[0].settings, temperatures=(1.0, 0.0))
