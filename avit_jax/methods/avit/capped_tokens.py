"""Capped execution of halting: a fixed number of places for tokens in each layer, no branches.

Not exact where an image needs more places than there are: of its live tokens those nearest to
halting (the least still to spend) are dropped, prefix tokens never. How many were dropped comes
back with the answer.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.errors import UserError
from avit_jax.execution.dense import last_block
from avit_jax.execution.plan import Plan
from avit_jax.methods.avit import answers, halting
from avit_jax.methods.avit.rules import Rules, behind
from avit_jax.models.backbone import Backbone
from avit_jax.models.functional import layer_at
from avit_jax.models.shape import Shape
from avit_jax.types import Gates, Output, Usage


def capped(
    network: Backbone,
    images: Array,
    exists: Array,
    plan: Plan,
    rules: Rules,
) -> Output:
    """Logits with at most `plan.capacities[l]` tokens of each image in layer l.

    Arguments as for `live_tokens.compact`.

    Returns:
        `logits`, `usage`, and `aux["dropped"]` `[L, B]`, live tokens that found no place in a
        layer.

    Raises:
        UserError: the plan has no capacities, or they rise from one layer to the next.
    """
    shape = network.shape
    capacities = _check(plan, shape.num_prefix_tokens)
    tokens = network.embed(images, dtype=halting.STREAM)
    batch = tokens.shape[0]
    index = jnp.broadcast_to(jnp.arange(shape.num_tokens), tokens.shape[:2])
    state = halting.start(tokens.shape[:2])
    state = state.replace(live=jnp.broadcast_to(exists[:, None], state.live.shape))
    answer = answers.nothing(shape, batch)
    lives, drops = [], []

    whole = rules.layers if shape.averages else rules.layers - 1
    # Layers with the same capacity are one scan: a program as small as its distinct capacities.
    for capacity, group in itertools.groupby(range(whole), capacities.__getitem__):
        layers = list(group)
        tokens, index, state, dropped = _shrink(shape, tokens, index, state, capacity)

        def layer(carry: tuple, number: Array, index: Array = index) -> tuple[tuple, Array]:
            tokens, state, answer = carry
            block = layer_at(network.blocks, number)
            live = answers.running(shape, state.live)
            gates = Gates(tokens=live)
            tokens = block.attend(tokens, gates=gates, positions=index)
            tokens = block.feed(tokens, gates=gates)
            score = rules.score(tokens, number)
            state, weight = rules.step(state.replace(live=live), score, number, index)
            answer = answer + answers.gained(shape, live, weight, tokens[:, shape.read])
            return (tokens, state.replace(live=state.live & live), answer), live

        (tokens, state, answer), live = jax.lax.scan(
            layer, (tokens, state, answer), jnp.asarray(layers)
        )
        lives.append(_at_their_places(live, index, shape.num_tokens))
        drops += [dropped, *([jnp.zeros_like(dropped)] * (len(layers) - 1))]

    if not shape.averages:
        final = rules.layers - 1
        tokens, index, state, dropped = _shrink(shape, tokens, index, state, capacities[final])
        live = answers.running(shape, state.live)
        block, front = layer_at(network.blocks, final), shape.num_last_tokens
        states = last_block(block, tokens, prefix=front, live=live, positions=index)
        _, weight = rules.step(state.replace(live=live), jnp.zeros(live.shape), final, index)
        answer = answer + answers.gained(shape, live, weight, states)
        lives.append(_at_their_places(live[None], index, shape.num_tokens))
        drops.append(dropped)
    heads = network.readout(answer)
    return Output(
        logits=heads.mean(0),
        usage=(Usage(tokens=behind(jnp.concatenate(lives), shape.depth)),),
        aux={"dropped": behind(jnp.stack(drops), shape.depth)},
    )


def _check(plan: Plan, prefix: int) -> tuple[int, ...]:
    capacities = plan.capacities
    if capacities is None:
        raise UserError(
            'execution="capped" needs a plan with capacities, a number of tokens for each layer: '
            "run --mode calibrate, or give plan.capacities."
        )
    if any(b > a for a, b in itertools.pairwise(capacities)):
        raise UserError(
            f"capacities of the plan are {list(capacities)}: they may not rise from one layer to "
            "the next, because tokens that were dropped do not come back."
        )
    return tuple(max(capacity, prefix) for capacity in capacities)


def _shrink(
    shape: Shape, tokens: Array, index: Array, state: halting.Halting, capacity: int
) -> tuple[Array, Array, halting.Halting, Array]:
    """Keep `capacity` tokens of each image: the prefix, then those with most left to spend."""
    live = answers.running(shape, state.live)
    capacity = min(capacity, tokens.shape[1])
    need = jnp.where(live, 1.0 - state.cumulative, -jnp.inf)
    need = need.at[:, : shape.num_prefix_tokens].set(jnp.inf)
    _, chosen = jax.lax.top_k(need, capacity)
    chosen = jnp.sort(chosen, axis=1)  # the prefix stays in front

    def pick(values: Array) -> Array:
        return jnp.take_along_axis(values, chosen, axis=1)

    dropped = live.sum(1) - pick(live).sum(1)
    tokens = jnp.take_along_axis(tokens, chosen[:, :, None], axis=1)
    return tokens, pick(index), jax.tree.map(pick, state.replace(live=live)), dropped


def _at_their_places(live: Array, index: Array, num_tokens: int) -> Array:
    """`[l, B, capacity]` back at the tokens' own places, `[l, B, num_tokens]`."""
    layers, batch, _ = live.shape
    image = jnp.arange(batch)[:, None]
    return jnp.zeros((layers, batch, num_tokens), bool).at[:, image, index].set(live)
