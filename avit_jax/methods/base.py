"""The contract of a method: what training, inference and every other mode may ask a model.

A method is a file or folder that offers `Settings` (a frozen dataclass, all its options with
defaults), `Model(base.Model)` and `families` (its named models, see `zoo.py`, which has a line for
it). Its `forward` strings the backbone's blocks together. A method with parameters of its own
overrides `build` as well, and `upstream_names` where they have other names elsewhere.

A method may live in any package: an instance of its `Model` there is a named model, as in
`create_model("my_package.my_module:NAME")` and `config.base(model="my_package.my_module:NAME")`.
"""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from avit_jax.errors import UserError
from avit_jax.execution import executions
from avit_jax.execution.candidates import candidates
from avit_jax.execution.execution import Execution, Program
from avit_jax.execution.plan import Plan, default_plan
from avit_jax.execution.predictor import Predictor
from avit_jax.methods.forward import Call
from avit_jax.models import costs, functional
from avit_jax.models.backbone import Shape
from avit_jax.pretrained import names
from avit_jax.pretrained.fit import fit
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.types import Dial, Output, Usage

logger = logging.getLogger(__name__)

EXECUTIONS = ("masked", "dense")


@dataclasses.dataclass(frozen=True)
class Model(abc.ABC):
    """A method on a backbone: pure functions of parameters, which are a plain nested dict.

    Attributes:
        shape: the backbone's sizes.
        settings: the method's options.
        name: of the method.
        adaptive: whether anything is skipped; then `Output.aux` holds `margin` `[B]`, how far each
            image's closest decision is from going the other way.
        has_capped: whether there is an execution="capped".
        upstream_names: what PyTorch code calls modules and parameters that are the method's own.
    """

    shape: Shape
    settings: Any
    name: ClassVar[str]
    adaptive: ClassVar[bool] = True
    has_capped: ClassVar[bool] = False
    upstream_names: ClassVar[Mapping[str, str]] = {}

    @property
    def stages(self) -> tuple[Shape, ...]:
        """Networks that run one after the other, in order; all methods but cascades have one."""
        return (self.shape,)

    @property
    def draws(self) -> bool:
        """Whether training draws at random, so that `apply` needs a key."""
        return self.shape.draws

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """All parameters of the model as one NNX module."""
        return self.shape.build(rngs)

    @abc.abstractmethod
    def forward(self, network: Any, images: Array, call: Call) -> Output:
        """The method itself; see `apply`."""

    def init(self, key: Array) -> functional.Params:
        """Fresh parameters, drawn from `key` (`jax.random.key(seed)`)."""
        return functional.create(self.build, key)

    def abstract_params(self) -> functional.Params:
        """Shapes and dtypes of the parameters."""
        return functional.abstract(self.build)

    def apply(
        self,
        params: functional.Params,
        images: Array,
        *,
        train: bool = False,
        key: Array | None = None,
        noise: Any = None,
        execution: str = "masked",
        progress: Array | float = 1.0,
        features: bool = False,
        settings: Mapping[str, Array | float] | None = None,
    ) -> Output:
        """Run the model on a batch with static shapes: skipped work is masked, not left out.

        Args:
            params: from `init` or `from_torch`.
            images: `[B, H, W, 3]`, normalised.
            train: training mode; needs `key` where the model draws anything at random.
            key: randomness of this call.
            noise: a method's random draws, injected (for parity tests).
            execution: "masked", or "dense" for the same weights with nothing skipped.
            progress: share of the training that is done, 0..1; 1 is the finished model.
            features: also return every block's output as `aux["features"]` `[L, B, N, D]`.
            settings: those of the method's `dial`, in place of the model's own. They may be traced,
                so that one compiled program serves all positions.

        Raises:
            UserError: unknown execution, images of another size, or a missing key.
        """
        if execution not in EXECUTIONS:
            raise UserError(
                f"execution {execution!r} is unknown: apply() takes {' or '.join(EXECUTIONS)}."
            )
        if train and key is None and (self.shape.draws or (self.draws and noise is None)):
            raise UserError(
                "apply(train=True) draws at random here (dropout, stochastic depth or the method's "
                "decisions): pass key=jax.random.key(seed)."
            )
        call = Call(
            train=train,
            key=key if train else None,
            noise=noise,
            dense=execution == "dense",
            progress=progress,
            features=features,
        )
        network = functional.bind(self.build, params)  # by the model itself, which can be hashed
        model = self if settings is None else self._changed(settings)
        return model.forward(network, images, call)

    def dial(self) -> Dial | None:
        """What makes the finished model cost more or less; `None` where nothing does."""
        return None

    def _changed(self, settings: Mapping[str, Array | float]) -> Model:
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **settings))

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
        return default_plan(
            shape.num_tokens, batch_size, num_heads=shape.num_heads, platform=platform
        )

    def candidate_plans(self, batch_size: int) -> dict[str, Plan]:
        """Plans for calibration to race, "default" among them, for a batch on one device."""
        plan = self.default_plan(batch_size)
        plans = candidates(plan, self.shape.num_tokens, batch_size)
        if self.shape.attention_can_be_fused:
            plans["fused attention"] = dataclasses.replace(plan, fused_attention=True)
        return plans

    def compile(
        self,
        params: functional.Params,
        *,
        batch_size: int,
        execution: str | Execution = "compact",
        plan: Plan | None = None,
        mesh: Mesh | None = None,
    ) -> Predictor:
        """A compiled function of images for inference.

        Args:
            params: from `init` or `from_torch`.
            batch_size: images that a call takes at most; fewer are filled up, at no cost when
                compact.
            execution: "compact" (live tokens only, same answers), "dense" (same weights, nothing
                skipped), "masked" (as in training) or "capped" (fixed numbers of places for
                tokens); or an execution of one's own.
            plan: static sizes, from calibration or by hand; sensible ones by default.
            mesh: devices to share the images among; all of them by default.

        Raises:
            UserError: unknown execution, sizes that do not fit, or a method that cannot run so.
        """
        execution, mesh = executions.find(execution), mesh or make_mesh()
        plan = plan or self.default_plan(max(1, batch_size // mesh.size))
        return Predictor(
            self.program(execution, plan),
            self.stages[0],
            plan,
            params,
            execution=execution,
            fallback=execution.fallback and self.program(execution.fallback, plan),
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
        if not plan.fused_attention:
            return execution.program(self, plan)
        if not shape.attention_can_be_fused:
            raise UserError(
                f"the plan wants fused attention, but cuDNN has none for {shape.dtype} and "
                f"{shape.embed_dim // shape.num_heads} channels per head on "
                f"{jax.default_backend()}: use bfloat16 on an NVIDIA GPU, or leave "
                "config.inference.fused_attention out."
            )
        fused = dataclasses.replace(shape, fused_attention=True)
        return execution.program(dataclasses.replace(self, shape=fused), plan)

    def trainable(self, params: functional.Params) -> Any:
        """Tree of bools: parameters that are False get neither update nor weight decay."""
        return functional.map_paths(lambda path, _: path not in self.shape.frozen, params)

    def completed(self, params: functional.Params) -> functional.Params:
        """Parameters of the plain backbone, with fresh ones where the method has its own.

        The fresh ones are always the same, and a warning names them.
        """
        missing = sorted(set(self.abstract_params()) - set(params))
        if not missing:
            return params
        logger.warning(
            "these weights have no %s: fresh ones are added, train them.", " and no ".join(missing)
        )
        fresh = self.init(jax.random.key(0))
        return params | {name: fresh[name] for name in missing}

    def from_torch(self, state_dict: Mapping[str, Any]) -> functional.Params:
        """Parameters from other people's weights, such as `avit_jax.load_torch` returns.

        Positions are interpolated where the number of patches differs, and a classifier of another
        number of classes is replaced by a fresh one, with a warning.

        Args:
            state_dict: names of timm, DeiT or A-ViT, or of google-research/vision_transformer's
              `.npz` files, to arrays.

        Raises:
            UserError: lists every missing, unknown and misshapen name at once.
        """
        return self._named(state_dict, self.build)

    def _named(self, state_dict: Mapping[str, Any], build: functional.Build) -> functional.Params:
        """What `build` makes, with upstream's arrays."""
        expected = functional.abstract(build)
        fitted = fit(state_dict, self.shape)
        return names.from_torch(fitted, self.shape, expected, self.upstream_names)

    def to_torch(self, params: functional.Params) -> dict[str, np.ndarray]:
        """The inverse of `from_torch`, bit for bit."""
        return names.to_torch(params, self.shape, self.upstream_names)

    def synthetic_profiles(self) -> dict[str, float]:
        """Shares of the dense GMACs that `synthetic` reaches, by name; none by default.

        "paper" is what the method's authors report, "half" a half, and "none" skips nothing.
        """
        return {}

    def synthetic(
        self, share: float, batch_size: int, *, seed: int = 0
    ) -> tuple[functional.Params, np.ndarray]:
        """Parameters, and images `[B, H, W, 3]`, with which a share of the dense GMACs runs.

        Only weights and images are chosen, the program is the same; see `synthetic_profiles`.
        """
        raise NotImplementedError(f"{self.name} has no synthetic profiles.")

    def blocks_as_onnx(
        self, graph: Any, params: functional.Params, tokens: str
    ) -> tuple[str, list[str]]:
        """All blocks in masked execution, added to an ONNX graph; for adaptive methods.

        Args:
            graph: an `export.onnx_writer.Graph`.
            params: of the model.
            tokens: name of the tokens in front of the first block, `[B, N, D]`.

        Returns:
            Names of what the classifiers read, `[B, prefix, D]`, and of each layer's live tokens,
            `[B, N]`, 0 or 1.

        Raises:
            UserError: the method has not been written down for ONNX.
        """
        raise UserError(
            f"method {self.name} cannot be written as ONNX: leave out the .onnx of --output for a "
            "StableHLO export, or write --config.inference.execution dense."
        )

    def num_params(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_params()))

    def dense_gmacs(self) -> float:
        """Multiply-adds of one image with nothing skipped, in units of 1e9."""
        return sum(map(costs.dense_gmacs, self.stages))

    def gmacs(self, output: Output, *, upstream_accounting: bool = False) -> Array | np.ndarray:
        """Multiply-adds that each image of a batch needed, `[B]` in units of 1e9.

        Args:
            output: of `apply`, or of a compiled program.
            upstream_accounting: count as the published tables of AdaViT do, see
                `costs.upstream_gmacs`; only for comparing with them.
        """
        if upstream_accounting:
            return costs.upstream_gmacs(self.shape, output.usage[0])
        return costs.stages_gmacs(self.stages, output.usage)
