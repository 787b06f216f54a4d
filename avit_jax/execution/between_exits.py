"""What the exits of a cascade hand over, in programs that leave tokens out: cut out and put back.

A later exit is given channels for its MLPs and biases for its attention, for all tokens of all
images (`models/reuse.py`); an earlier one shows the scores between all tokens. A program that has
the rows of the live tokens only takes for them what it is given, and puts what it shows back to
where these tokens stand in their image.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from avit_jax.execution.dense import even_group
from avit_jax.execution.plan import Plan
from avit_jax.models.block import Block


@struct.dataclass(kw_only=True)
class Given:
    """What one block of an exit is given; nothing by default.

    Attributes:
        layer: number of the block.
        extra: `[L, B, N, context]`, joined to the MLPs' input, or `None`.
        bias: `[L, B, H, N, N]`, added to the attention scores, or `None`.
    """

    layer: Array | int = 0
    extra: Array | None = None
    bias: Array | None = None

    def of_rows(self, images: Array, tokens: Array) -> Array | None:
        """`extra` of some tokens of some images, both `[...]`: `[..., context]`."""
        return None if self.extra is None else self.extra[self.layer, images, tokens]

    def of_prefix(self, prefix: int) -> Array | None:
        """`extra` of the first tokens of all images, `[B, prefix, context]`."""
        if self.extra is None:
            return None
        return lax.dynamic_index_in_dim(self.extra, self.layer, keepdims=False)[:, :prefix]

    def of_queries(self, prefix: int) -> Array | None:
        """`bias` of the first tokens of all images with all, `[B, H, prefix, N]`."""
        if self.bias is None:
            return None
        sizes = (1, *self.bias.shape[1:3], prefix, self.bias.shape[4])
        return lax.dynamic_slice(self.bias, _corner(self.bias, self.layer, 0), sizes)[0]

    def of_pairs(self, images: Array, queries: Array, keys: Array) -> Array | None:
        """`bias` of images `[b]` between some of their tokens: `[b, H, n, m]`.

        Args:
            images: which.
            queries: `[b, n]`, tokens that ask.
            keys: `[b, m]`, tokens that are asked.
        """
        if self.bias is None:
            return None
        return jax.vmap(_picked)(self.bias[self.layer, images], queries, keys)


NOTHING = Given()


def put_back(scores: Array, rows: Array, ran: Array) -> Array:
    """Scores between all tokens of images, `[b, H, N, N]`; 0 for tokens that did not run.

    Args:
        scores: `[b, H, n, n]` between the rows of the tokens that are left.
        rows: `[b, N]`, which row of its image each token is.
        ran: `[b, N]` bool, tokens that have a row.
    """
    rows = jnp.clip(rows, 0, scores.shape[-1] - 1)
    both = ran[:, None, :, None] & ran[:, None, None, :]
    return jnp.where(both, jax.vmap(_picked)(scores, rows, rows), 0)


def with_scores(relations: Array, scores: Array, layer: Array | int, first: Array | int) -> Array:
    """Relations `[L, B, H, N, N]` with the scores of one block, of some images.

    Args:
        relations: of all blocks.
        scores: `[images, H, N, N]`.
        layer: number of the block.
        first: of the images, which follow each other.
    """
    update = scores[None].astype(relations.dtype)
    return lax.dynamic_update_slice(relations, update, _corner(relations, layer, first))


def whole_block(
    block: Block, tokens: Array, relations: Array | None, given: Given, plan: Plan
) -> tuple[Array, Array | None]:
    """A block on all tokens of all images, a few images at a time.

    Args:
        block: with its parameters.
        tokens: `[B, N, D]`.
        relations: `[L, B, H, N, N]`, to which its scores are added, or `None`.
        given: to the block.
        plan: static sizes.

    Returns:
        Tokens behind the block, and the relations.
    """
    size = even_group(len(tokens), plan)

    def treat(group: Array, carry: tuple[Array, Array | None]) -> tuple[Array, Array | None]:
        tokens, relations = carry
        extra, bias = (
            None if part is None else _of_images(part, given.layer, group * size, size)
            for part in (given.extra, given.bias)
        )
        rows, scores = block.attend_and_score(tokens[group], bias=bias)
        if relations is not None:
            relations = with_scores(relations, scores(), given.layer, group * size)
        return tokens.at[group].set(block.feed(rows, extra=extra)), relations

    grouped = tokens.reshape(-1, size, *tokens.shape[1:])
    grouped, relations = lax.fori_loop(0, len(grouped), treat, (grouped, relations))
    return grouped.reshape(tokens.shape), relations


def _picked(square: Array, rows: Array, columns: Array) -> Array:
    """`[H, n, m]` of `[H, N, N]`. One axis after the other copies much faster than pairs do."""
    return square.take(rows, axis=1, mode="clip").take(columns, axis=2, mode="clip")


def _of_images(part: Array, layer: Array | int, first: Array, size: int) -> Array:
    """`[images, ...]` of `[L, B, ...]`: of one block and some images, in one slice."""
    sizes = (1, size, *part.shape[2:])
    return lax.dynamic_slice(part, _corner(part, layer, first), sizes)[0]


def _corner(part: Array, layer: Array | int, first: Array) -> list[Array]:
    """Where a slice begins, in numbers of one type: a plain 0 is int64 under JAX_ENABLE_X64."""
    begins = [layer, first, *[0] * (part.ndim - 2)]
    return [jnp.asarray(one, jnp.int32) for one in begins]
