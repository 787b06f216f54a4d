"""Sums of what is logged, kept on the device inside the training state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.losses.distillation import Teacher
from avit_jax.methods.base import Model
from avit_jax.training.loss import loss_function


def running_window(window: dict[str, Array], step: Array, *, every: int) -> dict[str, Array]:
    """The sums so far, or zeros where a new line of the log begins."""
    fresh = step % every == 0
    return {name: jnp.where(fresh, 0.0, value) for name, value in window.items()}


def averages_of(window: dict[str, Array], nonfinite: Array) -> dict[str, Array]:
    """Averages over the `count` steps of the window; they mean nothing where `count` is 0."""
    count = window["count"]
    averages = {name: value / jnp.maximum(count, 1.0) for name, value in window.items()}
    return averages | {"count": count, "nonfinite": nonfinite}


def empty_window(model: Model, teacher: Teacher | None) -> dict[str, Array]:
    """A zero for everything that is logged; its names come from tracing the loss once."""
    size = model.shape.image_size
    _, (logged, _) = jax.eval_shape(
        loss_function(model, teacher),
        model.abstract_params(),
        jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32),
        jax.ShapeDtypeStruct((2, model.shape.num_classes), jnp.float32),
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((), jnp.float32),
        None if teacher is None else teacher.model.abstract_params(),
    )
    names = [*logged, "grad_norm", "learning_rate", "substituted", "count"]
    return {name: jnp.float32(0.0) for name in names}
