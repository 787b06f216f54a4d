"""Kernels for rows of images, interpreted: attention, moves and norms are the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax.models import ragged_attention, row_norm, softmax_attention
from avit_jax.models.image_rows import aligned
from avit_jax.models.moved_rows import move
from avit_jax.models.norms import layer_norm, rms_norm

LONGEST, HEADS, DIM = 24, 3, 24
LENGTHS = (0, 1, LONGEST, 17, 0, 9)


def starts_of(lengths):
    spans = aligned(np.asarray(lengths))
    return np.cumsum(spans) - spans, int(spans.sum()) + 16


def of_images(starts, lengths, rows):
    row = np.arange(rows)[:, None]
    return ((starts <= row) & (row < starts + np.asarray(lengths))).any(1)[:, None]


def plain(joined, starts, lengths, live):
    """Image by image, `[R, D]`; 0 in rows of no image."""
    out = jnp.zeros((len(joined), DIM), joined.dtype)
    for image, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        if length:
            rows = slice(start, start + length)
            parts = jnp.split(joined[None, rows], 3, axis=2)
            heads = (part.reshape(1, length, HEADS, -1) for part in parts)
            mixed = softmax_attention.mix(*heads, live=live[image : image + 1, :length], scale=0.3)
            out = out.at[rows].set(mixed.reshape(length, DIM))
    return out


@pytest.mark.parametrize(
    ("dtype", "masked"),
    [pytest.param("float32", True, marks=pytest.mark.slow), ("bfloat16", False)],
)
def test_answers_and_gradients_are_those_of_plain_attention(dtype, masked):
    lengths, longest = (LENGTHS, LONGEST) if masked else ((0, 1, 16, 9), 16)
    starts, rows = starts_of(lengths)
    ours = of_images(starts, lengths, rows)
    joined = jax.random.normal(jax.random.key(0), (rows, 3 * DIM)).astype(dtype)
    weights = jax.random.normal(jax.random.key(1), (rows, DIM))
    live = np.ones((len(lengths), longest), bool)
    if masked:
        live[2, ::3] = live[3, 1:5] = False

    def kernel(joined):
        mixed = ragged_attention.mix(
            jnp.where(ours, joined, jnp.nan),  # what lies between images may be anything
            jnp.asarray(starts),
            jnp.asarray(lengths),
            num_heads=HEADS,
            longest=longest,
            live=jnp.asarray(live) if masked else None,
            scale=0.3,
        )
        mixed = jnp.where(ours, mixed, 0)
        return (mixed * weights).sum(), mixed

    def by_image(joined):
        mixed = plain(joined, starts, lengths, live)
        return (mixed * weights).sum(), mixed

    found, mixed = jax.jit(jax.grad(kernel, has_aux=True))(joined)
    wanted, expected = jax.grad(by_image, has_aux=True)(joined)
    exact = 1e-6 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(np.float32(mixed), np.float32(expected), atol=exact)
    largest = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(np.float32(found), np.float32(wanted), atol=exact * largest)


def test_the_first_rows_of_images_can_be_had_alone():
    starts, rows = starts_of(LENGTHS)
    joined = jax.random.normal(jax.random.key(0), (rows, 3 * DIM))
    run = jax.jit(
        lambda joined, front: ragged_attention.mix(
            joined,
            jnp.asarray(starts),
            jnp.asarray(LENGTHS),
            num_heads=HEADS,
            longest=LONGEST,
            scale=0.3,
            front=front,
        ),
        static_argnums=1,
    )
    expected = plain(joined, starts, LENGTHS, np.ones((len(LENGTHS), LONGEST), bool))
    wanted = of_images(starts, np.minimum(LENGTHS, 2), rows)
    np.testing.assert_allclose(
        np.where(wanted, run(joined, 2), 0), np.where(wanted, expected, 0), atol=1e-6
    )


def test_images_longer_than_the_chip_has_room_for_are_left_to_others():
    can = ragged_attention.has_room
    assert can(num_tokens=197, embed_dim=384, dtype="bfloat16")
    assert can(num_tokens=197, embed_dim=768, dtype="float32")
    assert not can(num_tokens=1025, embed_dim=768, dtype="bfloat16")


def test_rows_move_exactly_and_so_do_their_gradients():
    before, rows = starts_of(LENGTHS)
    random = np.random.default_rng(0)
    slots = np.arange(aligned(LONGEST))
    stay = (random.random((len(LENGTHS), len(slots))) < 0.6) & (
        slots < np.asarray(LENGTHS)[:, None]
    )
    stay[3] = False  # nothing is left of an image
    counts = stay.sum(1)
    after, capacity = starts_of(counts)
    source = np.concatenate([before[i] + np.flatnonzero(stay[i]) for i in range(len(stay))])
    target = np.concatenate([after[i] + np.arange(counts[i]) for i in range(len(stay))])
    values = jnp.asarray(random.standard_normal((rows, DIM)), jnp.float32)
    weights = jnp.asarray(random.standard_normal((capacity, DIM)), jnp.float32)
    held = of_images(after, counts, capacity)

    def ours(values):
        values = jnp.where(of_images(before, LENGTHS, rows), values, jnp.nan)
        targets = np.where(stay, np.cumsum(stay, 1) - 1, -1)
        ends = (map(jnp.asarray, pair) for pair in ((before, LENGTHS), (after, counts)))
        there = move(values, jnp.asarray(targets), *map(tuple, ends), capacity)
        there = jnp.where(held, there, 0)
        return (there * weights).sum(), there

    gradient, there = jax.jit(jax.grad(ours, has_aux=True))(values)
    expected = np.zeros((capacity, DIM))
    expected[target] = np.asarray(values)[source]
    np.testing.assert_array_equal(there, expected)
    expected = np.zeros((rows, DIM))
    expected[source] = np.asarray(weights)[target]
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_normalised_as_flax_does_it(dtype):
    norm = layer_norm(DIM, eps=1e-6, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    norm.scale[...] = jax.random.normal(jax.random.key(1), (DIM,))
    norm.bias[...] = jax.random.normal(jax.random.key(2), (DIM,))
    rows = 3 * jax.random.normal(jax.random.key(0), (600, DIM)) + 1  # not whole steps of the kernel
    how = (norm.epsilon, norm.dtype)
    kernel = row_norm.by_kernel(rows, norm.scale[...], norm.bias[...], how=how, interpret=True)
    check_rows(norm, rows, kernel)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_divided_by_the_root_of_their_mean_square_as_flax_does_it(dtype):
    norm = rms_norm(DIM, eps=1e-6, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    norm.scale[...] = jax.random.normal(jax.random.key(1), (DIM,))
    rows = 3 * jax.random.normal(jax.random.key(0), (600, DIM)) + 1
    how = (norm.epsilon, norm.dtype)
    check_rows(norm, rows, row_norm.by_kernel(rows, norm.scale[...], how=how, interpret=True))


def check_rows(norm, rows, kernel):
    step = 2e-6 if norm.dtype == jnp.float32 else 2e-2  # one of its last places
    for found in (kernel, row_norm.normalised(norm, rows)):
        assert found.dtype == norm(rows).dtype
        np.testing.assert_allclose(np.float32(found), np.float32(norm(rows)), atol=step, rtol=step)
    ours, theirs = (
        jax.grad(lambda rows, run=run: (run(rows).astype(jnp.float32) ** 2).sum())(rows)
        for run in (lambda rows: row_norm.normalised(norm, rows), norm)
    )
    np.testing.assert_allclose(ours, theirs, atol=step * float(np.abs(theirs).max()))
