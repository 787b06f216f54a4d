"""A teacher's part in the loss: a dense model that a student is to answer, attend and see like.

The loss is the one in the released code of AdaViT (Meng et al., CVPR 2022, arXiv 2111.15668). It
compares what the class token attends to, what it becomes in every block, and the answers. What a
student left out (a head, half a block, a class token that halted) is compared with nothing, so
that skipping is never held against it.

A teacher is a model of one stage. A student of several shows its last one in `aux`, so that is what
is compared, and images that left before are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax import validators
from avit_jax.errors import UserError
from avit_jax.losses import classification
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.types import Output, Usage

_ATTENTION_HALF, _MLP_HALF = 0, 1  # of `Usage.halves`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """Weights of the parts; the defaults are the published ones, and 0 leaves a part out.

    Attributes:
        attention: weight of the L1 distance of what the class tokens attend to.
        hidden: weight of the squared distance of the class tokens behind each block.
        logits: weight of the cross-entropy of the softened answers.
        temperature: by which both models' logits are divided.
    """

    attention: float = 0.5
    hidden: float = 0.1
    logits: float = 0.5
    temperature: float = 5.0

    def __post_init__(self):
        prefix = "config.teacher."
        validators.not_negative(self, "attention", "hidden", "logits", prefix=prefix)
        validators.positive(self, "temperature", prefix=prefix)
        if not (self.attention or self.hidden or self.logits):
            raise UserError(
                "config.teacher.attention, hidden and logits are all 0, so nothing is learnt from "
                "the teacher: write one of them above 0, or name no teacher."
            )

    @property
    def features(self) -> bool:
        """Whether both models have to show more than their answers."""
        return self.attention > 0 or self.hidden > 0

    def penalties(self, student: Output, teacher: Output) -> dict[str, Array]:
        """Weighted scalars by part, of the parts that weigh anything.

        Raises:
            UserError: one of the two does not show what a part compares, or they are of different
                sizes there.
        """
        found = {}
        if self.attention:
            found["attention"] = self.attention * attention_distance(student, teacher)
        if self.hidden:
            found["hidden"] = self.hidden * hidden_distance(student, teacher)
        if self.logits:
            distance = logits_distance(student, teacher, temperature=self.temperature)
            found["logits"] = self.logits * distance
        return found


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that never learns, and what a student takes from it; its parameters are given.

    Attributes:
        model: runs densely, without anything random.
        distillation: weights of the loss.
    """

    model: Model
    distillation: Distillation

    def on(self, platform: str) -> Teacher:
        """The teacher with what is fast on a platform, see `Model.trained_on`."""
        return dataclasses.replace(self, model=self.model.trained_on(platform))

    def penalties(self, params: Params, images: Array, student: Output) -> dict[str, Array]:
        """`Distillation.penalties` on images `[B, H, W, 3]` that `student` is the output for."""
        shown = self.model.apply(
            params, images, execution="dense", features=self.distillation.features
        )
        return self.distillation.penalties(student, jax.lax.stop_gradient(shown))


def attention_distance(student: Output, teacher: Output) -> Array:
    """L1 distance of what the class tokens attend to: mean over images and heads, sum over blocks.

    Heads and attention halves that did not run count as 0.
    """
    ours, theirs = _both("attention", student, teacher, part="attention")  # [L, B, H, N]
    ran = _ran(student.usage[-1], _ATTENTION_HALF)[:, :, None]
    if student.usage[-1].heads is not None:
        ran = ran & student.usage[-1].heads
    return (ran * jnp.abs(ours - theirs).sum(-1)).mean((1, 2)).sum()


def hidden_distance(student: Output, teacher: Output) -> Array:
    """Squared distance of the class tokens: mean over images and channels, sum over blocks.

    Blocks whose MLP half did not run count as 0.
    """
    both = _both("features", student, teacher, part="hidden", of=lambda shown: shown[:, :, 0])
    ours, theirs = (features.astype(jnp.float32) for features in both)  # [L, B, D]
    squares = ((ours - theirs) ** 2).mean(-1)
    return (_ran(student.usage[-1], _MLP_HALF) * squares).mean(1).sum()


def logits_distance(student: Output, teacher: Output, *, temperature: float) -> Array:
    """Cross-entropy (nats) of the softened answers against the teacher's, mean over images.

    As published it is not multiplied by `temperature ** 2`, as is common elsewhere (arXiv
    1503.02531): its gradient fades with the square of the temperature.
    """
    if student.logits.shape != teacher.logits.shape:
        raise UserError(
            f"the teacher tells {teacher.logits.shape[-1]} classes apart and the student "
            f"{student.logits.shape[-1]}: name a teacher that was trained on this data."
        )
    soft = jax.nn.softmax(teacher.logits / temperature)
    return classification.cross_entropy(student.logits / temperature, soft).mean()


def _ran(usage: Usage, half: int) -> Array:
    """Whether the class token of each image went through a half of each block, `[L, B]` bool.

    Of `Usage`, which carries no gradient: else a policy would be paid for dropping what differs.
    """
    live = usage.tokens[:, :, 0]
    return live if usage.halves is None else live & usage.halves[:, :, half]


def _both(
    name: str,
    student: Output,
    teacher: Output,
    *,
    part: str,
    of: Callable[[Array], Array] = lambda shown: shown,
) -> tuple[Array, Array]:
    """`aux[name]` of the two, for a part of the loss, which compares `of` them."""
    remedy = f"write --config.teacher.{part} 0"
    for who, output in (("student", student), ("teacher", teacher)):
        if name not in output.aux:
            raise UserError(f"the method of the {who} does not show its {name}: {remedy}.")
    ours, theirs = of(student.aux[name]), of(teacher.aux[name])
    if ours.shape != theirs.shape:
        raise UserError(
            f"the shape of the {name} is {theirs.shape} in the teacher and {ours.shape} in the "
            f"student: name a teacher of the student's sizes, or {remedy}."
        )
    return ours, theirs
