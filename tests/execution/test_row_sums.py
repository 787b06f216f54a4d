"""Weighted sums over the rows of each image, whatever layout they lie in, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.execution import layout as layouts
from avit_jax.execution.packing import pack
from avit_jax.execution.row_sums import weighted_sums
from avit_jax.models.image_rows import ALIGN

BATCH, TOKENS, DIM = 3, 20, 4
GENERATOR = np.random.default_rng(0)
LIVE = GENERATOR.random((BATCH, TOKENS)) < 0.6
LIVE[1] = False  # an image that is finished
LIVE[2] = True
WEIGHTS = GENERATOR.normal(size=(BATCH, TOKENS)).astype(np.float32)
TOKEN_STATES = GENERATOR.normal(size=(BATCH, TOKENS, DIM)).astype(np.float32)
COUNTED = LIVE & (np.arange(TOKENS) >= 3)
LAYOUTS = {
    "whole": lambda live: layouts.every_token(BATCH, TOKENS),
    "whole tiles": lambda live: layouts.every_token(BATCH, TOKENS, aligned=True),
    "packed": lambda live: layouts.packed(pack(live), int(live.sum())),
    "packed tiles": lambda live: layouts.packed(
        pack(live, align=ALIGN), 5 * ALIGN, aligned=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_sums_and_gradients_are_those_of_tokens(kind):
    layout = LAYOUTS[kind](jnp.asarray(LIVE))
    rows = layouts.as_rows(jnp.asarray(TOKEN_STATES), layout)
    # What is not read may be anything.
    garbage = ~(layout.exists & jnp.asarray(COUNTED)[layout.image, layout.token])
    rows = jnp.where(garbage[:, None], jnp.nan, rows)

    def sums(rows, weights):
        return weighted_sums(rows, weights, jnp.asarray(COUNTED), layout)

    expected = (np.where(COUNTED, WEIGHTS, 0)[:, :, None] * TOKEN_STATES).sum(1)
    np.testing.assert_allclose(sums(rows, WEIGHTS), expected, rtol=1e-5, atol=1e-5)

    clean = jnp.where(garbage[:, None], 0, rows)
    towards = GENERATOR.normal(size=(BATCH, DIM)).astype(np.float32)
    of_rows, of_weights = jax.vjp(sums, clean, jnp.asarray(WEIGHTS))[1](jnp.asarray(towards))
    wanted = np.where(COUNTED, WEIGHTS, 0)[:, :, None] * towards[:, None]
    found = np.where(COUNTED[:, :, None], layouts.as_tokens(of_rows, layout), 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    slopes = np.where(COUNTED, (TOKEN_STATES * towards[:, None]).sum(-1), 0)
    np.testing.assert_allclose(of_weights, slopes, rtol=1e-5, atol=1e-5)
