"""What a training minimises, and what it logs on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import struct
from jax import Array

from avit_jax.losses import classification
from avit_jax.losses.distillation import Teacher
from avit_jax.methods.base import Model
from avit_jax.methods.forward import RowCapacities
from avit_jax.methods.per_image import token_depth
from avit_jax.training.parameter_groups import held_fixed


@struct.dataclass(kw_only=True)
class RowsFound:
    """Whether a batch found room in a step on live rows.

    Attributes:
        fits: bool; where it is False, loss and gradients mean nothing.
        live_rows: `[L]` int32, the most live rows of one device in each layer; at least so many
            where they did not fit.
    """

    fits: Array
    live_rows: Array


def loss_function(
    model: Model,
    teacher: Teacher | None = None,
    rows: RowCapacities | None = None,
    freeze: Sequence[str] = (),
    task_loss: str = "cross_entropy",
) -> Callable:
    """Task loss (of a cascade the weighted sum over its exits) plus penalties of model and teacher.

    `task_loss` is one of `classification.TASK_LOSSES`.

    The function returned takes `(params, images, targets, key, progress)`, and with a teacher
    `teacher_params=` its parameters; it returns the loss, and beside it what to log of it and the
    `RowsFound` of a step on live rows (`None` without `rows`). What a pattern of `freeze` matches
    gets no gradient.
    """
    features = teacher is not None and teacher.distillation.features
    of_task = classification.TASK_LOSSES[task_loss]

    def loss(params, images, targets, key, progress, teacher_params=None):
        params = held_fixed(params, freeze)
        output = model.apply(
            params, images, train=True, key=key, progress=progress, features=features, rows=rows
        )
        labelled, taught = output, output
        if teacher is not None:
            heads = {"distilled": model.shape.distilled}
            labelled, taught = teacher.distillation.parted(output, **heads)
        answers = labelled.logits[None] if labelled.exits is None else labelled.exits
        losses = of_task(answers, targets).mean(-1)
        task = jnp.asarray(model.exit_weights or (1.0,) * len(losses)) @ losses
        penalties = dict(output.penalties)
        if teacher is not None:
            found = teacher.penalties(teacher_params, images, taught)
            penalties |= {f"teacher_{name}": value for name, value in found.items()}
        weight = 1.0 if teacher is None else teacher.distillation.labels
        total = weight * task + sum(penalties.values())
        logged = {"loss": total, "task_loss": task}
        logged |= {f"{name}_penalty": value for name, value in penalties.items()}
        logged |= output.metrics | {"gmacs": model.gmacs(output).mean()}
        if model.adaptive:
            logged["mean_depth"] = token_depth(model, output).mean(dtype=jnp.float32)
        if rows is None:
            return total, (logged, None)
        room = RowsFound(fits=output.fits.all(), live_rows=output.aux["live_rows"])
        return total, (logged, room)

    return loss
