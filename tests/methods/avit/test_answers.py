"""What A-ViT's classifiers read of class tokens, registers and averaged patches, and until when."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.execution.capped import CAPPED
from avit_jax.execution.static import STATIC
from avit_jax.methods.forward import RowCapacities
from avit_jax.models.image_rows import ALIGN
from avit_jax.runtime.device_mesh import make_mesh

BATCH, PATCHES, DEPTH = 4, 16, 3
SIZES = {"image_size": 32, "patch_size": 8, "depth": DEPTH, "embed_dim": 24, "num_heads": 3}
METHOD = {"gate_scale": 3.0, "gate_center": -1.5, "kl_reading": "halting", "ponder_weight": 0.1}
IMAGES = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
AVERAGE = {"pool": "avg", "num_registers": 1}
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])


def create(method=None, **changes):
    settings = METHOD | (method or {})
    return avit_jax.create_model(
        "avit_micro_patch4_32", method=settings, num_classes=5, **SIZES, **changes
    )


@functools.cache
def average():
    model = create(**AVERAGE)
    return model, weights(model), jax.jit(model.apply, static_argnames="features")


def weights(model):
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.3, leaf.shape), jnp.float32),
        model.abstract_params(),
    )


def test_the_answer_is_the_mean_over_patches_of_their_weighted_states():
    model, params, apply = average()
    output = apply(params, IMAGES, features=True)
    record = jax.tree.map(np.asarray, output.aux)
    states, live = record["features"].astype(np.float64), record["mask"][:-1]
    mean = np.zeros((BATCH, 24))
    for image, patch in np.ndindex(BATCH, PATCHES):
        token = model.shape.num_prefix_tokens + patch
        for layer in range(DEPTH):
            if live[layer, image, token]:
                mean[image] += record["weights"][layer, image, token] * states[layer, image, token]
    mean = mean / PATCHES
    away = mean - mean.mean(-1, keepdims=True)
    away = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-6)
    features = away * np.asarray(params["norm"]["scale"]) + np.asarray(params["norm"]["bias"])
    expected = features @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(output.logits, expected, rtol=1e-4, atol=1e-4)


def test_an_image_that_averages_ends_when_all_its_patches_have_halted():
    model = create({"gate_center": -6.0}, **AVERAGE)
    output = jax.jit(model.apply)(weights(model), IMAGES)
    own, ran = np.asarray(output.aux["mask"][:-1]), np.asarray(output.usage[0].tokens)
    patches = own[:, :, model.shape.num_prefix_tokens :].any(-1, keepdims=True)
    np.testing.assert_array_equal(ran, own & patches)
    assert (own != ran).any(), "nothing but patches is left of no image"


def test_registers_go_on_to_the_end_of_their_image_and_no_further():
    tokens = slice(1, 4)
    stays, halts = (create({"registers_halt": halt}, num_registers=3) for halt in (False, True))
    params = weights(stays)
    never, may = (jax.jit(model.apply)(params, IMAGES) for model in (stays, halts))
    assert np.asarray(never.aux["mask"])[:-1, :, tokens].all()
    assert not np.asarray(may.aux["mask"])[:-1, :, tokens].all()
    ran = np.asarray(never.usage[0].tokens)
    np.testing.assert_array_equal(ran[:, :, tokens].all(-1), ran[:, :, 0])
    assert not ran[-1].any(-1).all(), "no image is finished early"


@pytest.mark.parametrize(
    ("setting", "halts"),
    [(None, False), (True, True), pytest.param(False, False, marks=pytest.mark.slow)],
)
def test_several_class_tokens_halt_only_where_they_are_told_to(setting, halts):
    model = create({"class_tokens_halt": setting}, num_class_tokens=2)
    mask = np.asarray(jax.jit(model.apply)(weights(model), IMAGES).aux["mask"])
    assert (not mask[:-1, :, :2].all()) == halts


@pytest.mark.slow
def test_capped_execution_with_room_for_everything_averages_the_same():
    model, params, apply = average()
    masked = apply(params, IMAGES)
    prefix = model.shape.num_prefix_tokens
    patches = np.asarray(masked.usage[0].tokens)[:, :, prefix:]
    places = tuple(int(n) + prefix for n in patches.sum(-1).max(1))
    assert places[-1] < model.shape.num_tokens
    plan = dataclasses.replace(model.default_plan(BATCH), capacities=places)
    capped = jax.jit(model.program(CAPPED, plan))(params, IMAGES, np.ones(BATCH, bool))
    np.testing.assert_allclose(capped.logits, masked.logits, atol=1e-4)


def test_training_on_live_rows_has_the_gradients_of_masked_training():
    model, params, _ = average()
    live = jax.jit(model.apply)(params, IMAGES).aux["mask"][:-1]
    rows = tuple(int(count) for count in np.asarray(live).sum((1, 2)))
    rows = RowCapacities(capacities=rows, mesh=ONE_DEVICE)

    def loss(params, rows):
        output = model.apply(params, IMAGES, train=True, rows=rows)
        return (output.logits**2).mean() + sum(output.penalties.values())

    ours, theirs = (
        jax.jit(jax.grad(functools.partial(loss, rows=r)))(params) for r in (rows, None)
    )
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    for found, wanted in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        assert np.isfinite(wanted).all()
        np.testing.assert_allclose(found, wanted, atol=1e-5 * largest)
    assert np.abs(theirs["reg_token"]).max() > 0


@pytest.mark.slow
def test_the_program_for_tpus_averages_the_same_and_so_do_its_gradients():
    model, params, apply = average()
    masked = apply(params, IMAGES)
    counts = np.asarray(masked.usage[0].tokens).sum(-1)
    rows = tuple(int(count) for count in (-(-counts // ALIGN) * ALIGN).sum(1))
    plan = dataclasses.replace(model.default_plan(BATCH), static_rows=rows, ragged_attention=True)
    run = model.program(STATIC, plan)

    def ours(params):
        answer = run(params, IMAGES, jnp.ones(BATCH, bool))
        return (answer.logits**2).mean(), answer

    def theirs(params):
        return (model.apply(params, IMAGES).logits ** 2).mean()

    gradients, answer = jax.jit(jax.grad(ours, has_aux=True))(params)
    np.testing.assert_allclose(answer.logits, masked.logits, atol=1e-4)
    assert answer.fits.all()
    wanted = jax.jit(jax.grad(theirs))(params)
    for found, leaf in zip(*map(jax.tree.leaves, (gradients, wanted)), strict=True):
        np.testing.assert_allclose(found, leaf, atol=1e-5 * float(np.abs(leaf).max() + 1e-9))
