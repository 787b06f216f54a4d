"""Static sizes of the exits of a cascade in compact execution, from the plan of the whole."""

from __future__ import annotations

import dataclasses
from typing import Any

from avit_jax.execution.plan import Plan
from avit_jax.models.shape import Shape

_SIZES = 3  # numbers of images that each exit is compiled for, each half of the next
_LEAST = 8  # the share of the most that it is worth compiling fewer rows for
_PACKED_FROM = 128  # channels; in narrower exits packing costs more than halting saves, on a CPU
_PARTS = 4  # of a block of images, in which what they are given is made ready


def default(model: Any, plan: Plan) -> Plan:
    """A plan with tokens that leave within exits where that pays."""
    return dataclasses.replace(
        plan, packed_exits=model.inner.packs_exits and model.shape.embed_dim >= _PACKED_FROM
    )


def candidates(model: Any, plans: dict[str, Plan]) -> dict[str, Plan]:
    """Plans for calibration to race, with that of the other choice about exits among them."""
    if not model.inner.packs_exits or len(model.stages) == 1:
        return plans
    base = plans["default"]
    other = "masked exits" if base.packed_exits else "packed exits"
    return plans | {other: dataclasses.replace(base, packed_exits=not base.packed_exits)}


def packed(model: Any, plan: Plan) -> bool:
    """Whether tokens leave within exits; then one number of images is enough for each of them."""
    return model.inner.packs_exits and (plan.packed_exits or len(model.stages) == 1)


def image_sizes(model: Any, index: int, plan: Plan, batch: int) -> tuple[int, ...]:
    """Numbers of images that an exit is compiled for, ascending.

    The largest has about as many tokens as the plan's largest block of rows, and few images are
    left where all of a batch run.
    """
    most = min(batch, max(1, plan.row_sizes[-1] // model.stages[index].num_tokens))
    sizes = [-(-batch // -(-batch // most))]
    while sizes[0] > 1 and len(sizes) < (1 if packed(model, plan) else _SIZES):
        sizes.insert(0, -(-sizes[0] // 2))
    return tuple(sizes)


def exit_plan(shape: Shape, plan: Plan, images: int) -> Plan:
    """Static sizes of an exit for so many images: the plan's, as far as its tokens reach.

    Without numbers of rows that cost next to nothing: each is compiled for every exit anew.
    """
    tokens = shape.num_tokens
    together = plan.dense_images and max(1, plan.dense_images * plan.lengths[-1] // tokens)

    def up_to(most: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return (*(size for size in sizes if most // _LEAST <= size < most), most)

    return dataclasses.replace(
        plan,
        images=images,
        row_sizes=up_to(min(images * tokens, plan.row_sizes[-1]), plan.row_sizes),
        attention_images=min(plan.attention_images, images),
        lengths=up_to(tokens, plan.lengths),
        dense_images=min(images, together or images),
    )


def ready_at_once(model: Any, plan: Plan, images: int) -> int:
    """Images of a block that what is handed over is made ready for together."""
    return -(-images // _PARTS) if packed(model, plan) else images
