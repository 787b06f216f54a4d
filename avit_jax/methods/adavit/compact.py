"""Compacted execution of methods whose policies choose tokens, heads and halves anew per block.

Exact: what is dropped enters nothing that stays (`methods/adavit.py` says why). Tokens keep their
places between blocks. In each half of a block, the images that run it are sorted by their heads and
live tokens and treated a few at a time, at the smallest static sizes that hold them: their live
rows are gathered, multiplied with the weights of their own heads (`chosen_heads.py`), and the
updates are added where the rows came from.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from avit_jax.execution import packed_halves
from avit_jax.execution.chosen_heads import AttentionHalf, Half, MlpHalf
from avit_jax.execution.dense import even_group, in_groups
from avit_jax.execution.loops import for_selected
from avit_jax.execution.plan import Plan
from avit_jax.methods.adavit import decisions, policies
from avit_jax.methods.adavit.settings import Settings
from avit_jax.models.backbone import Shape
from avit_jax.models.functional import layer_at
from avit_jax.models.layers import Block
from avit_jax.types import Gates, Output

# Share of a block's work from which leaving the rest out was found to cost more than it saves:
# docs/performance.md.
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
        normed = block.norm1(tokens)
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
            if plan.head_sizes:
                tokens = add_half(AttentionHalf(block, effect), tokens, attend, plan)
                return add_half(MlpHalf(block, effect), tokens, feed, plan), space
            for half, run in ((attend, packed_halves.attend), (feed, packed_halves.feed)):
                rows = packed_halves.rows_of(half.live, half.heads, len(space.mixed))
                tokens, space = run(block, tokens, space, rows, plan, effect=effect)
            return tokens, space

        # Loops that run once or not at all: `lax.cond` would copy what its branches write to.
        halves = [(half.live.sum(1), half.heads) for half in (attend, feed)]
        whole = is_worth_it_whole(halves, shape.num_tokens, plan).astype(jnp.int32)
        tokens = lax.fori_loop(0, whole, masked, tokens)
        return lax.fori_loop(0, 1 - whole, compacted, (tokens, space)), choice

    last = shape.depth - 1
    tokens = network.embed(images)
    space = None if plan.head_sizes else packed_halves.start(tokens, plan)
    (tokens, _), record = lax.scan(layer, (tokens, space), jnp.arange(last))
    block, choice = choose(tokens, last)
    attend, feed = decisions.gates(settings, choice)
    half = AttentionHalf(block, effect, asking=shape.num_prefix_tokens)
    tokens = add_half(half, tokens, work(attend, 0, exists, shape), plan)
    # Prefix tokens are few and always selected, so here masks are cheaper than sorting.
    answer = block.feed(tokens[:, : shape.num_prefix_tokens], gates=feed.replace(selected=None))
    record = {kind: jnp.concatenate([record[kind], choice[kind][None]]) for kind in choice}
    usage = decisions.usage(settings, record, (shape.depth, *tokens.shape[:2]))
    return Output(
        logits=network.readout(answer).mean(0),
        usage=(usage.replace(tokens=usage.tokens & exists[:, None]),),
    )


def is_worth_it_whole(halves: list[tuple[Array, Array]], num_tokens: int, plan: Plan) -> Array:
    """Whether a block leaves out so little that running it whole and masking is quicker.

    Args:
        halves: of both halves the live tokens `[B]` and the kept heads `[B, H]` of each image.
        num_tokens: N.
        plan: whether heads are left out of products, too.
    """
    shares = [
        (counts / num_tokens * (heads.mean(-1) if plan.head_sizes else 1.0)).mean()
        for counts, heads in halves
    ]
    return jnp.minimum(*shares) >= WHOLE_FROM


def whole_block(block: Block, tokens: Array, gates: tuple[Gates, Gates], plan: Plan) -> Array:
    """A block on all tokens `[B, N, D]`, a few images at a time, with what is dropped masked."""
    size = even_group(len(tokens), plan)

    def cut(rows: Array) -> Array:
        return rows.reshape(-1, size, *rows.shape[1:])

    return in_groups(block, cut(tokens), jax.tree.map(cut, gates)).reshape(tokens.shape)


def work(gates: Gates, half: int, exists: Array, shape: Shape) -> Work:
    """What half 0 (attention) or 1 (MLP) of a block has to do under its gates."""
    live = jnp.broadcast_to(exists[:, None], (len(exists), shape.num_tokens))
    heads = jnp.ones((len(exists), shape.num_heads), bool)
    if gates.selected is not None:
        live &= gates.selected > 0
    if gates.branches is not None:
        live &= gates.branches[:, half, None] > 0
    if gates.heads is not None:
        heads &= gates.heads > 0
    return Work(live=live, heads=heads)


def add_half(half: Half, tokens: Array, work: Work, plan: Plan) -> Array:
    """Tokens `[B, N, D]` with the updates of one half added."""
    num_tokens, num_heads = tokens.shape[1], work.heads.shape[1]
    counts, kept = work.live.sum(1, dtype=jnp.int32), work.heads.any(1)
    head_sizes = (num_heads,)
    if half.narrows:
        tokens = _add_constant(half, tokens, work.live & ~kept[:, None])
        counts = jnp.where(kept, counts, 0)
        head_sizes = plan.head_sizes or head_sizes
    live = work.live & (counts > 0)[:, None]
    place = jnp.cumsum(live, axis=1, dtype=jnp.int32)
    # The token in each slot where live ones come first. Counting compares every token with every
    # slot, which vectorises; a sort does not.
    slots = jnp.arange(num_tokens, dtype=jnp.int32)
    source = (place[:, None, :] <= slots[None, :, None]).sum(-1, dtype=jnp.int32)
    source = jnp.minimum(source, num_tokens - 1)

    def treat(images: Array, length: int, width: int, tokens: Array) -> Array:
        old, keys, kept = tokens[images], live[images], work.heads[images]
        heads = None
        if width < num_heads:
            union = (kept & keys.any(1, keepdims=True)).any(0)
            heads = jnp.argsort(~union)[:width]
            kept = kept[:, heads]
        if length == num_tokens:  # gathering would save nothing
            update = half.update(old, keys, heads, kept)
        else:
            rows = jnp.take_along_axis(old, source[images][:, :length, None], axis=1)
            first = slots[:length] < counts[images][:, None]
            update = half.update(rows, first, heads, kept)
            if update.shape[1] == length:
                back = jnp.clip(place[images] - 1, 0, length - 1)
                update = jnp.take_along_axis(update, back[:, :, None], axis=1)
        answered = keys[:, : update.shape[1], None]
        update = jnp.where(answered, update, 0).astype(old.dtype)
        for image, rows in zip(images, old[:, : update.shape[1]] + update, strict=True):
            tokens = lax.dynamic_update_slice(tokens, rows[None], (image, 0, 0))
        return tokens

    return for_selected(treat, counts, work.heads, tokens, plan, head_sizes)


def _add_constant(half: Half, tokens: Array, live: Array) -> Array:
    """The update of images without any head, which is the same for all their live tokens."""

    def add(_: Array, tokens: Array) -> Array:
        return tokens + jnp.where(live[:, :, None], half.without_heads(), 0).astype(tokens.dtype)

    return lax.fori_loop(0, live.any().astype(jnp.int32), add, tokens)
