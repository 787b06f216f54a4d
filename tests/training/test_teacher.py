"""What a run says of the teacher that it is given, and how it goes on with it."""

import dataclasses

import chex
import jax
import pytest

from avit_jax import config as configs
from avit_jax import create_model, save_torch
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import Preempted, UserError
from avit_jax.experiment import Experiment
from avit_jax.losses.distillation import Distillation
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training import loop as train
from avit_jax.training.optimization import Optimization
from avit_jax.training.teacher import make_teacher, refuse_other_teacher, teacher_weights
from tests import commands
from tests.training.teachers import MODEL, PARTS, SIZES, THEIRS, drawn, tiny

STUDENT = configs.make_model(tiny())


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


def settings(**changes):
    return configs.Settings.of(tiny(**changes))


def optimization_of(config, workdir):
    experiment = Experiment(config, workdir)
    return Optimization(configs.Settings.of(config), experiment.model, experiment.total_steps)


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


def test_a_file_of_another_backbone_teaches_with_both_of_its_heads(tmp_path):
    """In the names of timm, `dist_token` and `head_dist` among them."""
    name = "deit_micro_distilled_patch4_32"
    theirs = create_model(name, num_classes=10)
    weights = theirs.to_torch(drawn(theirs))
    assert {"dist_token", "head_dist.weight", "head_dist.bias"} <= weights.keys()
    save_torch(tmp_path / "theirs.pth", weights)
    named = {"teacher.weights": str(tmp_path / "theirs.pth"), "teacher.model": name}
    named |= {"teacher.answers": "hard", "teacher.attention": 0.0, "teacher.hidden": 0.0}
    named = settings(**named).teacher
    teacher = make_teacher(named, STUDENT)
    params, _ = teacher_weights(named, teacher, make_mesh())
    chex.assert_trees_all_equal(jax.device_get(params), drawn(theirs))
    assert teacher.model.shape.embed_dim != STUDENT.shape.embed_dim


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


@pytest.mark.parametrize(("name", "value"), [("hidden", 0.2), ("model", "deit"), ("labels", 0.5)])
def test_what_is_said_of_a_teacher_that_none_names_stops_a_training(name, value):
    named = settings(**{f"teacher.{name}": value}).teacher
    sentence = f"config.teacher.{name} is {value!r}, but there is no teacher: write --config.teach"
    with pytest.raises(UserError, match=sentence):
        make_teacher(named, STUDENT)


def test_a_fresh_classifier_is_no_teacher_unless_only_features_are_learnt(tmp_path):
    many = create_model("deit_micro_patch4_32", **SIZES | {"num_classes": 20})
    save_torch(tmp_path / "many.pth", many.to_torch(drawn(many)))
    changes = {"teacher.weights": str(tmp_path / "many.pth")}
    named = settings(**changes).teacher
    with pytest.raises(UserError, match=r"tell 20 classes apart and not 10: .* fine-tune them"):
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
