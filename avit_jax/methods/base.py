"""The contract of a method: what training, inference and every other mode may ask a model.

A method is a file or folder that offers `Settings` (a frozen dataclass, all its options with
defaults), `Model(base.Model)` and `families` (its named models, see `zoo.py`, which has a line for
it). Its `forward` strings the backbone's blocks together, its `compact` runs live work only
(`compilable.py`). A method whose images may be finished early overrides `segments`
(`streamable.py`), one that leaves work out within an exit of a cascade `compact_exit`
(`as_exit.py`), one with parameters of its own `build` as well, and `upstream_names` where they
have other names elsewhere (`parameters.py`).

A method may live in any package: an instance of its `Model` there is a named model, as in
`create_model("my_package.my_module:NAME")` and `config.base(model="my_package.my_module:NAME")`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.data.given_images import given_images
from avit_jax.errors import UserError
from avit_jax.methods.as_exit import AsExit
from avit_jax.methods.forward import Call, RowCapacities
from avit_jax.models import costs, functional
from avit_jax.types import Dial, DialSettings, ExitAnswers, Output

EXECUTIONS = ("masked", "dense")


@dataclasses.dataclass(frozen=True)
class Model(AsExit):
    """A method on a backbone: pure functions of parameters, which are a plain nested dict.

    Attributes:
        adaptive: whether anything is skipped; then `Output.aux` holds `margin` `[B]`, how far each
            image's closest decision is from going the other way.
    """

    adaptive: ClassVar[bool] = True

    @property
    def draws(self) -> bool:
        """Whether training draws at random, so that `apply` needs a key."""
        return self.shape.draws

    @property
    def nothing_may_run(self) -> str:
        """Which setting lets an image pass without any live token, and what to write instead."""
        return ""

    @property
    def exit_weights(self) -> tuple[float, ...]:
        """Weight of each exit's loss in training; all weigh 1 where it is empty."""
        return ()

    @abc.abstractmethod
    def forward(self, network: Any, images: Array, call: Call) -> Output:
        """The method itself; see `apply`."""

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
        rows: RowCapacities | None = None,
        settings: Mapping[str, Array | float] | None = None,
    ) -> Output:
        """Run the model on a batch with static shapes: skipped work is masked, not left out.

        Args:
            params: from `init` or `from_torch`.
            images: `[B, H, W, 3]`, normalised, or uint8 pixels, which are normalised here.
            train: training mode; needs `key` where the model draws anything at random.
            key: randomness of this call.
            noise: a method's random draws, injected (for parity tests).
            execution: "masked", or "dense" for the same weights with nothing skipped.
            progress: share of the training that is done, 0..1; 1 is the finished model.
            features: also return every block's output as `aux["features"]` `[L, B, N, D]`.
            rows: leave skipped work out after all, in as many rows as this says. Answers, penalties
                and gradients are the same where `Output.fits`, and mean nothing elsewhere; `aux`
                holds `live_rows` `[L]` int32, the most that a device had, and of the features those
                of the prefix tokens. For models that `check_learns_on_rows` lets through.
            settings: those of the method's `dial`, in place of the model's own. They may be traced,
                so that one compiled program serves all positions.

        Raises:
            UserError: unknown execution, no images or those of another size or type, a missing
                key, or a model that does not learn on rows.
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
        if rows is not None:
            self.check_learns_on_rows()
        call = Call(
            train=train,
            key=key if train else None,
            noise=noise,
            dense=execution == "dense",
            progress=progress,
            features=features,
            rows=rows,
        )
        images = given_images(images, self.stages[0].image_size)
        if isinstance(images.shape[0], int) and not images.shape[0]:  # it may be a symbol in export
            raise UserError("there is no image in the batch: pass at least one.")
        network = functional.bind(self.build, params)  # by the model itself, which can be hashed
        model = self if settings is None else self.changed(settings)
        return model.forward(network, images, call)

    def check_learns_on_rows(self) -> None:
        """Whether training may leave out what is skipped, with the same gradients.

        Raises:
            UserError: it may not, and why.
        """
        raise UserError(
            f"config.train.rows is 'live', but method {self.name} learns from what it skips, too: "
            "leave it at 'all'."
        )

    def dial(self) -> Dial | None:
        """What makes the finished model cost more or less; `None` where nothing does."""
        return None

    def fitted_dials(self, answers: Callable[[DialSettings], ExitAnswers]) -> dict[str, Dial]:
        """Dials that follow from what the exits say about images with labels, by name.

        The first is the one to use; others, of the same settings, are shown beside it. None where
        `dial` is all there is.

        Args:
            answers: what all exits say about the same images with these settings, with which every
                image has to go to the end.
        """
        return {}

    def changed(self, settings: Mapping[str, Any]) -> Model:
        """With settings of the method's dial in place of its own."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **settings))

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

        Raises:
            UserError: the method has no such profiles.
        """
        raise UserError(
            f"method {self.name} has no synthetic profiles: write real into "
            "config.benchmark.profiles, where that is this run's own weights and images."
        )

    def blocks_as_onnx(
        self, graph: Any, params: functional.Params, tokens: str
    ) -> tuple[str, list[str]]:
        """All blocks in masked execution, added to an ONNX graph; for adaptive methods.

        Args:
            graph: an `export.onnx_writer.Graph`.
            params: of the model.
            tokens: name of the tokens in front of the first block, `[B, N, D]`.

        Returns:
            Names of the tokens that classifiers read, `[B, n, D]`, and of each layer's live tokens,
            `[B, N]`, 0 or 1.

        Raises:
            UserError: the method has not been written down for ONNX.
        """
        raise UserError(
            f"method {self.name} cannot be written as ONNX: leave out the .onnx of --output for a "
            "StableHLO export, or write --config.inference.execution dense."
        )

    def dense_gmacs(self) -> float:
        """Multiply-adds of one image with nothing skipped, in units of 1e9."""
        return sum(map(costs.dense_gmacs, self.stages))

    def gmacs(self, output: Output) -> Array | np.ndarray:
        """Multiply-adds that each image of a batch needed, `[B]` in units of 1e9.

        Args:
            output: of `apply`, or of a compiled program.
        """
        return costs.stages_gmacs(self.stages, output.usage)

    def gmacs_by_exit(self, output: Output) -> Array:
        """Multiply-adds that each image needed up to and with each stage, `[E, B]` in 1e9."""
        return jnp.cumsum(jnp.stack(costs.gmacs_by_stage(self.stages, output.usage)), 0)
