"""Training with a teacher: what it adds to a step, and what a run says of the one it is given."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import create_model, save_torch
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.data.mix import Mix, normalise
from avit_jax.errors import Preempted, UserError
from avit_jax.experiment import Experiment
from avit_jax.losses.distillation import Distillation, Teacher
from avit_jax.runtime.device_mesh import make_mesh, replicated, shard_batch
from avit_jax.training import loop as train
from avit_jax.training import optimizers
from avit_jax.training import step as steps
from avit_jax.training.optimization import Optimization
from avit_jax.training.teacher import make_teacher, refuse_other_teacher, teacher_weights
from tests import commands

SIZES = {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 10}
PARTS = {"attention", "hidden", "logits"}


def tiny(model="adavit_deit_micro_patch4_32", **changes):
    """A short training on the digits; everything random is on."""
    config = configs.debug(configs.base(model=model).unlock())
    chosen = {f"model.{name}": value for name, value in SIZES.items()} | {
        "model.drop_path_rate": 0.1,
        "data.mix.mixup": 0.8,
        "train.ema_decay": 0.9,
        "train.steps": 5,
        "eval.batch_size": 512,
        "checkpoint.every": 0.025,  # epochs: 2 steps
        "checkpoint.keep": 10,
        "log.every": 1,
        "log.tensorboard": False,
    }
    config.update_from_flattened_dict(chosen | changes)
    return config


def settings(**changes):
    return configs.Settings.of(tiny(**changes))


def drawn(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), model.abstract_params()
    )


STUDENT = configs.make_model(tiny())
MODEL = create_model("deit_micro_patch4_32", **SIZES)
THEIRS = drawn(MODEL)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "theirs.safetensors"
    save_torch(path, MODEL.to_torch(THEIRS))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a dense run with a moving average, which is the teacher of its own sizes."""
    workdir = tmp_path_factory.mktemp("run")
    config = configs.debug(configs.base(model="deit_micro_patch4_32").unlock())
    config.model.update(SIZES)
    config.train.ema_decay = 0.9
    (workdir / "config.json").write_text(configs.to_json(config))
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(7, jax.device_put({"params": drawn(MODEL, 1), "ema": THEIRS}))
    checkpoints.close()
    return workdir


def rows(size=8):
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (size, 32, 32, 3)).astype(np.float32),
        "label": rng.integers(0, 10, size, dtype=np.int32),
        "substituted": np.zeros(size, bool),
    }


RECIPE = steps.Recipe(
    total_steps=10,
    seed=0,
    accumulation=1,
    label_smoothing=0.1,
    ema_decay=0.0,
    log_every=3,
    mix=Mix(),
    teacher=Teacher(MODEL, Distillation()),
)


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


def test_a_method_that_does_not_show_its_attention_says_what_to_write():
    student = create_model("avit_micro_patch4_32", **SIZES)
    with pytest.raises(UserError, match=r"does not show its attention: .*teacher.attention 0"):
        one_step(student)
    _, state = one_step(student, teacher=Teacher(MODEL, Distillation(attention=0.0)))
    assert "teacher_hidden_penalty" in state.window


def optimization_of(config, workdir):
    experiment = Experiment(config, workdir)
    return Optimization(configs.Settings.of(config), experiment.model, experiment.total_steps)


def losses_on(data, fsdp, file):
    """A step of the trainer's own on some of the devices."""
    changes = {"teacher.weights": file, "train.accumulation": 2, "model.embed_dim": 64}
    config = tiny("deit_micro_patch4_32", **changes)
    mesh = make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp])
    settings = configs.Settings.of(config)
    optimization = Optimization(settings, configs.make_model(config), total_steps=10)
    teacher_params, _ = teacher_weights(settings.teacher, optimization.recipe.teacher, mesh)
    state, (step, _) = optimization.init_state(mesh), optimization.compiled_steps(mesh)
    _, averages = step(state, shard_batch(rows(16), mesh), teacher_params)
    return {name: float(value) for name, value in averages.items()}, teacher_params


def test_losses_are_the_same_on_any_mesh_and_the_teacher_is_spread_over_it(tmp_path):
    wide = create_model("deit_micro_patch4_32", **SIZES | {"embed_dim": 64})
    save_torch(tmp_path / "wide.safetensors", wide.to_torch(drawn(wide)))
    single, _ = losses_on(1, 1, str(tmp_path / "wide.safetensors"))
    spread, teacher_params = losses_on(2, 4, str(tmp_path / "wide.safetensors"))
    assert spread == pytest.approx(single, rel=1e-5, abs=1e-5)
    assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(teacher_params))


@pytest.mark.slow
def test_an_interrupted_training_ends_like_one_that_was_not(file, tmp_path):
    config = tiny(**{"teacher.weights": file})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(config, whole)
    with pytest.raises(Preempted):
        train.train(config, parts, stop=lambda step: step == 3)
    with pytest.raises(UserError, match=r"teacher.temperature: 5.0 -> 4.0"):
        train.train(tiny(**{"teacher.weights": file, "teacher.temperature": 4.0}), parts)
    train.train(config, parts)
    target = optimization_of(config, whole).abstract_state(make_mesh())
    ends = [Checkpoints(workdir / "checkpoints").restore(target) for workdir in (whole, parts)]
    assert ends[0][0] == 5
    chex.assert_trees_all_equal(*ends)
    lines = [
        [line for line in commands.metrics(workdir) if line["kind"] == "train"]
        for workdir in (whole, parts)
    ]
    assert lines[0] == lines[1]
    assert {f"teacher_{part}_penalty" for part in PARTS} <= set(lines[0][0])


def test_a_teacher_comes_from_a_file_or_the_average_of_a_run(file, run):
    mesh = make_mesh()
    for source, origin in ((file, file), (str(run), f"step 7 of {run} (ema)")):
        place = "teacher.weights" if source == file else "teacher.workdir"
        named = settings(**{place: source}).teacher
        teacher = make_teacher(named, STUDENT)
        for field in dataclasses.fields(Distillation):
            assert getattr(teacher.distillation, field.name) == field.default
        params, found = teacher_weights(named, teacher, mesh)
        chex.assert_trees_all_equal(jax.device_get(params), THEIRS)
        assert found == origin
    assert make_teacher(settings().teacher, STUDENT) is None
    assert teacher_weights(settings().teacher, None, mesh) == (None, None)


def test_a_run_says_itself_of_which_sizes_it_is_and_a_file_is_told(run):
    student = configs.make_model(tiny(**{"model.depth": 3}))
    of_run = settings(**{"teacher.workdir": str(run)})
    assert make_teacher(of_run.teacher, student).model.shape.depth == 2
    named = {"teacher.weights": "x.pth", "teacher.model": "deit_tiny_patch16_224"}
    shape = make_teacher(settings(**named).teacher, student).model.shape
    assert (shape.embed_dim, shape.depth, shape.image_size, shape.num_classes) == (192, 12, 32, 10)
    deeper = Optimization(of_run, student, 10)
    with pytest.raises(UserError, match=r"attention is \(2, 2, 2, 5\) in the teacher and \(3,"):
        deeper.abstract_state(make_mesh())


def test_a_teacher_that_cannot_teach_is_named(file, run, tmp_path):
    def weights(**changes):
        changes = {f"teacher.{name}": str(value) for name, value in changes.items()}
        named = settings(**changes).teacher
        return teacher_weights(named, make_teacher(named, STUDENT), make_mesh())

    with pytest.raises(UserError, match=r"which holds no config\.json of a run"):
        weights(workdir=tmp_path)
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(UserError, match="which holds no checkpoint yet: train it first"):
        weights(workdir=tmp_path)
    with pytest.raises(UserError, match=r"config.teacher names no teacher.*nowhere.pth does not"):
        weights(weights="nowhere.pth")
    with pytest.raises(UserError, match=r"config.teacher names no teacher for this model: "):
        weights(weights=file, model="deit_tiny_patch16_224")
    (tmp_path / "config.json").write_text(configs.to_json(tiny(**{"model.image_size": 64})))
    with pytest.raises(UserError, match="looks at images of 64 pixels and the student at 32"):
        weights(workdir=tmp_path)


def test_a_fresh_classifier_is_no_teacher_unless_only_features_are_learnt(tmp_path):
    many = create_model("deit_micro_patch4_32", **SIZES | {"num_classes": 20})
    save_torch(tmp_path / "many.pth", many.to_torch(drawn(many)))
    changes = {"teacher.weights": str(tmp_path / "many.pth")}
    named = settings(**changes).teacher
    with pytest.raises(UserError, match="tell 20 classes apart and not 10: fine-tune them"):
        teacher_weights(named, make_teacher(named, STUDENT), make_mesh())
    named = settings(**changes, **{"teacher.logits": 0.0}).teacher
    params, _ = teacher_weights(named, make_teacher(named, STUDENT), make_mesh())
    chex.assert_trees_all_equal_shapes(params, THEIRS)


def test_a_teacher_that_was_trained_on_is_another(file):
    refuse_other_teacher(None, None)
    refuse_other_teacher(file, file)
    with pytest.raises(UserError, match="learnt from step 7 of a, which is now step 9 of a: put"):
        refuse_other_teacher("step 7 of a", "step 9 of a")


def test_a_mode_other_than_training_does_not_ask_for_the_teacher(tmp_path):
    config = tiny(**{"teacher.workdir": str(tmp_path / "gone")})
    with pytest.raises(UserError, match=r"holds no config\.json of a run"):
        optimization_of(config, tmp_path)
