"""DVT: networks of ever finer patches, one after the other, until one of them is sure.

Wang et al., "Not All Images are Worth 16x16 Words: Dynamic Transformers for Efficient Image
Recognition", NeurIPS 2021 (arXiv 2105.15075).

*What is skipped:* whole networks. An image is finished at the first exit whose largest probability
reaches that exit's threshold; its answer is that exit's, and later ones do not run for it.

*What is handed over:* the tokens behind an exit's last block, in front of its norm, go through a
small MLP in every block of the next and are joined to the input of its MLP; the attention scores of
all heads and blocks, with what was added to them, are mixed and added to those of the next. Both
are made finer by fixed linear operators (`models/grid_resize.py`). Nothing is detached, so later
losses train earlier exits.

*Why leaving early is exact:* an exit reads of an image nothing but its pixels and what the exits
before made of it, and no image sees another one.

*Training:* the weighted sum of all exits' losses; no image leaves.

An exit is a model of its own, of the method that `inner` is one of, on its stage's sizes. It gets
what is handed over as `Call.reused`, and shows what is to be handed over as `Call.shown` asks. Its
tokens may halt: a token hands over its last state, and scores of blocks that it did not run are 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax.errors import UserError
from avit_jax.execution.plan import Plan
from avit_jax.methods import base
from avit_jax.methods.dvt import (
    compact,
    costs,
    early_exit,
    exit_sizes,
    fitted_dials,
    hand_over,
    joint_dial,
    plain_weights,
    segments,
    stages,
    static,
    weight_names,
)
from avit_jax.methods.dvt.networks import Networks
from avit_jax.methods.dvt.settings import Settings
from avit_jax.methods.forward import HANDED_OVER, Call
from avit_jax.models import functional
from avit_jax.models.shape import Shape
from avit_jax.streaming.segment import Segment
from avit_jax.types import Dial, DialSettings, ExitAnswers, Output, Usage


@dataclasses.dataclass(frozen=True)
class Model(static.StaticCascade, base.Model):
    """A cascade of exits on any backbone that has several grids; `shape` is the finest's.

    Attributes:
        inner: a model of the method that every exit runs, whatever its sizes; its settings are
            those in `settings.inner`, if there are any.
    """

    settings: Settings
    inner: base.Model
    name = "dvt"
    one_network = False

    def __post_init__(self):
        """Sizes are compared here, where both are known."""
        stages.refuse_other_grid(self.shape, self.settings.grids)
        if self.settings.inner is None:
            filled = dataclasses.replace(self.settings, inner=self.inner.settings)
            object.__setattr__(self, "settings", filled)
        else:
            inner = dataclasses.replace(self.inner, settings=self.settings.inner)
            object.__setattr__(self, "inner", inner)
        if self.inner.nothing_may_run:
            raise UserError(f"an exit may run nothing: inner.{self.inner.nothing_may_run}.")
        self.stages  # noqa: B018 - refuses grids that the backbone does not have

    @property
    def adaptive(self) -> bool:
        """See `base.Model`: a single exit leaves out what its method does."""
        return len(self.settings.grids) > 1 or self.inner.adaptive

    @property
    def stages(self) -> tuple[Shape, ...]:
        """Sizes of each exit's network, with what it takes over."""
        return stages.stages(self.shape, self.settings)

    @property
    def exits(self) -> tuple[base.Model, ...]:
        """The model of each exit."""
        return tuple(dataclasses.replace(self.inner, shape=shape) for shape in self.stages)

    @property
    def plain(self) -> base.Model:
        """The method of the exits on the finest grid alone, whose weights can start a cascade."""
        return dataclasses.replace(self.inner, shape=self.shape)

    def on_images_of(self, other: base.Model) -> Model:
        """See `base.Model.on_images_of`; on the other's grids, if it has any."""
        return stages.on_images_of(self, other)

    @property
    def layers(self) -> int:
        """See `base.Model.layers`; all exits have as many."""
        return self.inner.layers

    @property
    def draws(self) -> bool:
        return any(one.draws for one in self.exits)

    @property
    def exit_weights(self) -> tuple[float, ...]:
        return self.settings.weights

    @property
    def shown(self) -> tuple[str, ...]:
        """What every exit but the last hands over."""
        wanted = (self.settings.feature_reuse, self.settings.relation_reuse)
        return tuple(name for name, on in zip(HANDED_OVER, wanted, strict=True) if on)

    def build(self, rngs: nnx.Rngs) -> Networks:
        """One network for each exit, `exit1` being the coarsest."""
        return Networks(self.exits, rngs=rngs)

    def forward(self, network: Networks, images: Array, call: Call) -> Output:
        settings, count = self.settings, len(self.exits)
        batch = images.shape[0]  # a symbol in exported programs
        reached, margin = jnp.ones(batch, bool), jnp.full(batch, early_exit.FAR)
        outputs, answers, usages = [], [], []
        for index in range(count):
            before = outputs[-1] if outputs else None
            output = self.run_exit(index, network, images, call, before)
            outputs.append(output)
            usages += [early_exit.usage_of(used, reached) for used in output.usage]
            # Behind the exit that an image leaves by, its answer stays.
            keep = answers[-1] if answers else output.logits
            answers.append(jnp.where(reached[:, None], output.logits, keep))
            if "margin" in output.aux:
                asked = jnp.minimum(margin, output.aux["margin"])
                margin = jnp.where(reached, asked, margin)
            if index < count - 1 and not (call.train or call.dense):
                leaves, distance = early_exit.sure(output.logits, settings.confidences[index])
                margin = jnp.where(reached, jnp.minimum(margin, distance), margin)
                reached = reached & ~leaves
        return Output(
            logits=answers[-1],
            usage=tuple(usages),
            exits=jnp.stack(answers) if count > 1 else None,
            penalties=jax.tree.map(lambda *exits: sum(exits), *(one.penalties for one in outputs)),
            metrics={
                f"exit{number}_{name}": value
                for number, output in enumerate(outputs, start=1)
                for name, value in output.metrics.items()
            },
            aux=outputs[-1].aux | ({"margin": margin} if self.adaptive else {}),
        )

    def run_exit(
        self, index: int, network: Networks, images: Array, call: Call, before: Output | None
    ) -> Output:
        """One exit on images `[B, H, W, 3]`, after the exit before has run on the same ones.

        Args:
            index: of the exit, from 0.
            network: of all exits.
            images: normalised.
            call: of the whole cascade.
            before: what the exit before shows, in `aux`; `None` for the first.
        """
        part = network.exit(index)
        given = None
        if before is not None:
            given = hand_over.reused(part, self.stages[index], before.aux)
        asked = hand_over.call_of(self, index, call, given)
        return self.exits[index].forward(part, images, asked)

    def default_plan(self, batch_size: int, *, platform: str | None = None) -> Plan:
        """See `base.Model.default_plan`."""
        return exit_sizes.default(self, super().default_plan(batch_size, platform=platform))

    def candidate_plans(self, batch_size: int) -> dict[str, Plan]:
        """See `base.Model.candidate_plans`."""
        return exit_sizes.candidates(self, super().candidate_plans(batch_size))

    def compact(self, network: Networks, images: Array, exists: Array, plan: Plan) -> Output:
        return compact.compact(self, network, images, exists, plan)

    def compact_gmacs(self, usage: tuple[Usage, ...], plan: Plan) -> float:
        return costs.compact_gmacs(self, usage, plan)

    def segments(self, plan: Plan, *, compact: bool) -> tuple[Segment, ...]:
        """See `base.Model.segments`."""
        return segments.segments(self, plan, compact=compact)

    def dial(self) -> Dial | None:
        """`threshold_shift` and the dial of the exits' method, or the latter for a single exit."""
        inner = self.inner.dial()
        if len(self.settings.grids) == 1:
            return inner and joint_dial.of_exits(inner)
        return joint_dial.of_cascade(self.settings.threshold_shift, inner)

    def fitted_dials(self, answers: Callable[[DialSettings], ExitAnswers]) -> dict[str, Dial]:
        """See `base.Model.fitted_dials`; `fitted_dials.py`."""
        return fitted_dials.fit(self, answers) if len(self.settings.grids) > 1 else {}

    def changed(self, settings: Mapping[str, Any]) -> Model:
        """With settings of the cascade's, or `inner.` ones of its exits' method, changed."""
        own, theirs = joint_dial.divided(settings)
        return super().changed({"inner": dataclasses.replace(self.settings.inner, **theirs), **own})

    def trainable(self, params: functional.Params) -> Any:
        """See `base.Model.trainable`."""
        return {
            name: model.trainable(params[name])
            for name, model in zip(Networks.names(self.exits), self.exits, strict=True)
        }

    def completed(self, params: functional.Params) -> functional.Params:
        """See `base.Model.completed`; those of a plain network start every exit."""
        if set(params) == set(self.abstract_params()):
            return params
        return plain_weights.start(self, self.plain.completed(params))

    def timm_named(self, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if weight_names.is_cascade(state_dict):
            return weight_names.timm_named(self, state_dict)
        return self.plain.timm_named(state_dict)

    def from_timm(self, state_dict: Mapping[str, np.ndarray]) -> functional.Params:
        """See `base.Model.from_timm`; weights of a plain backbone start every exit."""
        if weight_names.is_cascade(state_dict):
            return weight_names.from_timm(self, state_dict)
        return self.completed(self.plain.from_timm(state_dict))

    def to_timm(self, params: functional.Params) -> dict[str, np.ndarray]:
        return weight_names.to_timm(self, params)
