"""The programs of a run, traced and compiled for the mesh of a machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from avit_jax.config import Settings
from avit_jax.evaluation.evaluate import make_eval_step
from avit_jax.execution.compiled import traced_on
from avit_jax.execution.executions import fastest, find
from avit_jax.execution.plan import Plan
from avit_jax.execution.static import STATIC
from avit_jax.experiment import Experiment
from avit_jax.forecast.absent_machines import options_for
from avit_jax.forecast.arithmetic import contraction_flops
from avit_jax.forecast.compiled_text import Text
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import (
    abstract_on,
    batch_sharding,
    make_mesh,
    platform_of,
    replicated,
)
from avit_jax.training.optimization import Optimization
from avit_jax.training.row_sizes import RowSizes

STEPS = 1000  # of the schedule, whose length is a constant of the program and no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program.

    Attributes:
        text: of it.
        seconds: that tracing and compiling took.
        arguments: bytes on one device.
        temporaries: likewise: activations, gradients and all else that lives during a run.
        outputs: likewise, but for those that take the place of arguments.
        flops: of its contractions on one device, as they were traced.
    """

    text: Text
    seconds: float
    arguments: int
    temporaries: int
    outputs: int
    flops: float

    @property
    def memory(self) -> int:
        """Bytes on one device, all together."""
        return self.arguments + self.temporaries + self.outputs


def compiled(trace: Callable[[], jax.stages.Traced], mesh: Mesh) -> Program:
    """What tracing gives, compiled for the machine of the mesh.

    Raises:
        jax.errors.JaxRuntimeError: it does not fit into the memory, among others.
    """
    began = time.perf_counter()
    traced = trace()
    program = traced.lower().compile(compiler_options=options_for(platform_of(mesh)))
    memory = program.memory_analysis()
    return Program(
        text=Text(program.as_text()),
        seconds=time.perf_counter() - began,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=contraction_flops(traced.jaxpr.jaxpr, mesh.size) / mesh.size,
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """The training step of an experiment on a mesh, and what it holds between steps.

    Attributes:
        state: shapes, dtypes and places of it.
        teacher: of its parameters, or `None`.
    """

    experiment: Experiment
    mesh: Mesh
    optimization: Optimization

    @classmethod
    def of(cls, experiment: Experiment, mesh: Mesh, batch_size: int) -> Training:
        """With so many images in a step, over all devices."""
        settings = experiment.settings
        train = dataclasses.replace(settings.train, batch_size=batch_size)
        changed: Settings = dataclasses.replace(settings, train=train)
        return cls(experiment, mesh, Optimization(changed, experiment.model, STEPS))

    @property
    def state(self) -> Any:
        """Shapes, dtypes and places of what training changes."""
        return self.optimization.abstract_state(self.mesh)

    @property
    def teacher(self) -> Any:
        """Likewise of a teacher's parameters; `None` without one."""
        teacher = self.optimization.recipe.teacher
        return None if teacher is None else abstract_on(self.mesh, teacher.model.abstract_params())

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Likewise of the images of a step and what comes with them."""
        images = self.optimization.images * self.optimization.recipe.accumulation
        return _rows(self.experiment.model, images, self.mesh, label=np.int32, substituted=bool)

    def trace(self) -> jax.stages.Traced:
        """The step, before it is lowered; on live rows as it begins, with room for all."""
        optimization, mesh = self.optimization, self.mesh
        arguments = [self.state, self.batch(), self.teacher]
        capacities = None
        if optimization.recipe.on_live_rows:
            shape = optimization.model.shape
            capacities = RowSizes.everything(
                images=optimization.images // mesh.size,
                depth=shape.depth,
                num_tokens=shape.num_tokens,
            ).capacities
            arguments.append(jax.ShapeDtypeStruct((), np.int32, sharding=replicated(mesh)))
        return optimization.compiled_step(mesh, capacities).trace(*arguments)


def evaluation(experiment: Experiment, mesh: Mesh, batch_size: int) -> jax.stages.Traced:
    """One batch of an evaluation, in masked execution."""
    params = abstract_on(mesh, experiment.model.abstract_params())
    batch = _rows(experiment.model, batch_size, mesh, label=np.int32, valid=bool)
    return make_eval_step(experiment.model, mesh).trace(params, batch)


def prediction(
    experiment: Experiment, device: jax.Device, batch_size: int
) -> tuple[jax.stages.Traced, str]:
    """The images of one device in `--mode predict`, and the name of their execution.

    Static buffers that no setting gives a size have room for everything: the most they can need.
    """
    model, inference = experiment.model, experiment.settings.inference
    platform = device.platform
    execution = (
        fastest(model, platform) if inference.execution == "auto" else find(inference.execution)
    )
    plan = model.default_plan(batch_size, platform=platform)
    given = {
        field.name: value
        for field in dataclasses.fields(Plan)
        if (value := getattr(inference, field.name)) is not None
    }
    plan = dataclasses.replace(plan, **given)
    if execution is STATIC and plan.static_rows is None:
        room = (batch_size * model.static_most,) * model.static_parts
        plan = dataclasses.replace(plan, static_rows=room)
    mesh = make_mesh(devices=[device])
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
        model.abstract_params(),
    )
    program = model.program(execution, plan)
    size = model.shape.image_size
    traced = traced_on(mesh, program, params=params, batch_size=batch_size, size=size)
    return traced, execution.name


def _rows(model: Model, images: int, mesh: Mesh, **others: Any) -> dict[str, jax.ShapeDtypeStruct]:
    side, place = model.shape.image_size, batch_sharding(mesh)
    found = {
        name: jax.ShapeDtypeStruct((images,), dtype, sharding=place)
        for name, dtype in others.items()
    }
    found["image"] = jax.ShapeDtypeStruct((images, side, side, 3), jnp.uint8, sharding=place)
    return found
