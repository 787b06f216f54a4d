"""Static execution of methods whose policies choose tokens, heads and halves anew per block.

Exact as long as the live tokens of every half find rows, which the answer says. Tokens keep their
places between the halves, `[B, N, D]`, for they come back; only a half's live rows move, into a
buffer whose size is a number of the program (`execution/row_halves.py`). No loop and no branch
depends on data. The method is that of Meng et al. (arXiv 2111.15668), see `model.py`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.execution import row_halves
from avit_jax.methods.adavit import decisions, policies
from avit_jax.methods.adavit.chosen_parts import work
from avit_jax.methods.adavit.settings import Settings
from avit_jax.models.functional import layer_at
from avit_jax.models.norms import of_images
from avit_jax.types import Output


def static(
    network: Any,
    images: Array,
    exists: Array,
    capacities: tuple[int, ...],
    *,
    settings: Settings,
) -> Output:
    """Logits of a batch, computing what the policies keep and what fills the buffers up.

    Args:
        network: the backbone with its parameters, and `policies`.
        images: `[B, H, W, 3]`, normalised.
        exists: `[B]` bool; images that only fill up the batch are False and take no rows.
        capacities: rows of each half, attention and MLP of one block after the other. A half that
            has rows for every token runs whole. In the last block the MLP is that of answer
            tokens, if they are all that is read.
        settings: of AdaViT.

    Returns:
        `logits`, `usage` and `fits`.
    """
    shape, answers = network.shape, network.shape.num_last_tokens
    per_layer = network.policies.per_layer() if settings.chosen else {}
    tokens, fits, record = network.embed(images), jnp.bool_(True), []
    batch, num_tokens, _ = tokens.shape
    known = None
    for index in range(shape.depth):
        # Or each block's kernels would compute again what led to it.
        tokens = jax.lax.optimization_barrier(tokens)
        block = layer_at(network.blocks, index)
        last = index == shape.depth - 1 and not shape.averages
        normed = of_images(block.norm1, tokens)
        policy = policies.at(per_layer, index)
        _, choice = decisions.decide(
            settings, tokens, normed, policy, prefix=shape.num_prefix_tokens
        )
        record.append(choice)
        attend, feed = decisions.gates(settings, choice)
        attended, fed = (
            work(gates, half, exists, shape).live for half, gates in enumerate((attend, feed))
        )
        if last:  # answer tokens are always selected
            fed, feed = fed[:, :answers], feed.replace(selected=None)
        rows, fed_rows = (
            row_halves.rows_of(live, capacity)
            for live, capacity in zip(
                (attended, fed), capacities[2 * index : 2 * index + 2], strict=True
            )
        )
        fits = fits & (attended <= rows.held).all() & (fed <= fed_rows.held).all()
        if last:
            tokens, known = row_halves.attend_last(
                block, tokens, rows, attended, gates=attend, normed=normed, prefix=answers
            )
        else:
            tokens = row_halves.attend(block, tokens, rows, attended, gates=attend, normed=normed)
        tokens = row_halves.feed(block, tokens, fed_rows, gates=feed, known=known)
    stacked = {kind: jnp.stack([choice[kind] for choice in record]) for kind in record[0]}
    usage = decisions.usage(settings, stacked, (shape.depth, batch, num_tokens))
    return Output(
        logits=network.readout(network.read(tokens)).mean(0),
        usage=(usage.replace(tokens=usage.tokens & exists[:, None]),),
        fits=jnp.broadcast_to(fits, exists.shape),
    )
