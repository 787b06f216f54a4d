"""The part of a method's contract that is about inference: compact programs and their plans."""

from __future__ import annotations

import abc
import dataclasses
import functools
import numbers
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from avit_jax.errors import UserError
from avit_jax.execution import executions
from avit_jax.execution.candidates import candidates
from avit_jax.execution.execution import Execution, Program
from avit_jax.execution.plan import Plan, default_plan
from avit_jax.execution.predictor import Predictor
from avit_jax.methods.static_buffers import StaticBuffers
from avit_jax.models import costs, functional, ragged_attention
from avit_jax.models.shape import Shape
from avit_jax.runtime.device_mesh import make_mesh, platform_of
from avit_jax.runtime.devices import has_cudnn
from avit_jax.types import Output, Usage


@dataclasses.dataclass(frozen=True)
class Compilable(StaticBuffers):
    """What can be compiled for inference, whatever the execution.

    Attributes:
        name: of the method.
        has_capped: whether there is an execution="capped".
        has_image_rows: whether executions can keep the rows of an image together at multiples of
            16, as the kernels for TPUs want (`Plan.ragged_attention`).
    """

    name: ClassVar[str]
    has_capped: ClassVar[bool] = False
    has_image_rows: ClassVar[bool] = False

    @property
    def stages(self) -> tuple[Shape, ...]:
        """Networks that run one after the other, in order; all methods but cascades have one."""
        return (self.shape,)

    @property
    def layers(self) -> int:
        """Layers of a network that run at all, unless execution is dense: by default all."""
        return self.shape.depth

    def inference_gmacs(self, usage: tuple[Usage, ...]) -> np.ndarray:
        """Multiply-adds that each image needs in inference, `[B]` in 1e9; see `models/costs.py`."""
        count = functools.partial(costs.inference_gmacs, layers=self.layers)
        return costs.stages_gmacs(self.stages, usage, count)

    @abc.abstractmethod
    def compact(self, network: Any, images: Array, exists: Array, plan: Plan) -> Output:
        """The same answers from live work only, for one group of images; see `compile`.

        Args:
            network: the bound backbone.
            images: `[B, H, W, 3]`, normalised.
            exists: `[B]` bool; False for images that only fill up the batch.
            plan: static sizes.

        Returns:
            `logits` and `usage`.
        """

    def capped(self, network: Any, images: Array, exists: Array, plan: Plan) -> Output:
        """As `compact`, in the plan's numbers of places for tokens (`capacities`); not exact.

        Only for methods with `has_capped`; `aux["dropped"]` `[L, B]` says how many live tokens
        found no place.
        """
        raise UserError(f'{self.name} has no execution="capped": use "compact".')

    @abc.abstractmethod
    def compact_gmacs(self, usage: tuple[Usage, ...], plan: Plan) -> float:
        """Multiply-adds that compact execution runs for a batch, padding included, in 1e9.

        Args:
            usage: of the batch of one device, per stage.
            plan: of the program.
        """

    def default_plan(self, batch_size: int, *, platform: str | None = None) -> Plan:
        """Static sizes that do well without calibration, for a batch on one device.

        Args:
            batch_size: images.
            platform: of that device, as JAX names it; this machine's if unset.
        """
        shape = self.shape
        own = jax.devices()[0]
        return default_plan(
            shape.num_tokens,
            batch_size,
            num_heads=shape.num_heads,
            platform=platform,
            # A GPU that is not there is taken for one of today's.
            fused=shape.attention_can_be_fused and (own.platform != "gpu" or has_cudnn(own)),
            ragged=self.can_be_ragged,
        )

    @property
    def can_be_ragged(self) -> bool:
        """Whether the kernels for TPUs can run it, see `Plan.ragged_attention`."""
        shape = self.shape
        sizes = {"num_tokens": shape.num_tokens, "embed_dim": shape.embed_dim}
        if not shape.has_scores:
            return False
        return self.has_image_rows and ragged_attention.has_room(**sizes, dtype=shape.dtype)

    def on(self, platform: str) -> Self:
        """The model with what is fast in training and evaluation on a platform, as JAX names it."""
        plan = self.default_plan(1, platform=platform)
        # Without the kernel, scores would be kept for the backward pass; a loop computes them anew.
        # Sizes of training are numbers of tokens, which have no room for aligned rows.
        return self.with_kernels(
            dataclasses.replace(plan, unrolled=plan.fused_attention, ragged_attention=False)
        )

    def trained_on(self, platform: str) -> Self:
        """As `on`, for training steps: in float32 on a CPU, where XLA converts to it and back."""
        model = self.on(platform)
        dtype = "float32" if platform == "cpu" else model.shape.dtype
        return dataclasses.replace(model, shape=dataclasses.replace(model.shape, dtype=dtype))

    def candidate_plans(self, batch_size: int) -> dict[str, Plan]:
        """Plans for calibration to race, "default" among them, for a batch on one device."""
        plan = self.default_plan(batch_size)
        return candidates(plan, self.shape.num_tokens, batch_size)

    def compile(
        self,
        params: functional.Params,
        *,
        batch_size: int,
        execution: str | Execution | None = None,
        plan: Plan | None = None,
        mesh: Mesh | None = None,
    ) -> Predictor:
        """A compiled function of images for inference.

        Args:
            params: from `init` or `from_torch`.
            batch_size: images that a call takes at most; fewer are filled up, at no cost when
                compact.
            execution: "compact" or "static" (live work only, same answers, for CPUs and for
                accelerators), "dense" (same weights, nothing skipped), "masked" (as in training)
                or "capped" (fixed numbers of places for tokens); or an execution of one's own. By
                default the fastest exact one, see `executions.fastest`.
            plan: static sizes, from calibration or by hand; sensible ones by default.
            mesh: devices to share the images among; all of them by default.

        Raises:
            UserError: unknown execution, sizes that do not fit, or a method that cannot run so.
        """
        if not isinstance(batch_size, numbers.Integral) or isinstance(batch_size, bool):
            raise UserError(f"batch_size is {batch_size!r}: write a whole number of images.")
        mesh = mesh or make_mesh()
        platform = platform_of(mesh)
        execution = executions.find(execution or executions.fastest(self, platform))
        local = max(1, batch_size // mesh.size)
        plan = plan or self.default_plan(local, platform=platform)
        if plan.fused_attention and not has_cudnn(mesh.devices.flat[0]):
            raise UserError(
                "the plan wants fused attention, but cuDNN has none for "
                f"{mesh.devices.flat[0].device_kind}: use an NVIDIA GPU, or leave "
                "config.inference.fused_attention out."
            )

        if plan.ragged_attention and platform != "tpu":
            raise UserError(
                f"the plan wants ragged attention, but its kernel is for TPUs, not for {platform}: "
                "leave config.inference.ragged_attention out."
            )

        def sized(output: Output) -> tuple[Plan, Program]:
            found = execution.sized(self, output.usage, plan, local)
            return found, self.program(execution, found)

        needs_sizes = execution.offered(self) and execution.needs_sizes(plan)
        return Predictor(
            None if needs_sizes else self.program(execution, plan),
            self.stages[0],
            plan,
            params,
            execution=execution,
            fallback=execution.fallback and self.program(execution.fallback, plan),
            sized=sized if needs_sizes else None,
            batch_size=batch_size,
            mesh=mesh,
        )

    def program(self, execution: Execution, plan: Plan) -> Program:
        """The pure function of parameters and one device's images that an execution runs.

        Raises:
            UserError: the plan's sizes or its kernel do not fit the model.
        """
        shape = self.shape
        plan.check(num_tokens=shape.num_tokens, depth=shape.depth)
        if not execution.offered(self):
            slots = " with mixer 'mlp', in which every token keeps its slot,"
            raise UserError(
                f"{self.name}{slots if shape.tokens_keep_slots else ''} has no "
                f'execution="{execution.name}": use "masked".'
            )
        kernels = plan.fused_attention or plan.ragged_attention
        if kernels and not shape.has_scores:
            kind = f"{'mixer' if shape.tokens_keep_slots else 'attention'}"
            raise UserError(
                f"the plan wants a kernel for attention, but there is none for {kind} "
                f"{getattr(shape, kind)!r}: leave config.inference.fused_attention and "
                "config.inference.ragged_attention out."
            )
        if plan.fused_attention and not shape.attention_can_be_fused:
            raise UserError(
                f"the plan wants fused attention, but cuDNN has none for {shape.dtype} and "
                f"{shape.embed_dim // shape.num_heads} channels per head: use bfloat16, or leave "
                "config.inference.fused_attention out."
            )
        if plan.ragged_attention and not self.can_be_ragged:
            raise UserError(
                f"the plan wants ragged attention, which {self.name} of {shape.num_tokens} tokens "
                f"and {shape.embed_dim} channels does not have: leave "
                "config.inference.ragged_attention out."
            )
        return execution.program(self.with_kernels(plan), plan)

    def with_kernels(self, plan: Plan) -> Self:
        """The model with a plan's kernels and loops."""
        names = ("fused_attention", "ragged_attention", "unrolled")
        changes = {name: getattr(plan, name) for name in names}
        return dataclasses.replace(self, shape=dataclasses.replace(self.shape, **changes))
