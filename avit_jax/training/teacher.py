"""Which teacher a config names: its model, of which nothing is computed yet, and its weights."""

from __future__ import annotations

from pathlib import Path

from jax.sharding import Mesh

from avit_jax import config as configs
from avit_jax import zoo
from avit_jax.checkpoints.weights import weights_of_file, weights_of_run
from avit_jax.config import defaults
from avit_jax.errors import UserError
from avit_jax.losses.distillation import Teacher
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.models.shape import Shape
from avit_jax.runtime.stores import as_path


def make_teacher(named: defaults.Teacher, student: Model) -> Teacher | None:
    """The dense model that `config.teacher` names; `None` where it names none.

    A run says in its `config.json` what it is, a file is of the student's backbone unless
    `config.teacher.model` names another.

    Raises:
        UserError: there is no such run or model, or it looks at images of another size, or none is
            named and something said of one.
    """
    named.refuse_without_origin()
    if not named.origin:
        return None
    shape = _shape_of_run(as_path(named.workdir)) if named.workdir else student.shape
    if named.model:
        same = ("image_size", "num_classes", "dtype")
        sizes = {name: getattr(student.shape, name) for name in same}
        shape = zoo.create_model(named.model, **sizes).shape
    if shape.image_size != student.shape.image_size:
        raise UserError(
            f"the teacher in {named.workdir} looks at images of {shape.image_size} pixels and the "
            f"student at {student.shape.image_size}: write --config.model.image_size "
            f"{shape.image_size}, or name another teacher."
        )
    if named.features and not (shape.num_class_tokens and student.shape.num_class_tokens):
        raise UserError(
            "config.teacher.attention and hidden compare class tokens, and num_class_tokens is 0 "
            "in the student or the teacher: write 0 for both, or num_class_tokens 1."
        )
    return Teacher(zoo.plain_model(shape), named)


def refuse_on_rows(teacher: Teacher | None, student: Shape) -> None:
    """A teacher may not be asked for what a training of `student` on live rows does not form.

    Raises:
        UserError: it is.
    """
    if teacher is not None and teacher.distillation.hidden and student.averages:
        raise UserError(
            "config.train.rows is 'live', where a model that averages its patches keeps no states "
            "of its class token that a teacher's could be held against: write "
            "--config.teacher.hidden 0, or leave train.rows at 'all'."
        )
    if teacher is not None and teacher.distillation.attention:
        raise UserError(
            "config.train.rows is 'live', where no map of attention is formed that a teacher's "
            "could be held against: write --config.teacher.attention 0, or leave train.rows at "
            "'all'."
        )


def _shape_of_run(workdir: Path) -> Shape:
    saved = workdir / "config.json"
    if not saved.exists():
        raise UserError(
            f"config.teacher.workdir is {workdir}, which holds no config.json of a run: write the "
            "workdir of one that has been trained, or --config.teacher.weights FILE."
        )
    return configs.make_model(configs.read(saved)).shape


def teacher_weights(
    named: defaults.Teacher, teacher: Teacher | None, mesh: Mesh
) -> tuple[Params | None, str | None]:
    """Parameters of what `make_teacher` made of the same settings, on the mesh, and their origin.

    Raises:
        UserError: they are not there, do not fit, or know other classes than the student is to
            learn.
    """
    if teacher is None:
        return None, None
    try:
        if named.workdir:
            found = weights_of_run(as_path(named.workdir), teacher.model, mesh)
        else:
            found = weights_of_file(
                named.weights,
                teacher.model,
                mesh,
                pixels=named.pixels,
                new_classifier=not teacher.distillation.logits,
            )
    except UserError as error:
        raise UserError(f"config.teacher names no teacher for this model: {error}") from error
    if found is None:
        raise UserError(
            f"config.teacher.workdir is {named.workdir}, which holds no checkpoint yet: train it "
            "first, or name another teacher."
        )
    return found.params, found.origin


def refuse_other_teacher(before: str | None, now: str | None) -> None:
    """A run goes on with the weights that it has learnt from so far, or not at all.

    Args:
        before: their origin, as the run's checkpoint has it.
        now: the origin of those at hand.

    Raises:
        UserError: the teacher has been trained on since.
    """
    if now != before:
        raise UserError(
            f"this run learnt from {before}, which is now {now}: put the teacher's checkpoint back "
            "as its newest, or write another --workdir."
        )
