"""Cascades on live work only: behind each exit the images that go on are gathered, in one program.

Images that an exit has to run for are treated in blocks of a fixed number, and one smaller block
for what is left (`execution/loops.py`). What an exit hands over lies in the order in which it ran,
so it is written in place; the next exit reads of it the rows of the images that it runs for. What
was handed over for finished images is never read.

Where the method of the exits packs what runs (`AsExit.packs_exits`), as an A-ViT does, and the plan
says so (`Plan.packed_exits`), tokens leave inside an exit as well, and one number of images is
enough: those that do not exist cost little more than their embedding, and the program is compiled
once for each exit. An AdaViT runs masked there: it packs every head of every image by itself, anew
in each block, and relations would have to be cut out and put back as often.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from avit_jax.execution.loops import for_rows
from avit_jax.execution.plan import Plan
from avit_jax.methods.dvt import early_exit, hand_over
from avit_jax.methods.dvt.exit_sizes import exit_plan, image_sizes, packed, ready_at_once
from avit_jax.methods.forward import Call, Reused
from avit_jax.types import Output

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
    given = None
    if before is not None:
        given = _made_ready(model, index, part, before.aux, exists, plan)
    call = hand_over.call_of(model, index, Call(), given)
    if own.packs_exits and not packed(model, plan):
        return own.forward(part, images, call)
    return own.compact_exit(part, images, exists, exit_plan(own.shape, plan, len(images)), call)


def _made_ready(
    model: Any, index: int, part: Any, shown: dict[str, Array], exists: Array, plan: Plan
) -> Reused | None:
    """What an exit is given, as `hand_over.reused` makes it, of the images in front that exist.

    That is a large share of a small network's work, and is run in parts where blocks have one size.
    """
    shape, images = model.stages[index], len(exists)
    size = ready_at_once(model, plan, images)
    if size == images or shape.reuse is None:
        return hand_over.reused(part, shape, shown)

    def made(first: Array) -> Reused:  # the last part begins where it fits, for reading and writing
        taken = {
            name: lax.dynamic_slice_in_dim(rows, first, size, _axis(name))
            for name, rows in shown.items()
        }
        return hand_over.reused(part, shape, taken)

    def body(first: Array, _: int, whole: Reused) -> Reused:
        return jax.tree.map(
            lambda rows, new: lax.dynamic_update_slice_in_dim(rows, new, first, 1),
            whole,
            made(first),
        )

    empty = jax.tree.map(
        lambda leaf: jnp.zeros((len(leaf), images, *leaf.shape[2:]), leaf.dtype),
        jax.eval_shape(made, jnp.int32(0)),
    )
    count = exists.sum(dtype=jnp.int32)
    return for_rows(body, count, empty, dataclasses.replace(plan, row_sizes=(size,)))


def _axis(name: str) -> int:
    return int(name in _LAYERED)
