"""A cascade cut behind every exit, for streams: images that are not sure go on by themselves."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.execution.plan import Plan
from avit_jax.methods.dvt import early_exit
from avit_jax.methods.dvt.compact import run_exit
from avit_jax.methods.dvt.exit_sizes import image_sizes
from avit_jax.methods.forward import Call
from avit_jax.models import functional
from avit_jax.models.functional import Params
from avit_jax.streaming.blocks import in_blocks
from avit_jax.streaming.segment import Passed, Segment
from avit_jax.types import Output, Usage


def segments(model: Any, plan: Plan, *, compact: bool) -> tuple[Segment, ...]:
    """See `base.Model.segments`: one for each exit of the cascade `model`."""
    found: list[Segment] = [
        functools.partial(_run, model, index, plan if compact else None)
        for index in range(len(model.exits))
    ]
    if compact:
        sizes = [image_sizes(model, index, plan, plan.images) for index in range(len(found))]
        found = [in_blocks(one, plan, size) for one, size in zip(found, sizes, strict=True)]
    return tuple(found)


def _run(
    model: Any, index: int, plan: Plan | None, params: Params, state: Any, exists: Array
) -> Passed:
    """One exit, on live work only where there is a plan for that.

    The state holds the images, what is handed over, and what the exits before said and ran; the
    images in front everywhere.
    """
    before = None
    if index == 0:
        state = {"images": state, "exits": (), "usage": ()}
    else:
        handed = {name: _turned(name, rows) for name, rows in state["handed"].items()}
        before = Output(logits=state["exits"][-1], usage=(), aux=handed)
    network = functional.bind(model.build, params)
    images = state["images"]
    if plan is None:
        output = model.run_exit(index, network, images, Call(), before)
    else:
        output = run_exit(model, index, network, images, exists, plan, before)
    exits, usage = (*state["exits"], output.logits), (*state["usage"], *map(_swapped, output.usage))
    said = _answer(model, exits, usage)
    if index == len(model.exits) - 1:
        return Passed(output=said, leaves=jnp.ones(len(exists), bool), state=())
    leaves, _ = early_exit.sure(output.logits, model.settings.confidences[index])
    handed = {name: _turned(name, output.aux[name]) for name in model.shown}
    state = {"images": state["images"], "handed": handed, "exits": exits, "usage": usage}
    return Passed(output=said, leaves=leaves, state=state)


def _answer(model: Any, exits: tuple[Array, ...], usage: tuple[Usage, ...]) -> Output:
    """The answer of the whole cascade where the last exit that ran gives it."""
    ran, later = [_swapped(one) for one in usage], model.stages[len(exits) :]
    nothing = jax.tree.map(jnp.zeros_like, ran[0])
    batch = len(exits[-1])
    unused = [
        nothing.replace(tokens=jnp.zeros((shape.depth, batch, shape.num_tokens), bool))
        for shape in later
    ]
    return Output(
        logits=exits[-1],
        usage=(*ran, *unused),
        exits=jnp.stack([*exits, *([exits[-1]] * len(later))]) if len(model.exits) > 1 else None,
    )


def _swapped(usage: Usage) -> Usage:
    """What ran, with layers and images, its first two axes, changed for each other."""
    return jax.tree.map(lambda ran: ran.swapaxes(0, 1), usage)


def _turned(name: str, shown: Array) -> Array:
    """What `Call.shown` names, with images in front, and back again."""
    return shown.swapaxes(0, 1) if name == "relations" else shown
