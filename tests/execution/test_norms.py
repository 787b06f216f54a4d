"""A norm over an image's tokens counts the same tokens in every execution: those that are live."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.execution import layout as layouts
from avit_jax.execution import packed_block, row_block, single_image
from avit_jax.execution.dense import last_block
from avit_jax.execution.executions import EXECUTIONS
from avit_jax.execution.packing import pack
from avit_jax.execution.plan import Plan
from avit_jax.models.image_rows import ALIGN
from avit_jax.models.norms import of_images
from avit_jax.runtime.device_mesh import make_mesh, replicated, shard_batch
from avit_jax.types import Gates
from tests.models.by_hand import BATCH, DIM, TOKENS, block_of, both, random

PREFIX = 2
LIVE = np.array([[True, True, False, True, False], [True, True, True, False, True]])
PLAN = Plan(images=2, row_sizes=(4, 8), attention_images=2, lengths=(4, TOKENS), dense_images=1)


@pytest.fixture(scope="module")
def case():
    """A block, tokens of which those that are not live hold NaN, and what it makes of the live."""
    block = block_of(norm="instancenorm", norm_eps=1e-2)
    tokens = jnp.where(LIVE[:, :, None], random(BATCH, TOKENS, DIM), jnp.nan)
    gates = Gates(tokens=jnp.asarray(LIVE))
    expected = both(block, tokens, gates=gates)
    assert np.isfinite(np.asarray(expected)[LIVE]).all()
    plain = both(block_of(), tokens, gates=gates)
    assert np.abs(expected - plain)[LIVE].max() > 0.1, "the norm makes no difference here"
    return block, tokens, expected


def assert_live_ones(found, expected, live=LIVE):
    live = live[:, : found.shape[1]]
    expected = np.asarray(expected)[:, : found.shape[1]]
    np.testing.assert_allclose(np.asarray(found)[live], expected[live], atol=2e-4)


def test_the_last_block_of_dense_execution_has_the_statistics_of_all_tokens(case):
    block, tokens, expected = case
    found = last_block(block, tokens, prefix=PREFIX, live=jnp.asarray(LIVE))
    assert_live_ones(found, expected)


def test_packed_rows_have_the_statistics_of_their_images(case):
    block, tokens, expected = case
    everything, after = pack(jnp.ones_like(LIVE)), pack(jnp.asarray(LIVE))

    def run(tokens):
        buffers = packed_block.start(tokens, PLAN, dtype=jnp.float32)
        whole = packed_block.run(block, buffers, everything, after, PLAN)
        last = packed_block.run_last(block, buffers, everything, after, PLAN, prefix=PREFIX)
        return whole.tokens[jnp.clip(after.rows(), 0)], last

    for found in jax.jit(run)(tokens):
        assert_live_ones(found, expected)


def test_a_single_image_has_its_own(case):
    block, tokens, expected = case
    everything, after = pack(jnp.ones((1, TOKENS), bool)), pack(jnp.asarray(LIVE[:1]))

    def run(tokens):
        buffers = single_image.start(tokens, PLAN, dtype=jnp.float32)
        whole = single_image.run(block, buffers, everything, after, PLAN)
        last = single_image.run_last(block, buffers, everything, after, PLAN, prefix=PREFIX)
        return whole.tokens[jnp.clip(after.rows(), 0)], last

    for found in jax.jit(run)(tokens[:1]):
        assert_live_ones(found, expected[:1], LIVE[:1])


def in_rows(block, kind):
    """A block on the rows of a static program, and its last block, as functions of tokens."""
    live = jnp.asarray(LIVE)
    if kind == "packed":
        layout = layouts.packed(pack(live), BATCH * TOKENS - 2)
    elif kind == "whole":
        layout = layouts.every_token(BATCH, TOKENS)
    else:
        layout = layouts.packed(pack(live, align=ALIGN), 2 * ALIGN, aligned=True)

    def run(tokens):
        rows = layouts.as_rows(tokens, layout)
        found = layouts.as_tokens(row_block.run(block, rows, layout, live), layout)
        return found, row_block.run_last(block, rows, layout, live, prefix=PREFIX)

    return run


@pytest.mark.parametrize("kind", ["packed", "whole", "aligned"])
def test_rows_of_a_static_program_have_them(case, kind):
    block, tokens, expected = case
    for found in jax.jit(in_rows(block, kind))(tokens):
        assert_live_ones(found, expected)


@pytest.mark.parametrize(
    "kind", ["packed", "whole", pytest.param("aligned", marks=pytest.mark.slow)]
)
def test_gradients_of_rows_are_those_of_tokens(case, kind):
    block, tokens, _ = case
    live = jnp.asarray(LIVE)
    clean = jnp.where(live[:, :, None], tokens, 0)

    def masked(tokens):
        whole = both(block, tokens, gates=Gates(tokens=live))
        return whole, whole[:, :PREFIX]

    def gradient(run):
        def loss(tokens):
            whole, last = run(tokens)
            kept = jnp.where(live[:, :, None], whole, 0)
            return (kept**2).sum() + (last[LIVE[:, :PREFIX]] ** 3).sum()

        return np.asarray(jax.jit(jax.grad(loss))(clean))

    ours, theirs = gradient(in_rows(block, kind)), gradient(masked)
    np.testing.assert_allclose(ours[LIVE], theirs[LIVE], atol=1e-4 * np.abs(theirs).max())


CASES = {
    "avit": ("avit_micro_patch4_32", {"gate_scale": 4.0, "gate_center": 0.0}),
    "adavit": ("adavit_deit_micro_patch4_32", {"initial_logit": 0.0}),
    "dense": ("deit_micro_patch4_32", {}),
    "dvt": ("dvt_avit_deit_tiny_128", {"grids": (2, 4), "thresholds": (0.25,)}),
}
SIZES = {"image_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
IMAGES = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
NAMES = ("rmsnorm", "instancenorm")


def model_of(method, norm):
    name, settings = CASES[method]
    if method == "dvt":
        inner = {"gate_scale": 4.0, "gate_center": 0.0}
        settings = settings | {"feature_reuse": False, "relation_reuse": False, "inner": inner}
    model = avit_jax.create_model(name, method=settings, num_classes=5, norm=norm, **SIZES)
    # Attention that looks somewhere.
    return model, jax.tree.map(lambda leaf: 4.0 * leaf, model.init(jax.random.key(0)))


def plan_of(model, execution, usage):
    plan = Plan(images=5, row_sizes=(8, 32), attention_images=2, lengths=(8, 17), dense_images=5)
    if execution == "capped":
        counts = np.asarray(usage[0].tokens).sum(-1).max(1)
        return dataclasses.replace(plan, capacities=tuple(map(int, counts)))
    execution = EXECUTIONS[execution]
    return execution.sized(model, usage, plan, 5) if execution.needs_sizes(plan) else plan


def assert_alike(found, expected):
    """But for rounding, which weights as large as those here make larger: of the largest logit."""
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("norm", "method", "execution"),
    [
        slow("instancenorm", "avit", "compact"),
        slow("instancenorm", "adavit", "compact"),
        slow("instancenorm", "adavit", "static"),
        slow("instancenorm", "avit", "static"),
        slow("instancenorm", "avit", "capped"),
        slow("instancenorm", "dvt", "compact"),
        slow("instancenorm", "dvt", "static"),
        slow("rmsnorm", "avit", "compact"),
        slow("rmsnorm", "avit", "static"),
        slow("rmsnorm", "avit", "capped"),
        slow("rmsnorm", "adavit", "compact"),
        slow("rmsnorm", "adavit", "static"),
        slow("rmsnorm", "dvt", "compact"),
        slow("rmsnorm", "dense", "compact"),
        slow("instancenorm", "dense", "compact"),
    ],
)
def test_executions_of_whole_models_agree(norm, method, execution):
    model, params = model_of(method, norm)
    masked = jax.jit(model.apply)(params, IMAGES)
    assert np.min(masked.aux.get("margin", 1.0)) > 1e-4
    if model.adaptive:
        assert 0.1 < np.mean([part.mean() for part in jax.tree.leaves(masked.usage)]) < 0.9
    plan = plan_of(model, execution, masked.usage)
    exists = jnp.ones(5, bool)
    found = jax.jit(model.program(EXECUTIONS[execution], plan))(params, IMAGES, exists)
    assert_alike(found.logits, masked.logits)
    for ours, theirs in zip(*map(jax.tree.leaves, (found.usage, masked.usage)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NAMES)
@pytest.mark.parametrize("compact", [False, True])
def test_parts_of_a_stream_agree(norm, compact):
    model, params = model_of("avit", norm)
    state, exists = jnp.asarray(IMAGES), jnp.ones(5, bool)
    plan = plan_of(model, "compact", None)
    for segment in model.segments(plan, compact=compact):
        passed = jax.jit(segment)(params, state, exists)
        state = passed.state
    assert_alike(passed.output.logits, jax.jit(model.apply)(params, IMAGES).logits)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NAMES)
@pytest.mark.parametrize("method", CASES)
def test_gradients_are_finite(norm, method):
    model, params = model_of(method, norm)

    def loss(params):
        output = model.apply(params, IMAGES, train=True, key=jax.random.key(1))
        return (output.logits**2).mean() + sum(output.penalties.values())

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.any(gradients["blocks"]["norm2"]["scale"]) if "blocks" in gradients else True


def test_attention_for_pictures_is_that_of_the_normalised_tokens():
    block, tokens = block_of(norm="instancenorm"), random(BATCH, TOKENS, DIM)
    found = block.attend(tokens, normed=of_images(block.norm1, tokens))
    np.testing.assert_array_equal(found, block.attend(tokens))


@pytest.mark.slow
def test_an_image_has_the_statistics_of_its_own_tokens_on_every_mesh():
    model, params = model_of("avit", "instancenorm")
    params = jax.tree.map(lambda leaf: leaf / 4, params)  # rounding grows in gradients
    images = np.concatenate([IMAGES, IMAGES[:3]])

    def answers(devices):
        mesh = make_mesh(devices, 1, devices=jax.devices()[:devices])

        @jax.jit
        def run(params, images):
            output = model.apply(params, images)
            return (output.logits**2).mean(), (output.logits, output.usage[0].tokens)

        placed = jax.device_put(params, replicated(mesh))
        batch = shard_batch({"image": images}, mesh)["image"]
        gradients, (logits, live) = jax.jit(jax.grad(run, has_aux=True))(placed, batch)
        assert 0.1 < live.mean() < 0.9
        return [logits, *jax.tree.leaves(gradients)]

    one, two, eight = map(answers, (1, 2, 8))
    for other in (two, eight):
        for ours, theirs in zip(other, one, strict=True):
            limit = 1e-4 * np.abs(theirs).max() + 1e-7
            np.testing.assert_allclose(ours, theirs, atol=limit)
