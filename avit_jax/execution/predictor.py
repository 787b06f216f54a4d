"""`model.compile(...)`: a program, its sizes and weights as one compiled function of images."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from avit_jax.data.given_images import given_images
from avit_jax.errors import UserError
from avit_jax.execution.compiled import compile_on
from avit_jax.execution.execution import Execution, Program
from avit_jax.execution.image_groups import map_images
from avit_jax.execution.plan import Plan
from avit_jax.models.functional import Params
from avit_jax.models.shape import Shape
from avit_jax.runtime.compilation_cache import cache_hits
from avit_jax.runtime.device_mesh import batch_sharding, replicated
from avit_jax.types import Output

logger = logging.getLogger(__name__)

# From so many batches without room on, and from such a share, a warning is due, once.
_MANY, _OFTEN = 5, 0.1


class Predictor:
    """Compiled inference: `predictor(images) -> Output`, always the same program.

    Args:
        program: of one device's images, see `execution.Program`; `None` where `sized` gives it.
        shape: of the network that takes the images.
        plan: static sizes of the program.
        params: of the model.
        execution: that the program belongs to.
        fallback: program for batches in which not everything fits (`Output.fits`), if any may.
        sized: plan and program after what the fallback said about a batch, for programs whose sizes
            must be measured first, see `measure`.
        batch_size: images that one call takes at most, over all devices.
        mesh: devices that share the images.

    Attributes:
        execution: as given, an object; its name is `execution.name`.
        plan, batch_size: as given; a plan without sizes gets those that `measure` finds.
        compile_seconds: tracing and compilation of the program, or fetching it; without a fallback.
        compile_cached: whether it came from the cache of compiled programs on disk.
        batches: answered so far.
        overflows: those of them in which something found no place, so that the fallback answered.
    """

    def __init__(
        self,
        program: Program | None,
        shape: Shape,
        plan: Plan,
        params: Params,
        *,
        execution: Execution,
        fallback: Program | None = None,
        sized: Callable[[Output], tuple[Plan, Program]] | None = None,
        batch_size: int,
        mesh: Mesh,
    ):
        """Compiles; raises UserError for a batch that does not divide among the devices."""
        if batch_size < 1 or batch_size % mesh.size:
            raise UserError(
                f"batch_size {batch_size} does not divide among {mesh.size} devices: "
                f"write a multiple of {mesh.size}."
            )
        self.plan, self.batch_size, self.execution = plan, batch_size, execution
        self.batches = self.overflows = 0
        self._warned = False
        self._images, self._size = batch_sharding(mesh), shape.image_size
        self._params = jax.device_put(params, replicated(mesh))
        self._fallback, self._sized = fallback, sized
        self._compile = functools.partial(
            compile_on, mesh, params=self._params, batch_size=batch_size, size=self._size
        )
        self._program: jax.stages.Compiled | None = None
        self.compile_seconds, self.compile_cached = 0.0, False
        if program is not None:
            self._take(program)

    def put(self, images: Any) -> tuple[Array, Array]:
        """Images `[b <= batch_size, H, W, 3]` as the program's arguments, on the devices.

        Raises:
            UserError: more images than that, or other ones than `given_images` takes.
        """
        if isinstance(images, jax.core.Tracer):
            raise UserError(
                "a compiled predictor cannot be called inside of jit, grad or vmap: call "
                "model.apply(params, images) there."
            )
        images = given_images(images, self._size)
        count = images.shape[0]
        if count > self.batch_size:
            raise UserError(
                f"{count} images are more than the batch_size {self.batch_size} that this program "
                "was compiled for: pass fewer, or compile for more."
            )
        if count < self.batch_size:
            padding = ((0, self.batch_size - count), (0, 0), (0, 0), (0, 0))
            images = np.pad(np.asarray(images, np.float32), padding)
        exists = np.arange(self.batch_size) < count
        return (
            jax.device_put(jnp.asarray(images, jnp.float32), self._images),
            jax.device_put(exists, self._images),
        )

    def start(self, images: Array, exists: Array) -> Output:
        """Begin to answer arguments from `put`; `finish` says whether the answer holds.

        Nothing is waited for once a program has its sizes, so that a device never has to wait for
        the host: begin the next batches before this one is finished.
        """
        if not self.has_sizes and not self.measure(images, exists):
            return self._fallback_program(self._params, images, exists)
        output = self._program(self._params, images, exists)
        if output.fits is not None:
            output.fits.copy_to_host_async()
        return output

    def finish(self, output: Output, images: Array, exists: Array) -> Output:
        """The output of `start` itself, or another one where not everything found a place in it.

        The fallback answers the whole batch then, so that answers are always those of an execution
        that has room for everything.
        """
        self.batches += 1
        if output.fits is None or _everywhere(output.fits, exists):
            return output
        self.overflows += 1
        if not self._warned and self.overflows >= max(_MANY, _OFTEN * self.batches):
            self._warned = True
            logger.warning(
                "%d of %d batches did not fit into %s execution and ran twice: calibrate for this "
                "setting of the model, or write --config.inference.execution %s.",
                self.overflows,
                self.batches,
                self.execution.name,
                self.execution.fallback.name,
            )
        return self._fallback_program(self._params, images, exists)

    @property
    def has_sizes(self) -> bool:
        """Whether the program has its sizes, or must `measure` a batch first."""
        return self._program is not None

    def measure(self, images: Array, exists: Array) -> bool:
        """Give a program without sizes those that suit a batch, and say whether it has some now.

        They stay what they are from then on. The first batch that is begun is measured anyway,
        unless most of it only fills up.

        Raises:
            UserError: the batch lies on other machines, too.
        """
        if not exists.is_fully_addressable:
            raise UserError(
                f'execution="{self.execution.name}" over several processes needs a plan with '
                "sizes: run --mode calibrate, or give each process a mesh of its own devices."
            )
        here = np.flatnonzero(np.asarray(exists))
        if not self.has_sizes and len(here) >= self.batch_size / 2:
            output = self._fallback_program(self._params, images, exists)
            output = map_images(output, lambda leaf, axis: np.take(np.asarray(leaf), here, axis))
            self.plan, program = self._sized(output)
            self._take(program)
        return self.has_sizes

    def run(self, images: Array, exists: Array) -> Output:
        """The answer to arguments from `put`; waits for it where it may not hold."""
        return self.finish(self.start(images, exists), images, exists)

    def __call__(self, images: Any) -> Output:
        """Answers for images `[b <= batch_size, H, W, 3]`; a smaller batch is filled up.

        Args:
            images: normalised, or uint8 pixels, see `given_images`.

        Returns:
            `logits` `[b, C]`, `usage`, and per-image arrays in `aux` (`depth` `[b, N]`: layers that
            each token was executed for).
        """
        output, count = self.run(*self.put(images)), len(images)
        if count == self.batch_size:
            return output
        return map_images(
            output, lambda leaf, axis: jax.lax.slice_in_dim(leaf, 0, count, axis=axis)
        )

    def __reduce__(self) -> NoReturn:
        """Raises UserError: a compiled program belongs to its process and cannot be pickled."""
        raise UserError(
            "a compiled predictor cannot be copied or sent to another process: pickle the model "
            "and its params, and call model.compile(params, batch_size=...) there."
        )

    def memory_analysis(self) -> Any:
        """Bytes on one device, see `jax.stages.Compiled.memory_analysis`."""
        return (self._program or self._fallback_program).memory_analysis()

    @functools.cached_property
    def _fallback_program(self) -> jax.stages.Compiled:
        """Compiled when it is first needed, which may be never."""
        return self._compile(self._fallback)

    def _take(self, program: Program) -> None:
        """Compile what is to answer from now on."""
        began = time.perf_counter()
        with cache_hits() as hits:
            self._program = self._compile(program)
        self.compile_seconds = time.perf_counter() - began
        self.compile_cached = bool(hits)


def _everywhere(fits: Array, exists: Array) -> bool:
    """Whether everything fits of all images that exist; on the host, which only reads."""
    if not fits.is_fully_addressable:  # every process asks, and hears the same
        return bool((fits | ~exists).all())
    return bool((np.asarray(fits) | ~np.asarray(exists)).all())
