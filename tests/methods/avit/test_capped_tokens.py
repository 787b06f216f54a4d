"""Numbers of places: exact while they suffice, open about it when they do not."""

import dataclasses

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.methods.avit import synthetic as halting_profiles
from avit_jax.runtime.device_mesh import make_mesh

ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
LAYERS, PATCHES = 4, 16


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "distilled"])
def case(request):
    model = avit_jax.create_model(
        "avit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=24, depth=LAYERS,
        num_heads=3, num_classes=5, distilled=request.param,
        method={"gate_scale": 10.0, "gate_center": 30.0},
    )  # fmt: skip
    params = halting_profiles.scripted_params(model, model.init(jax.random.key(0)))
    depth = np.random.default_rng(0).integers(1, LAYERS + 1, (3, PATCHES))
    return model, params, halting_profiles.scripted_images(model, depth)


def compiled(model, params, capacities):
    plan = dataclasses.replace(model.default_plan(3), capacities=capacities)
    return model.compile(params, batch_size=3, execution="capped", plan=plan, mesh=ONE_DEVICE)


def test_places_that_hold_every_live_token_are_exact(case):
    model, params, images = case
    masked = model.apply(params, images)
    enough = tuple(int(n) for n in np.asarray(masked.usage[0].tokens).sum(-1).max(1))
    output = compiled(model, params, enough)(images)
    np.testing.assert_allclose(output.logits, masked.logits, atol=1e-5)
    np.testing.assert_array_equal(output.usage[0].tokens, masked.usage[0].tokens)
    assert not output.aux["dropped"].any()


def test_what_does_not_fit_is_dropped_and_counted(case):
    model, params, images = case
    masked = np.asarray(model.apply(params, images).usage[0].tokens)
    capacities = (model.shape.num_tokens, 8, 4, 3)
    output = compiled(model, params, capacities)(images)
    live = np.asarray(output.usage[0].tokens)
    assert (live.sum(-1) <= np.array(capacities)[:, None]).all()
    assert (live <= masked).all()
    assert (np.asarray(output.aux["dropped"]).sum(0) > 0).all()
    prefix = model.shape.num_prefix_tokens
    assert live[:, :, :prefix].all()
    assert np.isfinite(output.logits).all()


def test_tokens_nearest_to_halting_are_dropped_first(case):
    model, params, images = case
    shape = model.shape
    output = compiled(model, params, (shape.num_tokens, *([shape.num_prefix_tokens + 4] * 3)))(
        images
    )
    exact = model.apply(params, images)
    kept = np.asarray(output.usage[0].tokens)[1]
    was_live = np.asarray(exact.usage[0].tokens)[1]
    spent = np.asarray(exact.aux["cumulative"])[0]
    for image in range(3):
        dropped = was_live[image] & ~kept[image]
        patches = np.arange(shape.num_tokens) >= shape.num_prefix_tokens
        assert spent[image][dropped].min() >= spent[image][kept[image] & patches].max() - 1e-6


@pytest.mark.parametrize(
    ("capacities", "message"), [(None, "--mode calibrate"), ((9, 5, 6, 3), "may not rise")]
)
def test_capacities_that_cannot_be_are_refused(case, capacities, message):
    model, params, _ = case
    with pytest.raises(ValueError, match=message):
        compiled(model, params, capacities)


def test_a_dense_model_cannot_be_capped():
    model = avit_jax.create_model("deit_micro_patch4_32", num_classes=5, depth=2)
    with pytest.raises(ValueError, match='dense has no execution="capped"'):
        model.compile(model.init(jax.random.key(0)), batch_size=8, execution="capped")
