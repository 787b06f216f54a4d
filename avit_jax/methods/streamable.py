"""The part of a method's contract that is about streams: where images may leave early."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.execution.compact import COMPACT
from avit_jax.execution.masked import MASKED
from avit_jax.execution.plan import Plan
from avit_jax.methods.compilable import Compilable
from avit_jax.models.functional import Params
from avit_jax.streaming.limits import BATCHES_IN_A_QUEUE, Limits
from avit_jax.streaming.programs import Programs, Read
from avit_jax.streaming.segment import Passed, Segment
from avit_jax.streaming.stream import Stream


@dataclasses.dataclass(frozen=True)
class Streamable(Compilable):
    """What can answer a stream of images."""

    def segments(self, plan: Plan, *, compact: bool) -> tuple[Segment, ...]:
        """The model cut where images may be finished; in one piece by default.

        Answers are those of masked execution. What `with_kernels(plan)` says is in force.

        Args:
            plan: static sizes of a batch.
            compact: whether loops whose trip counts are data pay, as on a CPU.
        """
        program = self.program(COMPACT if compact else MASKED, plan)

        def run(params: Params, images: Array, exists: Array) -> Passed:
            output = program(params, images, exists)
            return Passed(output=output, leaves=jnp.ones(len(images), bool), state=())

        return (run,)

    def stream(
        self,
        params: Params,
        *,
        batch_size: int,
        max_wait: float | None = 0.05,
        capacity: int | None = None,
        read: Read | None = None,
        plan: Plan | None = None,
        devices: Sequence[jax.Device] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Stream:
        """Answers to images that come one by one, with every program's batch full.

            with model.stream(params, batch_size=32) as stream:
                for answer in stream.map(images): ...
                future = stream.submit(image)

        Compiles. Each segment (`segments`) is a program of `batch_size` images; images that go on
        wait on the device for the next one until a batch of them is there.

        Args:
            params: from `init` or `from_torch`.
            batch_size: images of every program, on each device.
            max_wait: seconds after which an image is no longer kept waiting for others, in each
                queue; the batch then runs partly filled. With `None` only whole batches run, until
                the stream is closed or `map` has no more images to bring.
            capacity: images that wait in front of the first segment, two batches of each device by
                default; `submit` waits while they are as many.
            read: of a whole model's `Output`, what an answer holds, arrays `[b, ...]` by name;
                `logits` and `gmacs` by default.
            plan: static sizes, from calibration or by hand; sensible ones by default.
            devices: that take part, each with all of the model; all of this process by default.
            clock: returns seconds.

        Raises:
            UserError: numbers that cannot be.
        """
        devices = jax.local_devices() if devices is None else devices
        if capacity is None:
            capacity = 2 * batch_size * len(devices)
        limits = Limits(batch_size=batch_size, capacity=capacity, max_wait=max_wait)
        platform = devices[0].platform
        plan = plan or self.default_plan(batch_size, platform=platform)
        plan = dataclasses.replace(plan, ragged_attention=False)
        model = self.with_kernels(plan)
        packs = platform == "cpu" and COMPACT.offered(model)
        segments = model.segments(plan, compact=packs)
        size = self.stages[0].image_size
        programs = [
            Programs(
                segments,
                params,
                read=read or functools.partial(_logits_and_gmacs, self),
                batch_size=batch_size,
                places=BATCHES_IN_A_QUEUE * batch_size,
                image_size=size,
                device=device,
            )
            for device in devices
        ]
        return Stream(programs, limits=limits, image_size=size, clock=clock)


def _logits_and_gmacs(model: Any, output: Any) -> dict[str, Array]:
    return {"logits": output.logits, "gmacs": jnp.asarray(model.gmacs(output))}
