"""Cascades on live work only: behind each exit the images that go on are gathered, in one program.

Images that an exit has to run for are treated in blocks of a fixed number, and one smaller block
for what is left (`execution/loops.py`). What an exit hands over lies in the order in which it ran,
so it is written in place; the next exit reads of it the rows of the images that it runs for. What
was handed over for finished images is never read.

Where the method of the exits packs what runs (`AsExit.packs_exits`), as an A-ViT does, tokens leave
inside an exit as well, and one number of images is enough: those that do not exist cost what is in
front of the blocks, and the program is compiled once for each exit. An AdaViT runs masked there: it
packs every head of every image by itself, anew in each block, and relations would have to be cut
out and put back as often.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.loops import for_rows
from avit_jax.execution.plan import Plan
from avit_jax.methods.dvt import early_exit, hand_over
from avit_jax.methods.forward import Call
from avit_jax.models import costs
from avit_jax.models.backbone import Shape
from avit_jax.types import Output, Usage

_SIZES = 3  # numbers of images that each exit is compiled for, each half of the next
_LEAST = 8  # the share of the most that it is worth compiling fewer rows for
_LAYERED = ("relations", "usage")  # images on the second axis


def compact(model: Any, network: Any, images: Array, exists: Array, plan: Plan) -> Output:
    """See `base.Model.compact`."""
    batch = len(images)
    reached, place, handed = exists, jnp.arange(batch), None
    answer, exits, usages = None, [], []
    for index, threshold in enumerate((*model.settings.confidences, None)):
        found, place = _run(model, index, network, images, (reached, place, handed), plan)
        logits = found["logits"][place]
        answer = logits if answer is None else jnp.where(reached[:, None], logits, answer)
        exits.append(answer)
        usage = jax.tree.map(lambda ran, place=place: ran[:, place], found["usage"])
        usages.append(early_exit.usage_of(usage, reached))
        if threshold is not None:
            reached = reached & ~early_exit.sure(logits, threshold)[0]
            handed = {name: found[name] for name in model.shown}
    together = jnp.stack(exits) if len(exits) > 1 else None
    return Output(logits=answer, usage=tuple(usages), exits=together)


def _run(
    model: Any,
    index: int,
    network: Any,
    images: Array,
    before: tuple[Array, Array, dict[str, Array] | None],
    plan: Plan,
) -> tuple[dict[str, Any], Array]:
    """One exit on the images that reach it.

    Args:
        model: the cascade.
        index: of the exit.
        network: of the cascade.
        images: `[B, H, W, 3]`.
        before: who reaches it, `[B]` bool; in which row the exit before has each image; and what it
            hands over, in its rows.
        plan: sizes.

    Returns:
        What the exit says, in its rows, and the row of each image, `[B]`.
    """
    reached, place, handed = before
    batch = len(images)
    sizes = image_sizes(model, index, plan, batch)
    count = reached.sum(dtype=jnp.int32)
    order = jnp.argsort(~reached, stable=True)
    padded = jnp.pad(order, (0, sizes[-1]), mode="edge")

    def said(first: Array, size: int) -> dict[str, Any]:
        chosen = lax.dynamic_slice(padded, (first,), (size,))
        shown = None
        if handed is not None:
            rows = place[chosen]
            taken = {name: jnp.take(a, rows, axis=_axis(name)) for name, a in handed.items()}
            shown = Output(logits=padded, usage=(), aux=taken)
        exists = first + jnp.arange(size) < count
        output = run_exit(model, index, network, images[chosen], exists, plan, shown)
        (usage,) = output.usage
        shown = {name: output.aux[name] for name in model.shown if name in output.aux}
        return {"logits": output.logits, "usage": usage} | shown

    def room(name: str, part: Any) -> Any:
        axis = _axis(name)

        def zeros(leaf: jax.ShapeDtypeStruct) -> Array:
            size = (*leaf.shape[:axis], batch + sizes[-1], *leaf.shape[axis + 1 :])
            return jnp.zeros(size, leaf.dtype)

        return jax.tree.map(zeros, part)

    def body(first: Array, size: int, carry: dict[str, Any]) -> dict[str, Any]:
        def write(name: str, part: Any) -> Any:
            at = (first, _axis(name))
            return jax.tree.map(
                lambda rows, new: lax.dynamic_update_slice_in_dim(rows, new, *at), carry[name], part
            )

        return {name: write(name, part) for name, part in said(first, size).items()}

    shapes = jax.eval_shape(lambda first: said(first, sizes[0]), jnp.int32(0))
    empty = {name: room(name, part) for name, part in shapes.items()}
    blocks = dataclasses.replace(plan, row_sizes=sizes)
    found = for_rows(body, count, empty, blocks)
    return found, jnp.argsort(order)


def run_exit(
    model: Any,
    index: int,
    network: Any,
    images: Array,
    exists: Array,
    plan: Plan,
    before: Output | None,
) -> Output:
    """As `Model.run_exit`, on live work only as far as the method of the exits can.

    Args:
        model: the cascade.
        index: of the exit.
        network: of the cascade.
        images: `[B, H, W, 3]`.
        exists: `[B]` bool; what is said about others means nothing.
        plan: sizes of the cascade.
        before: what the exit before shows of these images, in `aux`; `None` for the first.
    """
    own, part = model.exits[index], network.exit(index)
    call = hand_over.call_of(model, index, part, Call(), before)
    return own.compact_exit(part, images, exists, exit_plan(own.shape, plan, len(images)), call)


def _axis(name: str) -> int:
    return int(name in _LAYERED)


def image_sizes(model: Any, index: int, plan: Plan, batch: int) -> tuple[int, ...]:
    """Numbers of images that an exit is compiled for, ascending.

    The largest has about as many tokens as the plan's largest block of rows, and few images are
    left where all of a batch run.
    """
    most = min(batch, max(1, plan.row_sizes[-1] // model.stages[index].num_tokens))
    sizes = [-(-batch // -(-batch // most))]
    while sizes[0] > 1 and len(sizes) < (1 if model.inner.packs_exits else _SIZES):
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


def gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    """See `base.Model.compact_gmacs`."""
    batch = usage[0].tokens.shape[1]
    filled = filled_up(batch, plan.images)
    groups = -(-batch // plan.images)
    total = 0.0
    for index, used in enumerate(usage):
        sizes = image_sizes(model, index, plan, filled // groups)
        every = jax.tree.map(
            lambda ran: np.pad(np.asarray(ran), ((0, 0), (0, filled - batch), (0, 0))), used
        )
        for group in np.split(np.arange(filled), groups):
            there = group[every.tokens[:, group].any((0, 2))]
            total += sum(
                _block_gmacs(model, index, every, block, plan) for block in _blocks(there, sizes)
            )
    return total


def _blocks(images: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Images as they run together, -1 being one that does not exist."""
    blocks = []
    for first in range(0, len(images), sizes[-1]):
        block = images[first : first + sizes[-1]]
        size = next(size for size in sizes if size >= len(block))
        blocks.append(np.pad(block, (0, size - len(block)), constant_values=-1))
    return blocks


def _block_gmacs(model: Any, index: int, used: Usage, images: np.ndarray, plan: Plan) -> float:
    own = model.exits[index]
    ran = jax.tree.map(lambda part: part[:, images] & (images >= 0)[:, None], used)
    shown = () if index == len(model.exits) - 1 else model.shown
    sized = exit_plan(own.shape, plan, len(images))
    resizing = len(images) * costs.resizing_beyond(own.shape) / costs.GIGA
    return own.compact_exit_gmacs(ran, sized, shown=shown) + resizing
