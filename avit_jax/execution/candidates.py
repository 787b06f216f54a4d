"""Plans and capacities worth a try, for whoever chooses by measuring."""

from __future__ import annotations

import dataclasses

import numpy as np

from avit_jax.execution.plan import Plan, ladder

COVERED = 0.95  # share of the images whose live tokens fit into the places of a layer


def candidates(base: Plan, num_tokens: int, batch_size: int) -> dict[str, Plan]:
    """Plans around a default: groups, attention groups, finer and coarser sizes."""
    block = base.row_sizes[-1]
    plans = {
        "default": base,
        "small groups": dataclasses.replace(base, images=max(1, base.images // 2)),
        "large groups": dataclasses.replace(base, images=min(batch_size, 2 * base.images)),
        "small attention": dataclasses.replace(
            base, attention_images=max(1, base.attention_images // 2)
        ),
        "small blocks": dataclasses.replace(base, row_sizes=ladder(max(16, block // 2), ratio=1.2)),
        "coarse lengths": dataclasses.replace(base, lengths=ladder(num_tokens, ratio=1.5)),
    }
    return {name: plan for name, plan in plans.items() if name == "default" or plan != base}


def capacities(usage: np.ndarray, prefix: int) -> tuple[int, ...]:
    """Tokens per layer that hold all live tokens of a share `COVERED` of the images.

    Args:
        usage: `[L, images, N]` live tokens.
        prefix: tokens that always have a place, whether they have halted or not.
    """
    places = prefix + usage[:, :, prefix:].sum(-1)
    needed = np.quantile(places, COVERED, axis=1, method="higher")
    # Tokens that are gone do not come back, so a layer needs no more than the one before.
    return tuple(int(n) for n in np.minimum.accumulate(needed))
