"""What a teacher adds to a training step."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import create_model, save_torch
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.losses.distillation import Distillation, Teacher
from avit_jax.runtime.device_mesh import make_mesh, replicated, shard_batch
from avit_jax.training import optimizers
from avit_jax.training import step as steps
from avit_jax.training.loss import loss_function
from avit_jax.training.optimization import Optimization
from avit_jax.training.teacher import teacher_weights
from tests.training import trainer
from tests.training.teachers import MODEL, PARTS, SIZES, THEIRS, drawn, rows, tiny

RECIPE = dataclasses.replace(trainer.RECIPE, teacher=Teacher(MODEL, Distillation()))


def one_step(student, **recipe):
    """A jitted step of plain gradient descent, and the state in front of it."""
    recipe = dataclasses.replace(RECIPE, **recipe)
    mesh = make_mesh(devices=jax.devices()[:1])
    optimizer = optimizers.scale_by_rate_at_step(lambda step: 0.01)
    state = jax.device_put(steps.init_state(student, optimizer, recipe), replicated(mesh))
    step = steps.make_train_step(student, optimizer, lambda step: 0.01, recipe, mesh)
    return jax.jit(step), state


@pytest.fixture(scope="module")
def stepped():
    """A step of a dense student, the state in front of it, and both results of it."""
    step, state = one_step(MODEL)
    return step, state, step(state, rows(), THEIRS)


def test_a_step_descends_on_the_sum_of_task_and_teacher(stepped):
    _, state, (after, averages) = stepped
    images = normalise(rows()["image"])

    @jax.jit
    def loss(params):
        shown = MODEL.apply(params, images, features=True)
        targets = 0.9 * jax.nn.one_hot(rows()["label"], 10) + 0.01
        task = -(targets * jax.nn.log_softmax(shown.logits)).sum(-1).mean()
        teacher = MODEL.apply(THEIRS, images, features=True)
        parts = Distillation().penalties(shown, teacher)
        return task + sum(parts.values()), (task, parts)

    (value, (task, parts)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.01 * g, state.params, gradient)
    chex.assert_trees_all_close(after.params, expected, atol=1e-6)
    np.testing.assert_allclose(averages["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(averages["task_loss"], task, rtol=1e-5)
    assert set(parts) == PARTS
    for name, part in parts.items():
        np.testing.assert_allclose(averages[f"teacher_{name}_penalty"], part, rtol=1e-4)
        assert part > 0


def test_the_parameters_of_the_teacher_are_an_argument_and_no_part_of_the_state(stepped):
    step, state, (after, averages) = stepped
    _, other = step(state, rows(), drawn(MODEL, 5))
    assert step._cache_size() == 1
    assert other["teacher_hidden_penalty"] != averages["teacher_hidden_penalty"]
    plain = dataclasses.replace(RECIPE, teacher=None)
    optimizer = optimizers.scale_by_rate_at_step(lambda step: 0.01)
    without = jax.eval_shape(lambda: steps.init_state(MODEL, optimizer, plain))
    assert after.replace(window=0).__dict__.keys() == without.replace(window=0).__dict__.keys()
    chex.assert_trees_all_equal_shapes(after.params, without.params)
    assert set(after.window) - set(without.window) == {f"teacher_{n}_penalty" for n in PARTS}


def test_accumulated_gradients_are_those_of_the_whole_batch(stepped):
    _, _, (whole, averages) = stepped
    step, state = one_step(MODEL, accumulation=2)
    parts, part_averages = step(state, rows(), THEIRS)
    chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
    for name in averages:
        np.testing.assert_allclose(part_averages[name], averages[name], rtol=1e-4)


def test_every_method_can_learn_from_the_answers_of_another_backbone():
    larger = create_model("deit_micro_patch4_32", num_classes=10, depth=3)
    answers = Teacher(larger, Distillation(attention=0.0, hidden=0.0))
    for name in ("deit_micro_patch4_32", "avit_micro_patch4_32", "adavit_deit_micro_patch4_32"):
        student = create_model(name, **SIZES)
        step, state = one_step(student, teacher=answers)
        shapes = (state, rows(), larger.abstract_params())
        _, averages = jax.eval_shape(step, *shapes)
        assert "teacher_logits_penalty" in averages
        assert not {"teacher_attention_penalty", "teacher_hidden_penalty"} & set(averages)


@pytest.mark.parametrize(
    "name",
    [
        "avit_micro_distilled_patch4_32",
        pytest.param("deit_micro_distilled_patch4_32", marks=pytest.mark.slow),
        pytest.param("adavit_deit_micro_distilled_patch4_32", marks=pytest.mark.slow),
    ],
)
def test_hard_distillation_teaches_each_token_by_its_own_head(name):
    """No label reaches the distillation token's head, and no teacher that of the class token."""
    weights = {"attention": 0.0, "hidden": 0.0}
    taught = {"ponder_weight": 0.0, "prior_weight": 0.0} if name.startswith("avit") else None
    student = create_model(name, method=taught, **SIZES)
    before = jax.tree.map(jnp.asarray, drawn(student, 2))
    images, targets = normalise(rows()["image"]), jax.nn.one_hot(rows()["label"], 10)

    def gradient(**weights_of):
        distillation = Distillation(**weights, **weights_of, answers="hard")
        loss = loss_function(student, Teacher(MODEL, distillation))
        arguments = (images, targets, jax.random.key(0), 1.0, THEIRS)
        return jax.jit(jax.grad(loss, has_aux=True))(before, *arguments)[0]

    of_labels, of_teacher = gradient(logits=1e-30, labels=1.0), gradient(logits=1.0, labels=0.0)
    for own, other in ((of_labels["head"], of_labels["head_dist"]),
                       (of_teacher["head_dist"], of_teacher["head"])):  # fmt: skip
        assert np.abs(own["kernel"]).max() > 1e-3
        assert np.abs(other["kernel"]).max() < 1e-20


def test_a_method_that_does_not_show_its_attention_says_what_to_write():
    student = create_model("avit_micro_patch4_32", **SIZES)
    with pytest.raises(UserError, match=r"does not show its attention: .*teacher.attention 0"):
        one_step(student)
    _, state = one_step(student, teacher=Teacher(MODEL, Distillation(attention=0.0)))
    assert "teacher_hidden_penalty" in state.window


def losses_on(data, fsdp, file):
    """A step of the trainer's own on some of the devices."""
    changes = {"teacher.weights": file, "train.accumulation": 2, "model.embed_dim": 64}
    changes |= {"train.ema_decay": 0.0, "model.drop_path_rate": 0.0}  # nothing to the teacher
    config = tiny("deit_micro_patch4_32", **changes)
    mesh = make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp])
    settings = configs.Settings.of(config)
    optimization = Optimization(settings, configs.make_model(config), total_steps=10)
    teacher_params, _ = teacher_weights(settings.teacher, optimization.recipe.teacher, mesh)
    state, step = optimization.init_state(mesh), optimization.compiled_step(mesh)
    _, averages = step(state, shard_batch(rows(16), mesh), teacher_params)
    return {name: float(value) for name, value in averages.items()}, teacher_params


@pytest.mark.slow
def test_losses_are_the_same_on_any_mesh_and_the_teacher_is_spread_over_it(tmp_path):
    wide = create_model("deit_micro_patch4_32", **SIZES | {"embed_dim": 64})
    save_torch(tmp_path / "wide.safetensors", wide.to_torch(drawn(wide)))
    single, _ = losses_on(1, 1, str(tmp_path / "wide.safetensors"))
    spread, teacher_params = losses_on(2, 4, str(tmp_path / "wide.safetensors"))
    assert spread == pytest.approx(single, rel=1e-5, abs=1e-5)
    assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(teacher_params))
