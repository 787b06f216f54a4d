"""Compacted execution of methods whose policies choose tokens, heads and halves anew per block.

Exact: what is dropped enters nothing that stays (`model.py` says why). Tokens keep their places
between blocks. Each half of a block packs the live rows of all images that run it, and adds the
updates where the rows came from (`execution/packed_halves.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from avit_jax.execution import packed_halves
from avit_jax.execution.dense import block_in_groups, even_group
from avit_jax.execution.plan import Plan
from avit_jax.methods.adavit import decisions, policies
from avit_jax.methods.adavit.settings import Settings
from avit_jax.models.block import Block
from avit_jax.models.functional import layer_at
from avit_jax.models.norms import of_images
from avit_jax.models.shape import Shape
from avit_jax.types import Gates, Output

# Share of a block's work from which leaving the rest out was found to cost more than it saves:
# docs/performance/cpu.md.
WHOLE_FROM = 0.8


@struct.dataclass(kw_only=True)
class Work:
    """What one half of a block has to do.

    Attributes:
        live: `[B, N]` bool, tokens that are in it; none of an image that skips it.
        heads: `[B, H]` bool, heads that are.
    """

    live: Array
    heads: Array


def compact(
    network: Any, images: Array, exists: Array, plan: Plan, *, settings: Settings
) -> Output:
    """Logits of one group of images, computing only what the policies keep.

    Args:
        network: the backbone with its parameters, and `policies`.
        images: `[B, H, W, 3]`, normalised.
        exists: `[B]` bool; images that only fill up the batch are False and cost nothing.
        plan: static sizes.
        settings: of AdaViT.

    Returns:
        `logits` and `usage`.
    """
    shape, effect = network.shape, settings.head_effect
    per_layer = network.policies.per_layer() if settings.chosen else {}

    def choose(tokens: Array, index: Array | int) -> tuple[Block, dict[str, Array]]:
        block = layer_at(network.blocks, index)
        normed = of_images(block.norm1, tokens)
        policy = policies.at(per_layer, index)
        _, choice = decisions.decide(
            settings, tokens, normed, policy, prefix=shape.num_prefix_tokens
        )
        return block, choice

    def layer(carry: tuple, index: Array) -> tuple[tuple, dict[str, Array]]:
        tokens, space = carry
        block, choice = choose(tokens, index)
        gates = decisions.gates(settings, choice)
        attend, feed = (work(part, half, exists, shape) for half, part in enumerate(gates))

        def masked(_: Array, tokens: Array) -> Array:
            return whole_block(block, tokens, gates, plan)

        def compacted(_: Array, carry: tuple) -> tuple:
            tokens, space = carry
            for half, run in ((attend, packed_halves.attend), (feed, packed_halves.feed)):
                rows = packed_halves.rows_of(half.live, half.heads, len(space.mixed))
                tokens, space = run(block, tokens, space, rows, plan, effect=effect)
            return tokens, space

        # Loops that run once or not at all: `lax.cond` would copy what its branches write to.
        counts = [half.live.sum(1) for half in (attend, feed)]
        whole = is_worth_it_whole(counts, shape.num_tokens).astype(jnp.int32)
        tokens = lax.fori_loop(0, whole, masked, tokens)
        return lax.fori_loop(0, 1 - whole, compacted, (tokens, space)), choice

    last = shape.depth - 1
    tokens = network.embed(images)
    space = packed_halves.start(tokens, plan)
    layers = jnp.arange(shape.depth if shape.averages else last)
    (tokens, space), record = lax.scan(layer, (tokens, space), layers)
    if not shape.averages:
        block, choice = choose(tokens, last)
        attend, feed = decisions.gates(settings, choice)
        half = work(attend, 0, exists, shape)
        rows = packed_halves.rows_of(half.live, half.heads, len(space.mixed))
        tokens, known = packed_halves.attend_last(
            block, tokens, space, rows, plan, effect=effect, prefix=shape.num_last_tokens
        )
        # Answer tokens are few and always selected, so here masks are cheaper than packing.
        tokens = block.feed(tokens, gates=feed.replace(selected=None), statistics=known)
        record = {kind: jnp.concatenate([record[kind], choice[kind][None]]) for kind in choice}
    usage = decisions.usage(settings, record, (shape.depth, len(images), shape.num_tokens))
    return Output(
        logits=network.readout(network.read(tokens)).mean(0),
        usage=(usage.replace(tokens=usage.tokens & exists[:, None]),),
    )


def is_worth_it_whole(counts: Sequence[Array], num_tokens: int) -> Array:
    """Whether a block leaves out so little that running it whole and masking is quicker.

    Args:
        counts: of both halves the live tokens `[B]` of each image.
        num_tokens: N.
    """
    return jnp.minimum(*(half.mean() / num_tokens for half in counts)) >= WHOLE_FROM


def whole_block(block: Block, tokens: Array, gates: tuple[Gates, Gates], plan: Plan) -> Array:
    """A block on all tokens `[B, N, D]`, a few images at a time, with what is dropped masked."""
    size = even_group(len(tokens), plan)

    def cut(rows: Array) -> Array:
        return rows.reshape(-1, size, *rows.shape[1:])

    return block_in_groups(block, cut(tokens), jax.tree.map(cut, gates)).reshape(tokens.shape)


def work(gates: Gates, half: int, exists: Array, shape: Shape) -> Work:
    """What half 0 (attention) or 1 (MLP) of a block has to do under its gates."""
    live = jnp.broadcast_to(exists[:, None], (len(exists), shape.num_tokens))
    heads = jnp.ones((len(exists), shape.num_heads), bool)
    if gates.selected is not None:
        live &= gates.selected > 0
    if gates.halves is not None:
        live &= gates.halves[:, half, None] > 0
    if gates.heads is not None:
        heads &= gates.heads > 0
    return Work(live=live, heads=heads)
