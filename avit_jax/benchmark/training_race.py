"""Whole training steps against each other: the dense model's, the method's, and PyTorch's.

The method's are masked and, where it learns so, on live rows. A step is the trainer's: normalise
uint8 images, forward pass, loss with label smoothing, backward pass, AdamW, and what is logged.
Weights and images are the case's, so tokens halt as its profile says; the learning rate is next to
nothing, so that they still do after many steps.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.benchmark import peer_training, peers, profiles
from avit_jax.benchmark.cases import Case
from avit_jax.benchmark.measurements import memory_figures, peak_figures, speed_figures
from avit_jax.benchmark.room import Room
from avit_jax.config import Settings
from avit_jax.config.defaults import Optim, Teacher
from avit_jax.config.inference import Benchmark
from avit_jax.data.erase import Erase
from avit_jax.data.mix import Mix
from avit_jax.errors import UserError
from avit_jax.methods import plain
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import make_mesh, platform_of, shard_batch
from avit_jax.runtime.paired_timing import race
from avit_jax.training.optimization import Optimization
from avit_jax.training.row_sizes import RowSizes
from avit_jax.training.step import TrainStep
from avit_jax.training.stepping import StepsOnAllRows, StepsOnLiveRows
from avit_jax.types import Usage

DENSE = "dense step"
PASSES = 3  # a backward pass takes twice the multiply-adds of a forward pass
LEARNING_RATE = 1e-12
TOTAL_STEPS = 10_000


def ways(model: Model, settings: Settings) -> dict[str, tuple[Model, Settings]]:
    """What trains in the race by name, each a model and its settings; a new way is a line here."""
    model = as_learnt(model)
    found = {
        DENSE: (plain.Model(model.shape, plain.Settings()), settings),
        "masked step": (model, settings),
    }
    try:
        model.check_learns_on_rows()
    except UserError as error:
        print(f"live step left out: {error}", flush=True)
    else:
        live = dataclasses.replace(settings.train, rows="live")
        found["live step"] = (model, dataclasses.replace(settings, train=live))
    return found


def as_learnt(model: Model) -> Model:
    """The model as at the end of its training: halting fully on, nothing left to chance."""
    shape = dataclasses.replace(model.shape, drop_path_rate=0.0, dropout_rate=0.0)
    gradual = {field.name for field in dataclasses.fields(model.settings)} & {"dense_until", "ramp"}
    settings = dataclasses.replace(model.settings, **dict.fromkeys(gradual, 0.0))
    return dataclasses.replace(model, shape=shape, settings=settings)


def train_figures(
    case: Case, usage: tuple[Usage, ...], settings: Settings, chosen: Benchmark
) -> dict[str, Any]:
    """Race the training steps of a case and return their figures, for machines.

    Args:
        case: whose weights and images are trained on.
        usage: of its batch in masked execution, per stage.
        settings: of the experiment; its loss counts, but neither mixing of images, nor teacher, nor
            average of weights.
        chosen: with every choice made, see `scale.completed`.
    """
    batch_size = len(case.timed)
    settings = comparable(settings, batch_size)
    params, pixels = profiles.as_pixels(case.model, case.params, case.batch)
    labels = (np.arange(batch_size) % case.model.shape.num_classes).astype(np.int32)
    batch = {"image": pixels, "label": labels, "substituted": np.zeros(batch_size, bool)}
    room, contenders, programs = Room(), {}, {}
    for name, (model, own) in ways(case.model, settings).items():
        start = None if name == DENSE else params
        made = room.attempt(name, lambda m=model, s=own, p=start: _ours(m, s, batch, p, chosen))
        if made is not None:
            contenders[name], programs[name] = made
    for kind in chosen.peers or ():
        if kind not in peers.PEERS:  # the others only infer
            continue
        name = f"torch {kind} step"
        made = room.attempt(name, lambda kind=kind: _theirs(kind, case, batch, settings, chosen))
        if made is not None:
            contenders[name] = made
    found: dict[str, Any] = {"out_of_memory": room.left_out, "executions": {}}
    if DENSE not in contenders:
        return found
    everything = case.model.dense_gmacs()
    live = float(costs.stages_gmacs(case.model.stages, usage, costs.gmacs).mean())
    times = race(contenders, turns=chosen.turns)
    for name, timing in times.items():
        figures = speed_figures(
            timing,
            times[DENSE],
            batch_size=batch_size,
            ideal=everything / live,
            calls=chosen.calls,
        )
        adaptive = name in programs and name != DENSE
        needed = PASSES * (live if adaptive else everything)
        figures |= peak_figures(figures["images_per_second"], needed, case.model.shape.dtype)
        found["executions"][name] = figures | programs.get(name, {})
    return found | {"ideal_speedup": everything / live}


def comparable(settings: Settings, batch_size: int) -> Settings:
    """The settings with a step that PyTorch's peers do, too, and that changes next to nothing."""
    return dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, mix=Mix(), erase=Erase()),
        train=dataclasses.replace(
            settings.train, batch_size=batch_size, accumulation=1, ema_decay=0.0, rows="all"
        ),
        optim=Optim(
            learning_rate=LEARNING_RATE,
            reference_batch_size=batch_size,
            warmup=0.0,
            weight_decay=settings.optim.weight_decay,
        ),
        teacher=Teacher(),
        eval=dataclasses.replace(settings.eval, weights="auto"),
    )


def _ours(
    model: Model,
    settings: Settings,
    batch: dict[str, np.ndarray],
    params: Params | None,
    chosen: Benchmark,
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Steps of this package, and what its compiled program costs; `params` are drawn if unset."""
    mesh = make_mesh()
    optimization = Optimization(settings, model, TOTAL_STEPS)
    state, rows = optimization.init_state(mesh), shard_batch(batch, mesh)
    if params is not None:
        # Copies: a step takes over the memory of its state.
        given = jax.tree.map(lambda new, old: jnp.array(new, old.dtype), params, state.params)
        places = jax.tree.map(lambda old: old.sharding, state.params)
        state = state.replace(params=jax.device_put(given, places))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        (state, rows),
    )
    figures: dict[str, Any] = {}

    def step_of(capacities: tuple[int, ...] | None) -> TrainStep:
        began = time.perf_counter()
        number = () if capacities is None else (np.int32(0),)
        lowered = optimization.compiled_step(mesh, capacities).lower(*abstract, None, *number)
        step = lowered.compile()
        figures.update(memory_figures(step.memory_analysis()))
        figures["compile_seconds"] = time.perf_counter() - began  # of the last one, which is raced
        return step

    stepping: StepsOnAllRows | StepsOnLiveRows
    if optimization.recipe.on_live_rows:
        shape, images = model.shape, optimization.images // mesh.size
        tokens = {"depth": shape.depth, "num_tokens": shape.num_tokens}
        stepping = StepsOnLiveRows(step_of, RowSizes.everything(images=images, **tokens), None)
    else:
        stepping = StepsOnAllRows(step_of(None), None)
    number = 0

    def run() -> Any:
        nonlocal state, number
        for _ in range(chosen.calls or 1):
            state, averages = stepping.advance(state, number, rows)
            number += 1
        state, averages = stepping.settle(state, averages)
        return averages

    run()
    state = stepping.fit(state)  # as a training does at an evaluation: the rows that are needed
    jax.block_until_ready(run())
    if isinstance(stepping, StepsOnLiveRows):
        figures["rows_run"] = stepping.sizes.share
    return run, figures


def _theirs(
    kind: str,
    case: Case,
    batch: dict[str, np.ndarray],
    settings: Settings,
    chosen: Benchmark,
) -> Callable[[], Any]:
    made = peer_training.peer(
        kind,
        case.model.shape,
        batch,
        platform=platform_of(make_mesh()),
        learning_rate=LEARNING_RATE,
        weight_decay=settings.optim.weight_decay,
        label_smoothing=settings.train.label_smoothing,
        calls=chosen.calls,
    )
    made.run()
    return made.run
