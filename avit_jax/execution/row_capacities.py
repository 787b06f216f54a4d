"""How large the buffers of a static program are: from live counts of images that were measured.

A buffer has rows: one for each live token, or in cascades one for each image that goes on.
"""

from __future__ import annotations

import numpy as np

# What the matrix units of accelerators treat at once, and parts of it. The largest that is at most
# a sixteenth of everything, so that rounding up costs little.
MULTIPLES = (128, 8, 1)
STANDARD_ERRORS = 3.0  # above the mean; a buffer is too small for about one batch in a thousand
WORTH_MOVING = 0.97  # of the rows before; where fewer than the rest leave, they stay where they are


def row_capacities(
    counts: np.ndarray, batch: int, most: int, *, may_rise: bool = False
) -> tuple[int, ...]:
    """Rows that hold what is live of nearly all batches.

    Args:
        counts: `[K, images]` rows that single images want in each of K buffers. One image says
            nothing about others, so that everything gets a row then.
        batch: images of a batch on one device.
        most: rows that an image can want, such as the tokens N that it has.
        may_rise: whether a buffer is filled with the tokens of whole images, whatever the one
            before held, and not with some rows of that one.
    """
    counts = np.asarray(counts, np.float64)
    spread = counts.std(1, ddof=1) if counts.shape[1] > 1 else np.full(len(counts), np.inf)
    # The mean of few images is off, too: of one batch, by as much as another batch is.
    error = spread * (batch * (1.0 + batch / counts.shape[1])) ** 0.5
    needed = counts.mean(1) * batch + STANDARD_ERRORS * error
    return that_hold(needed, batch * most, may_rise=may_rise)


def that_hold(needed: np.ndarray, everything: int, *, may_rise: bool = False) -> tuple[int, ...]:
    """Sizes of buffers that are worth their moves.

    Args:
        needed: `[K]` rows that each has to hold.
        everything: rows that all of a batch on one device wants; more are never needed.
        may_rise: as for `row_capacities`.
    """
    rows, sizes = everything, []
    multiple = next((one for one in MULTIPLES if everything >= 16 * one), 1)
    needed = np.minimum(needed, everything)
    for wanted in np.maximum(np.ceil(needed / multiple).astype(int), 1) * multiple:
        before = everything if may_rise else rows
        rows = int(wanted) if wanted <= WORTH_MOVING * before else before
        sizes.append(rows)
    return tuple(sizes)
