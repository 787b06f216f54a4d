"""Multiply-adds as the authors of AdaViT count them, beside ours in `costs.py`."""

from __future__ import annotations

import numpy as np

from avit_jax.errors import UserError
from avit_jax.models import costs
from avit_jax.models.shape import Shape
from avit_jax.types import Usage

# Embedding and head of Ada-DeiT-S and Ada-T2T-ViT-19 (224 px, 1,000 classes) as published, in 1e9,
# by depth and by the multiply-adds that are counted for them here.
_UPSTREAM_FIXED = {(12, 58_186_752): 0.06, (19, 306_647_040): 0.33}


def upstream_gmacs(shape: Shape, usage: Usage) -> np.ndarray:
    """Costs counted as in the published tables of AdaViT, `[B]` in units of 1e9 multiply-adds.

    Meng et al., CVPR 2022. Differences from `gmacs`:

    * norms count, for all tokens and for skipped MLPs too;
    * the output projection counts as if it had the kept heads' channels on both sides;
    * a block without any head costs nothing;
    * the number of tokens is rounded down after a division in float32, which loses one token for
      some numbers;
    * embedding and classifier of the two published models (224 px, 1,000 classes) have fixed costs;
      those of all other models are counted as in `gmacs`.

    Raises:
        UserError: blocks without attention scores, which the formula does not know.
    """
    if not shape.has_scores:
        raise UserError(
            "the published formula counts softmax attention, not "
            f"{shape.mixer if shape.tokens_keep_slots else shape.attention!r}: use gmacs."
        )
    size = np.float32(shape.num_tokens)
    share = np.asarray(usage.tokens.sum(-1), np.float32) / size
    tokens = np.floor(size * share).astype(np.float64)
    heads = np.ones(tokens.shape) if usage.heads is None else np.asarray(usage.heads).mean(-1)
    halves = np.ones((*tokens.shape, 2)) if usage.halves is None else np.asarray(usage.halves)
    dim, hidden, width = shape.embed_dim, shape.block.mlp_dim, shape.embed_dim * heads
    norm = 5.0 * shape.num_tokens * dim
    attend = norm + 3 * tokens * dim * width + 2 * tokens**2 * width + tokens * width**2
    feed = tokens * width * hidden + tokens * hidden * dim
    blocks = np.where(heads > 0, norm + halves[..., 0] * attend + halves[..., 1] * feed, 0.0)
    fixed = costs.embedding(shape) + costs.readout(shape)
    return blocks.sum(0) / costs.GIGA + _UPSTREAM_FIXED.get(
        (shape.depth, fixed), fixed / costs.GIGA
    )
