"""A teacher's part in the loss: a dense model that a student is to answer, attend and see like.

By default it is the one in the released code of AdaViT (Meng et al., CVPR 2022, arXiv 2111.15668),
which compares what the class token attends to, what it becomes in every block, and the answers.
Answers alone may be compared as in DeiT (Touvron et al., arXiv 2012.12877), too, where a
distillation token is read by a head that answers to the teacher as the other to the labels. What a
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
ANSWERS = ("cross_entropy", "hard", "kl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """Weights of the parts; the defaults are the published ones, and 0 leaves a part out.

    Attributes:
        attention: weight of the L1 distance of what the class tokens attend to.
        hidden: weight of the squared distance of the class tokens behind each block.
        logits: weight of the distance of the answers.
        answers: what that is: "cross_entropy" of the softened answers, as in AdaViT; or, as in
          DeiT, "hard", the cross-entropy against the teacher's first choice, or "kl", the
          divergence of the softened answers. In the latter two the head of a distilled student's
          distillation token is compared, and the head of its class token learns from the labels.
        temperature: by which both models' logits are divided where answers are softened.
        labels: weight of what is learnt from the labels.
    """

    attention: float = 0.5
    hidden: float = 0.1
    logits: float = 0.5
    answers: str = "cross_entropy"
    temperature: float = 5.0
    labels: float = 1.0

    def __post_init__(self):
        prefix = "config.teacher."
        validators.not_negative(self, "attention", "hidden", "logits", "labels", prefix=prefix)
        validators.one_of(ANSWERS, self, "answers", prefix=prefix)
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

    def parted(self, student: Output, *, distilled: bool) -> tuple[Output, Output]:
        """What the labels judge, and what the teacher does: in DeiT's ways a head each.

        Args:
            student: what came of its training pass.
            distilled: whether it has a distillation token, with a head of its own.

        Raises:
            UserError: it has, and does not show what its heads say.
        """
        if not distilled or self.answers == "cross_entropy":
            return student, student
        if student.exits is not None or "head_logits" not in student.aux:
            raise UserError(
                f"config.teacher.answers is {self.answers!r}, for which the head of a distilled "
                "student's class token learns from the labels and that of its distillation token "
                "from the teacher, but its method does not show their answers one by one: write "
                "cross_entropy, or name a model that is not distilled."
            )
        heads = student.aux["head_logits"]
        return student.replace(logits=heads[0]), student.replace(logits=heads[-1])

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
            kind = {"temperature": self.temperature, "answers": self.answers}
            distance = logits_distance(student, teacher, **kind)
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


def logits_distance(
    student: Output, teacher: Output, *, temperature: float, answers: str = "cross_entropy"
) -> Array:
    """Distance (nats) of the student's answers from the teacher's, mean over images.

    AdaViT's cross-entropy of softened answers is not multiplied by `temperature ** 2`, so that its
    gradient fades with the square of the temperature. The divergence is (arXiv 1503.02531), as in
    equation 2 of DeiT's paper; DeiT's code divides it by the number of classes besides.

    Args:
        student: with `logits` `[B, C]`.
        teacher: likewise.
        temperature: of soft answers.
        answers: one of `ANSWERS`, see `Distillation`.
    """
    if student.logits.shape != teacher.logits.shape:
        raise UserError(
            f"the teacher tells {teacher.logits.shape[-1]} classes apart and the student "
            f"{student.logits.shape[-1]}: name a teacher that was trained on this data."
        )
    if answers == "hard":
        choice = jax.nn.one_hot(teacher.logits.argmax(-1), teacher.logits.shape[-1])
        return classification.cross_entropy(student.logits, choice).mean()
    soft = jax.nn.softmax(teacher.logits / temperature)
    distance = classification.cross_entropy(student.logits / temperature, soft)
    if answers == "kl":
        own = classification.cross_entropy(teacher.logits / temperature, soft)
        distance = temperature**2 * (distance - own)
    return distance.mean()


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
