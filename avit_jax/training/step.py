"""One training step, as a pure function of the state and a batch.

The state holds everything that a step changes, so that saving it and starting again is exact:
randomness is `fold_in(key(seed), step)` and the position in the data is the step number. Logged
averages are summed inside the state as well, on the device: the loop never waits for a number, and
a log line is the same whether or not the run was interrupted before it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array
from jax.sharding import Mesh

from avit_jax.data.erase import Erase, erase
from avit_jax.data.mix import Mix, mix, normalise
from avit_jax.losses import classification
from avit_jax.losses.distillation import Teacher
from avit_jax.methods.base import Model
from avit_jax.methods.forward import RowCapacities
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import platform_of
from avit_jax.runtime.whole_weights import splitting
from avit_jax.training.accumulation import accumulated
from avit_jax.training.log_window import averages_of, empty_window, running_window
from avit_jax.training.loss import loss_function
from avit_jax.training.moving_average import followed

NEVER = -1
COUNTS = ("nonfinite", "count")  # beside the averages of a step, which are what is logged


@struct.dataclass(kw_only=True)
class TrainState:
    """Everything that training changes.

    Attributes:
        step: steps done, int32.
        params: nested dict, float32.
        opt_state: of optax.
        ema: moving average of `params`, or `None`.
        window: sums of what is logged since the last log line, and `count`.
        nonfinite: first step whose loss, gradient or update was not finite, or -1.
    """

    step: Array
    params: Params
    opt_state: Any
    ema: Params | None
    window: dict[str, Array]
    nonfinite: Array


@struct.dataclass(kw_only=True)
class LiveTrainState(TrainState):
    """That of a training on live rows.

    Attributes:
        most_live_rows: `[L]` int32, of one device in a step since the last evaluation.
    """

    most_live_rows: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a step needs to know of the config.

    `accumulation` cuts a batch into microbatches whose gradients are averaged. A penalty that is
    not linear in the images (the depth prior compares *mean* scores) is then the mean over
    microbatches, so the result is close to, but not the same as, that of one large batch.

    `teacher` looks at the images of every step as they are mixed and cut; its parameters never
    change, so they are no part of the state and come with every call.

    `on_live_rows` says that steps leave out tokens that have halted, `ema_warmup` that the average
    moves faster in the beginning, `freeze` which parameters get no gradient, `loss` what the labels
    are held to (`classification.TASK_LOSSES`), `mixed_steps` how many steps mix their images,
    `None` for all.
    """

    total_steps: int
    seed: int
    accumulation: int
    label_smoothing: float
    ema_decay: float
    log_every: int
    mix: Mix
    mixed_steps: int | None = None
    erase: Erase = dataclasses.field(default_factory=Erase)
    teacher: Teacher | None = None
    on_live_rows: bool = False
    ema_warmup: bool = False
    freeze: tuple[str, ...] = ()
    loss: str = "cross_entropy"


class NonFinite(Exception):
    """Loss, gradient or update of a step (counted from 0) was NaN or infinite."""

    def __init__(self, step: int):
        super().__init__(f"the loss, gradient or update of step {step + 1} is not finite")
        self.step = step


def check_finite(averages: dict[str, Array]) -> None:
    """Raise `NonFinite` if any step so far had a loss, gradient or update not finite."""
    first = int(averages["nonfinite"])
    if first != NEVER:
        raise NonFinite(first)


TrainStep = Callable[..., tuple[TrainState, dict[str, Array]]]
SkipStep = Callable[[TrainState], tuple[TrainState, dict[str, Array]]]


def init_state(
    model: Model, optimizer: optax.GradientTransformationExtraArgs, recipe: Recipe
) -> TrainState:
    """The state in front of the first step, drawn from the recipe's seed."""
    params = model.init(jax.random.key(recipe.seed))
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if recipe.ema_decay else None,
        window=empty_window(model, recipe.teacher),
        nonfinite=jnp.int32(NEVER),
    )
    if not recipe.on_live_rows:
        return state
    return LiveTrainState(**vars(state), most_live_rows=jnp.zeros(model.shape.depth, jnp.int32))


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    recipe: Recipe,
    mesh: Mesh,
    capacities: tuple[int, ...] | None = None,
) -> TrainStep:
    """The function `(state, batch) -> (state, averages since the last log line)`, not yet jitted.

    Where the recipe has a teacher, the function takes its parameters as a third argument.

    With `capacities`, rows of each layer for the images that a device has at a time, tokens that
    have halted are left out. The function then takes the number of its step as a fourth argument
    and says in `averages["fits"]` whether that step was made: not if some live token found no row,
    nor if one before it was not made. The state that it returns is the given one then.

    `batch` holds `image` uint8 `[B, H, W, 3]`, `label` int32 `[B]` and `substituted` bool `[B]`
    (rows that stand in for an unreadable example; only counted), sharded over the mesh.
    """
    model = model.trained_on(platform_of(mesh))
    teacher = recipe.teacher and recipe.teacher.on(platform_of(mesh))

    rows = capacities and RowCapacities(capacities=capacities, mesh=mesh)

    def train_step(
        state: TrainState,
        batch: dict[str, Array],
        teacher_params: Params | None = None,
        number: Array | int | None = None,
    ):
        key = jax.random.fold_in(jax.random.key(recipe.seed + 1), state.step)
        mix_key, model_key = jax.random.split(key)
        progress = state.step / recipe.total_steps
        targets = classification.soft_targets(
            batch["label"], model.shape.num_classes, smoothing=recipe.label_smoothing
        )
        images, targets = augmented(batch["image"], targets, recipe, mix_key, state.step)

        loss = loss_function(model, teacher, rows, recipe.freeze, recipe.loss)
        loss = functools.partial(loss, teacher_params=teacher_params)
        gradient = jax.value_and_grad(loss, has_aux=True)
        with splitting(mesh):
            if recipe.accumulation == 1:
                (_, told), grads = gradient(state.params, images, targets, model_key, progress)
                logged, room = told
            else:
                over_microbatches = accumulated(gradient, recipe.accumulation, mesh)
                grads, logged, room = over_microbatches(
                    state.params, (images, targets), model_key, progress
                )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, step=state.step)
        params = optax.apply_updates(state.params, updates)

        logged["grad_norm"] = optax.tree.norm(grads)
        logged["learning_rate"] = schedule(state.step)
        logged["substituted"] = batch["substituted"].mean(dtype=jnp.float32)
        # All three, or parameters could be poisoned and saved one step before the loss shows it.
        sizes = [logged["loss"], logged["grad_norm"], optax.tree.norm(updates)]
        finite = jnp.isfinite(jnp.stack(sizes)).all()
        window = running_window(state.window, state.step, every=recipe.log_every)
        window = {name: window[name] + logged.get(name, 1.0) for name in window}
        after = state.replace(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            ema=followed(state.ema, params, state.step, recipe.ema_decay, recipe.ema_warmup),
            window=window,
            nonfinite=jnp.where(finite | (state.nonfinite >= 0), state.nonfinite, state.step),
        )
        if rows is None:
            return after, averages_of(after.window, after.nonfinite)
        after = after.replace(most_live_rows=jnp.maximum(state.most_live_rows, room.live_rows))
        # A step behind one that was not made would be made on the wrong state.
        made = room.fits & (state.step == number)
        after = jax.tree.map(lambda new, old: jnp.where(made, new, old), after, state)
        return after, averages_of(after.window, after.nonfinite) | {"fits": made}

    return train_step


def augmented(
    images: Array, targets: Array, recipe: Recipe, key: Array, step: Array
) -> tuple[Array, Array]:
    """Normalised, erased and mixed, in this order: images `[B, H, W, 3]`, targets `[B, C]`."""
    # The first five keys that come of this one are those of mixing, which older runs had alone.
    images = erase(normalise(images), recipe.erase, jax.random.fold_in(key, 5))
    on = True if recipe.mixed_steps is None else step < recipe.mixed_steps
    return mix(images, targets, recipe.mix, key, on=on)


def make_skip_step(recipe: Recipe) -> SkipStep:
    """Like a train step that changes nothing: for steps that a rollback leaves out."""

    def skip_step(state: TrainState):
        after = state.replace(
            step=state.step + 1,
            window=running_window(state.window, state.step, every=recipe.log_every),
        )
        return after, averages_of(after.window, after.nonfinite)

    return skip_step
