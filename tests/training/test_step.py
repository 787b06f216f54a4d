"""What one training step changes."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import create_model
from avit_jax.data.erase import Erase, erase
from avit_jax.data.mix import Mix, mix, normalise
from avit_jax.losses import classification
from avit_jax.training import optimizers
from avit_jax.training.loss import loss_function
from avit_jax.training.optimization import Optimization
from avit_jax.training.step import augmented
from tests.training.trainer import (
    FROZEN,
    OPTIM,
    RATE,
    RECIPE,
    SIZES,
    RandomModel,
    Trainer,
    batch,
    make_model,
    rate,
)


@pytest.fixture(scope="module")
def accumulating() -> Trainer:
    return Trainer(make_model(), accumulation=2, ema_decay=0.9)


@pytest.fixture(scope="module")
def drawing() -> Trainer:
    model = make_model(RandomModel, drop_path_rate=0.5, dropout_rate=0.2)
    trainable = model.trainable(model.abstract_params())
    optimizer = optimizers.build(OPTIM, rate, trainable=trainable)
    return Trainer(model, optimizer=optimizer, mix=Mix(mixup=0.8))


def test_a_step_is_gradient_descent_on_the_mean_smoothed_cross_entropy(plain):
    model = plain.model
    rows = batch(0)

    @jax.jit
    def loss(params):
        logits = model.apply(params, normalise(rows["image"])).logits
        targets = 0.9 * jax.nn.one_hot(rows["label"], 5) + 0.02
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()

    value, gradient = jax.value_and_grad(loss)(plain.start.params)
    (state,), (averages,) = plain.run([rows])
    expected = jax.tree.map(lambda p, g: p - RATE * g, plain.start.params, gradient)
    chex.assert_trees_all_close(state.params, expected, atol=1e-6)
    assert int(state.step) == 1
    assert averages["loss"] == pytest.approx(float(value), rel=1e-5)
    assert averages["task_loss"] == averages["loss"]
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))
    assert averages["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert averages["learning_rate"] == pytest.approx(RATE)
    assert averages["gmacs"] == pytest.approx(model.dense_gmacs(), rel=1e-5)
    assert state.ema is None


def test_the_loss_of_the_labels_can_be_of_each_class_by_itself():
    model, rows = make_model(), batch(1)
    params = model.init(jax.random.key(0))
    images = normalise(rows["image"])
    targets = classification.soft_targets(rows["label"], 5, smoothing=0.1)
    loss = jax.jit(loss_function(model, task_loss="bce"))
    total, (logged, _) = loss(params, images, targets, jax.random.key(0), 1.0)
    present = jax.nn.sigmoid(model.apply(params, images).logits)
    each = targets * jnp.log(present) + (1 - targets) * jnp.log(1 - present)
    np.testing.assert_allclose(total, -each.mean(), rtol=1e-5)
    assert total == logged["task_loss"]


def test_penalties_and_all_exits_are_part_of_the_loss():
    adaptive = create_model(
        "avit_micro_patch4_32", method={"ponder_weight": 0.5, "prior_weight": 2.0}, **SIZES
    )

    class TwoExits(type(adaptive)):
        def forward(self, network, images, call):
            output = super().forward(network, images, call)
            return output.replace(exits=jnp.stack([output.logits, 2 * output.logits]))

    model = TwoExits(adaptive.shape, adaptive.settings)
    params = make_model().init(jax.random.key(0))
    images = normalise(batch(1)["image"])
    targets = classification.soft_targets(batch(1)["label"], 5)
    arguments = (params, images, targets, jax.random.key(0), 1.0)
    total, (logged, _) = jax.jit(loss_function(model))(*arguments)
    output = jax.jit(adaptive.apply)(params, images)
    task = sum(classification.cross_entropy(k * output.logits, targets).mean() for k in (1, 2))
    np.testing.assert_allclose(logged["task_loss"], task, rtol=1e-5)
    assert set(output.penalties) == {"ponder", "prior"}
    for name, value in output.penalties.items():
        np.testing.assert_allclose(logged[f"{name}_penalty"], value, rtol=1e-5)
        assert value > 0
    np.testing.assert_allclose(total, task + sum(output.penalties.values()), rtol=1e-5)


def test_randomness_depends_on_seed_and_step_only(drawing):
    rows = batch(2)
    (first, _), _ = drawing.run([rows, rows])
    (again,), _ = drawing.run([rows])
    chex.assert_trees_all_equal(again.params, first.params)
    later = drawing.start.replace(step=drawing.start.step + 5)
    (moved,), _ = drawing.run([rows], later)
    assert not np.allclose(moved.params["head"]["kernel"], first.params["head"]["kernel"])


@pytest.mark.parametrize("step, mixed", [(0, True), (6, True), (7, False)])
def test_images_are_normalised_erased_and_then_mixed_until_a_step(step, mixed):
    recipe = dataclasses.replace(
        RECIPE,
        erase=Erase(probability=1.0, mode="const", min_area=0.1),
        mix=Mix(mixup=1.0),
        mixed_steps=7,
    )
    rows, key = batch(2), jax.random.key(4)
    labels = jax.nn.one_hot(rows["label"], 5)

    @jax.jit
    def found(step):
        return augmented(rows["image"], labels, recipe, key, step)

    images, targets = found(step)
    erased = (erase(normalise(rows["image"]), recipe.erase, jax.random.fold_in(key, 5)), labels)
    expected = mix(*erased, recipe.mix, key) if mixed else erased
    chex.assert_trees_all_close((images, targets), expected, atol=1e-5)
    assert ((images == 0).all(-1).any() and not mixed) or mixed


def test_an_end_epoch_becomes_the_step_that_the_epoch_begins_with():
    config = configs.base(model="deit_micro_patch4_32")
    config.train.update(epochs=300.0, batch_size=16)
    config.data.mix.update(mixup=0.8, end_epoch=200.0)
    settings, model = configs.Settings.of(config), make_model()
    assert Optimization(settings, model, total_steps=3000).recipe.mixed_steps == 2000
    config.data.mix.end_epoch = 0.0
    settings = configs.Settings.of(config)
    assert Optimization(settings, model, total_steps=3000).recipe.mixed_steps is None


def test_parameters_that_are_not_trainable_neither_move_nor_decay(drawing):
    _, last = drawing.run([batch(6), batch(7)])[0]
    for name, start in drawing.start.params.items():
        pairs = zip(jax.tree.leaves(start), jax.tree.leaves(last.params[name]), strict=True)
        for before, after in pairs:
            assert np.array_equal(before, after) == (name in FROZEN), name


def test_accumulated_gradients_are_those_of_the_whole_batch(plain, accumulating):
    rows = batch(3)
    (whole,), (whole_averages,) = plain.run([rows])
    (parts,), (part_averages,) = accumulating.run([rows])
    chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
    assert part_averages.keys() == whole_averages.keys()
    for name in part_averages:
        np.testing.assert_allclose(part_averages[name], whole_averages[name], rtol=1e-4)


def test_the_moving_average_follows_its_formula(accumulating):
    chex.assert_trees_all_equal(accumulating.start.ema, accumulating.start.params)
    states, _ = accumulating.run([batch(4), batch(5)])
    expected = accumulating.start.params
    for state in states:
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, expected, state.params)
        chex.assert_trees_all_close(state.ema, expected, atol=1e-6)
    assert not np.allclose(states[-1].ema["head"]["kernel"], states[-1].params["head"]["kernel"])


def test_a_cpu_trains_in_float32_whatever_the_dtype():
    model = make_model(dtype="bfloat16")
    loss = loss_function(model.trained_on("cpu"))
    arguments = (model.abstract_params(), batch(0)["image"], jnp.zeros((4, 5)), None, 1.0)
    assert "bf16" not in str(jax.make_jaxpr(loss)(*arguments))
    assert model.trained_on("tpu").shape.dtype == "bfloat16"
